"""Rigorous upper bounds on the block dual norms ||G_k||_k^dual, and where they are attained.

Without a cone the dual norm is the spectral norm (spectral.py). With a cone and q = 1 it is max over both signs of
max{+-G_k^T u : K_k u >= 0, ||u|| <= 1} (Sahiner et al., ICLR 2024, eq. 23), with q > 1 see vector_outputs.py.
"""

import torch
from jaxtyping import Float

from convexnn_bench.cones import Cones
from convexnn_bench.norms.spectral import MaxDualNorm, max_spectral_norm
from convexnn_bench.norms.vector_outputs import max_vector_norm


def max_dual_norm(cones: Cones | None, G: Float[torch.Tensor, "P p q"]) -> MaxDualNorm:
    """Return bounds on max_k ||G_k||_k^dual over the blocks at hand, within their `cones` where there are any."""
    if cones is not None and G.shape[2] == 1:
        value, block = cones.max_dual_norm(G[:, :, 0].cpu().numpy())
        return MaxDualNorm(float(value), int(block), float(value), "projection onto the cones, exact")
    if cones is not None:
        return max_vector_norm(cones, G.cpu().numpy())
    return max_spectral_norm(G)
