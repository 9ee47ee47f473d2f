"""The Burer-Monteiro objective on a flat vector, with the cones kept by projection or augmented Lagrangian."""

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.descent.cone_penalty import ConePenalty
from convexnn_bench.algorithms.descent.methods import Vector
from convexnn_bench.formulations import burer_monteiro
from convexnn_bench.formulations.point import Point
from convexnn_bench.problem import Problem

PENALTY = 30.0  # in units of the largest ||G_k|| at zero

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
        """Penalty in units of the force on a column, max ||G_k|| with G_k = A_k^*(grad F(0)): at balance a column
        then leaves its cone by a small part of its length. Far below that, columns shrink and leave it."""
        U, _ = self.factors(self.start)
        Y = self.operator.Y
        G = self.operator.adjoint(self.problem.loss.gradient(torch.zeros_like(Y), Y))
        force = max(float(torch.linalg.vector_norm(G, dim=(1, 2)).max()), self.problem.beta)
        self.penalty = ConePenalty(self.problem, self.operator, U, rho=PENALTY * force)
