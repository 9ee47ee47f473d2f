"""The two layers of P masked blocks.

They are the hidden units D_k Phi U_k, and the predictions C(sum_k H_k V_k^T) from them.

A matrix of rows x m numbers for each of P blocks is a P x rows x m array; the layers see the blocks side by side, as
one rows x P m matrix, so that each of them is one product whatever the number of blocks.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.architectures import BaseArchitecture
from convexnn_bench.operator.chunks import chunks, fits, part_size
from convexnn_bench.operator.compact import DataArray
from convexnn_bench.operator.layers import Layers, Left, Predictions, Right


def side_by_side(blocks: Float[torch.Tensor, "P rows m"]) -> Float[torch.Tensor, "rows Pm"]:
    """Return [B_1 .. B_P]."""
    return blocks.permute(1, 0, 2).reshape(blocks.shape[1], -1)


def into_blocks(matrix: Float[torch.Tensor, "rows Pm"], P: int) -> Float[torch.Tensor, "P rows m"]:
    """Invert `side_by_side`."""
    return matrix.view(matrix.shape[0], P, -1).permute(1, 0, 2)


class MaskedLayers(Layers):
    """The layers Phi and C with a mask D_k for each of P blocks.

    Parameters
    ----------
    architecture, X, Y, device, dtype
        As for `Layers`.
    masks : bool array, N x P
        The diagonals of D_1 .. D_P, one column a block.
    """

    def __init__(
        self,
        architecture: BaseArchitecture,
        X: DataArray,
        Y: np.ndarray,
        masks: np.ndarray,
        device: str = "cpu",
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__(architecture, X, Y, device, dtype)
        self.masks = torch.as_tensor(np.ascontiguousarray(masks), device=self.device)  # N x P
        self.N, self.P = masks.shape
        self.unmasked = bool(masks.all())

    # -- masks ------------------------------------------------------------------------------------------

    @cached_property
    def mask_matrix(self) -> Float[torch.Tensor, "N P"] | None:
        """The masks as numbers, or None where they would not fit a temporary array."""
        return self.masks.to(self.dtype) if fits(self.N * self.P) else None

    def mask_columns(self) -> Iterator[tuple[slice, Float[torch.Tensor, "N B"]]]:
        """Yield the masks as numbers, some blocks at a time."""
        if self.mask_matrix is not None:
            yield slice(0, self.P), self.mask_matrix
            return
        for blocks in chunks(self.P, self.N):
            yield blocks, self.masks[:, blocks].to(self.dtype)

    def masked(self, H: Float[torch.Tensor, "N Bm"], blocks: slice, m: int) -> Float[torch.Tensor, "N B m"]:
        """Apply D_k to the m columns of each of some blocks, in place."""
        # N x (B m) as N x B x m: the mask of a block is the same for its m columns.
        H = H.view(self.N, -1, m)
        return H if self.unmasked else H.mul_(self.masks[:, blocks, None])

    def masked_rows(self, H: Float[torch.Tensor, "rows Pm"], rows: slice, m: int) -> Float[torch.Tensor, "rows Pm"]:
        """Apply some rows of the masks to m columns of every block, in place."""
        if not self.unmasked:
            masks = self.masks if self.mask_matrix is None else self.mask_matrix  # numbers are quicker than bools
            H.view(len(H), -1, m).mul_(masks[rows, :, None])
        return H

    # -- hidden units, and the predictions from them -----------------------------------------------------

    def hidden(self, U: Left) -> Float[torch.Tensor, "N P m"]:
        """Return the hidden units H_k = D_k Phi U_k of every block."""
        return self.masked(self.first_layer(side_by_side(U)), slice(0, self.P), U.shape[2])

    def combine(self, H: Float[torch.Tensor, "N P m"], V: Right) -> Predictions:
        """Return the predictions C(sum_k H_k V_k^T)."""
        return self.combine_neurons(H.reshape(self.N, -1), side_by_side(V))

    def factor_gradients(self, H: Float[torch.Tensor, "N P m"], L: Predictions, V: Right) -> tuple[Left, Right]:
        """Return (G_k V_k, G_k^T U_k) for L = grad F, given H = hidden(U).

        G_k = A_k^*(L) itself is not formed.

        G_k V_k = Phi^T D_k (C^*(L) V_k) and G_k^T U_k = C^*(L)^T D_k Phi U_k.
        """
        back, right = self.combine_adjoint(H.reshape(self.N, -1), side_by_side(V), L)
        return self.pull(back, V.shape[2]), into_blocks(right, self.P)

    def pull(self, back: Float[torch.Tensor, "N Pm"], m: int) -> Left:
        """Return Phi^T D_k B_k for the m columns B_k of every block."""
        # D_k is diagonal, hence its own adjoint: it masks the same rows, here before Phi^T.
        back = self.masked(back.contiguous(), slice(0, self.P), m).reshape(self.N, -1)
        return into_blocks(self.first_layer_adjoint(back), self.P)

    # -- some samples at a time --------------------------------------------------------------------------

    def part_size(self, columns: int) -> int:
        """Return how many rows of Phi to take at a time for so many hidden units each."""
        return part_size(columns, self.device)

    def sample_parts(self, columns: int) -> list[slice]:
        """Cut the rows of Phi into parts of `part_size`."""
        step = self.part_size(columns)
        return [slice(start, start + step) for start in range(0, self.N, step)]

    def summed(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn two sums over `sample_parts` into sums over all samples, which here they are already."""
        return left, right
