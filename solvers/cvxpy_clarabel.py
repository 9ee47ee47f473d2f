"""The exact convex program through CVXPY and Clarabel, an interior-point method."""

from typing import Any

from convexnn_bench.algorithms.conic import ConicSolver
from convexnn_bench.solver import Number, Whole


class Solver(ConicSolver):
    """Clarabel. tolerance: on the gap, absolute and relative, in the program's units; feasibility gets ten times that.

    max_threads: 0 takes all cores. One by default: its threads wait busily, and lose badly on cores that are shared.
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
        if self.time_limit is not None:
            options["time_limit"] = float(self.time_limit)
        # "insufficient progress" short of the tolerance comes with a point, and the certificate judges it
        limits: dict[str, Any] = {"max_iter": int(self.max_iter), "max_threads": int(self.max_threads)}
        if self.conic.relaxation is not None:
            # it gives up at the first short step, which entropies together with the relaxation's cones bring about half
            # way; elsewhere going on costs iterations that gain nothing
            limits |= {"min_switch_step_length": 1e-3, "min_terminate_step_length": 1e-8}
        return {**options, **limits, "accept_unknown": True}

    def summary(self, raw: Any) -> str:
        return f"Clarabel: {raw.status}, {raw.iterations} iterations"
