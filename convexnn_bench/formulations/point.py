"""A solver's raw point, in the parametrisation of its own formulation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


def _length(value: Any) -> str:
    return f" of {len(value)}" if isinstance(value, tuple | list) else ""


@dataclass
class Point:
    """Raw parameters, numpy or torch; never a score.

    Exactly one of `blocks`, `factors` and `network` is given.

    blocks: P x p x q, a point of the convex program.
    split: P x p x 2, with blocks, for scalar-output ReLU: Z_k = split[k, :, 0] - split[k, :, 1], both in cone k.
    cone_factors: (U, V), with blocks, for vector-output ReLU: Z_k = U_k V_k^T with the columns of U_k in cone k. The
        block norm is the least 1/2 (||U_k||^2 + ||V_k||^2) over such pairs, so that a pair proves an upper bound on it.
    factors: (U, V), P x p x m and P x q x m, a Burer-Monteiro point.
    network: (W1, W2), p x M and q x M; with gated ReLU neuron j uses gate j mod P.
    dual: n_out x c, a candidate multiplier Lambda near grad F; it is made feasible before it is used.
    """

    blocks: Any = None
    split: Any = None
    cone_factors: tuple[Any, Any] | None = None
    factors: tuple[Any, Any] | None = None
    network: tuple[Any, Any] | None = None
    dual: Any = None

    def __post_init__(self) -> None:
        given = [name for name in ("blocks", "factors", "network") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a point is exactly one of blocks, factors and network, got {given or 'none'}")
        for name in ("factors", "network", "cone_factors"):
            pair = getattr(self, name)
            if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2):
                raise ValueError(f"{name} must be a pair of arrays, got {type(pair).__name__}{_length(pair)}")

    @property
    def formulation(self) -> str:
        """Which formulation the raw parameters belong to."""
        if self.blocks is not None:
            return "convex"
        return "burer_monteiro" if self.factors is not None else "network"

    def copy(self) -> "Point":
        """The same numbers in arrays of its own, on the same device."""

        def own(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(own, value))
            if isinstance(value, torch.Tensor):
                return value.detach().clone()
            return value.copy() if isinstance(value, np.ndarray) else value

        return Point(**{name: own(value) for name, value in vars(self).items()})
