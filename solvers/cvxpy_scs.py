"""The exact convex program through CVXPY and SCS, an operator-splitting method."""

from importlib.metadata import version
from typing import Any

from convexnn_bench.algorithms.conic import ConicSolver
from convexnn_bench.solver import Choice, Number, Whole


class Solver(ConicSolver):
    """SCS (O'Donoghue, 2021).

    Parameters
    ----------
    tolerance : float
        Tolerance on residuals and gap, absolute and relative, in the program's units.
    max_iters : int
        Most iterations.
    alpha : float
        Over-relaxation, below 2.
    linear_solver : str
        How SCS factorises. The default is its built-in sparse method, since MKL broke down on these programs.
    """

    name = "cvxpy_scs"
    requires = ("cvxpy", "scs")
    parameters = {"tolerance": [1e-7], "max_iters": [1_000_000], "alpha": [1.8], "linear_solver": ["qdldl"]}
    allowed = {
        "tolerance": Number(high=1.0),
        "max_iters": Whole(),
        "alpha": Number(high=2.0),
        "linear_solver": Choice(("qdldl", "cpu_dense", "cpu_indirect", "mkl", "accelerate", "auto")),
    }
    interior_point = False

    tolerance: float
    max_iters: int
    alpha: float
    linear_solver: str

    def backend(self) -> str:
        return "SCS"

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = dict.fromkeys(("eps_abs", "eps_rel"), float(self.tolerance))
        options |= {"max_iters": int(self.max_iters), "alpha": float(self.alpha)}
        if tuple(int(part) for part in version("scs").split(".")[:2]) >= (3, 3):
            options["linear_solver"] = self.linear_solver
        if self.seconds is not None:
            options["time_limit_secs"] = self.seconds  # SCS counts the time of iterations, not of the factorisation
        return options

    def summary(self, raw: Any) -> str:
        return f"SCS: {raw['info']['status'].strip()}, {raw['info']['iter']} iterations"
