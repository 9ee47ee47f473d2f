"""The result of a solve: its point in every formulation, its certificate, its times and its curve."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from convexnn_bench.certificates import Certificate
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.formulations import FactoredPoint, Point
from convexnn_bench.problem import Problem


@dataclass
class Result:
    """The outcome of one solver on one problem.

    Attributes
    ----------
    problem : Problem
        The problem that was solved.
    solver : str
        The solver's name.
    parameters : dict
        The solver's parameters.
    seed : int
        Seed of the start point.
    device : str
        Device on which the solver ran.
    status : str
        gap_reached, solved, stalled, time_limit, diverged or skipped.
    reason : str
        The status in words.
    setup_seconds : float
        Time to build and compile.
    solve_seconds : float
        Time to solve, without scoring.
    curve : list of (seconds, objective, gap)
        Every point that was scored; seconds as in `solve_seconds`.
    certificate : Certificate or None
        What was proven of the final point; None where there is no point.
    point : Point or None
        The solver's raw parameters.
    """

    problem: Problem = field(repr=False)
    solver: str
    parameters: dict[str, Any]
    status: str
    reason: str
    seed: int = 0
    device: str = "cpu"
    setup_seconds: float = float("nan")
    solve_seconds: float = float("nan")
    curve: list[tuple[float, float, float]] = field(default_factory=list, repr=False)
    certificate: Certificate | None = None
    point: Point | None = field(default=None, repr=False)

    @property
    def objective(self) -> float:
        """Certified objective of the final point, a sum over samples; nan where there is no point."""
        return self.certificate.primal if self.certificate is not None else float("nan")

    @property
    def gap(self) -> float:
        """Certified relative gap of the final point; nan where there is none."""
        return self.certificate.gap if self.certificate is not None else float("nan")

    @cached_property
    def blocks(self) -> np.ndarray | None:
        """The point in the convex program, P x p x q; None where there is none.

        A ReLU network that uses activation patterns which are not among the problem's blocks is no point of it.
        """
        return None if self.point is None else _found(self.point.to_blocks, self.problem)

    @cached_property
    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(U, V), P x p x m and P x q x m, for Burer-Monteiro solvers, else None."""
        return _found(self.point.to_factors, self.problem) if isinstance(self.point, FactoredPoint) else None

    @cached_property
    def network(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(W1, W2), p x M and q x M, of a network with this point's predictions; None where no map is known.

        No map is known where vector-output ReLU blocks could not be decomposed into neurons.
        """
        return None if self.point is None else _found(self.point.to_network, self.problem)


def _found(convert: Callable[[Problem], Any], problem: Problem) -> Any:
    """Return the arrays of a conversion, or None where the point has no counterpart in the other formulation."""
    try:
        # A missing counterpart is no error of the run: the point itself and its certificate stand.
        arrays = convert(problem)
    except UnsupportedError:
        return None
    return tuple(array.numpy() for array in arrays) if isinstance(arrays, tuple) else arrays.numpy()
