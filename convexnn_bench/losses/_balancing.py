"""Change multipliers slightly so that their columns sum to zero exactly.

A free output bias needs such multipliers. Their entries are rounded to multiples of a power of two, so that sums are
exact, and moved within the domain of F* until the columns sum to zero.
"""

import numpy as np
import torch

from convexnn_bench.losses.base import Predictions

GRID_BITS = 40  # entries of a balanced multiplier are multiples of 2^-40 of the largest


def _on_grid(L: Predictions) -> tuple[torch.Tensor, float]:
    """Return (whole numbers q, grid) with q * grid = L, rounded toward zero."""
    largest = float(L.abs().max())
    # Entries near the smallest float64 numbers become zero.
    grid = 2.0 ** (int(np.ceil(np.log2(largest))) - GRID_BITS) if largest > 1e-290 else 1.0
    return torch.trunc(L / grid).to(torch.int64), grid


def _take(stock: torch.Tensor, amount: int) -> torch.Tensor:
    """Return whole numbers 0 <= t <= stock with sum `amount`, proportional to `stock` up to rounding."""
    total = int(stock.sum())
    # The factor just below one keeps the sum of the floors from exceeding the amount. The loop distributes the rest,
    # beginning with the largest remaining stock.
    share = torch.floor(stock.double() * (amount / max(total, 1) * (1 - 1e-12))).to(torch.int64)
    share = torch.minimum(share.clamp_min(0), stock)
    for index in (stock - share).argsort(descending=True).tolist():
        missing = amount - int(share.sum())
        if missing <= 0:
            break
        share[index] += min(missing, int(stock[index] - share[index]))
    return share


def balanced_entries(L: Predictions) -> Predictions:
    """Return L with columns that sum to zero exactly, by shrinking the entries of one sign."""
    q, grid = _on_grid(L)
    for column in range(q.shape[1]):
        # Entries move towards zero only. The domain of F* contains all points between an entry and zero.
        excess = int(q[:, column].sum())
        sign = 1 if excess > 0 else -1
        q[:, column] -= sign * _take((sign * q[:, column]).clamp_min(0), abs(excess))
    return q.to(L.dtype) * grid


def balanced_rows(L: Predictions, Y: Predictions) -> Predictions:
    """Return L with rows and columns that sum to zero exactly, and rows of L + Y in the simplex.

    Y is one-hot. In each row the label's entry is set to minus the sum of the others. Then probability moves within
    rows from classes with too large a column sum to classes with too small a one.
    """
    q, grid = _on_grid(L)
    label = Y.argmax(dim=1, keepdim=True)
    q.scatter_(1, label, 0)
    q.scatter_(1, label, -q.sum(dim=1, keepdim=True))
    # This number is larger than any amount that is moved, and small enough for exact sums.
    full = torch.floor(Y / grid).clamp_max(2.0**44).to(torch.int64)
    sums = q.sum(dim=0)
    for high in torch.nonzero(sums > 0).flatten().tolist():
        for low in torch.nonzero(sums < 0).flatten().tolist():
            amount = min(int(sums[high]), -int(sums[low]))
            if amount > 0:
                moved = _take((q[:, high] + full[:, high]).clamp_min(0), amount)
                q[:, high] -= moved
                q[:, low] += moved
                sums = q.sum(dim=0)
    return q.to(L.dtype) * grid
