"""Activation patterns 1{Phi u >= 0}: counting, complete enumeration, and masks given by the user.

A pattern is a block of the convex program (Pilanci & Ergen 2020; Sahiner et al., ICLR 2024, eqs. 2-10). N
rows of rank r in general position have 2 sum_{k<r} C(N-1, k) patterns (Cover 1965). Zero rows are always
active, 1{0 >= 0} = 1. Complementary patterns are distinct blocks.
"""

import dataclasses
import logging
import math

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.errors import InputError, PatternBudgetError
from convexnn_bench.patterns.arrangement import Progress, ReducedRows, half_cells, reduce_to_row_space
from convexnn_bench.terminal import in_bytes, in_time, in_words

log = logging.getLogger("convexnn_bench")
MEMORY_LIMIT = 2 * 2**30
SLOW_SECONDS = 2.0
CHUNK = 4_000_000
ALL_ZERO = "Phi: every row is zero, so no pattern contributes anything; the data must not be all zero"


@dataclasses.dataclass(frozen=True)
class Patterns:
    """Blocks of a problem.

    masks: bool N x P. gates: p x P with masks = 1{Phi gates >= 0} and every nonzero row strictly off zero, or
    None where the masks were given. complete: every attainable pattern that can contribute is here.
    requested: how many were asked for (None: all). duplicates: repeated draws removed. zero: 1 where the
    pattern without an active nonzero row was left out, for it contributes nothing. count: what the formula
    says of the distinct hyperplanes in general position (None where it was not needed).
    """

    masks: Bool[np.ndarray, "N P"]
    gates: Float[np.ndarray, "p P"] | None
    complete: bool
    requested: int | None = None
    duplicates: int = 0
    zero: int = 0
    count: int | None = None

    def summary(self) -> str:
        """One line: how many patterns, of what kind, and what was left out."""
        N, P = self.masks.shape
        if self.gates is None:
            return f"{P} patterns of {N} rows, as given"
        words = [f"{P} patterns of {N} rows", "all attainable" if self.complete else "sampled"]
        if self.requested is not None and self.requested > P:
            words.append(f"{self.requested} asked for")
        if self.count is not None:
            words.append(f"{self.count} in general position")
        if self.duplicates:
            words.append(f"{self.duplicates} repeated draws removed")
        if self.zero:
            words.append("the all-zero pattern removed")
        return ", ".join(words)


@dataclasses.dataclass(frozen=True)
class EnumerationCost:
    """What a complete enumeration takes: distinct hyperplanes, rank, pattern count (an upper bound where rows
    are not in general position), candidate directions to look at, peak bytes, seconds (a rough estimate)."""

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
    """Patterns of N rows of rank r in general position, 2 sum_{k<r} C(N-1, k), exactly; else an upper
    bound."""
    if N < 1 or r < 1:
        raise InputError(f"count_patterns needs N >= 1 and r >= 1, got N={N}, r={r}")
    return 2 * sum(math.comb(N - 1, k) for k in range(min(r, N)))


def enumeration_cost(Phi: Float[np.ndarray, "N p"]) -> EnumerationCost:
    """Cost of enumerating the patterns of Phi (N x p), before doing it. InputError for an unusable Phi."""
    Phi = check_rows(Phi)
    return _cost(reduce_to_row_space(Phi), Phi.shape)


def _cost(reduced: ReducedRows, shape: tuple[int, ...]) -> EnumerationCost:
    rows, rank = len(reduced.distinct), reduced.rank
    if rows == 0:
        return EnumerationCost(0, 0, 1, 1, shape[0], 0.0)
    patterns = count_patterns(rows, rank)
    # every cell is born once (two halves of a cut); each level of recursion repeats this with one row less
    candidates = sum(math.comb(rows, min(rows, rank - k)) for k in range(rank)) + patterns
    size = patterns * (shape[0] + shape[0] // 8 + 8 * shape[1] + 8 * 5 * (rank + 1))
    signs_of = patterns * rows * rank if rank > 2 else patterns * rows
    scan = patterns * rows if rank > 2 else 0
    seconds = 1e-4 * sum(math.comb(rows, k) for k in range(max(0, rank - 1))) + 1e-9 * signs_of + 2e-8 * scan
    return EnumerationCost(rows, rank, patterns, candidates, size, float(min(seconds, 1e300)))


def enumerate_patterns(
    Phi: Float[np.ndarray, "N p"], memory_limit: int = MEMORY_LIMIT, progress: Progress | None = None
) -> Patterns:
    """All attainable patterns of Phi (N x p) with full-dimensional cells, each with a direction inside its
    cell.

    Patterns on boundaries belong to closures of these cells and add nothing. Hyperplanes that differ by less than
    float64 resolves (about 1e-13 in angle) count as one; where a cell is too thin for its direction to be stored,
    the result is not called complete. memory_limit: bytes. progress(done, total) is called on
    the way where rank > 2. In two dimensions the patterns come in the order of their angles. Raises
    PatternBudgetError where masks and gates would not fit, InputError where Phi is unusable or zero.
    """
    Phi = check_rows(Phi)
    reduced = reduce_to_row_space(Phi)
    cost = _cost(reduced, Phi.shape)
    if cost.rows == 0:
        raise InputError(ALL_ZERO)
    if cost.bytes > memory_limit:
        raise PatternBudgetError(
            f"all activation patterns: up to {cost}, above the memory limit of {in_bytes(memory_limit)} "
            f"({memory_limit} bytes). Sample instead (patterns=500), use fewer features or rows, or "
            "pass the masks of enumerate_patterns with a larger memory_limit"
        )
    if cost.seconds > SLOW_SECONDS:
        log.info("enumerating activation patterns: up to %s", cost)
    half = half_cells(reduced.rows[reduced.distinct], reduced.errors[reduced.distinct], progress)
    masks, gates, zero, lost = _masks_of_cells(Phi, reduced, np.concatenate([half, -half]))
    return Patterns(masks, gates, lost == 0, None, 0, zero, cost.patterns)


def _masks_of_cells(
    Phi: Float[np.ndarray, "N p"], reduced: ReducedRows, cells: Float[np.ndarray, "m r"]
) -> tuple[Bool[np.ndarray, "N P"], Float[np.ndarray, "p P"], int, int]:
    """(masks, gates, zero patterns left out, cells lost) of cells given by inner directions in reduced coordinates.

    A gate must say the same in the given coordinates as in the reduced ones; cells too thin for that are lost, and
    the set is not called complete.
    """
    masks = np.empty((Phi.shape[0], cells.shape[0]), dtype=bool)
    gates = np.empty((Phi.shape[1], cells.shape[0]))
    done = zero = lost = 0
    step = max(1, CHUNK // Phi.shape[0])
    for start in range(0, cells.shape[0], step):
        part = cells[start : start + step].T
        gate = reduced.lift @ part
        gate /= np.max(np.abs(gate), axis=0)
        gate /= np.linalg.norm(gate, axis=0)
        mask = Phi @ gate >= 0
        inside = mask[reduced.index]
        attained = np.all(inside == (reduced.rows @ part > 0), axis=0)
        active = inside.any(axis=0)
        zero += int(np.sum(attained & ~active))
        lost += int(np.sum(~attained))
        kept = np.flatnonzero(attained & active)
        masks[:, done : done + kept.size] = mask[:, kept]
        gates[:, done : done + kept.size] = gate[:, kept]
        done += kept.size
    masks, gates = masks[:, :done], gates[:, :done]
    first = _first_of_each(masks)
    return (masks, gates, zero, lost) if first.all() else (masks[:, first], gates[:, first], zero, lost)


def patterns_from_masks(masks: np.ndarray, N: int) -> Patterns:
    """Masks given by the user, an N x P array of booleans or 0/1, kept as they are and in their order.

    Raises InputError for a wrong shape, other values, or no column.
    """
    array = np.asarray(masks)
    if array.ndim != 2 or array.shape[0] != N:
        raise InputError(f"patterns: masks must be an N x P array with N = {N} rows, got shape {array.shape}")
    if array.shape[1] == 0:
        raise InputError(f"patterns: masks needs at least one column (pattern), got shape {array.shape}")
    if array.dtype != bool:
        if array.dtype.kind not in "iuf" or not np.all((array == 0) | (array == 1)):
            raise InputError(f"patterns: masks must hold booleans or 0 and 1 only (dtype {array.dtype})")
        array = array == 1
    return Patterns(np.array(array), None, False, array.shape[1])


def check_rows(Phi: np.ndarray) -> np.ndarray:
    """Phi as a float64 matrix. InputError where it is empty, or not finite."""
    Phi = np.asarray(Phi, dtype=np.float64)
    if Phi.ndim != 2 or Phi.shape[0] < 1 or Phi.shape[1] < 1:
        raise InputError(f"Phi must be a matrix with at least one row and one column, got shape {Phi.shape}")
    if not np.isfinite(Phi).all():
        raise InputError("Phi holds NaN or infinite values; the data must be finite")
    return Phi


def _first_of_each(masks: Bool[np.ndarray, "N P"]) -> Bool[np.ndarray, "P"]:
    """Marks the first of equal columns."""
    packed = np.ascontiguousarray(np.packbits(masks, axis=0).T)
    names = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    first = np.zeros(masks.shape[1], dtype=bool)
    first[np.unique(names, return_index=True)[1]] = True
    return first
