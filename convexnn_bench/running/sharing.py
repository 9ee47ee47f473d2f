"""Which solves the processes of torchrun share, and a check that all do the same."""

import zlib
from typing import Any

import numpy as np
import torch

from convexnn_bench import parallel
from convexnn_bench.errors import ConvexNNError, InputError
from convexnn_bench.formulations import Point
from convexnn_bench.problem import Problem
from convexnn_bench.running.untouched import Untouched
from convexnn_bench.solver import BaseSolver


def shared_where_possible(
    problem: Problem, solver: BaseSolver, parameters: dict[str, Any], start: Point | None = None
) -> Problem:
    """Return the problem for the solver.

    Under torchrun it is shared, for a Burer-Monteiro solver without cones.

    ReLU's cones are no sums over samples, and solvers of other formulations treat samples in ways of their own: there
    every process works alone. Raise InputError where the processes differ in problem, solver, start or settings.
    """
    if parallel.processes_started() <= 1 or solver.formulation != "burer_monteiro" or problem.has_cone:
        return problem
    parallel.join(solver.device)
    # Processes that differ in any of these could make different numbers of collective calls, and wait for ever.
    limits = solver.time_limit, solver.gap, solver.iterations
    begin = [] if start is None else [zlib.crc32(np.asarray(array).tobytes()) for array in start.arrays()]
    settings = solver.name, parameters, solver.seed, begin, *limits, torch.device(solver.device).type
    call = repr((Untouched(problem).fingerprint(), settings))
    if not parallel.same_number(zlib.crc32(call.encode())):
        raise InputError(
            "the processes that share a solve were not all given the same problem, solver, start and settings"
        )
    return problem.shared()


def check_same_point(point: Point, name: str) -> None:
    """Raise ConvexNNError if the processes that share a solver have different points."""
    arrays = [*point.arrays(), *([] if point.dual is None else [point.dual])]
    if not parallel.same_tensors(*map(torch.as_tensor, arrays)):
        raise ConvexNNError(
            f"the processes that share {name!r} came to different points: they need equal machines, equal "
            "numbers of threads, and a solver that does the same in all of them"
        )
