"""Exact Hessian products of the factored objective, and trust-region Newton.

f(U, V) = F(A(U V^T)) + beta/2 sum_k (||U_k||_F^2 + ||V_k||_F^2), linear and gated activations. With G_k = A_k^*(grad F)
and dz = A(dU V^T + U dV^T) the Hessian takes (dU, dV) to

    dG_k V_k + G_k dV_k + beta dU_k   and   dG_k^T U_k + G_k^T dU_k + beta dV_k,   dG_k = A_k^*(F''(z) dz).

The terms with dG are the Gauss-Newton part, which is positive semidefinite; those with G alone are indefinite.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.formulations import burer_monteiro
from convexnn_bench.problem import Problem

Blocks = Float[torch.Tensor, "P p q"]
Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]
Flat = Float[np.ndarray, " size"]

COARSE = 1e-7  # relative gradient below which a step changes the value by rounding alone: sqrt of float64's precision


class Hessian:
    """Value, gradient and Hessian products of f at (U, V), without cones.

    They are float64 on the CPU.

    Where grad F has a kink (Huber at |z - y| = delta, squared hinge at y z = 1) F'' is an element of the generalised
    Hessian.
    """

    def __init__(self, problem: Problem, U: Left, V: Right):
        self.beta, self.operator = problem.beta, problem.operator()
        self.U, self.V = U, V
        z, Y = self.operator.apply_factors(U, V), self.operator.Y
        # F'' and grad F are taken at z once, and every product at this point uses them again.
        self._curve = problem.loss.curvature(z, Y)
        self.G = self.operator.adjoint(problem.loss.gradient(z, Y))
        self.gradient = self._through(self.G, U, V)
        self.value = float(problem.loss.value(z, Y) + 0.5 * self.beta * (U.square().sum() + V.square().sum()))

    def _through(self, G: Blocks, U: Left, V: Right) -> tuple[Left, Right]:
        """Return (G_k V_k + beta U_k, G_k^T U_k + beta V_k)."""
        return G @ V + self.beta * U, G.transpose(1, 2) @ U + self.beta * V

    def product(self, dU: Left, dV: Right) -> tuple[Left, Right]:
        """Return the Hessian times (dU, dV).

        It takes one application of the operator and one of its adjoint.
        """
        # A(U V^T) changes by dz to first order, and grad F(z) therefore by F''(z) dz.
        dz = self.operator.apply(dU @ self.V.transpose(1, 2) + self.U @ dV.transpose(1, 2))
        dG = self.operator.adjoint(self._curve(dz[:, :, None])[:, :, 0])
        # The gradient's formula, with (dU, dV) in the place of (U, V), gives the terms with G and beta.
        left, right = self._through(self.G, dU, dV)
        return left + dG @ self.V, right + dG.transpose(1, 2) @ self.U

    def flat_gradient(self) -> Flat:
        return flatten(*self.gradient)

    def flat_product(self, direction: Flat) -> Flat:
        """Return the same for flat vectors, U before V."""
        return flatten(*self.product(*self.factors(direction)))

    def factors(self, x: Flat) -> tuple[Left, Right]:
        """Return (U, V) as views of x."""
        return unflatten(x, self.U, self.V)

    @property
    def relative_gradient(self) -> float:
        return relative_gradient(self.value, float(np.linalg.norm(self.flat_gradient())), self.beta)


def relative_gradient(value: float, norm: float, beta: float) -> float:
    """Return ||grad f|| / sqrt(2 beta f), which has no unit.

    As beta/2 ||x||^2 <= f, the error term 1/2 <x, grad f> of the paper's bound is at most this number times f.
    """
    return 0.0 if norm == 0 else norm / math.sqrt(2 * beta * value) if value > 0 else math.inf


def flatten(U: Left, V: Right) -> Flat:
    return torch.cat([U.reshape(-1), V.reshape(-1)]).numpy()


def unflatten(x: Flat, U: Left, V: Right) -> tuple[Left, Right]:
    """Return views of x in the shapes of U and V."""
    flat = torch.as_tensor(x)
    return flat[: U.numel()].view(U.shape), flat[U.numel() :].view(V.shape)


@dataclass(frozen=True)
class NewtonEnd:
    """The point at which trust-region Newton ended, after so many outer steps."""

    U: torch.Tensor
    V: torch.Tensor
    objective: float
    relative_gradient: float
    steps: int


class _Scaled:
    """f(unit w) / height for SciPy, which asks for value, gradient and products apart: the last Hessian is kept.

    With unit^2 = 2 f(x_0) / beta and height = f(x_0) the level set of the start point lies in the unit ball, and the
    gradient in w has twice the length of the relative gradient at the start.
    """

    def __init__(self, problem: Problem, U: Left, V: Right):
        self.problem, self.U, self.V = problem, U, V
        self.height = Hessian(problem, U, V).value
        self.unit = math.sqrt(2 * self.height / problem.beta)
        self._last: tuple[bytes, Hessian] | None = None

    def at(self, w: Flat) -> Hessian:
        key = w.tobytes()
        if self._last is None or self._last[0] != key:
            self._last = key, Hessian(self.problem, *unflatten(self.unit * w, self.U, self.V))
        return self._last[1]

    def value(self, w: Flat) -> float:
        return self.at(w).value / self.height

    def gradient(self, w: Flat) -> Flat:
        return self.at(w).flat_gradient() * (self.unit / self.height)

    def product(self, w: Flat, direction: Flat) -> Flat:
        return self.at(w).flat_product(np.ascontiguousarray(direction)) * (self.unit**2 / self.height)


def trust_region_newton(problem: Problem, U: Left, V: Right, tolerance: float = 1e-10, steps: int = 500) -> NewtonEnd:
    """Minimise f from (U, V) by trust-region Newton with conjugate gradients.

    The method is SciPy's trust-ncg (Steihaug, 1983).

    It ends at a relative gradient of `tolerance`, after `steps` steps, or when rounding stops it. It follows
    directions of negative curvature, so that it leaves saddles unless it starts on one.
    """
    from scipy.optimize import minimize

    coarse, done = max(tolerance, COARSE), 0
    while Hessian(problem, U, V).relative_gradient > coarse and done < steps:
        scaled = _Scaled(problem, U, V)
        start = flatten(U, V) / scaled.unit
        found = minimize(
            scaled.value,
            start,
            jac=scaled.gradient,
            hessp=scaled.product,
            method="trust-ncg",
            # At the start the gradient in w is twice as long as the relative gradient, hence 2 coarse. The level set
            # lies in the unit ball, so that no step within it is longer than 2.
            options={
                "gtol": 2 * coarse,
                "maxiter": steps - done,
                "initial_trust_radius": max(0.1 * float(np.linalg.norm(start)), 1e-3),
                "max_trust_radius": 2.0,
            },
        )
        done += int(found.nit)
        U, V = (part.clone() for part in unflatten(scaled.unit * found.x, U, V))
        if found.nit == 0 or not found.success:
            break  # otherwise start again, with the scale of the point that was reached
    return _polished(problem, U, V, tolerance, done)


def _polished(problem: Problem, U: Left, V: Right, tolerance: float, done: int) -> NewtonEnd:
    """Polish the point by Newton steps, by MINRES because the Hessian is singular.

    Differences of values are rounding here. A step is kept if it halves the relative gradient and raises the value by
    no more than rounding.
    """
    from scipy.sparse.linalg import LinearOperator, minres

    current = Hessian(problem, U, V)
    # f does not change if U_k and V_k are rotated by the same matrix: at a stationary point the Hessian is zero along
    # (U_k S, V_k S) for every skew-symmetric S. MINRES copes with this, because -gradient has no part along it.
    while tolerance < current.relative_gradient <= 1e3 * COARSE:
        gradient = current.flat_gradient()
        operator = LinearOperator((gradient.size, gradient.size), matvec=current.flat_product, dtype=np.float64)
        move, _ = minres(operator, -gradient, rtol=1e-8, maxiter=max(200, 2 * gradient.size))
        trial = Hessian(problem, *unflatten(flatten(U, V) + move, U, V))
        halved = trial.relative_gradient <= 0.5 * current.relative_gradient
        if not halved or trial.value > current.value * (1 + 1e-12):
            break
        current, U, V, done = trial, trial.U, trial.V, done + 1
    return NewtonEnd(U, V, current.value, current.relative_gradient, done)


def spread_start(problem: Problem, m: int, seed: int) -> tuple[Left, Right]:
    """Return a random start with blocks of 0.1 to 10 times their natural size.

    The sizes are log-uniform.
    """
    scale = 10 ** np.random.default_rng(seed).uniform(-1, 1)
    return burer_monteiro.start(problem, problem.operator(), m, seed, scale=float(scale))
