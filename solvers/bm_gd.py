"""Gradient descent with backtracking on the Burer-Monteiro factorisation, projected onto the cones for ReLU."""

from convexnn_bench.algorithms.descent import BurerMonteiroSolver
from convexnn_bench.algorithms.first_order import StepDone, Vector, gradient_descent


class Solver(BurerMonteiroSolver):
    """The paper's method, its step size found by backtracking."""

    name = "bm_gd"

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        first_step = 1.0 / self.objective.problem.beta
        return gradient_descent(self.objective, x, step_done, self.objective.project, first_step)
