"""The Burer-Monteiro objective on a flat vector, with the cones kept by projection or augmented Lagrangian."""

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.augmented_lagrangian import ConePenalty
from convexnn_bench.algorithms.first_order import Vector
from convexnn_bench.formulations import burer_monteiro
from convexnn_bench.formulations.point import Point
from convexnn_bench.problem import Problem

Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]


class BMObjective:
    """Value and gradient at x = (U, V) flattened, on a device; `penalty` adds the cones' augmented term."""

    def __init__(self, problem: Problem, m: int | None, seed: int, device: str):
        self.problem = problem
        self.operator = problem.operator(device)
        self.m = m if m is not None else burer_monteiro.default_columns(problem)
        self.split = problem.P * problem.p * self.m
        self.start = self.flatten(*burer_monteiro.start(problem, self.operator, self.m, seed))
        self.penalty: ConePenalty | None = None
        self.gradient_size = torch.tensor(torch.inf)  # largest entry of the gradient last computed

    def flatten(self, U: Left, V: Right) -> Vector:
        return torch.cat([U.reshape(-1), V.reshape(-1)])

    def factors(self, x: Vector) -> tuple[Left, Right]:
        """(U, V) as views of x."""
        U = x[: self.split].view(self.problem.P, self.problem.p, self.m)
        return U, x[self.split :].view(self.problem.P, self.problem.q, self.m)

    def __call__(self, x: Vector) -> tuple[torch.Tensor, Vector]:
        U, V = self.factors(x)
        value, left, right = burer_monteiro.value_and_gradient(self.problem, self.operator, U, V)
        if self.penalty is not None:
            extra, push = self.penalty.value_and_gradient(U)
            value, left = value + extra, left + push
        gradient = self.flatten(left, right)
        self.gradient_size = gradient.abs().max()
        return value, gradient

    def project(self, x: Vector) -> Vector:
        """U moved to its cones (x itself where there are none)."""
        if not self.problem.has_cone:
            return x
        U, V = self.factors(x)
        return self.flatten(burer_monteiro.project(self.problem, U), V)

    def point(self, x: Vector) -> Point:
        """The feasible Burer-Monteiro point at x (x itself where it is not finite, to be reported as it is)."""
        finite = bool(torch.isfinite(x).all())
        return Point(factors=self.factors(self.project(x) if finite else x))

    def entry_scale(self) -> float:
        """Typical size of an entry of the start point, the unit of Adam's step."""
        return float(self.start.abs().mean())

    def add_cone_penalty(self) -> None:
        """Penalty whose curvature matches the weight decay at the size of the pre-activations."""
        norm = float(torch.linalg.matrix_norm(self.operator.Phi, 2)) if self.operator.Phi.numel() else 1.0
        self.penalty = ConePenalty(self.operator, self.m, rho=100.0 * self.problem.beta / max(norm**2, 1e-300))
