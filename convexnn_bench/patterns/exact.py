"""Exact tests of whether hyperplanes that count as equal in float64 are equal.

Each row of Phi times a power of two is a row of integers. If the architecture rounds, it may know the rows before
rounding as integers (`exact_rows`). Only rows that float64 cannot distinguish are tested. Most data have no such rows.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from convexnn_bench.architectures import Integers, as_integers


def multiples(a: Float[np.ndarray, "k p"], b: Float[np.ndarray, "k p"]) -> Bool[np.ndarray, "k"]:
    """Return for each pair of nonzero rows whether one is exactly a multiple of the other."""
    found = np.all(a == b, axis=1) | np.all(a == -b, axis=1)
    others = np.flatnonzero(~found)
    found[others] = _multiples(as_integers(a[others]), as_integers(b[others]))
    return found


class ExactRows:
    """Nonzero rows of Phi in exact arithmetic.

    Parameters
    ----------
    rows : array, n x p
    integers : callable, optional
        Returns the rows as integers. By default they are those of `rows`.
    """

    def __init__(self, rows: Float[np.ndarray, "n p"], integers: Callable[[], Integers] | None = None):
        self.rows, self._source = rows, integers
        self._columns: np.ndarray | slice = slice(None)

    @cached_property
    def _all(self) -> Integers:
        return as_integers(self.rows) if self._source is None else self._source()

    @property
    def _integers(self) -> Integers:
        return self._all[:, self._columns]

    def part(self, index: Int[np.ndarray, "k"]) -> "ExactRows":
        """Return some of the rows."""
        return ExactRows(self.rows[index], None if self._source is None else lambda: self._all[index])

    def parallel(self, first: Int[np.ndarray, "k"], second: Int[np.ndarray, "k"]) -> Bool[np.ndarray, "k"]:
        """Return for each pair of rows whether one is exactly a multiple of the other."""
        if self._source is None:
            return multiples(self.rows[first], self.rows[second])
        return _multiples(self._all[first], self._all[second])

    def has_rank(self, rank: int) -> bool:
        """Return whether `rank`, which may be too small, is the rank of the rows."""
        if rank == min(self.rows.shape):
            return True
        # Elimination without fractions: every entry is a minor of the matrix, and the division leaves no remainder
        # (Bareiss, Mathematics of Computation 22, 1968).
        left, columns, last = self._all, [], 1
        for _ in range(rank):
            row, column = np.argwhere(left != 0)[0]
            pivot = left[row, column]
            left = (left * pivot - left[:, column : column + 1] * left[row]) // last
            columns.append(int(column))
            last = pivot
        # Vectors of the row space that agree in the columns of the pivots are equal.
        self._columns = np.array(columns)
        return not bool((left != 0).any())

    def meet(
        self, path: tuple[int, ...], first: Int[np.ndarray, "k"], second: Int[np.ndarray, "k"]
    ) -> Bool[np.ndarray, "k"]:
        """Return for each pair of rows whether their hyperplanes have the same trace.

        The trace is that on an intersection of others.

        No two of the rows are parallel.

        Parameters
        ----------
        path : tuple of int
            The indices of the rows whose hyperplanes intersect. They are independent of each other, and of each row of
            the pairs.
        first, second : int arrays, k
            The indices of the pairs.
        """
        # The traces are equal if the two rows are multiples of each other after elimination of the rows of the path.
        depth, pairs = len(path), len(first)
        left = self._integers[np.concatenate([np.array(path, dtype=int), first, second])]
        for step in range(depth):
            column = np.flatnonzero(left[step] != 0)[0]
            left = left * left[step, column] - left[:, column : column + 1] * left[step]
        return _multiples(left[depth : depth + pairs], left[depth + pairs :])


def _multiples(a: Integers, b: Integers) -> Bool[np.ndarray, "k"]:
    """Return for each pair of rows whether both are nonzero and multiples of each other."""
    each = np.arange(len(a))
    column = np.argmax(a != 0, axis=1)
    at_a, at_b = a[each, column][:, None], b[each, column][:, None]
    return np.all(a * at_b == b * at_a, axis=1) & (at_a != 0)[:, 0] & (at_b != 0)[:, 0]
