"""Minibatch gradient descent with momentum on the original network."""

from convexnn_bench.algorithms.descent import FinishedNetworkSolver, Minibatches, StepDone, Vector, momentum_sgd
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Number, Whole


class Solver(FinishedNetworkSolver):
    """Minibatch gradient descent with heavy-ball momentum.

    Parameters
    ----------
    width : int or None
        Neurons; by default as many as the Burer-Monteiro default has columns, or as many as the start needs.
    finish : bool
        For ReLU on data of moderate size, go on by Newton's method between kinks once progress is slow.
    batch : int
        Samples of one step.
    momentum : float
        Heavy-ball factor, at least 0 and below 1.
    """

    name = "network_sgd"
    parameters = {**FinishedNetworkSolver.parameters, "batch": [32], "momentum": [0.9]}
    allowed = {**FinishedNetworkSolver.allowed, "batch": Whole(), "momentum": Number(high=1.0, closed=True)}
    batch: int
    momentum: float

    def set_problem(self, problem: Problem) -> None:
        super().set_problem(problem)
        self.minibatches = Minibatches(self.objective, self.batch)

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        decay, step_done = self.objective.problem.beta, self.until_slow(step_done, 100 * self.minibatches.count)
        return momentum_sgd(self.objective, self.minibatches.epoch, x, step_done, self.momentum, self.seed, decay)
