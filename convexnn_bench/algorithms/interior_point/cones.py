"""The semidefinite cones of the dual: slacks S_k, multipliers X_k, and Nesterov and Todd's scaling of both.

||G_k||_2 <= beta holds if and only if S_k is positive semidefinite. Its multiplier X_k holds the block Z_k of the
convex program:

    S_k = [[beta I, G_k], [G_k^T, beta I]],    Z_k = 2 X_k[:p, p:],    beta ||Z_k||_* <= beta tr X_k.

For S, X positive definite there is one W with W S W = X. With the Cholesky factor S = L L^T and the eigenvalues and
eigenvectors L^T X L = U diag(s^2) U^T, it is W = R R^T with R = L^-T U diag(s)^(1/2), and R^T S R and R^-1 X R^-T both
are diag(s) (Todd, Toh and Tutuncu, SIAM J. Optim. 8, 1998). On the central path all s^2 equal mu.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float

from convexnn_bench.operator import Blocks

Squares = Float[torch.Tensor, "P m m"]  # symmetric, m = p + q
Weights = Float[torch.Tensor, "P pq pq"]  # the matrices of G -> upper right block of W [[0, G], [G^T, 0]] W

LONGEST = 1.25  # steps of more than one are not taken


def slacks(G: Blocks, diagonal: float) -> Squares:
    """Return [[diagonal I, G_k], [G_k^T, diagonal I]] of every block."""
    P, p, q = G.shape
    S = torch.zeros(P, p + q, p + q, dtype=G.dtype, device=G.device)
    S[:, :p, p:] = G
    S[:, p:, :p] = G.transpose(1, 2)
    S.diagonal(dim1=1, dim2=2).fill_(diagonal)
    return S


@dataclass
class Scaling:
    """The scaling of one pair (S, X): R and the values s, which both matrices have in scaled coordinates."""

    R: Squares
    values: Float[torch.Tensor, "P m"]

    @classmethod
    def of(cls, S: Squares, X: Squares) -> "Scaling | None":
        """Return the scaling, or None if rounding leaves a matrix that is not positive definite."""
        L, failed = torch.linalg.cholesky_ex(S)
        if bool(failed.any()):
            return None
        squares, U = torch.linalg.eigh(L.transpose(1, 2) @ X @ L)
        if not bool((squares > 0).all()):
            return None
        values = squares.sqrt()
        R = torch.linalg.solve_triangular(L.transpose(1, 2), U * values.sqrt()[:, None, :], upper=True)
        return cls(R, values)

    @property
    def W(self) -> Squares:
        """The scaling matrix R R^T."""
        return self.R @ self.R.transpose(1, 2)

    @property
    def mu(self) -> float:
        """The mean of the eigenvalues of X S."""
        return float(self.values.square().mean())

    def scaled(self, dS: Squares) -> Squares:
        """Return R^T dS R."""
        return self.R.transpose(1, 2) @ dS @ self.R

    def restored(self, dX: Squares) -> Squares:
        """Return R dX R^T, the direction of X from its scaled coordinates."""
        return self.R @ dX @ self.R.transpose(1, 2)

    def target(self, mu: float, correction: Squares | None = None) -> Squares:
        """Return the scaled dX + dS that leads to X S = mu I, but for the product of the two directions.

        correction: that product at the predictor, which is subtracted (Mehrotra, SIAM J. Optim. 2, 1992).
        """
        s = self.values
        right = torch.diag_embed(mu - s.square())
        if correction is not None:
            right = right - correction
        # (s_i + s_j) / 2 times entry (i, j) of dX + dS is the right-hand side
        return 2 * right / (s[:, :, None] + s[:, None, :])

    def longest(self, *directions: Squares) -> float:
        """Return the largest step, at most LONGEST, that keeps S and X positive semidefinite along scaled directions.

        A symmetric m x m matrix with the mean eigenvalue t and the variance v of the eigenvalues has none below
        t - sqrt((m - 1) v) (Wolkowicz and Styan, Linear Algebra Appl. 29, 1980), so that few of them are needed.
        """
        roots = self.values.rsqrt()
        relative = torch.cat([roots[:, :, None] * D * roots[:, None, :] for D in directions])
        m = relative.shape[1]
        mean = relative.diagonal(dim1=1, dim2=2).mean(dim=1)
        variance = relative.square().sum(dim=(1, 2)) / m - mean.square()
        lowest = mean - ((m - 1) * variance.clamp_min(0)).sqrt()
        candidates = relative[lowest < -1.0 / LONGEST]
        if len(candidates) == 0:
            return LONGEST
        return 1.0 / max(-float(torch.linalg.eigvalsh(candidates)[:, 0].min()), 1.0 / LONGEST)


def symmetric_product(A: Squares, B: Squares) -> Squares:
    """Return (A B + B A) / 2 for symmetric A and B."""
    AB = A @ B
    return 0.5 * (AB + AB.transpose(1, 2))


def off_diagonal(W: Squares, G: Blocks) -> Blocks:
    """Return the upper right block of W [[0, G], [G^T, 0]] W."""
    p = G.shape[1]
    corner = W[:, :p, p:]
    return W[:, :p, :p] @ G @ W[:, p:, p:] + corner @ G.transpose(1, 2) @ corner


def off_diagonal_matrix(W: Squares, p: int) -> Weights:
    """Return the matrix of `off_diagonal` on vec(G), which runs over (a, b) of p x q in C order."""
    left, corner, right = W[:, :p, :p], W[:, :p, p:], W[:, p:, p:]
    size = p * right.shape[1]
    kron = left[:, :, None, :, None] * right[:, None, :, None, :]
    # (C G^T C)[a, b] = sum over (a', b') of C[a, b'] C[a', b] G[a', b']
    swapped = corner[:, :, None, None, :] * corner.transpose(1, 2)[:, None, :, :, None]
    return (kron + swapped).reshape(-1, size, size)
