"""What an activation supplies: phi itself, and its blocks.

Blocks are masks with or without cones.
"""

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.errors import InputError
from convexnn_bench.operator import Rows
from convexnn_bench.patterns import (
    Patterns,
    enumerate_patterns,
    enumeration_cost,
    patterns_from_masks,
    patterns_of_rows,
    sample_patterns,
)
from convexnn_bench.terminal import progress

PROGRESS_AFTER = 1.0  # seconds that an enumeration is expected to take before its cost and a bar are shown


class BaseActivation:
    """The base of every activation phi.

    Its blocks k = 1..P have 0/1 masks D_k, and phi(Phi u) = D_k Phi u in block k.

    A new activation defines `apply`, and `blocks` if its blocks are not the patterns of Phi.

    Attributes
    ----------
    name : str
        The name under which the class is registered.
    has_cone : bool
        Whether the vectors u of block k are constrained by K_k u >= 0, K_k = (2 D_k - I) Phi.
    has_gates : bool
        Whether neuron j of the network has the fixed mask of block j mod P.
    """

    name: str
    has_cone: bool = False
    has_gates: bool = False

    def blocks(self, Phi: np.ndarray | Rows, patterns: object, seed: int) -> Patterns:
        """Return the blocks for rows Phi.

        Parameters
        ----------
        Phi : array, N x p, or Rows
            A `Rows` object multiplies by the structure of the architecture, and forms Phi only where its entries are
            needed.
        patterns : "all", int, bool array N x P or Patterns
            All patterns, a number of them to sample, the masks themselves, or patterns of these rows.
        seed : int
            Seed of the sampled directions.
        """
        # 1. The user's masks keep their order, since points refer to blocks by number.
        if isinstance(patterns, Patterns):
            return patterns_of_rows(patterns, Phi)
        if isinstance(patterns, np.ndarray):
            return patterns_from_masks(patterns, Phi.shape[0])
        # 2. Enumeration looks at the entries of Phi, so that rows given by structure are formed here.
        if patterns == "all":
            if isinstance(Phi, Rows) and Phi.is_sparse:
                raise InputError(
                    "patterns='all' enumerates patterns from the entries of X, and this X is sparse: give a number of "
                    "gates to sample, such as patterns=20, or X.toarray()"
                )
            integers = Phi.exact if isinstance(Phi, Rows) else None
            Phi = np.asarray(Phi)
            cost = enumeration_cost(Phi)
            with progress(f"enumerating up to {cost}", total=1.0, show=cost.seconds > PROGRESS_AFTER) as update:
                return enumerate_patterns(Phi, progress=lambda done, total: update(done / total), integers=integers)
        # 3. Sampling needs products of Phi with random directions only.
        return sample_patterns(Phi, int(str(patterns)), seed)

    def apply(self, H: Float[torch.Tensor, "N M"], gate_masks: torch.Tensor) -> Float[torch.Tensor, "N M"]:
        """Return phi(H) for pre-activations H = Phi W1.

        gate_masks (N x M) are the masks of the neurons' gates.
        """
        raise TypeError(f"{type(self).__name__} must define apply")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
