"""Activation patterns 1{Phi g >= 0} of random directions g.

They are sampled where there are too many to enumerate.
"""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.errors import InputError, PatternBudgetError
from convexnn_bench.operator import Rows
from convexnn_bench.patterns.blocks import Patterns, hash_of
from convexnn_bench.patterns.enumeration import (
    ALL_ZERO,
    CHUNK_ELEMENTS,
    check_rows,
    count_patterns,
    first_of_each,
    moved_rows,
)
from convexnn_bench.patterns.row_space import reduce_to_row_space
from convexnn_bench.plugins import Whole
from convexnn_bench.terminal import in_bytes


def sample_patterns(Phi: Float[np.ndarray, "N p"] | Rows, P: object, seed: int = 0) -> Patterns:
    """Return P different patterns 1{Phi g >= 0} of Gaussian directions g.

    They come in the order of their first appearance.

    Parameters
    ----------
    Phi : array, N x p, or Rows
        A `Rows` object only forms products Phi g.
    P : int
        Number of patterns, capped at the number that rows of this shape can have. Sampling ends with fewer, and
        `summary` says so, after max(20 P, 2000) draws in a row without a new pattern.
    seed : int
        Seed of the directions.

    Raises
    ------
    InputError
        For P < 1 or an unusable Phi.
    PatternBudgetError
        If masks and gates would not fit memory.

    Notes
    -----
    The pattern without an active nonzero row contributes nothing and is left out.
    """
    Phi = Phi if isinstance(Phi, Rows) else check_rows(Phi)
    wanted: int = Whole().check("patterns: the number to sample", P)
    nonzero = Phi.nonzero() if isinstance(Phi, Rows) else np.any(Phi != 0, axis=1)
    if not nonzero.any():
        raise InputError(ALL_ZERO)
    seen: set[bytes] = set()
    masks: list[np.ndarray] = []
    gates: list[np.ndarray] = []
    duplicates = zero = idle = 0
    reachable = _at_most(wanted, *Phi.shape)
    _check_memory(wanted, reachable, Phi.shape)
    patience = max(20 * reachable, 2000)
    # Directions meet wide cells often and thin ones hardly ever, so that the number of idle draws decides when to end.
    for direction, mask in _gaussian_draws(Phi, nonzero, 2 * wanted + 8, seed):
        name = np.packbits(mask).tobytes()
        active = bool(mask[nonzero].any())
        idle = idle + 1 if name in seen else 0
        if name in seen:
            duplicates += active
        elif active:
            masks.append(mask)
            gates.append(direction)
        else:
            zero = 1
        seen.add(name)
        if len(masks) == wanted or idle >= patience:
            break
    if not masks:
        raise InputError("patterns: only the all-zero pattern was found; it contributes nothing")
    draws = (wanted, duplicates, zero)
    if len(masks) == wanted or (isinstance(Phi, Rows) and Phi.is_compact):  # the count needs the entries of Phi
        return Patterns(np.stack(masks, axis=1), np.stack(gates, axis=1), False, *draws)
    integers = Phi.exact if isinstance(Phi, Rows) else None
    reduced = reduce_to_row_space(check_rows(np.asarray(Phi)), integers)
    count = count_patterns(len(reduced.distinct), reduced.rank)
    # The count is an upper bound on the number of patterns, so that the sample is complete if it has so many. It is not
    # a bound if different hyperplanes count as one.
    complete = count == len(masks) + zero and reduced.resolved
    moved, copies = moved_rows(reduced, Phi.shape[0])
    rows = hash_of(np.asarray(Phi)) if complete else None
    found = Patterns(np.stack(masks, axis=1), np.stack(gates, axis=1), complete, *draws, count, rows, moved, copies)
    return dataclasses.replace(found, resolved=complete, merged=integers is None and reduced.merged)


def patterns_of_neurons(Phi: Float[np.ndarray, "N p"], W1: Float[np.ndarray, "p M"]) -> Patterns | None:
    """Return the patterns whose closed cones contain the neurons of a ReLU network.

    Each is there once. Return None without neurons.

    A neuron that is zero, or not active on any row, adds nothing to the network and gets no pattern. A neuron may lie
    on the hyperplanes of some rows. Its gate is moved off them, into an adjacent cell.
    """
    Phi = check_rows(Phi)
    sizes = np.abs(W1).max(axis=0, initial=0.0)
    gates = W1[:, sizes > 0] / sizes[sizes > 0]  # before the norm, whose squares may overflow
    gates = gates / np.linalg.norm(gates, axis=0)
    rows = Phi[np.any(Phi != 0, axis=1)]
    if not rows.size or not gates.size:
        return None
    values = rows @ gates
    noise = np.abs(rows) @ np.abs(gates) * Phi.shape[1] * np.finfo(np.float64).eps
    on_rows = np.abs(values) <= noise
    moved = on_rows.any(axis=0)
    if moved.any():
        # Make the step so short that the signs of the other values do not change.
        steps = np.random.default_rng(0).standard_normal((gates.shape[0], int(moved.sum())))
        least = np.where(on_rows, np.inf, np.abs(values)).min(axis=0)[moved]
        reach = np.abs(rows @ steps).max(axis=0)
        gates[:, moved] += steps * np.minimum(0.5 * np.where(np.isfinite(least), least, 1.0) / reach, 1.0)
    active = (rows @ gates > 0).any(axis=0)
    gates = gates[:, active]
    masks = Phi @ gates >= 0
    kept = first_of_each(masks) if masks.shape[1] else np.zeros(0, dtype=bool)
    return Patterns(masks[:, kept], gates[:, kept], False) if kept.any() else None


def _at_most(wanted: int, N: int, p: int) -> int:
    """Return min(wanted, count_patterns(N, p)) without the large numbers of the latter."""
    total, term = 0, 2
    # term = 2 C(N - 1, k), and C(N - 1, k + 1) = C(N - 1, k) (N - 1 - k) / (k + 1).
    for k in range(min(N, p)):
        total += term
        if total >= wanted:
            return wanted
        term = term * (N - 1 - k) // (k + 1)
    return total


def _check_memory(wanted: int, reachable: int, shape: tuple[int, ...]) -> None:
    """Raise PatternBudgetError if masks and gates of so many patterns take more than half of the memory."""
    size = reachable * (shape[0] + 8 * shape[1])
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if size > limit:
        raise PatternBudgetError(
            f"patterns={wanted}: masks and gates of {reachable:,} patterns of {shape[0]} rows take "
            f"{in_bytes(size)}, above half of this machine's memory ({in_bytes(limit)}). Ask for fewer"
        )


def _gaussian_draws(
    Phi: Float[np.ndarray, "N p"] | Rows, nonzero: Bool[np.ndarray, "N"], batch: int, seed: int
) -> Iterator[tuple[Float[np.ndarray, "p"], Bool[np.ndarray, "N"]]]:
    """Yield pairs (g, 1{Phi g >= 0}) without end, without directions that lie on a hyperplane."""
    rng = np.random.default_rng(seed)
    batch = max(1, min(batch, CHUNK_ELEMENTS // Phi.shape[0]))
    while True:
        directions = rng.standard_normal((batch, Phi.shape[1]))
        values = (Phi @ directions.T).T
        # A direction on a hyperplane has 1{0 >= 0} = 1 there: its pattern may belong to no open cell, and as a gate it
        # would not lie strictly inside its cone.
        strict = np.all(values[:, nonzero] != 0, axis=1)
        yield from ((directions[j], values[j] >= 0) for j in np.flatnonzero(strict))
