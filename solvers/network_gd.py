"""Gradient descent with backtracking on the original network."""

from convexnn_bench.algorithms.descent import NetworkSolver, StepDone, Vector, gradient_descent


class Solver(NetworkSolver):
    """Gradient descent on all samples. The kinks of a ReLU network may end its line search early.

    Parameters
    ----------
    width : int or None
        Neurons; by default as many as the Burer-Monteiro default has columns.
    """

    name = "network_gd"

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return gradient_descent(self.objective, x, step_done, first_step=1.0 / self.objective.problem.beta)
