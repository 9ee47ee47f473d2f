"""adelie's group lasso by block coordinate descent, in its own environment (make rivals)."""

from typing import Any

from convexnn_bench.algorithms.rival import RivalSolver
from convexnn_bench.losses import OutputBias
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Whole


class Solver(RivalSolver):
    """adelie (Yang & Hastie 2024).

    Parameters
    ----------
    tolerance : float
        Tolerance of its coordinate descent, and of its Newton steps for logistic loss.
    path : bool
        Solve for 1e-2, 1e-3, ... down to `tolerance`, each from the last point, and score all; else solve once, from
        zero.
    lambdas : int
        Number of weight decays on the path of the first solve, in geometric progression from beta_max to beta; 1 solves
        for beta alone.
    """

    name = "rival_adelie"
    rival = "adelie"
    package = "adelie"
    parameters = {**RivalSolver.parameters, "tolerance": [1e-7], "lambdas": [1]}
    allowed = {**RivalSolver.allowed, "lambdas": Whole()}
    losses = ("squared", "logistic")
    has_output_bias = True
    relu = (
        "adelie's linear constraints are not reliable enough on ReLU cones: below its default tolerance it ends "
        "without a solution (seen with n = 100, d = 5, 30 patterns, which cvxpy_clarabel solves): use gated_relu"
    )
    lambdas: int

    def options(self, problem: Problem) -> dict[str, Any]:
        # one value is beta itself, the end of the progression
        highest = max(problem.beta_max, problem.beta) if self.lambdas > 1 else problem.beta
        return {"lambdas": self.lambdas, "highest": highest, "intercept": isinstance(problem.loss, OutputBias)}
