"""Neurons on a working set of blocks: balanced column pairs of the Burer-Monteiro factorisation, as w and a unit y.

A column pair of block k is u = sqrt(s) w/s, v = sqrt(s) y with s = ||w||, so that u v^T = w y^T (point.py says
what for).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

SECOND = 0.02  # of a neuron's size: a second singular value that is worth a neuron of its own

NEGLIGIBLE = 1e-9  # size of a neuron as a part of the largest that leaves

Lengths = Float[torch.Tensor, " J"]


@dataclass(frozen=True)
class Neurons:
    """blocks: the block of every neuron; W: p x J, the vectors w; Y: q x J, the unit vectors y."""

    blocks: Int[torch.Tensor, " J"]
    W: Float[torch.Tensor, "p J"]
    Y: Float[torch.Tensor, "q J"]

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def sizes(self) -> Lengths:
        """s = ||w||."""
        return torch.linalg.vector_norm(self.W, dim=0)

    def kept(self, which: torch.Tensor) -> "Neurons":
        places = torch.nonzero(which)[:, 0]  # as a mask it would be counted, and a GPU waited for, three times
        return Neurons(self.blocks[places], self.W[:, places], self.Y[:, places])

    def joined(self, other: "Neurons") -> "Neurons":
        return Neurons(
            torch.cat([self.blocks, other.blocks]), torch.cat([self.W, other.W], 1), torch.cat([self.Y, other.Y], 1)
        )

    def factors(self, P: int) -> tuple[Float[torch.Tensor, "P p m"], Float[torch.Tensor, "P q m"]]:
        """Balanced (U, V) of all P blocks, m = the most neurons of a block, at least 1; U_k V_k^T = sum w y^T."""
        order = torch.argsort(self.blocks, stable=True)
        blocks, roots = self.blocks[order], self.sizes[order].sqrt()
        counts = torch.bincount(blocks, minlength=P)
        place = torch.arange(len(blocks), device=blocks.device) - (torch.cumsum(counts, 0) - counts)[blocks]
        m = max(1, int(counts.max()))
        U, V = (torch.zeros(P, len(part), m, dtype=part.dtype, device=part.device) for part in (self.W, self.Y))
        U[blocks, :, place] = (self.W[:, order] / torch.where(roots > 0, roots, torch.ones_like(roots))).T
        V[blocks, :, place] = (self.Y[:, order] * roots).T
        return U, V

    def merged(self, smallest: float) -> "Neurons":
        """As few neurons a block as its rank, from the singular value decomposition of Z_k: f does not rise.

        smallest: singular values up to this part of the largest of all are left out.
        """
        if not len(self):
            return self
        blocks, owner = torch.unique(self.blocks, return_inverse=True)
        Z = torch.zeros(len(blocks), self.W.shape[0], self.Y.shape[0], dtype=self.W.dtype, device=self.W.device)
        add_to(Z, owner, torch.einsum("pj,qj->jpq", self.W, self.Y))
        left, values, right = top_pairs(Z)
        row, place = torch.nonzero(values > smallest * values.max(), as_tuple=True)
        W = left[row, :, place].T * values[row, place]
        return Neurons(blocks[row], W.contiguous(), right[row, :, place].T.contiguous())


def top_pairs(Z: Float[torch.Tensor, "B p q"]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(A, values, B) with Z = A diag(values) B^T up to rounding: singular values falling, r = min(p, q) of them.

    A is B x p x r, values B x r, B B x q x r. Through the eigenvectors of the smaller Gram matrix: their side is
    orthonormal, the other has unit columns, and the product is Z whatever the accuracy of the eigenvectors.
    """
    if Z.shape[2] > Z.shape[1]:
        right, values, left = top_pairs(Z.transpose(1, 2))
        return left, values, right
    if Z.shape[2] == 1:
        basis = torch.ones(len(Z), 1, 1, dtype=Z.dtype, device=Z.device)
    else:
        basis = torch.linalg.eigh(Z.transpose(1, 2) @ Z)[1].flip(2)
    images = Z @ basis
    values = torch.linalg.vector_norm(images, dim=1)
    return images / torch.where(values > 0, values, torch.ones_like(values))[:, None], values, basis


def add_to(
    Z: Float[torch.Tensor, "B p q"], owner: Int[torch.Tensor, " J"], parts: Float[torch.Tensor, "J p q"]
) -> None:
    """Z[owner_j] += parts_j for every j.

    On a GPU `index_add_` adds in any order, and processes that share a solve must come to the same bits: there indices
    are sorted first.
    """
    if Z.device.type == "cpu":
        Z.index_add_(0, owner, parts)
    else:
        Z.index_put_((owner,), parts, accumulate=True)
