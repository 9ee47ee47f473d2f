"""Newton's method on the Burer-Monteiro factorisation, over a working set of blocks that the certificate guides."""

import torch

from convexnn_bench.algorithms.newton.neurons import Neurons
from convexnn_bench.algorithms.newton.point import WorkingProblem
from convexnn_bench.algorithms.newton.working_set import WorkingSet
from convexnn_bench.algorithms.relu.finish import affordable, finish_factors
from convexnn_bench.formulations.point import Point
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Choice


class Solver(BaseSolver):
    """Ends on the certified gap, or where rounding hides all progress; with ReLU where no block improves.

    single: Hessian products within conjugate gradients in float32, which float64 gradients correct after every step
    and float64 products replace once they mislead; objective, gradient and certificate are float64 either way.

    Linear and gated activations: algorithms/newton_working_set.py. ReLU: Newton's method on the faces of the cones with
    the staircase, from the zero network (algorithms/relu/staircase.py).
    """

    name = "bm_newton"
    formulation = "burer_monteiro"
    parameters = {"single": [True]}
    allowed = {"single": Choice((True, False))}
    single: bool

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
        self._neurons: Neurons = self.working.empty()
        self._dual: torch.Tensor | None = None
        self._found: Point | None = None

    def run(self, callback: Callback) -> None:
        if self.problem.has_cone:
            self._run_relu(callback)
            return

        def report(neurons: Neurons, dual: torch.Tensor | None) -> bool:
            self._neurons, self._dual = neurons, dual
            return callback()

        self.message = WorkingSet(self.working, self.gap, report).run()

    def _run_relu(self, callback: Callback) -> None:
        def report(point: Point | None) -> bool:
            self._found = self._found if point is None else point
            return callback()

        problem = self.problem
        self._found = self._factors(self._neurons)
        U, V = (part.cpu().numpy() for part in self._found.factors or ())
        Y = self.working.targets
        value = float(problem.loss.value(torch.zeros_like(Y), Y))
        self.message = finish_factors(problem, U, V, value, None, report)

    def get_result(self) -> Point:
        return self._factors(self._neurons) if self._found is None else self._found

    def _factors(self, neurons: Neurons) -> Point:
        """(U, V) with as many columns as the fullest block needs, ||u|| = ||v||."""
        U, V = neurons.factors(self.problem.P)
        return Point(factors=(U, V), dual=self._dual)
