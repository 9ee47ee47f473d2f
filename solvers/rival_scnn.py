"""scnn's restarted FISTA for gated ReLU networks, in its own environment (make rivals)."""

from typing import Any

from convexnn_bench.algorithms.rival import RivalSolver
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Whole


class Solver(RivalSolver):
    """scnn (Mishkin, Sahiner & Pilanci, ICML 2022).

    Parameters
    ----------
    tolerance : float
        Tolerance on the squared norm of the least subgradient of its objective, which is ours divided by n.
    path : bool
        Solve for 1e-2, 1e-3, ... down to `tolerance`, each from the last point, and score all; else solve once, from
        zero.
    max_iters : int
        Most iterations of each solve.
    """

    name = "rival_scnn"
    rival = "scnn"
    package = "scnn"
    parameters = {**RivalSolver.parameters, "tolerance": [1e-6], "max_iters": [10_000]}
    allowed = {**RivalSolver.allowed, "max_iters": Whole()}
    losses = ("squared",)
    relu = (
        "scnn's augmented Lagrangian for ReLU settles 2e-5 to 2e-4 above the optimum, relative to it, whatever its "
        "tolerance (seen with n = 60 to 200, d = 3 to 10, 20 to 50 patterns): use gated_relu"
    )
    max_iters: int

    def options(self, problem: Problem) -> dict[str, Any]:
        return {"max_iters": self.max_iters}
