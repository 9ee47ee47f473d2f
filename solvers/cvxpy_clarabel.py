"""The exact convex program through CVXPY and Clarabel, an interior-point method."""

from typing import Any

from convexnn_bench.algorithms.conic import ConicSolver
from convexnn_bench.solver import Number, Whole


class Solver(ConicSolver):
    """Clarabel (Goulart & Chen, 2024).

    Parameters
    ----------
    tolerance : float
        Tolerance on the gap, absolute and relative, in the program's units; ten times that on feasibility.
    max_iter : int
        Most interior-point iterations.
    max_threads : int
        0 uses all cores. The default is 1, since its threads wait busily and are slow on shared cores.
    """

    name = "cvxpy_clarabel"
    requires = ("cvxpy", "clarabel")
    parameters = {"tolerance": [1e-10], "max_iter": [200], "max_threads": [1]}
    allowed = {"tolerance": Number(high=1.0), "max_iter": Whole(), "max_threads": Whole(low=0)}

    tolerance: float
    max_iter: int
    max_threads: int

    def backend(self) -> str:
        return "CLARABEL"

    def options(self) -> dict[str, Any]:
        options = dict.fromkeys(("tol_gap_abs", "tol_gap_rel"), float(self.tolerance))
        options["tol_feas"] = 10 * float(self.tolerance)
        if self.seconds is not None:
            options["time_limit"] = self.seconds  # Clarabel reads its clock once an iteration
        # an end by "insufficient progress" comes with a point, which the certificate judges: accept it as "unknown"
        limits: dict[str, Any] = {"max_iter": int(self.max_iter), "max_threads": int(self.max_threads)}
        if self.conic.relaxation is not None:
            # Clarabel ends at the first short step, which entropies together with the relaxation's cones cause half
            # way; on other programs going on costs iterations without progress
            limits |= {"min_switch_step_length": 1e-3, "min_terminate_step_length": 1e-8}
        return {**options, **limits, "accept_unknown": True}

    def summary(self, raw: Any) -> str:
        return f"Clarabel: {raw.status}, {raw.iterations} iterations"
