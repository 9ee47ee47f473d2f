"""The ReLU program over all activation patterns by column generation."""

import numpy as np
import torch

from convexnn_bench.algorithms.column_generation import WorkingSet, restrict, solve_master
from convexnn_bench.formulations.point import Point
from convexnn_bench.plugins.registry import SOLVERS
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Number, Whole


class Solver(BaseSolver):
    """Solves a master program on a few patterns, adds those that its multiplier prices above beta, and solves again.

    The point is a ReLU network, so that its certificate is about all patterns, whatever the problem's own blocks are.
    The masters are solved by Clarabel where CVXPY is installed, else by fista, or by bm_lbfgs for vector outputs.

    patterns_per_round: at most so many patterns enter at a time. tolerance: a pattern enters where its dual norm is
    above (1 + tolerance) beta. master_calls: callbacks of an iterative master solver before it is stopped.
    """

    name = "column_generation"
    formulation = "convex"
    parameters = {"patterns_per_round": [16], "tolerance": [1e-9], "master_calls": [3000]}
    allowed = {"patterns_per_round": Whole(), "tolerance": Number(high=1.0), "master_calls": Whole()}

    # solvers of the master program in order of preference, by problem.vector_cone
    masters = {False: ("cvxpy_clarabel", "fista"), True: ("cvxpy_clarabel", "bm_lbfgs")}

    patterns_per_round: int
    tolerance: float
    master_calls: int

    def skip(self, problem: Problem) -> str | None:
        if not problem.has_cone:
            return (
                f"column generation looks for ReLU patterns, and those of the {problem.activation.name} activation are "
                "fixed: use a convex or Burer-Monteiro solver"
            )
        return super().skip(problem)

    def set_problem(self, problem: Problem) -> None:
        self.problem = problem
        self._point = Point(network=(np.zeros((problem.p, 1)), np.zeros((problem.q, 1))))
        self.working = WorkingSet(problem, self.seed)
        self.rounds = 0

    def run(self, callback: Callback) -> None:
        problem, beta = self.problem, self.problem.beta * (1 + self.tolerance)
        Y = problem.operator().Y
        Lambda = problem.loss.gradient(torch.zeros_like(Y), Y)
        best = np.inf
        while callback():
            new = self.working.price(Lambda, beta, self.patterns_per_round)
            if new.shape[1] == 0:
                self.message = f"no pattern is priced above beta: {self._summary()}"
                return
            self.working.add(new)
            master = restrict(problem, self.working.masks)
            point, Lambda, sizes = solve_master(master, self._master_solver(), self.master_calls)
            self.rounds += 1
            value = problem.network_objective(*point.network) if point.network is not None else np.inf
            self._point.dual = point.dual
            if value < best:  # blocks leave only where the objective fell, so that no set of them can return
                best, self._point = value, point
                self.working.keep(sizes)
            self.message = self._summary()

    def _master_solver(self) -> BaseSolver:
        """Make the first solver of `masters` that is available on this machine."""
        names = self.masters[self.problem.vector_cone]
        solver: BaseSolver = SOLVERS.make(next(name for name in names if SOLVERS.get(name).unavailable() is None))
        solver.time_limit = self.time_limit
        return solver

    def _summary(self) -> str:
        return f"{self.working.masks.shape[1]} patterns after {self.rounds} rounds"

    def get_result(self) -> Point:
        return self._point
