"""Scaled gradient descent on the Burer-Monteiro factorisation.

The other factor's Gram matrix scales each step.
"""

from convexnn_bench.algorithms.descent import BurerMonteiroSolver, ScaledMetric, StepDone, Vector, gradient_descent
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Whole


class Solver(BurerMonteiroSolver):
    """ScaledGD (Tong, Ma & Chi 2021), damped by the objective's curvature.

    It backtracks in its own metric.

    Parameters
    ----------
    m : int or None
        Columns of a block; by default min(p, q), or as many as the start needs.
    """

    name = "bm_scaled_gd"
    parameters = {"m": [None]}
    allowed = {"m": Whole(optional=True)}

    def skip(self, problem: Problem) -> str | None:
        if problem.has_cone:
            return (
                "bm_scaled_gd has no projection onto ReLU cones: in the metric of its preconditioner the columns of a "
                "block are coupled, and projecting them one by one need not lower the objective: use bm_gd or bm_lbfgs"
            )
        return super().skip(problem)

    def set_problem(self, problem: Problem) -> None:
        super().set_problem(problem)
        self.precondition = ScaledMetric(self.objective)

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return gradient_descent(self.objective, x, step_done, precondition=self.precondition)
