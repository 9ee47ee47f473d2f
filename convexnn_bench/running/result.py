"""What a solve leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from convexnn_bench.certificates import Certificate
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.formulations.point import FactoredPoint, Point
from convexnn_bench.problem import Problem


@dataclass
class Result:
    """One solver's run on one problem.

    objective: of the final point in the solver's own formulation, as certified (a sum over samples).
    status: gap_reached, solved, stalled, time_limit, diverged or skipped; `reason` says it in words.
    setup_seconds, solve_seconds: building and compiling; solving, the scoring of points left out.
    curve: (seconds, objective, gap) of every point scored, seconds as in solve_seconds.
    certificate: what was proven of the final point; None where there is no point.
    point: the solver's raw parameters.
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
        """Objective of the final point; nan where there is none."""
        return self.certificate.primal if self.certificate is not None else float("nan")

    @property
    def gap(self) -> float:
        """Certified relative gap; nan where there is none."""
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
        arrays = convert(problem)
    except UnsupportedError:
        return None
    return tuple(array.numpy() for array in arrays) if isinstance(arrays, tuple) else arrays.numpy()
