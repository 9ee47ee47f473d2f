"""The linear poolings of `CNN` as torch layers."""

from typing import Any

import numpy as np
import torch


class MatrixPool(torch.nn.Module):
    """Pool the K patches of every map with a matrix P (a x K).

    Maps n x M x h x w with K = h w become n x M x a.
    Parameters
    ----------
    P : array a x K
        The matrix, a buffer of the layer.
    """

    P: torch.Tensor

    def __init__(self, P: Any):
        super().__init__()
        self.register_buffer("P", torch.as_tensor(np.asarray(P)).to(torch.get_default_dtype()))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(2) @ self.P.T


def pooling_layer(pool: str | int | np.ndarray) -> torch.nn.Module:
    """Return the layer for `pool` of `CNN`: "global", "identity", a whole number or a matrix."""
    if isinstance(pool, np.ndarray):
        return MatrixPool(pool)
    if isinstance(pool, int):
        return torch.nn.AdaptiveAvgPool2d(pool)
    return torch.nn.Identity() if pool == "identity" else torch.nn.AdaptiveAvgPool2d(1)
