"""Rigorous upper bounds on the block dual norms ||G_k||_k^dual, and where they are attained.

Without a cone the dual norm is the spectral norm (spectral.py). With a cone and q = 1 it is max over both signs of
max{+-G_k^T u : K_k u >= 0, ||u|| <= 1} (Sahiner et al., ICLR 2024, eq. 23), with q > 1 see vector_outputs.py.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from convexnn_bench.norms.spectral import MaxDualNorm, max_spectral_norm
from convexnn_bench.norms.vector_outputs import max_vector_norm

if TYPE_CHECKING:
    from convexnn_bench.problem import Problem


def max_dual_norm(problem: "Problem", G: Float[torch.Tensor, "P p q"]) -> MaxDualNorm:
    """Bounds on max_k ||G_k||_k^dual over the blocks at hand."""
    if problem.cones is not None and problem.q == 1:
        value, block = problem.cones.max_dual_norm(G[:, :, 0].cpu().numpy())
        return MaxDualNorm(float(value), int(block), float(value), "projection onto the cones, exact")
    if problem.cones is not None:
        return max_vector_norm(problem.cones, G.cpu().numpy())
    return max_spectral_norm(G)


def complete_dual_norm(problem: "Problem", Lambda: Float[torch.Tensor, "n_out c"]) -> MaxDualNorm:
    """Bounds on max ||R^T (Phi u)_+|| over the unit ball, R = C^*(Lambda): the dual norm over all patterns."""
    return problem.all_patterns.bound(problem.operator().second_layer_adjoint(Lambda).numpy())
