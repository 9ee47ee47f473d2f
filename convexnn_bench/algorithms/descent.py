"""Solvers that minimise a flat objective step by step: what the Burer-Monteiro and network ones share."""

import torch

from convexnn_bench.algorithms.bm_objective import BMObjective
from convexnn_bench.algorithms.first_order import StepDone, Vector, load_optimisers
from convexnn_bench.algorithms.network_objective import NetworkObjective
from convexnn_bench.formulations.point import Point
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Whole


class DescentSolver(BaseSolver):
    """Keeps the current point, scores it through the callback; a subclass supplies `minimise`."""

    objective: BMObjective | NetworkObjective
    x: Vector

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        """Step until `step_done(x)` is False; return why it ended by itself, else None."""
        raise TypeError(f"{type(self).__name__} must define minimise")

    def load_packages(self) -> None:
        super().load_packages()
        load_optimisers()

    def run(self, callback: Callback) -> None:
        def step_done(x: torch.Tensor) -> bool:
            self.x = x
            return callback()

        self.message = self.minimise(self.x, step_done)

    def get_result(self) -> Point:
        # optimisers step in place: a point that has been scored must stay what it was
        return self.objective.point(self.x.clone())


class BurerMonteiroSolver(DescentSolver):
    """m: columns a block; min(p, q) by default, 2 for scalar ReLU."""

    formulation = "burer_monteiro"
    parameters = {"m": [None]}
    allowed = {"m": Whole(optional=True)}
    m: int | None
    objective: BMObjective

    def set_problem(self, problem: Problem) -> None:
        self.objective = BMObjective(problem, self.m, self.seed, self.device)
        self.x = self.objective.start


class NetworkSolver(DescentSolver):
    """width: number of neurons; by default as many as the Burer-Monteiro default has columns."""

    formulation = "network"
    parameters = {"width": [None]}
    allowed = {"width": Whole(optional=True)}
    width: int | None
    objective: NetworkObjective

    def set_problem(self, problem: Problem) -> None:
        self.objective = NetworkObjective(problem, self.width, self.seed, self.device)
        self.x = self.objective.start
