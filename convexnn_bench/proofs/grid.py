"""The multiplier of a certificate as float64 numbers that lie exactly in dom F*.

They are multiples of a power of two.

Entries are rounded to integers M of at most 2^BITS in units of 2^-k, so that sums of them are exact in int64. They are
clipped to the bounds of their domain, and where rows or columns have to sum to zero, some are moved by a few units.
`multiplier.py` does the same for proofs, in integers of any size.
"""

import numpy as np
from jaxtyping import Float, Int

from convexnn_bench.proofs.intervals import U
from convexnn_bench.proofs.loss_bounds import LossParts

BITS = 51
LARGEST = 2**62  # an entry without a bound

Whole = Int[np.ndarray, "n_out c"]


def on_grid(parts: LossParts, L: Float[np.ndarray, "n_out c"]) -> Float[np.ndarray, "n_out c"] | None:
    """Return a multiplier near L that is exactly in dom F*, or None."""
    largest = float(np.abs(L).max(initial=0.0))
    if largest == 0.0:
        return np.zeros_like(L)
    bits = BITS - int(np.frexp(largest)[1])
    # 1. Round to the grid, within the domain of every entry.
    with np.errstate(over="ignore"):  # of a limit far above the entries, which then has no effect
        low, high = _ends(parts, L, bits)
    M = np.clip(np.rint(np.ldexp(L, bits)).astype(np.int64), low, high)
    # 2. Rows that have to sum to zero.
    rows = parts.name == "cross_entropy"
    if rows:
        _balance_rows(M, low, high)
    # 3. Columns that have to sum to zero, for a free output bias.
    if parts.bias == 0:
        _balance_columns(M, low, high, rows)
    inside = bool(np.all((low <= M) & (high >= M))) and int(np.abs(M).max()) <= 2**53
    sums = (not rows or not M.sum(axis=1).any()) and (parts.bias != 0 or not M.sum(axis=0).any())
    return np.ldexp(M.astype(np.float64), -bits) if inside and sums else None


def _ends(parts: LossParts, L: Float[np.ndarray, "n_out c"], bits: int) -> tuple[Whole, Whole]:
    """Return the least and the largest integer of every entry."""
    w = np.broadcast_to(parts.w, L.shape)
    low, high = np.full(L.shape, -LARGEST), np.full(L.shape, LARGEST)

    def limit(size: np.ndarray) -> np.ndarray:
        """Return a number of units that is at most the exact value of `size`.

        size: a rounded product of two numbers.
        """
        return np.floor(np.minimum(np.ldexp(size * (1 - 4 * U), bits), 2.0**61)).astype(np.int64)

    if parts.name == "huber":
        high = limit(w * parts.delta)
        low = -high
    elif parts.name == "cross_entropy":
        # -w y itself is in the domain where the product is exact, as it is for unit weights.
        exact = (w == 1.0) & (np.ldexp(parts.Y, bits) == np.rint(np.ldexp(parts.Y, bits)))
        low = -np.where(exact, np.rint(np.ldexp(parts.Y, bits)).clip(0, 2.0**61).astype(np.int64), limit(w * parts.Y))
    elif parts.name in ("logistic", "squared_hinge"):
        end = np.full(L.shape, LARGEST)
        if parts.name == "logistic":
            end = np.floor(np.minimum(np.ldexp(w, bits), 2.0**61)).astype(np.int64)
        low, high = np.where(parts.Y > 0, -end, 0), np.where(parts.Y > 0, 0, end)
    dead = w == 0
    return np.where(dead, 0, low), np.where(dead, 0, high)


def _balance_rows(M: Whole, low: Whole, high: Whole) -> None:
    """Change entries in place so that rows sum to zero.

    Of each row, the entry with the most room changes first.
    """
    for _ in range(M.shape[1]):
        left = -M.sum(axis=1)
        if not left.any():
            return
        room = np.where(left[:, None] > 0, high - M, M - low)
        at = (np.arange(len(M)), room.argmax(axis=1))
        M[at] += np.sign(left) * np.minimum(np.abs(left), room[at])


def _balance_columns(M: Whole, low: Whole, high: Whole, rows: bool) -> None:
    """Change entries in place so that columns sum to zero.

    Rows that sum to zero before do so afterwards.

    Moving units from a column to the next one keeps the sum of a row.
    """
    last = M.shape[1] - 1
    for j in range(last if rows else last + 1):
        left = -int(M[:, j].sum())
        room = high[:, j] - M[:, j] if left > 0 else M[:, j] - low[:, j]
        if rows:
            other = M[:, j + 1] - low[:, j + 1] if left > 0 else high[:, j + 1] - M[:, j + 1]
            room = np.minimum(room, other)
        # The rows with the most room give what is missing.
        order = np.argsort(-room, kind="stable")
        before = np.cumsum(np.minimum(room[order], abs(left))) - np.minimum(room[order], abs(left))
        change = np.clip(abs(left) - before, 0, room[order]) * (1 if left > 0 else -1)
        M[order, j] += change
        if rows:
            M[order, j + 1] -= change
