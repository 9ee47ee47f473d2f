"""Read, check and convert the start point of a solve.

Blocks and factors are variables of a problem with certain data and masks. The start may come from a problem with the
same variables and another loss, beta, output bias, sample weights, or targets under another loss.
"""

from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates import as_point
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.formulations import Point, converted
from convexnn_bench.operator import DataArray
from convexnn_bench.plugins import SOLVERS
from convexnn_bench.problem import Problem
from convexnn_bench.running.result import Result
from convexnn_bench.solver import BaseSolver

LARGEST_ENTRY = 1e100  # of a start; data are at most 1e40, so that the objective stays finite


def read_start(problem: Problem, solver: BaseSolver, start: Any) -> Point:
    """Return a copy of the start as a point.

    Raise InputError if solver or problem cannot use it.
    """
    if solver.start_formulation is None:
        raise InputError(_no_start(solver))
    if isinstance(start, Result):
        _check_same_program(problem, start)
    try:
        point = as_point(problem, start).copy()
        point.check_size(problem)
        # The conversion to the point's own formulation checks shapes and entries.
        {"convex": point.to_blocks, "burer_monteiro": point.to_factors, "network": point.to_network}[point.formulation](
            problem
        )
    except (InputError, ValueError) as error:
        raise InputError(f"start: {error}") from error
    if not is_bounded(point):
        raise InputError(f"start: its entries must be at most {LARGEST_ENTRY:g}, so that objectives stay finite")
    # The multiplier of a result gives a lower bound at once. The certificate scales it until it is feasible here.
    if isinstance(start, Result) and start.certificate is not None:
        multiplier = start.certificate.multiplier
        if multiplier is not None and multiplier.shape == problem.Y.shape:
            point.dual = multiplier.copy()
    return point


def start_for(problem: Problem, solver: BaseSolver, point: Point) -> Point:
    """Return the start in the solver's `start_formulation`.

    Raise InputError if it has no counterpart there.
    """
    assert solver.start_formulation is not None
    try:
        return converted(problem, point, solver.start_formulation)
    except (InputError, UnsupportedError) as error:
        raise InputError(f"start: it is no point that {solver.name!r} can begin at: {error}") from error


def is_bounded(point: Point) -> bool:
    """Return False if an entry is NaN, infinite, or above LARGEST_ENTRY."""
    return all(bool((torch.as_tensor(array).abs() <= LARGEST_ENTRY).all()) for array in point.arrays())


def _no_start(solver: BaseSolver) -> str:
    """Return a message that says why a solver takes no start, and what to do."""
    why = (
        "it solves once, from a start of its own"
        if solver.one_shot
        else "its class has no start_formulation, so that it would begin elsewhere"
    )
    names = [name for name in SOLVERS.names() if SOLVERS.get(name).start_formulation is not None]
    return f"solver {solver.name!r} cannot begin at a start: {why}; leave start out, or use one of {', '.join(names)}"


def _check_same_program(problem: Problem, result: Result) -> None:
    """Raise InputError unless the result is on the data and blocks of this problem.

    Architecture, activation, X and the masks must be equal, and so must the targets if both losses read them alike.
    beta, loss, sample weights, output bias and gates may differ. The weights of a ReLU network do not depend on masks.
    """
    other = result.problem
    if result.point is None:
        raise InputError(f"start: the result has no point: {result.status}, {result.reason}")
    network = problem.has_cone and result.point.formulation == "network"
    differ = [
        name
        for name, same in (
            ("the architecture", _same_part(problem.architecture, other.architecture)),
            ("the activation", _same_part(problem.activation, other.activation)),
            ("X", _same_array(problem.X, other.X)),
            ("Y", problem.loss.labels != other.loss.labels or _same_array(problem.Y, other.Y)),
            ("the masks", network or _same_array(problem.masks, other.masks)),
        )
        if not same
    ]
    if differ:
        raise InputError(
            f"start: the result is of a problem with other data or blocks: {' and '.join(differ)} differ; make the "
            "problem by result.problem.with_beta(...) or with patterns=result.problem.masks, or give the arrays of a "
            "point whose shapes fit, such as result.network"
        )


def _same_part(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


def _same_array(one: DataArray, other: DataArray) -> bool:
    """Return whether two arrays or canonical sparse matrices have the same entries."""
    if one is other:
        return True
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and np.array_equal(one, other)
    pairs = ((one.data, other.data), (one.indices, other.indices), (one.indptr, other.indptr))
    return one.shape == other.shape and all(np.array_equal(*pair) for pair in pairs)
