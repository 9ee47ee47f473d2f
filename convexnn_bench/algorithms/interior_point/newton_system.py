"""The state of the interior-point method, and the linear equations of one step.

With dX = C - W dS W in place of the linearised X S = mu I, and H = 2 A (W . W) A^*, the step has

    dz = b - H dLambda,   b = A(Z) - z + 2 A(C),        dLambda = C_rows (dz + E dbias) - r  (`rows.py`).

So dLambda = N (b + H r + E dbias) - r with N = (C_rows^-1 + H)^-1 = R (I + R^T H R)^-1 R^T and R R^T = C_rows. An
output bias b with the penalty rho/2 ||b||^2 shifts all rows, E b = 1 b^T, and has the equation E^T Lambda + rho b = 0.
With the step dLambda_0 for dbias = 0,

    (rho I + E^T N E) dbias = -(E^T dLambda_0 + E^T Lambda + rho b).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.interior_point.chain import ChainSystem
from convexnn_bench.algorithms.interior_point.cones import (
    Scaling,
    Squares,
    off_diagonal,
    off_diagonal_matrix,
    slacks,
    symmetric_product,
)
from convexnn_bench.algorithms.interior_point.dense import DenseSystem
from convexnn_bench.algorithms.interior_point.rows import Pair, SmoothRows
from convexnn_bench.operator import Blocks, Predictions

ACCURATE, MOST_REFINEMENTS = 1e-10, 3  # relative residual of the equations, and steps of iterative refinement
PSEUDO = 1e-13  # singular values of the c x c matrix of the bias that count as zero, relative to the largest one


@dataclass
class Direction:
    """One solution of the equations; dX and dS are in scaled coordinates."""

    Lambda: Predictions
    z: Predictions
    bias: Float[torch.Tensor, " c"]
    G: Blocks
    X: Squares
    S: Squares
    pair: Pair


@dataclass
class State:
    """The unknowns. penalty: rho of an output bias, zero if it is free, None without one."""

    system: ChainSystem | DenseSystem
    rows: SmoothRows
    Lambda: Predictions
    G: Blocks
    X: Squares
    z: Predictions
    bias: Float[torch.Tensor, " c"]
    penalty: float | None

    @property
    def blocks(self) -> Blocks:
        """Z, twice the upper right parts of X."""
        p = self.G.shape[1]
        return 2 * self.X[:, :p, p:]

    def move(self, length: float, scaling: Scaling, direction: Direction) -> None:
        """Step along the direction."""
        self.Lambda = self.Lambda + length * direction.Lambda
        self.G = self.G + length * direction.G
        X = self.X + length * scaling.restored(direction.X)
        self.X = 0.5 * (X + X.transpose(1, 2))
        self.z = self.z + length * direction.z
        self.bias = self.bias + length * direction.bias
        self.rows.move(length, direction.pair)


class NewtonSystem:
    """The equations at one state, factorised, for several right-hand sides."""

    def __init__(self, state: State, scaling: Scaling):
        self.state, self.scaling, self.system, self.rows = state, scaling, state.system, state.rows
        self.p = state.G.shape[1]
        self.rows.linearise(state.Lambda, state.z + state.bias)
        self.W = scaling.W
        # H has twice the weights of W, hence W times the root of two.
        weights = 2 * off_diagonal_matrix(self.W, self.p)
        self.factor = self.system.factor(math.sqrt(2.0) * self.W, weights, self.rows.root)
        self.residual = self.system.apply(state.blocks) - state.z
        self.bias_inverse = None if state.penalty is None else self._invert_bias(state.penalty)

    def _invert_bias(self, penalty: float) -> torch.Tensor:
        """Return (rho I + E^T N E)^+, and keep N E, n x c x c."""
        shape = self.state.Lambda
        shifts = torch.eye(shape.shape[1], dtype=shape.dtype, device=shape.device)
        self.shifted = torch.stack([self._through_rows(row.expand_as(shape))[0] for row in shifts], dim=2)
        inner = self.shifted.sum(dim=0) + penalty * shifts
        return torch.linalg.pinv(0.5 * (inner + inner.T), rtol=PSEUDO, hermitian=True)

    def solve(self, mu: float, predictor: Direction | None = None) -> Direction:
        """Return the direction to mu, with the products of the predictor's parts."""
        p, system, state = self.p, self.system, self.state
        # 1. The right-hand side.
        known = None if predictor is None else (predictor.Lambda, predictor.pair)
        product = None if predictor is None else symmetric_product(predictor.X, predictor.S)
        target = self.scaling.target(mu, product)
        b = self.residual + system.apply(2 * self.scaling.restored(target)[:, :p, p:])
        r = self.rows.right(mu, known)
        has_r = bool(r.any())
        # 2. Lambda and the bias.
        L, G, HL = self._through_rows(b + self._product(system.adjoint(r)) if has_r else b)
        L, bias = L - r, torch.zeros_like(state.bias)
        if self.bias_inverse is not None:
            bias = -self.bias_inverse @ ((L + state.Lambda).sum(dim=0) + (state.penalty or 0.0) * state.bias)
            L = L + self.shifted @ bias
        if has_r or self.bias_inverse is not None:
            G = system.adjoint(L)
            HL = self._product(G)
        # 3. All else.
        dS = self.scaling.scaled(slacks(G, 0.0))
        return Direction(L, b - HL, bias, G, target - dS, dS, self.rows.pair(L, mu, known))

    def _through_rows(self, v: Predictions) -> tuple[Predictions, Blocks, Predictions]:
        """Return L = N v, with A^* L and H L, after iterative refinement."""
        right = self._times_root(v, transposed=True)
        t = self.factor.solve(right)
        goal = ACCURATE * float(torch.linalg.vector_norm(right))
        for refinement in range(MOST_REFINEMENTS + 1):
            L = self._times_root(t)
            G = self.system.adjoint(L)
            HL = self._product(G)
            error = right - t - self._times_root(HL, transposed=True)
            if refinement == MOST_REFINEMENTS or float(torch.linalg.vector_norm(error)) <= goal:
                break
            t = t + self.factor.solve(error)
        return L, G, HL

    def _product(self, G: Blocks) -> Predictions:
        """Return H L for G = A^* L."""
        return self.system.apply(2 * off_diagonal(self.W, G))

    def _times_root(self, t: Predictions, transposed: bool = False) -> Predictions:
        """Return R t or R^T t."""
        if self.rows.root is None:
            return t
        R = self.rows.root.transpose(1, 2) if transposed else self.rows.root
        return (R @ t[:, :, None])[:, :, 0]
