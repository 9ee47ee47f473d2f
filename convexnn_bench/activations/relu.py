"""ReLU: blocks are the activation patterns of the data (Pilanci & Ergen, ICML 2020)."""

import torch

from convexnn_bench.activations.base import BaseActivation


class ReLU(BaseActivation):
    """phi(t) = max(t, 0).

    The vectors u of block k are constrained to the cone (2 D_k - I) Phi u >= 0.
    """

    name = "relu"
    has_cone = True

    def apply(self, H: torch.Tensor, gate_masks: torch.Tensor) -> torch.Tensor:
        # Within cone k this equals D_k Phi u, by which the convex program replaces it.
        return H.clamp_min(0)
