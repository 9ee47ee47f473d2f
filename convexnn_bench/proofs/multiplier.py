"""The multiplier of a certificate as integers M with M / 2^bits exactly in dom F*.

A float64 multiplier is in the domain up to rounding. Entries are rounded to a grid, moved to the nearest bound of their
domain, and sums that have to vanish are made to vanish in integers, by a change of a few units of the grid.
"""

from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
from jaxtyping import Float

Rows = list[list[int]]


def integer_multiplier(of: Any, multiplier: Float[np.ndarray, "n_out c"], precision: int) -> tuple[Rows, int]:
    """Return (M, bits) with M / 2^bits in the domain, near a float64 multiplier.

    Parameters
    ----------
    of : Problem of the checker
        The exact data.
    multiplier : array n_out x c
    precision : int
        Bits of the largest entry.
    """
    largest = float(np.abs(multiplier).max(initial=0.0))
    bits = max(0, precision - int(np.frexp(largest)[1])) if largest > 0 else 0
    unit = 1 << bits
    # 1. Round to the grid, within the domain of every entry.
    M, limits = [], []
    for values, Y, w in zip(multiplier.tolist(), of.Y, of.weights, strict=True):
        ends = [_ends(of, y, w, unit) for y in Y]
        limits.append(ends)
        M.append([_clipped(round(Fraction(value) * unit), *end) for value, end in zip(values, ends, strict=True)])
    # 2. Rows that have to sum to zero.
    if of.loss == "cross_entropy":
        for row, ends in zip(M, limits, strict=True):
            _balance(row, ends)
    # 3. Columns that have to sum to zero, for a free output bias.
    if of.bias == 0:
        _balance_columns(M, limits, of.loss == "cross_entropy")
    return M, bits


def _ends(of: Any, y: Fraction, w: Fraction, unit: int) -> tuple[int | None, int | None]:
    """Return the least and the largest integer of an entry: target y, weight w."""
    if w == 0:
        return 0, 0
    if of.loss == "squared":
        return None, None
    if of.loss == "huber":
        end = floor(w * of.delta * unit)
        return -end, end
    if of.loss == "cross_entropy":
        return ceil(-w * y * unit), None
    end = floor(w * unit) if of.loss == "logistic" else None  # 0 <= -y M <= end
    return (None if end is None else -end, 0) if y > 0 else (0, end)


def _clipped(value: int, low: int | None, high: int | None) -> int:
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


def _room(value: int, end: tuple[int | None, int | None], change: int) -> int:
    """Return by how much a value may change in the direction of `change`."""
    low, high = end
    if change < 0:
        return abs(change) if low is None else value - low
    return abs(change) if high is None else high - value


def _balance(values: list[int], ends: list[tuple[int | None, int | None]]) -> None:
    """Change entries in place so that they sum to zero.

    The entry with the most room changes first.
    """
    left = -sum(values)
    order = sorted(range(len(values)), key=lambda i: -_room(values[i], ends[i], left))
    for i in order:
        change = min(abs(left), _room(values[i], ends[i], left)) * (1 if left > 0 else -1)
        values[i] += change
        left -= change


def _balance_columns(M: Rows, limits: list[list[tuple[int | None, int | None]]], rows_too: bool) -> None:
    """Change entries in place so that columns sum to zero.

    Rows that sum to zero before do so afterwards.
    """
    c = len(M[0])
    if not rows_too:
        for j in range(c):
            column = [row[j] for row in M]
            _balance(column, [ends[j] for ends in limits])
            for row, value in zip(M, column, strict=True):
                row[j] = value
        return
    # Moving x from column j to column j + 1 of a row keeps its sum. After this, columns before j + 1 sum to zero.
    for j in range(c - 1):
        left = sum(row[j] for row in M)
        pairs = zip(M, limits, strict=True)
        rooms = [min(_room(row[j], e[j], -left), _room(row[j + 1], e[j + 1], left)) for row, e in pairs]
        for i in sorted(range(len(M)), key=lambda i: -rooms[i]):
            change = min(abs(left), rooms[i]) * (1 if left > 0 else -1)
            M[i][j] -= change
            M[i][j + 1] += change
            left -= change
