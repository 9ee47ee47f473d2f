"""Equal samples as one sample with the sum of their weights, which is the same training problem.

So a sample of weight two and a sample that occurs twice are one problem, and not only problems with one optimum.
"""

import numpy as np


def merged(X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray | slice, np.ndarray | None]:
    """Return which samples to keep, so that none of them occurs twice with the same targets, and their weights.

    The first of equal samples is kept. Without equal samples, all are kept with the weights that they have.
    """
    # 1. Name each row by a whole number modulo 2^64, the same for equal rows. Adding zero removes the sign of -0.0.
    rows = np.column_stack([X, Y]) + 0.0
    factors = np.random.default_rng(0).integers(1, 2**63, size=rows.shape[1], dtype=np.uint64)
    names = rows.view(np.uint64) @ factors
    _, first, index = np.unique(names, return_index=True, return_inverse=True)
    # 2. Different rows of one name, which are as good as impossible, would not be merged.
    if len(first) == len(rows) or not np.array_equal(rows, rows[first[index]]):
        return slice(None), weights
    # 3. Add the weights, one for each sample by default.
    order = np.argsort(first)
    totals = np.bincount(index, weights=weights)[order].astype(np.float64)
    return first[order], totals
