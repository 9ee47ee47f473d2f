"""FISTA with restart on the convex program."""

import torch

from convexnn_bench.algorithms.descent import fista
from convexnn_bench.formulations import Point, convex
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback


class Solver(BaseSolver):
    """FISTA on the blocks.

    For ReLU with one output it runs on the pairs of cone vectors whose differences the blocks are.
    """

    name = "fista"
    formulation = start_formulation = "convex"

    def skip(self, problem: Problem) -> str | None:
        if problem.vector_cone:
            return (
                f"the proximal step of the ReLU block norm with several outputs (q = {problem.q}) is NP-hard, as the "
                "norm itself: use a Burer-Monteiro solver, or CVXPY for the doubly non-negative relaxation"
            )
        return super().skip(problem)

    def set_problem(self, problem: Problem) -> None:
        self.problem, self.operator = problem, problem.operator(self.device)
        # For ReLU with one output the variables are the pairs (a, b) of cone vectors, with Z_k = a - b.
        columns = 2 if problem.has_cone else problem.q
        self.x = torch.zeros(problem.P, problem.p, columns, dtype=self.operator.dtype, device=self.operator.device)
        if self.start is not None:
            self.x = torch.as_tensor(self.start.split if problem.has_cone else self.start.blocks).to(self.x)
        self.signs = torch.tensor([1.0, -1.0], dtype=self.operator.dtype, device=self.operator.device)
        # The map (a, b) -> A(a - b) has sqrt(2) times the norm of A.
        norm_squared = self.operator.norm_squared() * (2 if problem.has_cone else 1)
        self.lipschitz = max(problem.loss.smoothness * norm_squared, 1e-300)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.operator.apply((x * self.signs).sum(2, keepdim=True) if self.problem.has_cone else x)

    def _pullback(self, z: torch.Tensor) -> torch.Tensor:
        G = self.operator.adjoint(self.problem.loss.gradient(z, self.operator.Y))
        # The derivative by a is G_k, and by b it is -G_k.
        return G * self.signs if self.problem.has_cone else G

    def _prox(self, v: torch.Tensor, step: float) -> torch.Tensor:
        # the prox of t ||u|| plus the indicator of a cone projects u, then shortens it by t
        threshold = step * self.problem.beta
        if self.problem.cones is None:
            return convex.soft_threshold(v, threshold)
        columns = torch.as_tensor(self.problem.cones.project(v.cpu().numpy())).to(v)
        norms = torch.linalg.vector_norm(columns, dim=1, keepdim=True)
        return columns * (1 - threshold / norms.clamp_min(1e-300)).clamp_min(0)

    def run(self, callback: Callback) -> None:
        def step_done(x: torch.Tensor) -> bool:
            self.x = x
            return callback()

        def loss(z: torch.Tensor) -> torch.Tensor:
            return self.problem.loss.value(z, self.operator.Y)

        self.message = fista(self._forward, loss, self._pullback, self._prox, self.x, self.lipschitz, step_done)

    def get_result(self) -> Point:
        if not self.problem.has_cone:
            return Point(blocks=self.x)
        return Point(blocks=(self.x * self.signs).sum(2, keepdim=True), split=self.x)
