"""Activation patterns 1{Phi u >= 0}: their number and complete enumeration.

Each pattern is a block of the convex program (Pilanci & Ergen 2020; Sahiner et al., ICLR 2024, eqs. 2-10). N rows of
rank r in general position have 2 sum_{k<r} C(N-1, k) patterns (Cover 1965). Zero rows are always active,
1{0 >= 0} = 1. Complementary patterns are distinct blocks.
"""

import dataclasses
import logging
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.architectures import Integers
from convexnn_bench.errors import InputError, PatternBudgetError
from convexnn_bench.patterns.arrangement import COARSE, Merges, Progress, half_cells
from convexnn_bench.patterns.blocks import Patterns, hash_of
from convexnn_bench.patterns.row_space import ReducedRows, reduce_to_row_space
from convexnn_bench.terminal import in_bytes, in_time, in_words

log = logging.getLogger("convexnn_bench")
MEMORY_LIMIT = 2 * 2**30  # bytes of masks and gates, above which an enumeration is refused
LOGGED_AFTER = 2.0  # seconds that an enumeration is expected to take before its cost is logged
CHUNK_ELEMENTS = 4_000_000  # products of rows and directions at a time, 32 MB
ALL_ZERO = "Phi: every row is zero, so no pattern contributes anything; the data must not be all zero"


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
    """Return 2 sum_{k<r} C(N-1, k), the number of patterns of N rows of rank r.

    Rows that are not in general position have at most so many.

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
    """Return the cost of enumerating the patterns of Phi (N x p).

    Raise InputError for an unusable Phi.
    """
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
    """Return all attainable patterns of Phi whose cells have an interior.

    Each comes with a direction inside its cell.

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
    """Return the patterns of the directions of the rows and of their negatives.

    The directions are strictly inside their cells.
    """
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
    """Return (`moved`, `copies`) of `Patterns`, None for all zeros.

    angle: `Merges.angle` of the list of cells.
    """
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
