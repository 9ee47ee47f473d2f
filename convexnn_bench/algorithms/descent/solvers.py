"""The base classes of the solvers that minimise a flat objective step by step.

The objectives are Burer-Monteiro and network.

A run has two parts:

1. `minimise`, which a solver's file defines;
2. the method of `relu.finish`, which continues to an optimum, if the problem is a ReLU problem of moderate size and the
   solver has the parameter `finish`. With a start from the caller this part begins at once.
"""

import torch

from convexnn_bench.algorithms.descent.bm_objective import BMObjective
from convexnn_bench.algorithms.descent.methods import StepDone, Vector, load_optimisers
from convexnn_bench.algorithms.descent.network_objective import NetworkObjective
from convexnn_bench.algorithms.relu import ReportPoint, affordable, finish_factors, finish_network
from convexnn_bench.formulations import Point, burer_monteiro
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Choice, Whole

SLOW = 1e-3  # relative decrease of the objective in a window of steps below which `finish` takes over


class DescentSolver(BaseSolver):
    """A solver that steps from point to point, each scored through the callback.

    x: the current vector. finished: the best point of `finish_from`, once there is one.
    """

    objective: BMObjective | NetworkObjective
    x: Vector
    finished: Point | None = None

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        """Step until `step_done(x)` is False.

        Return why the method ended by itself, else None.
        """
        raise TypeError(f"{type(self).__name__} must define minimise")

    def finish_from(self, report: ReportPoint) -> str | None:
        """Go on from self.x after `minimise` has ended, and report every better point."""
        raise TypeError(f"{type(self).__name__} must define finish_from")

    @property
    def finishes(self) -> bool:
        """Whether the parameter `finish` exists and is on, and the problem is small enough for it."""
        return self._finishes(self.objective.problem)

    def _finishes(self, problem: Problem) -> bool:
        return bool(getattr(self, "finish", False)) and affordable(problem)

    @property
    def entry_scale(self) -> float:
        """The mean size of an entry of the start point, the unit of Adam's step."""
        return float(self.objective.start.abs().mean())

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
                self.finished = point
            return callback()

        # 1. Run the solver's method, unless the run begins at a start and the finish follows.
        if self.start is None or not self.finishes:
            self.message = self.minimise(self.x, step_done)
        # 2. the finish, unless the callback has ended the run or the method has diverged
        if running and self.finishes and bool(torch.isfinite(self.x).all()):
            self.message = self.finish_from(report)

    def get_result(self) -> Point:
        # optimisers step in place: a copy keeps a scored point as it was
        return self.objective.point(self.x.clone()) if self.finished is None else self.finished


class BurerMonteiroSolver(DescentSolver):
    """A descent solver on the factors (U, V).

    m: columns of a block; by default min(p, q), for ReLU 2 with one output and p with several. finish: for ReLU on data
    of moderate size, go on from the method's last point by Newton's method on the faces of the cones and the staircase,
    with at most m columns a block, or without a limit if m is None.
    """

    formulation = start_formulation = "burer_monteiro"
    parameters = {"m": [None], "finish": [True]}
    allowed = {"m": Whole(optional=True), "finish": Choice((True, False))}
    m: int | None
    finish: bool
    objective: BMObjective

    def set_problem(self, problem: Problem) -> None:
        # The finish finds new columns by itself.
        fill = not self._finishes(problem)
        self.objective = BMObjective(problem, self.m, self.seed, self.device, self.start, fill)
        self.x = self.objective.start

    def finish_from(self, report: ReportPoint) -> str | None:
        U, V = self.objective.factors(self.objective.project(self.x))
        problem, value = self.objective.problem, burer_monteiro.objective(self.objective.problem, U, V)
        return finish_factors(problem, U.cpu().numpy(), V.cpu().numpy(), value, self.m, report)


class NetworkSolver(DescentSolver):
    """A descent solver on the original network.

    width: neurons, by default as many as all columns of (U, V).
    """

    formulation = start_formulation = "network"
    parameters = {"width": [None]}
    allowed = {"width": Whole(optional=True)}
    width: int | None
    objective: NetworkObjective

    def set_problem(self, problem: Problem) -> None:
        fill = not self._finishes(problem)
        self.objective = NetworkObjective(problem, self.width, self.seed, self.device, self.start, fill)
        self.x = self.objective.start


class FinishedNetworkSolver(NetworkSolver):
    """A network solver with the parameter `finish`.

    finish: for ReLU on data of moderate size, go on once the method slows down: by Newton's method on the cells between
    kinks, across kinks, and with dead neurons put to new use, but never with more neurons than `width`.
    """

    parameters = {**NetworkSolver.parameters, "finish": [True]}
    allowed = {**NetworkSolver.allowed, "finish": Choice((True, False))}
    finish: bool

    def until_slow(self, step_done: StepDone, window: int) -> StepDone:
        """Return a `step_done` that also ends the method once it is slow, so that `finish` takes over.

        The method is slow when `window` steps have lowered the objective by less than SLOW of its value.
        """
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

    def finish_from(self, report: ReportPoint) -> str | None:
        W1, W2 = (part.cpu().numpy() for part in self.objective.weights(self.x))
        value = float(self.objective(self.x)[0])
        return finish_network(self.objective.problem, W1, W2, value, self.seed, report)
