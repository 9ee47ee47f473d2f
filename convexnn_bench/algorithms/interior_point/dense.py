"""The normal matrix M = I + R^T A W A^* R as a dense one of n_out c rows, with its Cholesky factorisation.

For an MLP the block of rows j and l of A W A^* is, with the parts of the scaling matrices W_k,

    sum_k D_k[j] D_k[l] (x_j^T W11 x_l) W22 + (W12^T x_l) (W12^T x_j)^T,

n^2 P (p + c^2) operations. Any other architecture goes through the predictions of P p q matrices E with W = E E^T.
"""

import torch

from convexnn_bench.algorithms.interior_point.cholesky import shifted_cholesky
from convexnn_bench.algorithms.interior_point.cones import Squares, Weights
from convexnn_bench.algorithms.interior_point.rows import Roots
from convexnn_bench.operator import CHUNK_ELEMENTS, Blocks, Operator, Predictions


class DenseFactor:
    """The factorisation of I + R^T A W A^* R."""

    def __init__(self, matrix: torch.Tensor):
        self.factor = shifted_cholesky(matrix)

    def solve(self, b: Predictions) -> Predictions:
        """Return (I + R^T A W A^* R)^-1 b."""
        return torch.cholesky_solve(b.reshape(-1, 1), self.factor).view(b.shape)


class DenseSystem:
    """A and A^* of the operator, and the factorisation of the dense normal matrix."""

    def __init__(self, operator: Operator):
        self.operator, self.n, self.c = operator, operator.n_out, operator.c

    def apply(self, Z: Blocks) -> Predictions:
        """Return A(Z)."""
        return self.operator.apply(Z)

    def adjoint(self, L: Predictions) -> Blocks:
        """Return A_k^*(L) of every block."""
        return self.operator.adjoint(L)

    def factor(self, W: Squares, weights: Weights, root: Roots | None) -> DenseFactor:
        """Factorise I + R^T A W A^* R, from the scaling matrices W / weights; root: R, None for the identity."""
        matrix = self._by_rows(W) if self.operator.is_plain and self.operator.has_rows else self._by_images(weights)
        if root is not None:
            inner = matrix.view(self.n, self.c, self.n, self.c)
            inner = (
                torch.einsum("jab,jakc,kcd->jbkd", root, inner, root)
                if self.c > 1
                else (root[:, :, :, None] * inner * root[:, 0, 0][:, None])
            )
            matrix = inner.reshape(self.n * self.c, -1)
        matrix.diagonal().add_(1.0)
        return DenseFactor(matrix)

    def _by_rows(self, W: Squares) -> torch.Tensor:
        """Return A W A^* by the formula of the module's docstring; W already holds the factor of the weights."""
        operator, n, c, p = self.operator, self.n, self.c, self.operator.p
        X, masks = operator.Phi, operator.masks.T.to(operator.dtype)
        first = X.new_zeros(n * n, c * c)  # (j, l) x (a, b)
        second = X.new_zeros(n * c, n * c)  # (j, b) x (l, a)
        step = max(1, CHUNK_ELEMENTS // (n * n))
        for start in range(0, operator.P, step):
            part = slice(start, start + step)
            rows = masks[part, :, None] * X  # B x n x p
            grams = (rows @ W[part, :p, :p]) @ rows.transpose(1, 2)
            first.addmm_(grams.flatten(1).T, W[part, p:, p:].flatten(1))
            thin = (rows @ W[part, :p, p:]).flatten(1)
            second.addmm_(thin.T, thin)
        both = first.view(n, n, c, c).permute(0, 2, 1, 3) + second.view(n, c, n, c).permute(0, 3, 2, 1)
        return both.reshape(n * c, n * c)

    def _by_images(self, weights: Weights) -> torch.Tensor:
        """Return A W A^* as a product of the predictions of Cholesky factors of the weights."""
        operator, size = self.operator, weights.shape[1]
        columns = torch.linalg.cholesky(weights).transpose(1, 2).unflatten(2, (operator.p, operator.q))
        matrix = weights.new_zeros(self.n * self.c, self.n * self.c)
        step = max(1, CHUNK_ELEMENTS // (size * max(self.n * self.c, operator.N * operator.q)))
        for start in range(0, operator.P, step):
            owner = torch.arange(start, min(start + step, operator.P), device=weights.device)
            images = operator.images(columns[owner].flatten(0, 1), owner.repeat_interleave(size))
            images = images.reshape(len(matrix), -1)
            matrix.addmm_(images, images.T)
        return matrix
