"""Rigorous upper bounds on max ||R^T (Phi u)_+|| over ||u|| <= 1, for every activation pattern at once.

This is the dual norm of the original ReLU network: a multiplier Lambda with R = C^*(Lambda) below beta in it bounds the
training of a network of any width (Sahiner et al., ICLR 2024, eq. 23, maximised over all patterns).
"""

import numpy as np
from jaxtyping import Float

from convexnn_bench.dual_norms import EPS, MaxDualNorm


def complete_norm(Phi: Float[np.ndarray, "N p"], R: Float[np.ndarray, "N q"]) -> MaxDualNorm:
    """Bounds on max ||R^T (Phi u)_+|| over the unit ball.

    ||(Phi u)_+|| <= ||Phi u||, hence at most ||R||_2 ||Phi||_2.
    """
    size = float(np.linalg.norm(R, 2) * np.linalg.norm(Phi, 2))
    return MaxDualNorm(size * (1 + 8 * sum(Phi.shape) * EPS), -1, 0.0, "product of norms")
