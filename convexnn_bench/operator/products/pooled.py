"""Products where C pools the rows of a sample before it weighs them, as a CNN does.

With P (a x K) the pooling and q = (alpha, c') the outputs are A(Z)_i = sum_k sum_alpha S_ik[alpha] Z_k[:, (alpha, .)],

    S_ik[alpha] = sum_kappa P[alpha, kappa] D_k[i, kappa] phi_{i, kappa},

the pooled masked rows, which are formed once: n x P a p numbers. A product then takes 2 n P p q operations, with masked
rows K = N / n times as many.
"""

from functools import cached_property

import torch
from jaxtyping import Float, Int

from convexnn_bench.operator.chunks import chunks
from convexnn_bench.operator.layers import Blocks, Left, Predictions, Pullback, Right
from convexnn_bench.operator.masked_layers import MaskedLayers
from convexnn_bench.operator.products.base import ColumnProducts

POOLED_ELEMENTS = 2**25  # numbers of S, 256 MiB of float64, up to which it is formed


def pooled_rows(layers: MaskedLayers) -> "PooledRows | None":
    """Form S if C pools rows to half as many or fewer and S fits memory.

    Return None otherwise.
    """
    if not layers.pools:
        return None
    samples, a, P, p = layers.n_out, layers.q // layers.c, layers.P, layers.p
    if 2 * samples * a > layers.N or samples * P * a * p > POOLED_ELEMENTS:
        return None
    S = torch.empty(samples, P, a, p, dtype=layers.dtype, device=layers.device)
    K = layers.N // samples
    for part in chunks(samples, K * P * p):
        rows = slice(part.start * K, part.stop * K)
        # The masked rows of all blocks side by side, (samples K) x (P p), are pooled to samples x a x (P p).
        masked = (layers.masks[rows, :, None] * layers.Phi[rows, None, :]).flatten(1)
        pooled = layers.architecture.pool_rows(masked, layers.X[part])
        S[part] = pooled.unflatten(2, (P, -1)).transpose(1, 2)
    return PooledRows(S, layers.c)


class PooledRows(ColumnProducts):
    """Products with the pooled masked rows S (n x P x a x p), for c outputs."""

    def __init__(self, S: Float[torch.Tensor, "n P a p"], c: int):
        self.S, self.c = S, c

    @cached_property
    def _features(self) -> Float[torch.Tensor, "n Pap"]:
        return self.S.flatten(1)

    @cached_property
    def _windows(self) -> Float[torch.Tensor, "Pa n p"]:
        return self.S.flatten(1, 2).transpose(0, 1)

    def rows(self, layers: MaskedLayers) -> int:
        return len(self.S)

    def on_blocks(self, blocks: Int[torch.Tensor, " J"]) -> "PooledRows":
        """Return the rows of some blocks, in this order."""
        P = self.S.shape[1]
        if len(blocks) == P and bool((blocks == torch.arange(P, device=blocks.device)).all()):
            return self
        return PooledRows(self.S[:, blocks], self.c)

    def apply(self, layers: MaskedLayers, Z: Blocks) -> Predictions:
        _, P, a, p = self.S.shape
        # One product over (k, alpha, feature): S as n x (P a p), and Z with its columns (alpha, c') as (P a p) x c.
        return self._features @ Z.reshape(P, p, a, self.c).transpose(1, 2).reshape(-1, self.c)

    def adjoint(self, layers: MaskedLayers, L: Predictions) -> Blocks:
        _, P, a, p = self.S.shape
        return (self._features.T @ L).view(P, a, p, self.c).transpose(1, 2).reshape(P, p, -1)

    def images(
        self, layers: MaskedLayers, E: Float[torch.Tensor, "r p q"], owner: Int[torch.Tensor, " r"]
    ) -> Float[torch.Tensor, "n_out c r"]:
        n, P, a, p = self.S.shape
        found = torch.empty(n, self.c, len(E), dtype=E.dtype, device=E.device)
        weights = E.view(-1, p, a, self.c).permute(2, 1, 3, 0)  # a x p x c x r
        for block in range(P):
            owned = torch.nonzero(owner == block)[:, 0]
            columns = weights[..., owned].reshape(a * p, -1)
            found[:, :, owned] = (self.S[:, block].flatten(1) @ columns).view(n, self.c, -1)
        return found

    def through_blocks(self, layers: MaskedLayers, m: int | float, blocks: int | None = None) -> bool:
        p = self.S.shape[3]
        # For each sample, block and alpha: m columns take p m + m c multiplications, a block p c.
        return m * (p + self.c) >= p * self.c

    def apply_columns(self, layers: MaskedLayers, U: Left, V: Right) -> Predictions:
        return self._hidden(U) @ self._weights(V)

    def factored_columns(self, layers: MaskedLayers, U: Left, V: Right) -> tuple[Predictions, Pullback]:
        n, P, a, p = self.S.shape
        H, weights = self._hidden(U), self._weights(V)

        def pullback(L: Predictions) -> tuple[Left, Right]:
            back = (L @ weights.T).view(n, P * a, -1).transpose(0, 1)  # Pa x n x m
            # U_k is the same for every alpha, so that its gradient is the sum over alpha; V_k has a row for each
            # (alpha, c').
            left = (self._windows.transpose(1, 2) @ back).view(P, a, p, -1).sum(dim=1)
            right = (H.T @ L).view(P, a, -1, self.c).transpose(2, 3).reshape(P, a * self.c, -1)
            return left, right

        return H @ weights, pullback

    def _hidden(self, U: Left) -> Float[torch.Tensor, "n Pam"]:
        """Return S_ik[alpha] U_k."""
        return (self._windows @ U.repeat_interleave(self.S.shape[2], dim=0)).transpose(0, 1).flatten(1)

    def _weights(self, V: Right) -> Float[torch.Tensor, "Pam c"]:
        """Return V_k with its rows in the order of `_hidden`."""
        P, a, m = self.S.shape[1], self.S.shape[2], V.shape[2]
        return V.view(P, a, self.c, m).transpose(2, 3).reshape(-1, self.c)
