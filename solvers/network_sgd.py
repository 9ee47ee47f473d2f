"""Minibatch gradient descent with momentum on the original network."""

from convexnn_bench.algorithms.descent import NetworkSolver, StepDone, Vector, momentum_sgd
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Number, Whole


class Solver(NetworkSolver):
    """batch: samples a step. momentum: heavy-ball factor."""

    name = "network_sgd"
    parameters = {**NetworkSolver.parameters, "batch": [32], "momentum": [0.9]}
    allowed = {**NetworkSolver.allowed, "batch": Whole(), "momentum": Number(high=1.0, closed=True)}
    batch: int
    momentum: float

    def set_problem(self, problem: Problem) -> None:
        super().set_problem(problem)
        self.minibatches = self.objective.batches(self.batch)

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return momentum_sgd(self.objective, self.minibatches, x, step_done, self.momentum, self.seed)
