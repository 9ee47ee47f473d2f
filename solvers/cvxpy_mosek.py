"""The exact convex program through CVXPY and MOSEK, which needs a licence.

MOSEK is an interior-point method.
"""

from typing import Any

from convexnn_bench.algorithms.conic import ConicSolver, mosek_backend, mosek_missing, mosek_parameters
from convexnn_bench.solver import Number


class Solver(ConicSolver):
    """MOSEK.

    Parameters
    ----------
    tolerance : float
        Tolerance on primal and dual feasibility and on the relative gap.
    save_file : str or None
        A file (.ptf, .task) to write the task to before it is solved.
    """

    name = "cvxpy_mosek"
    requires = ("cvxpy", "mosek")
    parameters = {"tolerance": [1e-9], "save_file": [None]}
    allowed = {"tolerance": Number(high=1.0)}

    tolerance: float
    save_file: str | None

    @classmethod
    def unavailable(cls) -> str | None:
        return super().unavailable() or mosek_missing()

    def backend(self) -> Any:
        return mosek_backend()

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"mosek_params": mosek_parameters(float(self.tolerance), self.time_limit)}
        return {**options, "accept_unknown": True, **({"save_file": self.save_file} if self.save_file else {})}

    def summary(self, raw: Any) -> str:
        import mosek

        if "task" not in raw:
            return ""
        task = raw["task"]
        solution = task.getsolsta(mosek.soltype.itr)
        return f"MOSEK: {solution.name}, {task.getintinf(mosek.iinfitem.intpnt_iter)} iterations"

    def failures(self) -> tuple[type[Exception], ...]:
        import mosek

        return (*super().failures(), mosek.Error)
