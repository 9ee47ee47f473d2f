"""Products of a network without masks, by the architecture's own map Z -> C(Phi Z)."""

from collections.abc import Callable

import torch

from convexnn_bench.operator.layers import Blocks, Predictions
from convexnn_bench.operator.masked_layers import MaskedLayers
from convexnn_bench.operator.products.base import Products


class LinearMap(Products):
    """One block without a mask.

    `forward` is the architecture's `linear_map`, Z (p x q) -> C(Phi Z).
    """

    def __init__(self, forward: Callable[[torch.Tensor], torch.Tensor]):
        self.forward = forward

    def apply(self, layers: MaskedLayers, Z: Blocks) -> Predictions:
        return self.forward(Z[0])

    def adjoint(self, layers: MaskedLayers, L: Predictions) -> Blocks:
        return layers.adjoint_of("linear", self.forward, layers.p, layers.q)(L)[None]

    def cheaper(self, layers: MaskedLayers, m: int) -> bool:
        """Return whether Z = U V^T costs less than the N x m hidden units."""
        return m >= layers.c and layers.q <= layers.N
