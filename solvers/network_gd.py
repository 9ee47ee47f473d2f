"""Gradient descent with backtracking on the original network."""

from convexnn_bench.algorithms.descent import FinishedNetworkSolver, StepDone, Vector, gradient_descent


class Solver(FinishedNetworkSolver):
    """Gradient descent on all samples.

    Without `finish` the kinks of a ReLU network may end its line search early.

    Parameters
    ----------
    width : int or None
        Neurons; by default as many as the Burer-Monteiro default has columns, or as many as the start needs.
    finish : bool
        For ReLU on data of moderate size, go on by Newton's method between kinks once progress is slow.
    """

    name = "network_gd"

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        first_step = 1.0 / self.objective.problem.beta
        return gradient_descent(self.objective, x, self.until_slow(step_done, 500), first_step)
