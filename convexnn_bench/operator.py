"""The operator A(Z) = C(sum_k D_k Phi Z_k), its adjoint, and its factored form, by structure.

Every product is `Phi @ [Z_1 .. Z_P]` followed by a mask (or its transpose), two matrix products in all; the
n x Pd matrix [D_1 Phi .. D_P Phi] is never formed. Blocks are taken in chunks so that the N x (chunk) x q
intermediate stays below `CHUNK_ELEMENTS`.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float

from convexnn_bench.architectures.base import BaseArchitecture

CHUNK_ELEMENTS = 2**24  # 128 MiB of float64

Blocks = Float[torch.Tensor, "P p q"]
Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]
Predictions = Float[torch.Tensor, "n_out c"]


class Operator:
    """A and its adjoint on one device, float64 by default.

    masks: N x P bool, one column a block.
    """

    def __init__(
        self,
        architecture: BaseArchitecture,
        X: np.ndarray,
        Y: np.ndarray,
        masks: np.ndarray,
        device: str = "cpu",
        dtype: torch.dtype = torch.float64,
    ):
        self.architecture = architecture
        self.device = torch.device(device)
        self.dtype = dtype
        self.X = torch.as_tensor(X, dtype=dtype, device=self.device)
        self.Y = torch.as_tensor(Y, dtype=dtype, device=self.device)
        self.Phi = architecture.phi_rows(self.X)
        self.masks = torch.as_tensor(np.ascontiguousarray(masks), device=self.device)  # N x P
        self.N, self.p = self.Phi.shape
        self.P = masks.shape[1]
        self.n_out, self.c = Y.shape
        self.q = architecture.width_out(X, self.c)
        self._trivial_mask = bool(masks.all())
        self._vjp: Callable[..., tuple[torch.Tensor]] | None = None

    # -- C and its adjoint ------------------------------------------------------------------------------

    def second_layer(self, M: Float[torch.Tensor, "N q"]) -> Predictions:
        """C(M)."""
        if self.architecture.second_layer_is_identity:
            return M
        return self.architecture.second_layer(M, self.X, self.c)

    def second_layer_adjoint(self, L: Predictions) -> Float[torch.Tensor, "N q"]:
        """C^*(L), the vector-Jacobian product of C (which is linear, so any base point does)."""
        if self.architecture.second_layer_is_identity:
            return L
        if self._vjp is None:
            zero = torch.zeros(self.N, self.q, dtype=self.dtype, device=self.device)
            self._vjp = torch.func.vjp(self.second_layer, zero)[1]
        return self._vjp(L)[0]

    def second_layer_matrix(self) -> scipy.sparse.csr_array:
        """C as a sparse (n_out c) x (N q) matrix, both sides vectorised row by row."""
        if self.architecture.second_layer_is_identity:
            return scipy.sparse.csr_array(scipy.sparse.identity(self.N * self.q, format="csr"))
        rows = []
        for index in range(self.n_out * self.c):
            unit = torch.zeros(self.n_out * self.c, dtype=self.dtype, device=self.device)
            unit[index] = 1.0
            row = self.second_layer_adjoint(unit.view(self.n_out, self.c))
            rows.append(scipy.sparse.csr_array(row.reshape(1, -1).cpu().numpy()))
        return scipy.sparse.csr_array(scipy.sparse.vstack(rows))

    # -- A and its adjoint ------------------------------------------------------------------------------

    def _chunks(self, width: int) -> Iterator[slice]:
        step = max(1, CHUNK_ELEMENTS // (self.N * max(width, 1)))
        for start in range(0, self.P, step):
            yield slice(start, min(start + step, self.P))

    def _masked(self, H: torch.Tensor, chunk: slice, width: int) -> torch.Tensor:
        """D_k applied to the columns of H (N x (B width)), in place, as N x B x width."""
        H = H.view(self.N, -1, width)
        return H if self._trivial_mask else H.mul_(self.masks[:, chunk, None])

    def apply(self, Z: Blocks) -> Predictions:
        """A(Z) = C(sum_k D_k Phi Z_k)."""
        total = torch.zeros(self.N, self.q, dtype=self.dtype, device=self.device)
        for chunk in self._chunks(self.q):
            stacked = Z[chunk].permute(1, 0, 2).reshape(self.p, -1)
            total += self._masked(self.Phi @ stacked, chunk, self.q).sum(dim=1)
        return self.second_layer(total)

    def adjoint(self, L: Predictions) -> Blocks:
        """G_k = Phi^T D_k C^*(L) for every block."""
        R = self.second_layer_adjoint(L)
        G = torch.empty(self.P, self.p, self.q, dtype=self.dtype, device=self.device)
        for chunk in self._chunks(self.q):
            blocks = chunk.stop - chunk.start
            if self._trivial_mask:
                masked = R[:, None, :].expand(-1, blocks, -1)
            else:
                masked = R[:, None, :] * self.masks[:, chunk, None]
            product = self.Phi.T @ masked.reshape(self.N, -1)
            G[chunk] = product.view(self.p, blocks, self.q).permute(1, 0, 2)
        return G

    # -- the factored form A(U V^T) ---------------------------------------------------------------------

    def hidden(self, U: Left) -> Float[torch.Tensor, "N P m"]:
        """D_k Phi U_k for every block."""
        m = U.shape[2]
        H = self.Phi @ U.permute(1, 0, 2).reshape(self.p, -1)
        return self._masked(H, slice(0, self.P), m)

    def combine(self, H: Float[torch.Tensor, "N P m"], V: Right) -> Predictions:
        """C(sum_k H_k V_k^T)."""
        stacked = V.permute(0, 2, 1).reshape(-1, self.q)
        return self.second_layer(H.reshape(self.N, -1) @ stacked)

    def apply_factors(self, U: Left, V: Right) -> Predictions:
        """A(U V^T) without forming U V^T."""
        total = torch.zeros(self.N, self.q, dtype=self.dtype, device=self.device)
        m = U.shape[2]
        for chunk in self._chunks(m):
            H = self.Phi @ U[chunk].permute(1, 0, 2).reshape(self.p, -1)
            H = self._masked(H, chunk, m).reshape(self.N, -1)
            total += H @ V[chunk].permute(0, 2, 1).reshape(-1, self.q)
        return self.second_layer(total)

    def factor_gradients(self, H: Float[torch.Tensor, "N P m"], L: Predictions, V: Right) -> tuple[Left, Right]:
        """(G_k V_k, G_k^T U_k) for L = grad F, given H = hidden(U); G_k itself is not formed.

        G_k V_k = Phi^T D_k (C^*(L) V_k) and G_k^T U_k = C^*(L)^T D_k Phi U_k.
        """
        R = self.second_layer_adjoint(L)
        m = V.shape[2]
        right = (R.T @ H.reshape(self.N, -1)).view(self.q, self.P, m).permute(1, 0, 2)
        back = R @ V.permute(1, 0, 2).reshape(self.q, -1)
        back = self._masked(back, slice(0, self.P), m).reshape(self.N, -1)
        left = (self.Phi.T @ back).view(self.p, self.P, m).permute(1, 0, 2)
        return left, right

    def restricted(self, samples: torch.Tensor, rows: torch.Tensor, outputs: torch.Tensor) -> "Operator":
        """The same operator on some samples only; `rows` and `outputs` are their rows of Phi and of Y."""
        part = copy.copy(self)
        part.X, part.Phi, part.Y = self.X[samples], self.Phi[rows], self.Y[outputs]
        part.masks = self.masks[rows]
        part.N, part.n_out = len(rows), len(outputs)
        part._vjp = None
        return part

    def norm_squared(self, iterations: int = 30) -> float:
        """An estimate, from below, of the squared operator norm of A, by power iteration on A A^*."""
        generator = torch.Generator().manual_seed(0)
        L = torch.randn(self.n_out, self.c, generator=generator, dtype=self.dtype).to(self.device)
        size = torch.linalg.vector_norm(L)
        for _ in range(iterations):
            L = self.apply(self.adjoint(L / size.clamp_min(1e-300)))
            size = torch.linalg.vector_norm(L)
        return float(size)
