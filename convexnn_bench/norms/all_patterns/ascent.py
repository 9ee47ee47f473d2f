"""Directions u of large ||R^T (Phi u)_+||.

They give lower bounds on the dual norm over all patterns, and new patterns.
"""

import math

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.deadline import time_is_up

STARTS = 2000  # Gaussian directions that are evaluated
KEPT = 64  # directions of largest value from which the ascent starts
STEPS = 150  # steps of the ascent
CHUNK_ELEMENTS = 20_000_000  # entries of Phi u at a time, 160 MB


def ascend(
    Phi: Float[np.ndarray, "N p"], R: Float[np.ndarray, "N q"], seed: int = 0, kept: int = KEPT, steps: int = STEPS
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "p k"]]:
    """Return (values, U), local maxima of ||R^T (Phi u)_+|| over unit vectors u.

    The largest is first. Each is one column of U.

    The ascent starts from the best `kept` of Gaussian directions, rows +-phi_i and singular vectors of Phi^T R. While
    the pattern D does not change, the function is the largest v^T R^T D Phi u over ||v|| = 1. Its gradient is G v with
    G = Phi^T D R, and the step to G v / ||G v|| is that of the power method (a conditional gradient on the ball). A
    step that does not increase the value is halved. At a deadline the ascent ends where it is.
    """
    rows, weights = torch.as_tensor(Phi), torch.as_tensor(R)
    u = _starts(rows, weights, seed)
    step_size = max(1, CHUNK_ELEMENTS // (8 * max(1, rows.shape[0])))
    values = []
    for part in u.split(step_size):
        values.append(_value(rows, weights, part))
        if time_is_up():
            break
    first = torch.cat(values)
    u = u[first.topk(min(kept, len(first), max(8, step_size))).indices]
    value, length = _value(rows, weights, u), torch.ones(len(u), 1, dtype=rows.dtype)
    for _ in range(steps):
        # All directions step at once. Those that improve keep the step and lengthen the next; the others halve theirs.
        moved = _unit(u + length * (_power_step(rows, weights, u) - u))
        found = _value(rows, weights, moved)
        better = found > value
        u, value = torch.where(better[:, None], moved, u), torch.where(better, found, value)
        length = torch.where(better[:, None], (1.5 * length).clamp_max(1.0), 0.5 * length)
        if float(length.max()) < 1e-9 or time_is_up():
            break
    order = value.argsort(descending=True)
    return value[order].numpy(), u[order].T.contiguous().numpy()


def attained(Phi: Float[np.ndarray, "N p"], R: Float[np.ndarray, "N q"], u: Float[np.ndarray, " p"]) -> float:
    """Return ||R^T (Phi u)_+|| / ||u||, lowered by its rounding error: a lower bound on the dual norm."""
    length = float(np.linalg.norm(u))
    if length == 0.0:
        return 0.0
    h = np.maximum(Phi @ u, 0.0)
    # Magnitudes of all terms, to which rounding is relative, whatever cancels in R^T (Phi u)_+.
    size = float(np.linalg.norm(np.abs(R).T @ (np.abs(Phi) @ np.abs(u))))
    error = 8 * (Phi.shape[0] + Phi.shape[1] + R.shape[1]) * np.finfo(np.float64).eps * size
    return max((float(np.linalg.norm(R.T @ h)) - error) / length, 0.0) * (1 - 1e-15)


def _value(Phi: torch.Tensor, R: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(torch.relu(u @ Phi.T) @ R, dim=1)


def _unit(u: torch.Tensor) -> torch.Tensor:
    return u / torch.linalg.vector_norm(u, dim=1, keepdim=True).clamp_min(1e-300)


def _power_step(Phi: torch.Tensor, R: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    H = u @ Phi.T
    v = _unit(torch.relu(H) @ R)
    return _unit(((H > 0) * (v @ R.T)) @ Phi)


def _starts(Phi: torch.Tensor, R: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    N, p = Phi.shape
    number = max(4 * p, min(STARTS, math.ceil(CHUNK_ELEMENTS / max(1, N))))
    gaussian = torch.randn(number, p, generator=generator, dtype=Phi.dtype)
    # The rows with the largest weights ||R_i||, and the singular vectors of the pattern in which every row is active.
    heavy = Phi[torch.linalg.vector_norm(R, dim=1).topk(min(N, 64)).indices]
    left = torch.linalg.svd(Phi.T @ R, full_matrices=False)[0].T
    return _unit(torch.cat([gaussian, heavy, -heavy, left, -left]))
