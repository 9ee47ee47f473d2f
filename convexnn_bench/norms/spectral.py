"""Spectral norms of many blocks at once, the dual norms without a cone.

Without a cone the dual norm of a block G_k is its spectral norm (for q = 1 or p = 1 the Euclidean norm).
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float

from convexnn_bench.operator import EPS, is_moderate, power_of_two

SMALLEST_NORMAL = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class MaxDualNorm:
    """Bounds on max_k ||G_k||^dual.

    Attributes
    ----------
    value : float
        A rigorous upper bound.
    block : int
        The block that the upper bound comes from, -1 if it is not from one block.
    lower : float
        A lower bound, which some vector attains.
    method : str
        How the upper bound was obtained, in words.
    """

    value: float
    block: int
    lower: float
    method: str

    def scaled(self, scale: float) -> "MaxDualNorm":
        """Return the bounds for scale * G, where `scale` is a power of two.

        An upper bound below the normal numbers is rounded up, and such a lower bound becomes zero.
        """
        value, lower = self.value * scale, self.lower * scale
        if self.value > 0 and value < SMALLEST_NORMAL:
            value = math.nextafter(value, math.inf)
        return replace(self, value=value, lower=lower if lower >= SMALLEST_NORMAL else 0.0)


UNBOUNDED = MaxDualNorm(math.inf, -1, 0.0, "overflow")  # of blocks that are not finite


def spectral_norms(G: Float[torch.Tensor, "P p q"]) -> Float[torch.Tensor, " P"]:
    """Return ||G_k||_2 for every block, raised by its rounding error.

    The largest eigenvalue of the smaller Gram matrix, which is the norm of that matrix, is computed with an error of a
    small multiple of eps times itself, and the matrix with one of max(p, q) eps ||G_k||_F^2. Blocks are scaled to
    unit size first, against overflow and underflow.
    """
    _, p, q = G.shape
    scale = G.abs().amax(dim=(1, 2))
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    unit = G / safe[:, None, None]
    if min(p, q) == 1:
        norms = torch.linalg.vector_norm(unit, dim=(1, 2))
    else:
        gram = unit.transpose(1, 2) @ unit if q <= p else unit @ unit.transpose(1, 2)
        if min(p, q) == 2:  # mean of the diagonal + sqrt((half difference)^2 + off-diagonal^2), no cancellation
            half = 0.5 * (gram[:, 0, 0] - gram[:, 1, 1])
            squares = 0.5 * (gram[:, 0, 0] + gram[:, 1, 1]) + torch.hypot(half, gram[:, 0, 1])
        else:
            squares = torch.linalg.eigvalsh(gram)[:, -1]
        rounding = max(p, q) * EPS * torch.diagonal(gram, dim1=1, dim2=2).sum(dim=1)
        norms = (squares.clamp_min(0) + rounding).sqrt()
    return scale * norms * (1 + 4 * (p + q) * EPS)


def max_spectral_norm(G: Float[torch.Tensor, "P p q"]) -> MaxDualNorm:
    """Return max_k ||G_k||_2, raised by its rounding error."""
    found = _max_of_moderate(G)
    if is_moderate(found.value):
        return found
    scale = power_of_two(G)
    return _max_of_moderate(G / scale).scaled(scale)


def _max_of_moderate(G: Float[torch.Tensor, "P p q"]) -> MaxDualNorm:
    """Return max_k ||G_k||_2, for entries whose squares neither overflow nor underflow."""
    lengths = torch.linalg.vector_norm(G, dim=(1, 2))
    # A spectral norm lies between the Euclidean norm and 1 / sqrt(rank) of it, so that few blocks can have the largest.
    p, q = G.shape[1:]
    least = lengths.max() / min(p, q) ** 0.5 * (1 - 4 * (p * q + 8) * EPS)
    blocks = torch.nonzero(~(lengths < least))[:, 0]  # NaN is kept
    norms = spectral_norms(G[blocks])
    top = norms.argmax().view(1)
    value, block = torch.cat([norms[top], blocks[top].to(norms.dtype)]).tolist()
    return MaxDualNorm(value, int(block), value, "spectral norm, exact")
