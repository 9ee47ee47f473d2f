"""The Burer-Monteiro objective on a flat vector x = (U, V).

The ReLU cones are a projection or a penalty.
"""

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.descent.cone_penalty import ConePenalty
from convexnn_bench.algorithms.descent.methods import Vector
from convexnn_bench.algorithms.descent.starts import factors_from
from convexnn_bench.formulations import Point, burer_monteiro
from convexnn_bench.problem import Problem

PENALTY = 30.0  # the first penalty rho, in units of the largest ||G_k|| at zero; chosen by trial (commit 384fbfb)

Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]


class BMObjective:
    """Value and gradient at x, on a device.

    m: columns of a block, None for the default of the formulation.

    start: the vector at which to begin, random or from the point `begin`; fill: whether tiny columns of `begin` are
    replaced. penalty: the augmented Lagrangian's term for the cones, once `add_cone_penalty` was called.
    gradient_size: the largest entry of the last gradient.
    """

    def __init__(
        self, problem: Problem, m: int | None, seed: int, device: str, begin: Point | None = None, fill: bool = True
    ):
        self.problem = problem
        self.operator = problem.operator(device)
        if begin is None:
            m = burer_monteiro.default_columns(problem) if m is None else m
            factors = burer_monteiro.start(problem, self.operator, m, seed)
        else:
            factors = factors_from(problem, self.operator, begin, m, seed, fill)
        self.m = factors[0].shape[2]
        self.split = problem.P * problem.p * self.m
        self.start = self.flatten(*factors)
        self.penalty: ConePenalty | None = None
        self.gradient_size = torch.tensor(torch.inf)

    def flatten(self, U: Left, V: Right) -> Vector:
        return torch.cat([U.reshape(-1), V.reshape(-1)])

    def factors(self, x: Vector) -> tuple[Left, Right]:
        """Return (U, V) as views of x."""
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

    def project(self, x: Vector, in_time: bool = False) -> Vector:
        """Return x with U projected onto its cones, or x itself if there are none.

        in_time: after the deadline return any feasible point.
        """
        if not self.problem.has_cone:
            return x
        U, V = self.factors(x)
        return self.flatten(burer_monteiro.project(self.problem, U, in_time), V)

    def point(self, x: Vector) -> Point:
        """Return the feasible point nearest to x, as far as the deadline allows; if x is not finite, x itself.

        A point that is not finite becomes part of the report of the divergence.
        """
        finite = bool(torch.isfinite(x).all())
        return Point(factors=self.factors(self.project(x, in_time=True) if finite else x))

    def add_cone_penalty(self) -> None:
        """Add the cones' term.

        Its penalty is in units of the force on a column, max ||G_k|| with G_k = A_k^*(grad F(0)).

        At balance a column then leaves its cone by a small part of its length; with a much smaller penalty it would
        leave its cone altogether.
        """
        U, _ = self.factors(self.start)
        Y = self.operator.Y
        G = self.operator.adjoint(self.problem.loss.gradient(torch.zeros_like(Y), Y))
        # beta keeps the penalty positive where the gradient vanishes at zero.
        force = max(float(torch.linalg.vector_norm(G, dim=(1, 2)).max()), self.problem.beta)
        self.penalty = ConePenalty(self.problem, self.operator, U, rho=PENALTY * force)
