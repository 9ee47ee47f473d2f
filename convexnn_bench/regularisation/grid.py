"""Solve one problem at a list of weight decays, each from the last solution."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from convexnn_bench.formulations import Point
from convexnn_bench.plugins import SOLVERS
from convexnn_bench.problem import Problem
from convexnn_bench.running import Result, solve
from convexnn_bench.solver import BaseSolver


def solve_grid(problem: Problem, betas: Iterable[float], solver: str | BaseSolver, **options: Any) -> Iterator[Result]:
    """Yield the result at each weight decay, from the largest down.

    A solver that can begin at a point begins at the last result, unless that is the zero network. Points before the
    last one of a solve are seldom scored. options: those of `solve`, the same for every solve.
    """
    algorithm, last = SOLVERS.make(solver), None
    for beta in sorted(betas, reverse=True):
        wanted, algorithm.curve_wanted = algorithm.curve_wanted, False
        try:
            result = solve(problem.with_beta(beta), algorithm, start=last, show_progress=False, **options)
        finally:
            algorithm.curve_wanted = wanted  # the instance may be the caller's
        yield result
        # First-order methods on factors and weights do not leave the zero network.
        usable = algorithm.start_formulation is not None and result.point is not None and not is_zero(result.point)
        last = result if usable else last


def is_zero(point: Point) -> bool:
    """Return whether all entries of a point are zero."""
    return not any(bool(torch.as_tensor(array).any()) for array in point.arrays())
