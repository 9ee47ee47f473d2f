"""What an activation supplies: its blocks (masks, and whether u is held in their cones) and phi itself."""

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.operator import Rows
from convexnn_bench.patterns import Patterns, enumerate_patterns, enumeration_cost, patterns_from_masks, sample_patterns
from convexnn_bench.terminal import progress

SHOWN_SECONDS = 1.0  # an enumeration expected to take longer shows its cost and a bar


class BaseActivation:
    """Blocks k = 1..P with 0/1 masks D_k, such that phi(Phi u) = D_k Phi u for u in block k.

    Attributes
    ----------
    name: registered name.
    has_cone: the vectors u of block k are held in K_k u >= 0, K_k = (2 D_k - I) Phi.
    has_gates: neuron j of the network carries the fixed mask of block j mod P.
    """

    name: str
    has_cone: bool = False
    has_gates: bool = False

    def blocks(self, Phi: np.ndarray | Rows, patterns: object, seed: int) -> Patterns:
        """The blocks for rows Phi (N x p). `patterns` is "all", a number to sample, or N x P masks.

        Phi is an array, or Rows: a matrix with `shape` and `Phi @ gates`, formed for anything else.
        """
        if isinstance(patterns, np.ndarray):
            return patterns_from_masks(patterns, Phi.shape[0])
        if patterns == "all":
            Phi = np.asarray(Phi)
            cost = enumeration_cost(Phi)
            with progress(f"enumerating up to {cost}", total=1.0, show=cost.seconds > SHOWN_SECONDS) as update:
                return enumerate_patterns(Phi, progress=lambda done, total: update(done / total))
        return sample_patterns(Phi, int(str(patterns)), seed)

    def apply(self, H: Float[torch.Tensor, "N M"], gate_masks: torch.Tensor) -> Float[torch.Tensor, "N M"]:
        """phi(H) for pre-activations H = Phi W1; gate_masks (N x M) are those of the neurons' gates."""
        raise TypeError(f"{type(self).__name__} must define apply")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
