"""Activation patterns 1{Phi u >= 0}: their number, complete enumeration, and masks from the user.

Each pattern is a block of the convex program (Pilanci & Ergen 2020; Sahiner et al., ICLR 2024, eqs. 2-10). N rows of
rank r in general position have 2 sum_{k<r} C(N-1, k) patterns (Cover 1965). Zero rows are always active,
1{0 >= 0} = 1. Complementary patterns are distinct blocks.
"""

import dataclasses
import hashlib
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.architectures import Integers
from convexnn_bench.errors import InputError, PatternBudgetError
from convexnn_bench.patterns.arrangement import COARSE, Merges, Progress, half_cells
from convexnn_bench.patterns.row_space import ReducedRows, reduce_to_row_space
from convexnn_bench.terminal import in_bytes, in_time, in_words

log = logging.getLogger("convexnn_bench")
MEMORY_LIMIT = 2 * 2**30  # bytes of masks and gates, above which an enumeration is refused
LOGGED_AFTER = 2.0  # seconds that an enumeration is expected to take before its cost is logged
CHUNK_ELEMENTS = 4_000_000  # products of rows and directions at a time, 32 MB
ALL_ZERO = "Phi: every row is zero, so no pattern contributes anything; the data must not be all zero"


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


@dataclasses.dataclass(frozen=True)
class EnumerationCost:
    """What a complete enumeration takes.

    Attributes
    ----------
    rows, rank : int
        Distinct hyperplanes, and the rank of their normals.
    patterns : int
        Their number; an upper bound unless the rows are in general position.
    candidates : int
        Directions to look at.
    bytes : int
        Peak memory.
    seconds : float
        A rough estimate.
    """

    rows: int
    rank: int
    patterns: int
    candidates: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{in_words(self.patterns)} patterns ({self.rows} distinct hyperplanes of rank {self.rank}), "
            f"about {in_bytes(self.bytes)} and {in_time(self.seconds)}"
        )


def count_patterns(N: int, r: int) -> int:
    """Return 2 sum_{k<r} C(N-1, k): the patterns of N rows of rank r in general position, else an upper bound.

    Examples
    --------
    >>> count_patterns(4, 2)
    8
    """
    if N < 1 or r < 1:
        raise InputError(f"count_patterns needs N >= 1 and r >= 1, got N={N}, r={r}")
    # C(N - 1, k) = 0 for k >= N, so that the sum ends at N whatever the rank.
    return 2 * sum(math.comb(N - 1, k) for k in range(min(r, N)))


def enumeration_cost(Phi: Float[np.ndarray, "N p"]) -> EnumerationCost:
    """Return the cost of enumerating the patterns of Phi (N x p); raise InputError for an unusable Phi."""
    Phi = check_rows(Phi)
    return _cost(reduce_to_row_space(Phi), Phi.shape)


def _cost(reduced: ReducedRows, shape: tuple[int, ...]) -> EnumerationCost:
    rows, rank = len(reduced.distinct), reduced.rank
    if rows == 0:
        return EnumerationCost(0, 0, 1, 1, shape[0], 0.0)
    patterns = count_patterns(rows, rank)
    # Every cell appears once, as a half of a cut. Each level of the recursion repeats this in one dimension less.
    candidates = sum(math.comb(rows, min(rows, rank - k)) for k in range(rank)) + patterns
    size = patterns * (shape[0] + shape[0] // 8 + 8 * shape[1] + 8 * 5 * (rank + 1))
    signs_of = patterns * rows * rank if rank > 2 else patterns * rows
    scan = patterns * rows if rank > 2 else 0
    # seconds a call of the recursion, a sign and a row of a cell that is split
    seconds = 1e-4 * sum(math.comb(rows, k) for k in range(max(0, rank - 1))) + 1e-9 * signs_of + 2e-8 * scan
    return EnumerationCost(rows, rank, patterns, candidates, size, float(min(seconds, 1e300)))


def enumerate_patterns(
    Phi: Float[np.ndarray, "N p"],
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress | None = None,
    integers: Callable[[], Integers] | None = None,
) -> Patterns:
    """Return all attainable patterns of Phi whose cells have an interior, each with a direction inside its cell.

    Parameters
    ----------
    Phi : array, N x p
    memory_limit : int
        Bytes that masks and gates may take.
    progress : callable, optional
        Called with (done, total) if the rank is above two.
    integers : callable, optional
        Returns the rows before they were rounded to `Phi`, see `BaseArchitecture.exact_rows`.

    Raises
    ------
    PatternBudgetError
        If masks and gates would not fit.
    InputError
        If Phi is unusable or zero.

    Notes
    -----
    Patterns on boundaries belong to closures of these cells and add nothing. Hyperplanes that differ by less than
    float64 resolves (about 1e-13 in angle) count as one; `moved` says how far rows would have to move for that, and
    `resolved`, by integer arithmetic, whether they differ at all. If a cell is too thin for its direction to be stored,
    the result is not `complete`. In two dimensions the patterns come in the order of their angles.
    """
    Phi = check_rows(Phi)
    # Cover's count bounds the cells of every arrangement, so that the cost is known before any cell is visited.
    reduced = reduce_to_row_space(Phi, integers)
    cost = _cost(reduced, Phi.shape)
    if cost.rows == 0:
        raise InputError(ALL_ZERO)
    if cost.bytes > memory_limit:
        raise PatternBudgetError(
            f"all activation patterns: up to {cost}, above the memory limit of {in_bytes(memory_limit)} "
            f"({memory_limit} bytes). Sample instead (patterns=500), use fewer features or rows, or "
            "pass the masks of enumerate_patterns with a larger memory_limit"
        )
    if cost.seconds > LOGGED_AFTER:
        log.info("enumerating activation patterns: up to %s", cost)
    # The cells of a central arrangement come in pairs u, -u: one half of them gives the other.
    merges = Merges(reduced.exact, reduced.resolved)
    half = half_cells(reduced.rows[reduced.distinct], reduced.errors[reduced.distinct], merges, progress)
    masks, gates, zero, lost = _masks_of_cells(Phi, reduced, np.concatenate([half, -half]))
    # Every nonzero row is active somewhere, so that an empty list means that rounding has lost all cells.
    if masks.shape[1] == 0:
        masks, gates = _patterns_of_rows(Phi)
    complete = lost == 0 and max(merges.angle, reduced.angle) <= COARSE
    moved, copies = moved_rows(reduced, len(Phi), merges.angle)
    merged = integers is None and (merges.any or reduced.merged)
    counts = (None, 0, zero, cost.patterns, hash_of(Phi))
    return Patterns(masks, gates, complete, *counts, moved, copies, merges.resolved, merged)


def _patterns_of_rows(Phi: Float[np.ndarray, "N p"]) -> tuple[Bool[np.ndarray, "N P"], Float[np.ndarray, "p P"]]:
    """Return the patterns of the directions of the rows and of their negatives, strictly inside their cells."""
    nonzero = np.any(Phi != 0, axis=1)
    level = Phi[nonzero] / np.max(np.abs(Phi[nonzero]), axis=1, keepdims=True)
    unit = level / np.linalg.norm(level, axis=1, keepdims=True)
    gates = np.concatenate([unit, -unit]).T
    values = Phi @ gates
    strict = np.all(values[nonzero] != 0, axis=0) & np.any(values[nonzero] > 0, axis=0)
    masks, gates = values[:, strict] >= 0, gates[:, strict]
    if masks.shape[1] == 0:
        raise InputError(
            "no activation pattern of Phi could be resolved in float64: the entries of its rows differ too much in "
            f"size, from {np.abs(Phi[Phi != 0]).min():.3g} to {np.abs(Phi).max():.3g}; rescale the features, or drop "
            "those that are negligible"
        )
    first = first_of_each(masks)
    return masks[:, first], gates[:, first]


def moved_rows(
    reduced: ReducedRows, N: int, angle: float = 0.0
) -> tuple[Float[np.ndarray, "N"] | None, Bool[np.ndarray, "N"] | None]:
    """Return (`moved`, `copies`) of `Patterns`, None for all zeros. angle: `Merges.angle` of the list of cells."""
    moved, copies = np.zeros(N), np.zeros(N, dtype=bool)
    # A direction in a cell that is not listed is within `angle` of a listed cell. Moving it there changes phi_i u, and
    # using the mask of that cell changes it once more.
    moved[reduced.index] = reduced.moved + 2 * angle * reduced.sizes
    copies[reduced.index] = reduced.copies
    return moved if moved.any() else None, copies if copies.any() else None


def _masks_of_cells(
    Phi: Float[np.ndarray, "N p"], reduced: ReducedRows, cells: Float[np.ndarray, "m r"]
) -> tuple[Bool[np.ndarray, "N P"], Float[np.ndarray, "p P"], int, int]:
    """Return (masks, gates, number of zero patterns removed, number of cells lost) of cells.

    cells: a direction inside each, in reduced coordinates. Its gate must have the same signs in the coordinates of
    Phi; a cell too thin for that is lost.
    """
    masks = np.empty((Phi.shape[0], cells.shape[0]), dtype=bool)
    gates = np.empty((Phi.shape[1], cells.shape[0]))
    done = zero = lost = 0
    step = max(1, CHUNK_ELEMENTS // Phi.shape[0])
    for start in range(0, cells.shape[0], step):
        part = cells[start : start + step].T
        gate = reduced.lift @ part
        gate /= np.max(np.abs(gate), axis=0)
        gate /= np.linalg.norm(gate, axis=0)
        mask = Phi @ gate >= 0
        # Rounding has the last word: a cell counts if its gate has, in every row of Phi, the sign of the reduced row.
        inside = mask[reduced.index]
        attained = np.all(inside == (reduced.rows @ part > 0), axis=0)
        # Without an active nonzero row D_k Phi = 0, and the block contributes nothing.
        active = inside.any(axis=0)
        zero += int(np.sum(attained & ~active))
        lost += int(np.sum(~attained))
        kept = np.flatnonzero(attained & active)
        masks[:, done : done + kept.size] = mask[:, kept]
        gates[:, done : done + kept.size] = gate[:, kept]
        done += kept.size
    masks, gates = masks[:, :done], gates[:, :done]
    first = first_of_each(masks)
    return (masks, gates, zero, lost) if first.all() else (masks[:, first], gates[:, first], zero, lost)


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
    """Return patterns that were enumerated or sampled before, for rows Phi; raise InputError if they are of others.

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


def check_rows(Phi: np.ndarray) -> np.ndarray:
    """Return Phi as a float64 matrix; raise InputError if it is empty or not finite."""
    Phi = np.asarray(Phi, dtype=np.float64)
    if Phi.ndim != 2 or Phi.shape[0] < 1 or Phi.shape[1] < 1:
        raise InputError(f"Phi must be a matrix with at least one row and one column, got shape {Phi.shape}")
    if not np.isfinite(Phi).all():
        raise InputError("Phi holds NaN or infinite values; the data must be finite")
    return Phi


def first_of_each(masks: Bool[np.ndarray, "N P"]) -> Bool[np.ndarray, "P"]:
    """Mark the first of equal columns."""
    packed = np.ascontiguousarray(np.packbits(masks, axis=0).T)
    names = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    first = np.zeros(masks.shape[1], dtype=bool)
    first[np.unique(names, return_index=True)[1]] = True
    return first
