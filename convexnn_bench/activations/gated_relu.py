"""Gated ReLU: fixed gates g_k decide which rows are active.

This is the network of Mishkin, Sahiner & Pilanci, ICML 2022.
"""

import torch

from convexnn_bench.activations.base import BaseActivation


class GatedReLU(BaseActivation):
    """phi(t) = 1{Phi g_k >= 0} t for a neuron with gate g_k; no cone."""

    name = "gated_relu"
    has_gates = True

    def apply(self, H: torch.Tensor, gate_masks: torch.Tensor) -> torch.Tensor:
        return H * gate_masks
