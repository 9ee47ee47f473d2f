"""The ReLU program over all activation patterns by column generation."""

import math

from convexnn_bench.algorithms.column_generation import ColumnGeneration
from convexnn_bench.deadline import seconds_left
from convexnn_bench.formulations import Point
from convexnn_bench.plugins import SOLVERS
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Number, Whole

LEAST_SECONDS = 0.01  # least time limit of a master program; its solver then stops by its limit at once


class Solver(BaseSolver):
    """Solve a master program on a few patterns, add more of them, and repeat.

    The patterns that are added are those that its multiplier prices above beta.

    The point is a ReLU network, so that its certificate covers all patterns, whichever blocks the problem has. The
    master is solved by Clarabel if CVXPY is installed, else by fista, or by bm_lbfgs for several outputs.

    Parameters
    ----------
    patterns_per_round : int
        Most patterns that are added at a time.
    tolerance : float
        A pattern is added if its dual norm exceeds (1 + tolerance) beta.
    master_calls : int
        Callbacks after which an iterative master solver is stopped.
    """

    name = "column_generation"
    formulation = "convex"
    start_formulation = "network"  # a network, because its neurons may have patterns outside the blocks
    parameters = {"patterns_per_round": [16], "tolerance": [1e-9], "master_calls": [3000]}
    allowed = {"patterns_per_round": Whole(), "tolerance": Number(high=1.0), "master_calls": Whole()}
    # solvers of the master program in order of preference, by problem.vector_cone
    masters = {False: ("cvxpy_clarabel", "fista"), True: ("cvxpy_clarabel", "bm_lbfgs")}
    patterns_per_round: int
    tolerance: float
    master_calls: int

    def load_packages(self) -> None:
        super().load_packages()
        for name in {self._master(names) for names in self.masters.values()}:
            SOLVERS.make(name).load_packages()

    def skip(self, problem: Problem) -> str | None:
        if not problem.has_cone:
            return (
                f"column generation looks for ReLU patterns, and those of the {problem.activation.name} activation are "
                "fixed: use a convex or Burer-Monteiro solver"
            )
        return super().skip(problem)

    def set_problem(self, problem: Problem) -> None:
        self.method = ColumnGeneration(
            problem,
            self.seed,
            self._make_master,
            self.tolerance,
            self.patterns_per_round,
            self.master_calls,
            self.start,
        )

    @staticmethod
    def _master(names: tuple[str, ...]) -> str:
        """Return the first solver that is available on this machine."""
        return next(name for name in names if SOLVERS.get(name).unavailable() is None)

    def _make_master(self) -> BaseSolver:
        """Make the solver of the master program, with the remaining time as its limit."""
        # The master need not be exact: the network's certificate judges its point like any other.
        solver: BaseSolver = SOLVERS.make(self._master(self.masters[self.method.problem.vector_cone]))
        left = seconds_left()
        solver.time_limit = None if math.isinf(left) else max(left, LEAST_SECONDS)
        return solver

    def run(self, callback: Callback) -> None:
        self.method.run(callback)
        self.message = self.method.message

    def get_result(self) -> Point:
        return self.method.point
