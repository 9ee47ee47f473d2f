"""Rigorous upper bounds on the dual norms ||G_k||_k^dual of blocks.

Where they are attained is part of the answer.

The dual norm of a block is max ||G_k^T u|| over K_k u >= 0, ||u|| <= 1 (Sahiner et al., ICLR 2024, eq. 23):

    without a cone     the spectral norm                   spectral.py
    with a cone, q = 1 by projections onto the cone        scalar_outputs.py
    with a cone, q > 1 branch and bound, or a relaxation   vector_outputs.py
"""

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.cones import Cones
from convexnn_bench.norms.scalar_outputs import max_scalar_norm
from convexnn_bench.norms.spectral import UNBOUNDED, MaxDualNorm, max_spectral_norm
from convexnn_bench.norms.vector_outputs import max_vector_norm
from convexnn_bench.operator import is_moderate, power_of_two


def max_dual_norm(cones: Cones | None, G: Float[torch.Tensor, "P p q"]) -> MaxDualNorm:
    """Return bounds on max_k ||G_k||_k^dual over the blocks at hand, within their `cones` where there are any."""
    if cones is None:
        return max_spectral_norm(G)
    if not bool(torch.isfinite(G).all()):
        return UNBOUNDED
    with np.errstate(over="ignore", invalid="ignore"):
        found = _max_in_cones(cones, G)
    if is_moderate(found.value):
        return found
    # The norms are homogeneous. Scale the largest entry to [1, 2), so that its square neither overflows nor underflows.
    scale = power_of_two(G)
    return _max_in_cones(cones, G / scale).scaled(scale)


def _max_in_cones(cones: Cones, G: Float[torch.Tensor, "P p q"]) -> MaxDualNorm:
    if G.shape[2] == 1:
        return max_scalar_norm(cones, G[:, :, 0].cpu().numpy())
    return max_vector_norm(cones, G.cpu().numpy())
