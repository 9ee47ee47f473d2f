"""A primal-dual interior-point method on the dual of the convex program."""

from convexnn_bench.algorithms.interior_point import InteriorPoint, reason_against
from convexnn_bench.formulations import Point
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback


class Solver(BaseSolver):
    """Some ten to thirty steps, whatever the weight decay and however many blocks are active.

    A step factorises the normal matrix of n_out c rows, and goes along the chain of masks where Phi is in the plane.
    """

    name = "interior_point"
    formulation = "convex"

    def gap_tolerance(self) -> float:
        return 1e-7  # without a target it goes on until rounding hides all progress, at 1e-10 to 3e-8

    def skip(self, problem: Problem) -> str | None:
        if problem.has_cone:
            return (
                "interior_point has no barrier of the ReLU cones' norm: use cvxpy_clarabel, fista or "
                "column_generation, or a Burer-Monteiro solver where q > 1"
            )
        return reason_against(problem)

    def set_problem(self, problem: Problem) -> None:
        self.method = InteriorPoint(problem, self.device, self.gap)

    def run(self, callback: Callback) -> None:
        # The method pauses after each step, where its point may be scored.
        for _ in self.method.steps():
            if not callback():
                break
        self.message = self.method.message or self.method.summary()

    def get_result(self) -> Point:
        blocks, multiplier = self.method.point()
        return Point(blocks=blocks, dual=multiplier)
