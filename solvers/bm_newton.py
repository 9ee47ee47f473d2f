"""Newton's method on the Burer-Monteiro factorisation, over a working set of blocks that the certificate guides."""

import torch

from convexnn_bench.algorithms.newton import BlockNeurons, WorkingProblem, WorkingSetNewton
from convexnn_bench.algorithms.relu import affordable, finish_factors
from convexnn_bench.formulations import Point, burer_monteiro
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Choice


class Solver(BaseSolver):
    """Newton's method over blocks that the certificate chooses.

    It ends on the certified gap, or where rounding hides all progress. With ReLU it runs on the faces of the cones,
    with the rank staircase, from the zero network or the start (algorithms/relu/), and ends where no block improves.

    Parameters
    ----------
    single : bool
        Whether conjugate gradients may multiply by the Hessian in float32. Float64 gradients correct the errors after
        every step, and float64 products take over once float32 misleads. Objective, gradient and certificate are
        float64 either way.
    """

    name = "bm_newton"
    formulation = start_formulation = "burer_monteiro"
    ends_at_gap = True
    parameters = {"single": [True]}
    allowed = {"single": Choice((True, False))}
    single: bool

    def gap_tolerance(self) -> float:
        return 1e-8  # without a target it goes on until rounding hides all progress

    def skip(self, problem: Problem) -> str | None:
        if problem.has_cone and not affordable(problem):
            return (
                f"its Newton steps on ReLU cones need p + q <= 50 and N (p + q) <= 1e6, here p + q = "
                f"{problem.p + problem.q} and N = {problem.N}: use bm_lbfgs or fista"
            )
        return super().skip(problem)

    def set_problem(self, problem: Problem) -> None:
        self.problem = problem
        self.working = WorkingProblem(problem, self.device, self.single)
        self._neurons = self.working.no_neurons()
        self._dual: torch.Tensor | None = None
        self._relu_point: Point | None = None
        if self.start is not None and self.start.factors is not None:
            U, V = (torch.as_tensor(part).to(self.working.targets) for part in self.start.factors)
            if problem.has_cone:  # its columns stay as they are, each in its cone
                self._relu_point = Point(factors=(U, V))
            else:
                self._neurons = BlockNeurons.of_factors(U, V)

    def run(self, callback: Callback) -> None:
        if self.problem.has_cone:
            self.message = self._run_relu(callback)
            return

        def report(neurons: BlockNeurons, dual: torch.Tensor | None) -> bool:
            self._neurons, self._dual = neurons, dual
            return callback()

        self.message = WorkingSetNewton(self.working, self.gap, report).run(self._neurons)

    def _run_relu(self, callback: Callback) -> str | None:
        def report(point: Point | None) -> bool:
            self._relu_point = self._relu_point if point is None else point
            return callback()

        point = self._relu_point = self._as_factors() if self._relu_point is None else self._relu_point
        U, V = point.to_factors(self.problem)
        value = burer_monteiro.objective(self.problem, U, V)
        return finish_factors(self.problem, U.numpy(), V.numpy(), value, None, report)

    def get_result(self) -> Point:
        return self._as_factors() if self._relu_point is None else self._relu_point

    def _as_factors(self) -> Point:
        """Return balanced (U, V), ||u|| = ||v||, with as many columns as the fullest block needs."""
        return Point(factors=self._neurons.factors(self.problem.P), dual=self._dual)
