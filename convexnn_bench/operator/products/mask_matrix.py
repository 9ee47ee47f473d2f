"""Products by one multiplication with the 0/1 matrix of the masks, where Phi is at hand.

With the masks as a matrix D (N x P) and Z as a P x pq matrix, the rows of sum_k D_k Phi Z_k are

    sum_a Phi_ia (D Z)_i,(a,c),

and the adjoint is D^T applied to the N x pq matrix of the products Phi_ia R_ic: one product with the masks each, never
the n x Pp matrix [D_1 Phi .. D_P Phi].
"""

import torch

from convexnn_bench.operator.chunks import chunks
from convexnn_bench.operator.layers import Blocks, Predictions
from convexnn_bench.operator.masked_layers import MaskedLayers
from convexnn_bench.operator.products.hidden_units import HiddenUnits

OVERHEAD = 500  # operations of matrix products that take as long as all else that is done to a hidden unit


class MaskMatrix(HiddenUnits):
    """Products with blocks through the mask matrix; thin factors go through hidden units."""

    def apply(self, layers: MaskedLayers, Z: Blocks) -> Predictions:
        total = torch.zeros(layers.N, layers.q, dtype=layers.dtype, device=layers.device)
        for part in chunks(layers.p, layers.N * layers.q):
            # mixed[i, (a, c)] = (D Z)_i,(a,c) for the features a of this part, D as numbers and some blocks at a time.
            flat = Z[:, part].reshape(layers.P, -1)
            mixed = torch.zeros(layers.N, flat.shape[1], dtype=layers.dtype, device=layers.device)  # N x (features q)
            for blocks, masks in layers.mask_columns():
                mixed.addmm_(masks, flat[blocks])
            # The sum over a is one small product a row, 1 x features times features x q.
            total += torch.bmm(layers.Phi[:, None, part], mixed.view(layers.N, -1, layers.q))[:, 0]
        return layers.second_layer(total)

    def adjoint(self, layers: MaskedLayers, L: Predictions) -> Blocks:
        R = layers.second_layer_adjoint(L)
        G = torch.empty(layers.P, layers.p, layers.q, dtype=layers.dtype, device=layers.device)
        for part in chunks(layers.p, layers.N * layers.q):
            products = (layers.Phi[:, part, None] * R[:, None, :]).reshape(layers.N, -1)
            for blocks, masks in layers.mask_columns():
                G[blocks, part] = (masks.T @ products).view(masks.shape[1], -1, layers.q)
        return G

    def through_blocks(self, layers: MaskedLayers, m: int | float, blocks: int | None = None) -> bool:
        """Compare operations a sample: p q products of a feature and an output, or P m hidden units."""
        P, p, q = layers.P if blocks is None else blocks, layers.p, layers.q
        # A row and a column take Phi u and Phi^T b, 4 p operations, and H V^T, L V and L^T H, 6 q.
        through_columns = P * m * (4 * p + 6 * q + OVERHEAD)
        # A row, a feature and an output take 2 P operations in A and 2 P in A^*. U V^T, G V and G^T U take 6 P p q m in
        # all, whatever the number of rows.
        return p * q * (4 * P + OVERHEAD) + 6 * P * p * q * m / layers.N < through_columns
