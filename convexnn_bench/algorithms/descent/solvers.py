"""Solvers that minimise a flat objective step by step: what the Burer-Monteiro and network ones share."""

from collections.abc import Callable

import torch

from convexnn_bench.algorithms.descent.bm_objective import BMObjective
from convexnn_bench.algorithms.descent.methods import StepDone, Vector, load_optimisers
from convexnn_bench.algorithms.descent.network_objective import NetworkObjective
from convexnn_bench.algorithms.relu.finish import affordable, finish_factors, finish_network
from convexnn_bench.formulations import burer_monteiro
from convexnn_bench.formulations.point import Point
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Choice, Whole

SLOW = 1e-3

Report = Callable[[Point | None], bool]


class DescentSolver(BaseSolver):
    """Keeps the current point, scores it through the callback; a subclass supplies `minimise`, and `finish` where
    a ReLU problem is taken on by algorithms/relu/finish.py once `minimise` has ended."""

    objective: BMObjective | NetworkObjective
    x: Vector
    found: Point | None = None

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        """Step until `step_done(x)` is False; return why it ended by itself, else None."""
        raise TypeError(f"{type(self).__name__} must define minimise")

    def finish_from(self, report: Report) -> str | None:
        """Go on from self.x where `minimise` has ended; every better point goes to `report`."""
        raise TypeError(f"{type(self).__name__} must define finish_from")

    @property
    def finishes(self) -> bool:
        """Whether the solver has a parameter `finish`, it is on, and the problem is one that it helps."""
        return bool(getattr(self, "finish", False)) and affordable(self.objective.problem)

    def load_packages(self) -> None:
        super().load_packages()
        load_optimisers()

    def run(self, callback: Callback) -> None:
        running = True

        def step_done(x: torch.Tensor) -> bool:
            nonlocal running
            self.x = x
            running = callback()
            return running

        def report(point: Point | None) -> bool:
            if point is not None:
                self.found = point
            return callback()

        self.message = self.minimise(self.x, step_done)
        if running and self.finishes and bool(torch.isfinite(self.x).all()):
            self.message = self.finish_from(report)

    def get_result(self) -> Point:
        # optimisers step in place: a point that has been scored must stay what it was
        return self.objective.point(self.x.clone()) if self.found is None else self.found


class BurerMonteiroSolver(DescentSolver):
    """m: columns a block; min(p, q) by default, for ReLU 2 with one output and p with several.

    finish: for ReLU on data of moderate size, go on from where the method ends by Newton's method on the faces of the
    cones and the staircase, with at most m columns a block (as many as it takes where m is None).
    """

    formulation = "burer_monteiro"
    parameters = {"m": [None], "finish": [True]}
    allowed = {"m": Whole(optional=True), "finish": Choice((True, False))}
    m: int | None
    finish: bool
    objective: BMObjective

    def set_problem(self, problem: Problem) -> None:
        self.objective = BMObjective(problem, self.m, self.seed, self.device)
        self.x = self.objective.start

    def finish_from(self, report: Report) -> str | None:
        U, V = self.objective.factors(self.objective.project(self.x))
        problem, value = self.objective.problem, burer_monteiro.objective(self.objective.problem, U, V)
        return finish_factors(problem, U.cpu().numpy(), V.cpu().numpy(), value, self.m, report)


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


class FinishedNetworkSolver(NetworkSolver):
    """finish: for ReLU on data of moderate size, go on from where the method slows down by Newton's method on the cells
    between kinks, across kinks, and with dead neurons put to new use; never more neurons than `width`."""

    parameters = {**NetworkSolver.parameters, "finish": [True]}
    allowed = {**NetworkSolver.allowed, "finish": Choice((True, False))}
    finish: bool

    def until_slow(self, step_done: StepDone, window: int) -> StepDone:
        """`step_done`, ended early where `finish` takes over: when `window` steps lower the objective by less than
        SLOW of it."""
        if not self.finishes:
            return step_done
        steps, least = 0, float("inf")

        def limited(x: Vector) -> bool:
            nonlocal steps, least
            going, steps = step_done(x), steps + 1
            if steps % window or not going:
                return going
            value = float(self.objective(x)[0])
            slow, least = not value < least * (1 - SLOW), min(value, least)
            return not slow

        return limited

    def finish_from(self, report: Report) -> str | None:
        W1, W2 = (part.cpu().numpy() for part in self.objective.weights(self.x))
        value = float(self.objective(self.x)[0])
        return finish_network(self.objective.problem, W1, W2, value, self.seed, report)
