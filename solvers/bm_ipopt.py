"""The Burer-Monteiro program through CVXPY and IPOPT, an interior-point method for nonlinear programs."""

from typing import Any

from convexnn_bench.algorithms.conic import FactorisedSolver


class Solver(FactorisedSolver):
    """IPOPT (Waechter & Biegler, 2006).

    Parameters
    ----------
    tolerance : float
        Tolerance on the optimality conditions, in the solver's own scaling.
    max_iter : int
        Most iterations.
    m : int or None
        Columns of a block; by default min(p, q), for ReLU 2 with one output and p with several.
    """

    name = "bm_ipopt"
    requires = ("cvxpy", "cyipopt")
    backend = "IPOPT"

    @classmethod
    def unavailable(cls) -> str | None:
        missing = super().unavailable()
        # cyipopt has to be compiled; another package has the same module as wheels
        return missing and missing.replace("pip install cyipopt", "pip install cyipopt-wheels")

    def options(self) -> dict[str, Any]:
        return {
            "tol": float(self.tolerance),
            "max_iter": int(self.max_iter),
            "max_wall_time": self.seconds,
            "print_level": 0,
            "sb": "yes",  # no banner
        }
