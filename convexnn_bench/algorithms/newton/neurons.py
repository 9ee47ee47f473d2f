"""Neurons on a working set of blocks.

They are the balanced column pairs of the Burer-Monteiro factorisation.

A balanced column pair of block k is u = sqrt(s) w/s, v = sqrt(s) y with s = ||w|| and ||y|| = 1, so that
u v^T = w y^T. `BlockNeurons` stores k, w and y; `point.py` explains why Newton's method steps in w and y.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

# Chosen by trials on the ladder (docs/measurements.md).
SPLIT_RATIO = 0.02  # least ratio of sizes, smaller to larger, of the two neurons into which a step may split one
NEGLIGIBLE_SIZE = 1e-9  # neurons up to this multiple of the largest size are dropped

Lengths = Float[torch.Tensor, " J"]


@dataclass(frozen=True)
class BlockNeurons:
    """J neurons of given blocks, as the columns w_j and y_j of two matrices."""

    blocks: Int[torch.Tensor, " J"]  # the index k of each neuron's block
    left: Float[torch.Tensor, "p J"]  # the vectors w_j, of length s_j
    right: Float[torch.Tensor, "q J"]  # the unit vectors y_j

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def sizes(self) -> Lengths:
        """The lengths s_j = ||w_j||."""
        return torch.linalg.vector_norm(self.left, dim=0)

    def selected(self, which: torch.Tensor) -> "BlockNeurons":
        """Return the neurons where the mask `which` is true."""
        index = torch.nonzero(which)[:, 0]  # indexing with the mask itself would wait for a GPU three times
        return BlockNeurons(self.blocks[index], self.left[:, index], self.right[:, index])

    def joined(self, other: "BlockNeurons") -> "BlockNeurons":
        """Return these neurons followed by those of `other`."""
        left, right = torch.cat([self.left, other.left], 1), torch.cat([self.right, other.right], 1)
        return BlockNeurons(torch.cat([self.blocks, other.blocks]), left, right)

    @classmethod
    def of_factors(cls, U: Float[torch.Tensor, "P p m"], V: Float[torch.Tensor, "P q m"]) -> "BlockNeurons":
        """Return one neuron for each nonzero singular pair of U_k V_k^T."""
        left, right = (torch.linalg.vector_norm(part, dim=1) for part in (U, V))  # P x m
        blocks, column = torch.nonzero((left > 0) & (right > 0), as_tuple=True)
        lengths = right[blocks, column]
        W = (U[blocks, :, column] * lengths[:, None]).T
        Y = (V[blocks, :, column] / lengths[:, None]).T
        return cls(blocks, W.contiguous(), Y.contiguous()).merged(NEGLIGIBLE_SIZE)

    def factors(self, P: int) -> tuple[Float[torch.Tensor, "P p m"], Float[torch.Tensor, "P q m"]]:
        """Return balanced factors (U, V) of all P blocks, with U_k V_k^T = sum of w y^T over block k.

        The number m of columns is that of the fullest block, and at least 1.
        """
        order = torch.argsort(self.blocks, stable=True)
        blocks, roots = self.blocks[order], self.sizes[order].sqrt()
        counts = torch.bincount(blocks, minlength=P)
        column = torch.arange(len(blocks), device=blocks.device) - (torch.cumsum(counts, 0) - counts)[blocks]
        m = max(1, int(counts.max()))
        U, V = (torch.zeros(P, len(w), m, dtype=w.dtype, device=w.device) for w in (self.left, self.right))
        U[blocks, :, column] = (self.left[:, order] / torch.where(roots > 0, roots, torch.ones_like(roots))).T
        V[blocks, :, column] = (self.right[:, order] * roots).T
        return U, V

    def merged(self, threshold: float) -> "BlockNeurons":
        """Return as few neurons per block as its matrix Z_k has rank; f does not rise.

        The new neurons are the singular pairs of Z_k = sum_j w_j y_j^T. Singular values up to `threshold` times the
        largest of all blocks are left out.
        """
        if not len(self):
            return self
        blocks, owner = torch.unique(self.blocks, return_inverse=True)
        Z = self.left.new_zeros(len(blocks), self.left.shape[0], self.right.shape[0])
        scatter_add(Z, owner, torch.einsum("pj,qj->jpq", self.left, self.right))
        left, values, right = singular_pairs(Z)
        row, pair = torch.nonzero(values > threshold * values.max(), as_tuple=True)
        W = left[row, :, pair].T * values[row, pair]
        return BlockNeurons(blocks[row], W.contiguous(), right[row, :, pair].T.contiguous())


def singular_pairs(Z: Float[torch.Tensor, "B p q"]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (left, values, right) with Z = left diag(values) right^T.

    This holds up to rounding. The values are in descending order.

    The min(p, q) pairs come from the eigenvectors of the smaller Gram matrix. That side is orthonormal and the other
    has unit columns, so that the product is Z however inaccurate the eigenvectors are.
    """
    if Z.shape[2] > Z.shape[1]:
        right, values, left = singular_pairs(Z.transpose(1, 2))
        return left, values, right
    one = Z.shape[2] == 1
    basis = Z.new_ones(len(Z), 1, 1) if one else torch.linalg.eigh(Z.transpose(1, 2) @ Z)[1].flip(2)
    images = Z @ basis
    values = torch.linalg.vector_norm(images, dim=1)
    return images / torch.where(values > 0, values, torch.ones_like(values))[:, None], values, basis


def scatter_add(
    Z: Float[torch.Tensor, "B p q"], owner: Int[torch.Tensor, " J"], parts: Float[torch.Tensor, "J p q"]
) -> None:
    """Add parts_j to Z[owner_j] for every j, in an order that is the same in every process.

    On a GPU `index_add_` adds in any order, while processes that share a solve must reach the same bits. There
    `index_put_` sorts the indices first.
    """
    if Z.device.type == "cpu":
        Z.index_add_(0, owner, parts)
    else:
        Z.index_put_((owner,), parts, accumulate=True)
