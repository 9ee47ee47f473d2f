"""Products by the first layer of all blocks at once, followed by the masks.

The first layer of all blocks is Phi [Z_1 .. Z_P].

An architecture that defines its first layer by structure never forms Phi, and its products are formed here. The
columns of the factored form, Phi [U_1 .. U_P], go this way wherever C does not pool rows first.
"""

import torch
from jaxtyping import Float, Int

from convexnn_bench.operator.chunks import chunks
from convexnn_bench.operator.layers import Blocks, Left, Predictions, Pullback, Right
from convexnn_bench.operator.masked_layers import MaskedLayers, into_blocks, side_by_side
from convexnn_bench.operator.products.base import ColumnProducts


class HiddenUnits(ColumnProducts):
    """Products through the N x q rows D_k Phi Z_k of every block, some blocks at a time."""

    def apply(self, layers: MaskedLayers, Z: Blocks) -> Predictions:
        total = torch.zeros(layers.N, layers.q, dtype=layers.dtype, device=layers.device)
        # sum_k D_k Phi Z_k: some blocks side by side are one product with Phi, N x (blocks q) numbers.
        for part in chunks(layers.P, layers.N * layers.q):
            total += layers.masked(layers.first_layer(side_by_side(Z[part])), part, layers.q).sum(dim=1)
        return layers.second_layer(total)

    def adjoint(self, layers: MaskedLayers, L: Predictions) -> Blocks:
        R = layers.second_layer_adjoint(L)
        G = torch.empty(layers.P, layers.p, layers.q, dtype=layers.dtype, device=layers.device)
        for part in chunks(layers.P, layers.N * layers.q):
            # One product of Phi^T with [D_1 R .. D_B R], N x (B q), gives the G_k of B blocks.
            blocks = part.stop - part.start
            if layers.unmasked:
                masked = R[:, None, :].expand(-1, blocks, -1)
            else:
                masked = R[:, None, :] * layers.masks[:, part, None]
            G[part] = into_blocks(layers.first_layer_adjoint(masked.reshape(layers.N, -1)), blocks)
        return G

    def images(
        self, layers: MaskedLayers, E: Float[torch.Tensor, "r p q"], owner: Int[torch.Tensor, " r"]
    ) -> Float[torch.Tensor, "n_out c r"]:
        # N x r x q: slice e is D_k Phi E_e with k = owner[e], and C maps each slice to the predictions of E_e.
        H = layers.first_layer(side_by_side(E)).view(layers.N, *E.shape[::2])
        H = H * layers.masks[:, owner, None]
        if layers.architecture.second_layer_is_identity:
            return H.permute(0, 2, 1)
        return torch.vmap(layers.second_layer, in_dims=1, out_dims=-1)(H)

    def through_blocks(self, layers: MaskedLayers, m: int | float, blocks: int | None = None) -> bool:
        """Return False: with m <= q columns the hidden units are never more than the rows of the blocks."""
        return False

    def apply_columns(self, layers: MaskedLayers, U: Left, V: Right) -> Predictions:
        # C(sum_k H_k V_k^T) is linear in the blocks, so that parts of them are combined one by one and added.
        m = U.shape[2]
        parts = []
        for part in chunks(layers.P, layers.N * max(m, 1)):
            H = layers.masked(layers.first_layer(side_by_side(U[part])), part, m).reshape(layers.N, -1)
            parts.append(layers.combine_neurons(H, side_by_side(V[part])))
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)

    def factored_columns(self, layers: MaskedLayers, U: Left, V: Right) -> tuple[Predictions, Pullback]:
        # With C = I the predictions of a sample need its own rows only, so that samples may be taken in parts.
        if layers.is_plain:
            return _by_samples(layers, side_by_side(U), side_by_side(V))
        H, m = layers.hidden(U), U.shape[2]
        z, combine_pullback = layers.combined(H.reshape(layers.N, -1), side_by_side(V))

        def pullback(L: Predictions) -> tuple[Left, Right]:
            back, right = combine_pullback(L)
            return layers.pull(back, m), into_blocks(right, layers.P)

        return z, pullback


def _by_samples(
    layers: MaskedLayers, U: Float[torch.Tensor, "p Pm"], V: Float[torch.Tensor, "q Pm"]
) -> tuple[Predictions, Pullback]:
    """Return the factored form of an MLP, some samples at a time.

    Their hidden units then stay in the cache.
    """
    parts = layers.sample_parts(U.shape[1])
    m = U.shape[1] // layers.P
    hidden = [layers.masked_rows(layers.Phi[rows] @ U, rows, m) for rows in parts]

    def pullback(L: Predictions) -> tuple[Left, Right]:
        # G_k V_k = Phi^T D_k L V_k and G_k^T U_k = L^T H_k are sums over samples, to which every part adds its share.
        left, right = torch.zeros_like(U), torch.zeros_like(V)
        for rows, H in zip(parts, hidden, strict=True):
            left.addmm_(layers.Phi[rows].T, layers.masked_rows(L[rows] @ V, rows, m))
            right.addmm_(L[rows].T, H)
        return into_blocks(left, layers.P), into_blocks(right, layers.P)

    return torch.cat([H @ V.T for H in hidden]), pullback
