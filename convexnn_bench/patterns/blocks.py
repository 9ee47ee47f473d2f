"""The blocks of a problem: activation patterns with their gates.

They are from the user, or were found before.
"""

import dataclasses
import hashlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.errors import InputError


@dataclasses.dataclass(frozen=True)
class Patterns:
    """The blocks of a problem.

    Attributes
    ----------
    masks : bool array, N x P
        One pattern a column.
    gates : array, p x P, or None
        Directions with masks = 1{Phi gates >= 0}, no nonzero row at zero. None for masks from the user.
    complete : bool
        Whether every attainable pattern that can contribute is among them.
    requested : int or None
        The number of patterns to sample; None for all.
    duplicates : int
        Repeated draws, which were removed.
    zero : int
        1 if the pattern without an active nonzero row was removed, which contributes nothing.
    count : int or None
        The number of patterns of the distinct hyperplanes if they were in general position; None if not computed.
    rows : str or None
        Where `complete`, a hash of the rows that these are all patterns of.
    moved : array N, or None
        If `complete`, the masks are all patterns of rows of which the i-th is within distance moved[i] of row i of Phi.
        None if these are the rows of Phi themselves.
    copies : bool array N, or None
        Rows whose hyperplane differs from that of another row, but counts as equal.
    resolved : bool
        Whether all hyperplanes that count as one are exactly equal, if the rows of Phi are exact.
    merged : bool
        Whether hyperplanes, or their intersections with others, count as one because of entries of Phi that may be
        rounded.
    """

    masks: Bool[np.ndarray, "N P"]
    gates: Float[np.ndarray, "p P"] | None
    complete: bool
    requested: int | None = None
    duplicates: int = 0
    zero: int = 0
    count: int | None = None
    rows: str | None = None
    moved: Float[np.ndarray, "N"] | None = None
    copies: Bool[np.ndarray, "N"] | None = None
    resolved: bool = True
    merged: bool = False

    def summary(self) -> str:
        """Return one line: how many patterns there are, of what kind, and what was removed."""
        N, P = self.masks.shape
        if self.gates is None:
            return f"{P} patterns of {N} rows, as given"
        words = [f"{P} patterns of {N} rows", "all attainable" if self.complete else "sampled"]
        if self.requested is not None and self.requested > P:
            words.append(f"{self.requested} requested")
        if self.count is not None:
            words.append(f"{self.count} in general position")
        if self.duplicates:
            words.append(f"{self.duplicates} repeated draws removed")
        if self.zero:
            words.append("the all-zero pattern removed")
        return ", ".join(words)


def patterns_from_masks(masks: np.ndarray, N: int) -> Patterns:
    """Return the patterns of an N x P array of booleans or 0/1, as they are and in their order.

    Raises
    ------
    InputError
        For a wrong shape, other values, or no column.
    """
    array = np.asarray(masks)
    if array.ndim != 2 or array.shape[0] != N:
        raise InputError(f"patterns: masks must be an N x P array with N = {N} rows, got shape {array.shape}")
    if array.shape[1] == 0:
        raise InputError(f"patterns: masks need at least one column (pattern), got shape {array.shape}")
    if array.dtype != bool:
        if array.dtype.kind not in "iuf" or not np.all((array == 0) | (array == 1)):
            raise InputError(f"patterns: masks must hold booleans or 0 and 1 only (dtype {array.dtype})")
        array = array == 1
    return Patterns(np.array(array), None, False, array.shape[1])


def hash_of(Phi: Float[np.ndarray, "N p"]) -> str:
    """Return a hash of the rows, by which patterns know them again."""
    return hashlib.sha256(np.ascontiguousarray(Phi).tobytes()).hexdigest()


def patterns_of_rows(patterns: Patterns, Phi: Any) -> Patterns:
    """Return patterns that were enumerated or sampled before, for rows Phi.

    Raise InputError if they are of others.

    They stay `complete` only for the very rows that they were enumerated from.
    """
    N, p = Phi.shape
    gates = patterns.gates
    if gates is None:
        return patterns_from_masks(patterns.masks, N)
    if patterns.masks.shape[0] != N or gates.shape[0] != p:
        raise InputError(
            f"patterns: they are of {patterns.masks.shape[0]} rows of {gates.shape[0]} features, and the first layer "
            f"has {N} rows of {p}; sample or enumerate them from the rows of this problem"
        )
    values = np.asarray(Phi @ gates)
    # A value of the size of its own rounding may have either sign.
    clear = np.abs(values) > 1e-12 * np.abs(values).max(axis=1, keepdims=True)
    wrong = np.flatnonzero((clear & ((values >= 0) != patterns.masks)).any(axis=0))
    if wrong.size:
        raise InputError(
            f"patterns: they are of other data: the gate of block {wrong[0]} has another pattern here; sample or "
            "enumerate them from the rows of this problem"
        )
    # The rows of sparse data are not formed, and no complete set of patterns was made from them.
    formed = not getattr(Phi, "is_sparse", False)
    complete = patterns.complete and formed and patterns.rows == hash_of(np.asarray(Phi, dtype=np.float64))
    rows = patterns.rows if complete else None
    # The arrays are copied, because the caller may change them later.
    return dataclasses.replace(patterns, masks=patterns.masks.copy(), gates=gates.copy(), complete=complete, rows=rows)


def with_scaled_feature(patterns: Patterns, Phi: Float[np.ndarray, "N p"], factor: float) -> Patterns:
    """Return patterns for rows Phi with another factor of their last column.

    This column is `factor` times that of the rows that the patterns were made from.

    factor: a power of two, at least one. The patterns are the same, since the last entry of u can be as much smaller.
    """
    assert patterns.gates is not None
    gates = np.vstack([patterns.gates[:-1], patterns.gates[-1:] / factor])
    moved = None if patterns.moved is None else patterns.moved * factor
    rows = None if patterns.rows is None else hash_of(Phi)
    return dataclasses.replace(patterns, gates=gates, moved=moved, rows=rows)
