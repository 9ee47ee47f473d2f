"""Semismooth Newton augmented Lagrangian on the convex program."""

from convexnn_bench.algorithms.semismooth import SemismoothNewton
from convexnn_bench.formulations import Point
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback


class Solver(BaseSolver):
    """Proximal point steps, each by Newton's method on its dual, on a working set of blocks.

    It ends on its own certified gap, or where that no longer falls.
    """

    name = "semismooth_newton"
    formulation = start_formulation = "convex"
    ends_at_gap = True

    def gap_tolerance(self) -> float:
        return 1e-8  # without a target it goes on until its gap no longer falls

    def skip(self, problem: Problem) -> str | None:
        if problem.has_cone:
            return (
                "semismooth_newton has no proximal map of the ReLU cones' norm: use cvxpy_clarabel, fista or "
                "column_generation, or a Burer-Monteiro solver where q > 1"
            )
        return None

    def set_problem(self, problem: Problem) -> None:
        blocks = None if self.start is None else self.start.blocks
        self.method = SemismoothNewton(problem, self.device, self.gap, blocks)

    def run(self, callback: Callback) -> None:
        # The method pauses after each Newton step, where its point may be scored.
        for _ in self.method.steps():
            if not callback():
                break
        self.message = self.method.message or self.method.summary()

    def get_result(self) -> Point:
        return Point(blocks=self.method.blocks(), dual=self.method.multiplier)
