"""A bound for ReLU networks of any width, by the semidefinite relaxation of Prakhya, Birdal and Yurtsever."""

from typing import Any

from convexnn_bench.algorithms.conic import ConicProgram, ConicSolver, infinite_width_program
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Number, Whole


class Solver(ConicSolver):
    """The relaxation of the infinite-width program (ICLR 2025), by Clarabel.

    Parameters
    ----------
    tolerance : float
        Tolerance on the gap, absolute and relative, and on feasibility, in units of F(0).
    max_iter : int
        Most interior-point iterations.

    Notes
    -----
    The relaxation gives a lower bound and no network. The point of this solver is the zero network, with the
    relaxation's multiplier, from which the certificate computes its bound over the patterns of the problem.
    """

    name = "cvxpy_infinite_width"
    formulation = "network"
    requires = ("cvxpy", "clarabel")
    parameters = {"tolerance": [1e-8], "max_iter": [200]}
    allowed = {"tolerance": Number(high=1.0), "max_iter": Whole()}

    tolerance: float
    max_iter: int

    def skip(self, problem: Problem) -> str | None:
        if problem.architecture.name != "mlp" or not problem.has_cone:
            return (
                "the infinite-width relaxation is of ReLU networks with the architecture mlp, and this is "
                f"{problem.activation.name} with {problem.architecture.name}"
            )
        return super().skip(problem)

    def state(self, problem: Problem) -> ConicProgram:
        self._basis = None  # the zero network is in the coordinates of the data, not of their row space
        return infinite_width_program(self._problem)

    def backend(self) -> str:
        return "CLARABEL"

    def options(self) -> dict[str, Any]:
        tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), float(self.tolerance))
        limit = {} if self.seconds is None else {"time_limit": self.seconds}
        return {**tolerances, **limit, "max_iter": int(self.max_iter), "accept_unknown": True}

    def summary(self, raw: Any) -> str:
        return f"Clarabel: {raw.status}, {raw.iterations} iterations"
