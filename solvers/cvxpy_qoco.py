"""The exact convex program through CVXPY and QOCO.

QOCO is an interior-point method for second-order cones.
"""

from typing import Any

from convexnn_bench.algorithms.conic import ConicSolver, only_second_order
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Number, Whole

SLOWER = 2.0  # an iteration, against the estimate, which was made for Clarabel (measured on teacher data)


class Solver(ConicSolver):
    """QOCO (Chari & Acikmese, 2025).

    Parameters
    ----------
    tolerance : float
        Tolerance on residuals and gap, absolute and relative, in the program's units.
    max_iter : int
        Most interior-point iterations.

    Notes
    -----
    QOCO reads no clock. With a time limit it gets as many iterations as the estimated time of one allows.
    """

    name = "cvxpy_qoco"
    requires = ("cvxpy", "qoco")
    parameters = {"tolerance": [1e-9], "max_iter": [200]}
    allowed = {"tolerance": Number(high=1.0), "max_iter": Whole()}

    tolerance: float
    max_iter: int

    def skip(self, problem: Problem) -> str | None:
        reason = only_second_order(problem)
        return super().skip(problem) if reason is None else f"QOCO has second-order cones only, and {reason}"

    def backend(self) -> str:
        return "QOCO"

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = dict.fromkeys(("abstol", "reltol"), float(self.tolerance))
        iterations = int(self.max_iter)
        if self.seconds is not None:
            iterations = max(1, min(iterations, int(self.seconds / (SLOWER * self.step_seconds))))
        # Of an inaccurate end QOCO keeps the point, which the certificate judges.
        return {**options, **dict.fromkeys(("abstol_inacc", "reltol_inacc"), 1e-2), "max_iters": iterations}

    def summary(self, raw: Any) -> str:
        return f"QOCO: {raw.status}, {raw.iters} iterations"
