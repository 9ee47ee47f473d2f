"""Minibatch gradient descent with momentum on the original network."""

from convexnn_bench.algorithms.descent import Minibatches, NetworkSolver, StepDone, Vector, momentum_sgd
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Number, Whole


class Solver(NetworkSolver):
    """Minibatch gradient descent with heavy-ball momentum.

    Parameters
    ----------
    width : int or None
        Neurons; by default as many as the Burer-Monteiro default has columns.
    batch : int
        Samples of one step.
    momentum : float
        Heavy-ball factor, at least 0 and below 1.
    """

    name = "network_sgd"
    parameters = {**NetworkSolver.parameters, "batch": [32], "momentum": [0.9]}
    allowed = {**NetworkSolver.allowed, "batch": Whole(), "momentum": Number(high=1.0, closed=True)}
    batch: int
    momentum: float

    def set_problem(self, problem: Problem) -> None:
        super().set_problem(problem)
        self.minibatches = Minibatches(self.objective, self.batch)

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return momentum_sgd(self.objective, self.minibatches.epoch, x, step_done, self.momentum, self.seed)
