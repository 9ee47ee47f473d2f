"""A, its adjoint and its factored form where C pools the rows of a sample before it weighs them, as a CNN does.

With P (a x K) the pooling and q = (alpha, c') the outputs are A(Z)_i = sum_k sum_alpha S_ik[alpha] Z_k[:, (alpha, .)],

    S_ik[alpha] = sum_kappa P[alpha, kappa] D_k[i, kappa] phi_{i, kappa},

the pooled masked rows, which are formed once: n x P a p numbers. A product then takes 2 n P p q operations, with masked
rows K = N / n times as many.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int

POOLED_ELEMENTS = 2**25  # numbers of S, 256 MiB of float64, up to which it is formed

Blocks = Float[torch.Tensor, "P p q"]
Predictions = Float[torch.Tensor, "n c"]


@dataclass(frozen=True)
class PooledBlocks:
    """S, n x P x a x p, and the number c of outputs."""

    S: Float[torch.Tensor, "n P a p"]
    c: int

    @cached_property
    def _features(self) -> Float[torch.Tensor, "n Pap"]:
        return self.S.flatten(1)

    @cached_property
    def _windows(self) -> Float[torch.Tensor, "Pa n p"]:
        return self.S.flatten(1, 2).transpose(0, 1)

    def on_blocks(self, blocks: Int[torch.Tensor, " J"]) -> "PooledBlocks":
        """Those of some blocks, in this order."""
        P = self.S.shape[1]
        if len(blocks) == P and bool((blocks == torch.arange(P, device=blocks.device)).all()):
            return self
        return PooledBlocks(self.S[:, blocks], self.c)

    def apply(self, Z: Blocks) -> Predictions:
        """A(Z)."""
        _, P, a, p = self.S.shape
        return self._features @ Z.reshape(P, p, a, self.c).transpose(1, 2).reshape(-1, self.c)

    def adjoint(self, L: Predictions) -> Blocks:
        """A_k^*(L) of every block."""
        _, P, a, p = self.S.shape
        return (self._features.T @ L).view(P, a, p, self.c).transpose(1, 2).reshape(P, p, -1)

    def images(self, E: Float[torch.Tensor, "r p q"], owner: Int[torch.Tensor, " r"]) -> Float[torch.Tensor, "n c r"]:
        """A_k(E_e) of matrices that belong to blocks k = owner[e]."""
        n, P, a, p = self.S.shape
        found = torch.empty(n, self.c, len(E), dtype=E.dtype, device=E.device)
        weights = E.view(-1, p, a, self.c).permute(2, 1, 3, 0)  # a x p x c x r
        for block in range(P):
            own = torch.nonzero(owner == block)[:, 0]
            columns = weights[..., own].reshape(a * p, -1)
            found[:, :, own] = (self.S[:, block].flatten(1) @ columns).view(n, self.c, -1)
        return found

    def wide(self, m: int | float) -> bool:
        """Whether A(U V^T) is cheaper through the blocks U_k V_k^T than through m pooled columns of each."""
        return m * (self.S.shape[3] + self.c) >= self.S.shape[3] * self.c

    def hidden(self, U: Float[torch.Tensor, "P p m"]) -> Float[torch.Tensor, "n Pam"]:
        """S_ik[alpha] U_k."""
        return (self._windows @ U.repeat_interleave(self.S.shape[2], dim=0)).transpose(0, 1).flatten(1)

    def weights(self, V: Float[torch.Tensor, "P q m"]) -> Float[torch.Tensor, "Pam c"]:
        """V_k with its rows in the order of `hidden`."""
        P, a, m = self.S.shape[1], self.S.shape[2], V.shape[2]
        return V.view(P, a, self.c, m).transpose(2, 3).reshape(-1, self.c)

    def pull(
        self, H: Float[torch.Tensor, "n Pam"], L: Predictions, weights: Float[torch.Tensor, "Pam c"]
    ) -> tuple[Float[torch.Tensor, "P p m"], Float[torch.Tensor, "P q m"]]:
        """(G_k V_k, G_k^T U_k) for G_k = A_k^*(L), H = hidden(U)."""
        n, P, a, p = self.S.shape
        back = (L @ weights.T).view(n, P * a, -1).transpose(0, 1)  # Pa x n x m
        left = (self._windows.transpose(1, 2) @ back).view(P, a, p, -1).sum(dim=1)
        right = (H.T @ L).view(P, a, -1, self.c).transpose(2, 3).reshape(P, a * self.c, -1)
        return left, right
