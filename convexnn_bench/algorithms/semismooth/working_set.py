"""Which blocks the convex program is solved on: most are zero at the optimum, and a zero block is only ever priced.

Block k stays at zero while ||A_k^* Lambda|| <= beta, so that the optimum over a working set is that of all blocks once
no block outside is priced above beta. A set is worth its extra rounds where blocks are many beside the n_out c outputs,
as among all patterns of the plane; with fewer, most blocks that are dropped come back (measured on the teacher and
digits).
"""

import torch
from jaxtyping import Float, Int

from convexnn_bench.norms.spectral import spectral_norms

Blocks = Float[torch.Tensor, "P p q"]
Indices = Int[torch.Tensor, " w"]

LEAST, PART = 32, 16  # blocks to begin with: so many, or one in so many
MANY = 4  # when new blocks are more than one in so many of the active ones, the proximal step is not lengthened


def first_set(G: Blocks, beta: float, outputs: int) -> Indices:
    """The blocks to begin with, given G_k = A_k^*(grad F(0)) and the number of outputs n_out c: all, or a sixteenth."""
    P = len(G)
    if max(LEAST, outputs // 2) >= P:
        return torch.arange(P, device=G.device)
    return violators(G, beta, torch.arange(0, device=G.device), max(LEAST, P // PART))


def violators(G: Blocks, beta: float, working: Indices, most: int) -> Int[torch.Tensor, " new"]:
    """Blocks outside the working set whose dual norm is above beta, by norm; where there are more than `most`, evenly
    spaced ones of these, the largest among them, for blocks of about one norm tend to be alike."""
    outside = torch.ones(len(G), dtype=torch.bool, device=G.device)
    outside[working] = False
    candidates = torch.nonzero(outside & (torch.linalg.vector_norm(G, dim=(1, 2)) > beta))[:, 0]
    if len(candidates) == 0:
        return candidates
    norms = spectral_norms(G[candidates])
    order = norms.argsort(descending=True, stable=True)[: int((norms > beta).sum())]
    if len(order) > most:
        order = order[torch.linspace(0, len(order) - 1, most, device=G.device).round().long()]
    return candidates[order]
