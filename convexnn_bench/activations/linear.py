"""Linear activation, phi(t) = t: one block, D = I."""

import numpy as np
import torch

from convexnn_bench.activations.base import BaseActivation
from convexnn_bench.operator import Rows
from convexnn_bench.patterns import Patterns


class Linear(BaseActivation):
    """phi(t) = t: one block with D = I, which is always complete.

    The argument `patterns` has no effect.
    """

    name = "linear"

    def blocks(self, Phi: np.ndarray | Rows, patterns: object, seed: int) -> Patterns:
        # D = I leaves every row active, so that one block holds all networks and no sampling is needed.
        masks = np.ones((Phi.shape[0], 1), dtype=bool)
        return Patterns(masks=masks, gates=None, complete=True)

    def apply(self, H: torch.Tensor, gate_masks: torch.Tensor) -> torch.Tensor:
        return H
