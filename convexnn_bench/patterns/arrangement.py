"""Cells of a central hyperplane arrangement: the geometry under the enumeration of activation patterns.

The rows phi_i of Phi define hyperplanes {u : phi_i u = 0}; the open cells between them are where the pattern
1{Phi u >= 0} is constant (Pilanci & Ergen 2020; counting by Cover 1965). Cells are listed by deletion and
restriction (Zaslavsky 1975): a new hyperplane cuts exactly those cells whose traces are the cells of the
arrangement that the earlier hyperplanes leave on it, one dimension lower. In dimension two this is sorting angles.
Hyperplanes need not be in general position: many through one line, or parallel rows, are no special case.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt64

EPS = float(np.finfo(np.float64).eps)
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class ReducedRows:
    """Unit rows in coordinates of the row space: sign(phi_i u) = sign(rows[i] h) for u = lift @ h.

    Attributes
    ----------
    rows : array, n x r
        One for each nonzero row of Phi; `index` holds their positions in Phi.
    errors : array, n
        Bounds on the rounding of each row.
    lift : array, p x r
        From reduced coordinates back to those of Phi.
    index, distinct : int arrays
        Positions in Phi of `rows`, and positions in `rows` of one row for each hyperplane, in order.
    """

    rows: Float[np.ndarray, "n r"]
    errors: Float[np.ndarray, "n"]
    lift: Float[np.ndarray, "p r"]
    index: np.ndarray
    distinct: np.ndarray

    @property
    def rank(self) -> int:
        return self.rows.shape[1]


def reduce_to_row_space(Phi: Float[np.ndarray, "N p"]) -> ReducedRows:
    """Drop zero rows, scale columns and rows, whiten by the SVD, and find the distinct hyperplanes.

    The patterns do not change under u -> T u with T invertible, nor under positive scaling of rows.
    """
    height = np.max(np.abs(Phi), axis=1)
    index = np.flatnonzero(height > 0)
    if index.size == 0:
        return ReducedRows(np.zeros((0, 0)), np.zeros(0), np.zeros((Phi.shape[1], 0)), index, index)
    level = Phi[index] / height[index, None]
    scale = np.max(np.abs(level), axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    unit = level / scale
    unit /= np.max(np.abs(unit), axis=1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    left, singular, right = np.linalg.svd(unit, full_matrices=False)
    rank = int(np.sum(singular > 10 * max(unit.shape) * EPS * singular[0]))
    lengths = np.linalg.norm(left[:, :rank], axis=1)
    rows = left[:, :rank] / lengths[:, None]
    errors = 4 * EPS * (1 + 1 / (singular[rank - 1] * lengths))
    lift = right[:rank].T / singular[:rank] / scale[:, None]
    return ReducedRows(rows, errors, lift, index, _distinct(rows, errors))


def _distinct(rows: Float[np.ndarray, "n r"], errors: Float[np.ndarray, "n"]) -> np.ndarray:
    """Return positions of one row for each hyperplane.

    Parallel rows have equal projections on a random direction, so that only such rows are compared.
    """
    keys = rows @ np.random.default_rng(0).standard_normal(rows.shape[1])
    flipped = np.where(keys[:, None] < 0, -rows, rows)
    order = np.argsort(np.abs(keys), kind="stable")
    tolerance = parallel_tolerance(errors, float(np.max(errors))) * max(1.0, rows.shape[1])
    breaks = np.flatnonzero(np.diff(np.abs(keys)[order]) > 4 * tolerance[order][1:]) + 1
    starts = np.concatenate([[0], breaks])
    sizes = np.diff(np.concatenate([starts, [order.size]]))
    kept = list(order[starts[sizes == 1]])
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        group = np.sort(order[start : start + size])
        while group.size:
            head = group[0]
            kept.append(head)
            group = group[np.linalg.norm(flipped[group] - flipped[head], axis=1) > tolerance[head]]
    return np.sort(np.array(kept, dtype=int))


def parallel_tolerance(errors: Float[np.ndarray, "n"], other: float) -> Float[np.ndarray, "n"]:
    """Return the angle under which two unit rows count as one hyperplane: a multiple of their rounding."""
    return 1e-13 + 8 * (errors + other)


def half_cells(
    rows: Float[np.ndarray, "n r"], errors: Float[np.ndarray, "n"], progress: Progress | None = None
) -> Float[np.ndarray, "m r"]:
    """Return a unit direction inside every cell on the positive side of rows[0]; the negatives are in the others.

    rows: n >= 1 unit rows. Rows parallel to an earlier one cut nothing. The result is deterministic.
    """
    dimension = rows.shape[1]
    if dimension == 1:
        return np.sign(rows[:1])
    if dimension == 2:
        return _half_cells_plane(rows, errors)
    keys = np.asarray(np.random.default_rng(1).integers(1, 2**63, size=rows.shape[0], dtype=np.uint64))
    cells, names = rows[:1].copy(), keys[:1].copy()
    active = [0]
    for i in range(1, rows.shape[0]):
        earlier = rows[active]
        cut, across = _cut_by(rows[i], float(errors[i]), earlier, errors[active])
        if cut is not None:
            cells, names = _split(cells, names, rows[i], keys[i], cut, across, earlier, keys[active])
            active.append(i)
        if progress is not None:
            progress(i + 1, rows.shape[0])
    return cells


def _half_cells_plane(rows: Float[np.ndarray, "n 2"], errors: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m 2"]:
    """Return the cells between lines through the origin: one in every gap of the angles from rows[0]."""
    first = rows[0]
    along, across = rows @ first, rows @ np.array([-first[1], first[0]])
    flip = np.where(across < 0, -1.0, 1.0)
    # phi u = along cos t + across sin t is zero at t = atan2(-along, across), within 90 degrees once flipped
    angles = np.arctan2(-along * flip, across * flip)
    near = np.abs(across) <= parallel_tolerance(errors, float(errors[0]))
    order = np.flatnonzero(~near)[np.argsort(angles[~near], kind="stable")]
    ends = np.concatenate([[-np.pi / 2], angles[order], [np.pi / 2]])
    noise = np.concatenate([errors[:1], errors[order], errors[:1]])
    open_gap = np.diff(ends) > 1e-13 + 8 * (noise[1:] + noise[:-1])
    middle = 0.5 * (ends[1:] + ends[:-1])[open_gap]
    frame = np.stack([first, np.array([-first[1], first[0]])])
    return np.stack([np.cos(middle), np.sin(middle)], axis=1) @ frame


def _cut_by(
    row: Float[np.ndarray, "r"],
    error: float,
    earlier: Float[np.ndarray, "k r"],
    errors: Float[np.ndarray, "k"],
) -> tuple[Float[np.ndarray, "m r"] | None, Float[np.ndarray, "k"]]:
    """Return directions inside the cells that the earlier rows leave on the hyperplane of `row`, and earlier @ row.

    There are None instead of directions if an earlier row is parallel to `row`.
    """
    across = earlier @ row
    flat = earlier - across[:, None] * row
    lengths = np.linalg.norm(flat, axis=1)
    if np.any(lengths <= parallel_tolerance(errors, error)):
        return None, across
    # basis of the hyperplane: columns 1.. of the Householder reflection that sends row to a unit vector
    mirror = row.copy()
    mirror[0] += 1.0 if row[0] >= 0 else -1.0
    basis = np.eye(row.size)[:, 1:] - np.outer(mirror, mirror[1:]) * (2.0 / (mirror @ mirror))
    restricted = flat @ basis
    lengths = np.linalg.norm(restricted, axis=1)
    cells = half_cells(restricted / lengths[:, None], (errors + 2 * error + 4 * EPS) / lengths)
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
    with np.errstate(divide="ignore"):
        reach = np.min(np.abs(values) / np.abs(across), axis=1, initial=2.0)
    step = 0.5 * np.minimum(reach, 2.0)[:, None] * row
    halves = np.concatenate([cut + step, cut - step])
    halves /= np.linalg.norm(halves, axis=1)[:, None]
    cells = cells[keep]
    names = np.where(cells @ row > 0, names[keep] ^ key, names[keep])
    return np.concatenate([cells, halves]), np.concatenate([names, cut_names ^ key, cut_names])
