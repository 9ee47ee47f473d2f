"""The exact convex program through CVXPY and SCS, an operator-splitting method."""

from importlib.metadata import version
from typing import Any

from convexnn_bench.algorithms.conic import ConicSolver
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Choice, Number, Whole, importable

# the part of the package scs that each linear solver needs, from version 3.3 on; builds leave some of them out
PARTS = {
    "cpu_dense": "_scs_dense",
    "cpu_indirect": "_scs_indirect",
    "mkl": "_scs_mkl",
    "accelerate": "_scs_accelerate",
    "gpu_indirect": "_scs_gpu",
    "cudss": "_scs_cudss",
}


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
        `cpu_dense` is quicker on many gated blocks with one output, and `cudss` and `gpu_indirect` need a GPU.
    """

    name = "cvxpy_scs"
    requires = ("cvxpy", "scs")
    parameters = {"tolerance": [1e-7], "max_iters": [1_000_000], "alpha": [1.8], "linear_solver": ["qdldl"]}
    allowed = {
        "tolerance": Number(high=1.0),
        "max_iters": Whole(),
        "alpha": Number(high=2.0),
        "linear_solver": Choice(("qdldl", *PARTS, "auto")),
    }
    interior_point = False

    tolerance: float
    max_iters: int
    alpha: float
    linear_solver: str

    def skip(self, problem: Problem) -> str | None:
        if self.linear_solver in PARTS and not importable(f"scs.{PARTS[self.linear_solver]}"):
            return (
                f"the installed SCS {version('scs')} has no linear solver {self.linear_solver}: choose qdldl, or "
                "install a build with it"
            )
        return super().skip(problem)

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
