"""Merge equal samples into one sample with the sum of their weights.

The merged problem has the same optimum. Weight two and two copies give the same problem, and so the same fit.
"""

import numpy as np
import scipy.sparse

from convexnn_bench.operator import DataArray, entries, with_entries


def merged(X: DataArray, Y: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray | slice, np.ndarray | None]:
    """Return the first of each group of equal samples, and the sums of the weights.

    Samples are equal if their features and targets are. Without equal samples all are kept, with unchanged weights.
    """
    # 1. Hash each row to a whole number modulo 2^64, the same for equal rows. Adding zero removes the sign of -0.0.
    rows = _side_by_side(X, Y)
    factors = np.random.default_rng(0).integers(1, 2**63, size=rows.shape[1], dtype=np.uint64)
    names = with_entries(rows, entries(rows).view(np.uint64)) @ factors
    _, first, index = np.unique(names, return_index=True, return_inverse=True)
    # 2. Merge nothing in the practically impossible case that different rows have the same hash.
    if len(first) == len(names) or not same_data(rows, rows[first[index]]):
        return slice(None), weights
    # 3. Add the weights; the default weight is one.
    order = np.argsort(first)
    totals = np.bincount(index, weights=weights)[order].astype(np.float64)
    return first[order], totals


def same_data(one: DataArray, other: DataArray) -> bool:
    """Return whether two dense or two sparse matrices are equal."""
    if scipy.sparse.issparse(one) and scipy.sparse.issparse(other):
        return one.shape == other.shape and (one != other).nnz == 0
    return not scipy.sparse.issparse(one) and not scipy.sparse.issparse(other) and np.array_equal(one, other)


def _side_by_side(X: DataArray, Y: np.ndarray) -> DataArray:
    """Return [X Y] without -0.0; if X is sparse, without zeros and duplicates."""
    if not scipy.sparse.issparse(X):
        return np.column_stack([X, Y]) + 0.0
    rows = scipy.sparse.csr_array(scipy.sparse.hstack([X, Y], format="csr"))
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows
