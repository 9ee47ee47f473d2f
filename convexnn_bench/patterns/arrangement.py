"""Cells of a central hyperplane arrangement.

This is the geometry under the enumeration of activation patterns.

The rows phi_i of Phi define hyperplanes {u : phi_i u = 0}; the open cells between them are where the pattern
1{Phi u >= 0} is constant (Pilanci & Ergen 2020; counting by Cover 1965). Cells are listed by deletion and
restriction (Zaslavsky 1975): a new hyperplane cuts exactly those cells whose traces are the cells of the
arrangement that the earlier hyperplanes leave on it, one dimension lower. In dimension two this is sorting angles.
Hyperplanes need not be in general position: many hyperplanes through one line, and parallel rows, are no special cases.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt64

from convexnn_bench.patterns.exact import ExactRows
from convexnn_bench.patterns.row_space import EPS, parallel_tolerance

COARSE = 1e-9  # largest angle between hyperplanes counted as one with which a list of cells is complete, in radians
Progress = Callable[[int, int], None]


@dataclasses.dataclass
class Merges:
    """A record of the hyperplanes, or their traces on others, that counted as one while cells were listed.

    Attributes
    ----------
    exact : ExactRows
        The rows of the hyperplanes.
    resolved : bool
        Whether all that counted as one are exactly equal.
    angle : float
        The largest angle that counted as zero and may not be zero, in radians, with its rounding.
    any : bool
        Whether anything counted as one.
    """

    exact: ExactRows
    resolved: bool = True
    angle: float = 0.0
    any: bool = False

    def note(self, angle: float, error: float, path: tuple[int, ...], first: np.ndarray, second: np.ndarray) -> None:
        """Record an angle that counted as zero, a bound on its rounding, and the pairs of rows."""
        self.any = True
        if self.resolved and self.exact.meet(path, first, second).all():
            return
        self.resolved = False
        self.angle = max(self.angle, angle + error)


def half_cells(
    rows: Float[np.ndarray, "n r"],
    errors: Float[np.ndarray, "n"],
    merges: Merges,
    progress: Progress | None = None,
    index: Int[np.ndarray, "n"] | None = None,
    path: tuple[int, ...] = (),
) -> Float[np.ndarray, "m r"]:
    """Return a unit direction inside every cell on the positive side of rows[0].

    The negatives are in the others.

    1. Start with the cell {rows[0] u > 0}.
    2. For every further row, list the cells that the earlier hyperplanes leave on its own, by recursion.
    3. Split the cells that it cuts.

    rows: n >= 1 unit rows. Rows parallel to an earlier one cut nothing. The result is deterministic, with at least one
    cell. merges: records what counted as one. index, path: the indices in `merges.exact` of the rows, by default all in
    order, and of the hyperplanes that they have been restricted to.
    """
    index = np.arange(rows.shape[0]) if index is None else index
    dimension = rows.shape[1]
    if dimension == 1:
        return np.sign(rows[:1])
    if dimension == 2:
        return _half_cells_plane(rows, errors, merges, index, path)
    # 1. The first cell. Its name is the key of the one row that is positive there.
    keys = np.asarray(np.random.default_rng(1).integers(1, 2**63, size=rows.shape[0], dtype=np.uint64))
    cells, names = rows[:1].copy(), keys[:1].copy()
    active = [0]
    for i in range(1, rows.shape[0]):
        # 2. Restriction: the cells that the earlier hyperplanes leave on this one are the traces of the cells that it
        # cuts. Deletion: the other cells stay as they are.
        earlier = rows[active]
        chosen = np.array([*active, i])
        cut, across = _cut_by(rows[i], float(errors[i]), earlier, errors[active], merges, index[chosen], path)
        if cut is not None:
            # 3. Both halves of a cell that is cut are new cells.
            cells, names = _split(cells, names, rows[i], keys[i], cut, across, earlier, keys[active])
            active.append(i)
        if progress is not None:
            progress(i + 1, rows.shape[0])
    return cells


def _half_cells_plane(
    rows: Float[np.ndarray, "n 2"],
    errors: Float[np.ndarray, "n"],
    merges: Merges,
    index: Int[np.ndarray, "n"],
    path: tuple[int, ...],
) -> Float[np.ndarray, "m 2"]:
    """Return the cells between lines through the origin: one in every gap of the angles from rows[0]."""
    first = rows[0]
    along, across = rows @ first, rows @ np.array([-first[1], first[0]])
    flip = np.where(across < 0, -1.0, 1.0)
    # phi u = along cos t + across sin t is zero at t = atan2(-along, across), within 90 degrees once flipped
    angles = np.arctan2(-along * flip, across * flip)
    # Lines within rounding of rows[0], or of each other, leave no gap between them.
    near = np.abs(across) <= parallel_tolerance(errors, float(errors[0]))
    order = np.flatnonzero(~near)[np.argsort(angles[~near], kind="stable")]
    ends = np.concatenate([[-np.pi / 2], angles[order], [np.pi / 2]])
    noise = np.concatenate([errors[:1], errors[order], errors[:1]])
    gaps, both = np.diff(ends), noise[1:] + noise[:-1]
    open_gap = gaps > 1e-13 + 8 * both
    if not open_gap.any():  # no gap is certain, but there is at least one cell
        open_gap[np.argmax(gaps)] = True
    # Several small gaps may be adjacent, so that the angles that count as zero are added.
    if not open_gap.all():
        ring, closed = index[np.concatenate([[0], order, [0]])], np.flatnonzero(~open_gap)
        merges.note(float(gaps[closed].sum()), float(both[closed].max()), path, ring[closed], ring[closed + 1])
    if np.count_nonzero(near) > 1:
        others = index[near][1:]
        angle, error = float(np.abs(across[near]).max()), float(errors[near].max() + errors[0])
        merges.note(angle, error, path, np.full(others.size, index[0]), others)
    middle = 0.5 * (ends[1:] + ends[:-1])[open_gap]
    frame = np.stack([first, np.array([-first[1], first[0]])])
    return np.stack([np.cos(middle), np.sin(middle)], axis=1) @ frame


def _cut_by(
    row: Float[np.ndarray, "r"],
    error: float,
    earlier: Float[np.ndarray, "k r"],
    errors: Float[np.ndarray, "k"],
    merges: Merges,
    index: Int[np.ndarray, "k1"],
    path: tuple[int, ...],
) -> tuple[Float[np.ndarray, "m r"] | None, Float[np.ndarray, "k"]]:
    """Return directions inside cells on the hyperplane of `row`, and earlier @ row.

    The cells are those that the earlier rows leave on it.

    The directions are None if an earlier row is parallel to `row`. index: the indices of the earlier rows, and last
    that of `row`.
    """
    # On {row u = 0} an earlier row acts as its part at right angles to `row`, which is zero if the two are parallel.
    across = earlier @ row
    flat = earlier - across[:, None] * row
    lengths = np.linalg.norm(flat, axis=1)
    parallel = lengths <= parallel_tolerance(errors, error)
    if np.any(parallel):
        others = index[:-1][parallel]
        angle, both = float(lengths[parallel].max()), float(errors[parallel].max() + error)
        merges.note(angle, both, path, others, np.full(others.size, index[-1]))
        return None, across
    # basis of the hyperplane: columns 1.. of the Householder reflection that sends row to a unit vector
    mirror = row.copy()
    mirror[0] += 1.0 if row[0] >= 0 else -1.0
    basis = np.eye(row.size)[:, 1:] - np.outer(mirror, mirror[1:]) * (2.0 / (mirror @ mirror))
    restricted = flat @ basis
    lengths = np.linalg.norm(restricted, axis=1)
    errors = (errors + 2 * error + 4 * EPS) / lengths
    cells = half_cells(restricted / lengths[:, None], errors, merges, index=index[:-1], path=(*path, int(index[-1])))
    return cells @ basis.T, across


def _split(
    cells: Float[np.ndarray, "m r"],
    names: UInt64[np.ndarray, "m"],
    row: Float[np.ndarray, "r"],
    key: np.uint64,
    cut: Float[np.ndarray, "t r"],
    across: Float[np.ndarray, "k"],
    earlier: Float[np.ndarray, "k r"],
    keys: UInt64[np.ndarray, "k"],
) -> tuple[Float[np.ndarray, "m2 r"], UInt64[np.ndarray, "m2"]]:
    """Replace each cell that the hyperplane of `row` cuts by its two halves.

    names: the exclusive or of the keys of the rows that are positive in a cell, which identify it. Equal names are
    confirmed by equal signs.
    """
    # A cell is cut if its signs are those of a trace. One sort compares the names, and the signs rule out a collision.
    values = cut @ earlier.T
    positive = values > 0
    cut_names = np.bitwise_xor.reduce(np.where(positive, keys, np.uint64(0)), axis=1)
    order = np.argsort(cut_names, kind="stable")
    place = np.minimum(np.searchsorted(cut_names[order], names), order.size - 1)
    hit = np.flatnonzero(cut_names[order][place] == names)
    partner = order[place[hit]]
    same = np.all((cells[hit] @ earlier.T > 0) == positive[partner], axis=1)
    keep = np.ones(names.size, dtype=bool)
    keep[hit[same]] = False
    # half way from the cut to the nearest other hyperplane met along +-row, and never more than 45 degrees
    # A row that is parallel to `row` up to underflow is never met: the quotient is infinite.
    with np.errstate(divide="ignore", over="ignore"):
        reach = np.min(np.abs(values) / np.abs(across), axis=1, initial=2.0)
    step = 0.5 * np.minimum(reach, 2.0)[:, None] * row
    halves = np.concatenate([cut + step, cut - step])
    halves /= np.linalg.norm(halves, axis=1)[:, None]
    # A cell that is not cut lies on one side of `row`, and the key enters its name if that is the positive one.
    cells = cells[keep]
    names = np.where(cells @ row > 0, names[keep] ^ key, names[keep])
    return np.concatenate([cells, halves]), np.concatenate([names, cut_names ^ key, cut_names])
