"""The Burer-Monteiro program through CVXPY and Uno, a filter method of sequential quadratic programs."""

from typing import Any

from convexnn_bench.algorithms.conic import FactorisedSolver


class Solver(FactorisedSolver):
    """Uno (Vanaret & Leyffer, 2024), with its preset filtersqp.

    Parameters
    ----------
    tolerance : float
        Tolerance on the optimality conditions.
    max_iter : int
        Most iterations.
    m : int or None
        Columns of a block; by default min(p, q), for ReLU 2 with one output and p with several.
    """

    name = "bm_uno"
    requires = ("cvxpy", "unopy")
    backend = "UNO"

    def options(self) -> dict[str, Any]:
        return {
            "primal_tolerance": float(self.tolerance),
            "dual_tolerance": float(self.tolerance),
            "max_iterations": int(self.max_iter),
            "time_limit": self.seconds,
            "logger": "SILENT",
        }
