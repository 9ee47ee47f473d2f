"""The working set of the convex program.

The program is solved on its blocks. All others stay zero and are only priced.

Block k stays at zero while ||A_k^* Lambda||_2 <= beta, so that the optimum over a working set is that of all blocks
once no block outside exceeds beta. Most blocks are zero at the optimum. A set is worth its extra rounds where there are
many blocks for n_out c outputs, as with all patterns of the plane. With fewer, most blocks that were left out come
back, as measured on the data sets teacher and digits.
"""

import torch
from jaxtyping import Int

from convexnn_bench.norms import spectral_norms
from convexnn_bench.operator import Blocks

Indices = Int[torch.Tensor, " w"]

# Chosen by trials on the ladder (docs/measurements.md).
LEAST_BLOCKS = 32  # least number of blocks in the first working set, and least limit on those that enter after a step
FIRST_FRACTION = 16  # with many blocks, one in so many is in the first working set


def first_set(G: Blocks, beta: float, outputs: int) -> Indices:
    """Return the blocks to begin with: all, or the most violated of G_k = A_k^*(grad F(0)).

    outputs : n_out c. With at most half as many blocks, or at most LEAST_BLOCKS, all are taken.
    """
    P = len(G)
    if max(LEAST_BLOCKS, outputs // 2) >= P:
        return torch.arange(P, device=G.device)
    return violators(G, beta, torch.arange(0, device=G.device), max(LEAST_BLOCKS, P // FIRST_FRACTION))


def violators(G: Blocks, beta: float, working: Indices, most: int) -> Int[torch.Tensor, " new"]:
    """Return blocks outside the working set whose dual norm exceeds beta, largest first.

    Blocks of nearly one norm tend to be alike: where there are more than `most`, evenly spaced ones are returned.
    """
    outside = torch.ones(len(G), dtype=torch.bool, device=G.device)
    outside[working] = False
    candidates = torch.nonzero(outside & (torch.linalg.vector_norm(G, dim=(1, 2)) > beta))[:, 0]
    if len(candidates) == 0:
        return candidates
    norms = spectral_norms(G[candidates])
    order = norms.argsort(descending=True, stable=True)[: int((norms > beta).sum())]
    if len(order) > most:
        order = order[torch.linspace(0, len(order) - 1, most, dtype=torch.float64, device=G.device).round().long()]
    return candidates[order]
