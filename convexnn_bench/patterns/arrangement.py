"""Cells of a central hyperplane arrangement: the geometry under the enumeration of activation patterns.

The rows phi_i of Phi define hyperplanes {u : phi_i u = 0}; the open cells between them are where the pattern
1{Phi u >= 0} is constant (Pilanci & Ergen 2020; counting by Cover 1965). Cells are listed by deletion and
restriction (Zaslavsky 1975): a new hyperplane cuts exactly those cells whose traces are the cells of the
arrangement that the earlier hyperplanes leave on it, one dimension lower. In dimension two this is sorting angles.
Hyperplanes need not be in general position: many hyperplanes through one line, and parallel rows, are no special cases.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt64

EPS = float(np.finfo(np.float64).eps)
COARSE = 1e-9  # largest angle between hyperplanes counted as one with which a list of cells is complete, in radians
SMALLEST_COLUMN = 2.0**-1020  # least scale of a column: gates for smaller ones would leave the range of float64
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
        From reduced coordinates back to those of Phi, up to a common factor.
    index, head : int arrays, n
        The index in Phi of each of `rows`, and the index in `rows` of the representative of its hyperplane, which may
        be the row itself.
    sizes : array, n
        Bound on the distance by which row i of Phi moves if rows[i] turns, per radian.
    moved : array, n
        Bound on the distance of row i of Phi from a multiple of its representative in the row space.
    copies : bool array, n
        Rows whose hyperplane equals that of the representative up to the tolerance, but not exactly.
    resolved : bool
        Whether all hyperplanes that count as one are equal up to rounding.
    """

    rows: Float[np.ndarray, "n r"]
    errors: Float[np.ndarray, "n"]
    lift: Float[np.ndarray, "p r"]
    index: np.ndarray
    head: np.ndarray
    sizes: Float[np.ndarray, "n"]
    moved: Float[np.ndarray, "n"]
    copies: np.ndarray
    resolved: bool

    @property
    def rank(self) -> int:
        return self.rows.shape[1]

    @property
    def distinct(self) -> np.ndarray:
        """Return the indices in `rows` of the representatives, one for each hyperplane, in order."""
        return np.flatnonzero(self.head == np.arange(self.head.size))


@dataclasses.dataclass
class Merges:
    """A record of the hyperplanes, or their traces on others, that counted as one while cells were listed.

    Attributes
    ----------
    angle : float
        The largest angle that counted as zero, in radians, with its rounding.
    resolved : bool
        Whether each of these angles is zero up to rounding.
    """

    angle: float = 0.0
    resolved: bool = True

    def note(self, angle: float, error: float) -> None:
        """Record an angle that counted as zero, and the bound on its rounding."""
        self.angle = max(self.angle, angle + error)
        self.resolved = self.resolved and angle <= 8 * error


def reduce_to_row_space(Phi: Float[np.ndarray, "N p"]) -> ReducedRows:
    """Return Phi in coordinates of its row space in which its rows are well conditioned.

    1. Drop zero rows.
    2. Scale rows and columns.
    3. Whiten by the SVD.
    4. Find the distinct hyperplanes.
    5. Bound how far rows were moved by all of this.

    The patterns do not change under u -> T u with T invertible, nor under positive scaling of rows.
    """
    # 1. A zero row is zero for every u and defines no hyperplane.
    height = np.max(np.abs(Phi), axis=1)
    index = np.flatnonzero(height > 0)
    if index.size == 0:
        none = np.zeros(0)
        return ReducedRows(np.zeros((0, 0)), none, np.zeros((Phi.shape[1], 0)), index, index, none, none, none, True)
    # 2. Positive factors of rows leave signs as they are, and factors of columns are a map T. Dividing by the largest
    # entries first keeps the squares of the norms from over- and underflow.
    level = Phi[index] / height[index, None]
    scale = np.max(np.abs(level), axis=0)
    scale = np.maximum(np.where(scale > 0, scale, 1.0), SMALLEST_COLUMN)
    unit = level / scale
    within = np.array_equal(unit != 0, Phi[index] != 0)  # no entry became zero
    peak = np.max(np.abs(unit), axis=1, keepdims=True)
    unit /= peak
    norms = np.linalg.norm(unit, axis=1, keepdims=True)
    unit /= norms
    # 3. unit u = left h with h = diag(singular) right u: in the coordinates h the rows are those of `left`.
    left, singular, right = np.linalg.svd(unit, full_matrices=False)
    rank = int(np.sum(singular > 10 * max(unit.shape) * EPS * singular[0]))
    lengths = np.linalg.norm(left[:, :rank], axis=1)
    rows = left[:, :rank] / lengths[:, None]
    # The rounding of `unit`, eps, grows by the division by the least singular value and by the length of the row.
    errors = 4 * EPS * (1 + 1 / (singular[rank - 1] * lengths))
    lift = right[:rank].T / singular[:rank] * (2.0**-500 / scale[:, None])  # a factor against overflow
    # 4. Parallel rows have one hyperplane, and one of them stands for all.
    head = _heads(rows, errors)
    # 5. Row i of Phi is `original` times unit[i], and unit[i] is lengths[i] rows[i] diag(singular) right. The dropped
    # singular values and the angle to the representative bound the distance by which it was moved.
    original = height[index] * (peak * norms)[:, 0]
    dropped = np.linalg.norm(left[:, rank:] * singular[rank:], axis=1)
    equal = np.all(unit == unit[head], axis=1) | np.all(unit == -unit[head], axis=1)
    apart = np.minimum(np.linalg.norm(rows - rows[head], axis=1), np.linalg.norm(rows + rows[head], axis=1))
    rounding = errors + errors[head]
    sizes = original * lengths * singular[0]
    turned = np.where(equal, EPS * Phi.shape[1] * original, sizes * (apart + rounding))
    moved = original * dropped + np.where(head == np.arange(head.size), 0.0, turned)
    negligible = bool(np.all(dropped <= 10 * max(unit.shape) * EPS) and np.all(apart[~equal] <= 8 * rounding[~equal]))
    resolved = within and negligible
    copies = ~equal
    return ReducedRows(rows, errors, lift, index, head, sizes, moved, copies, resolved)


def _heads(rows: Float[np.ndarray, "n r"], errors: Float[np.ndarray, "n"]) -> np.ndarray:
    """Return for each row the index of the representative of its hyperplane.

    Parallel rows have equal projections on a random direction, so that only such rows are compared.
    """
    keys = rows @ np.random.default_rng(0).standard_normal(rows.shape[1])
    # A row and its negative have the same hyperplane: the sign of the key chooses one of the two.
    flipped = np.where(keys[:, None] < 0, -rows, rows)
    order = np.argsort(np.abs(keys), kind="stable")
    tolerance = parallel_tolerance(errors, float(np.max(errors))) * max(1.0, rows.shape[1])
    # Rows whose keys differ by more than the tolerance are not parallel, so that only runs of close keys are searched.
    breaks = np.flatnonzero(np.diff(np.abs(keys)[order]) > 4 * tolerance[order][1:]) + 1
    starts = np.concatenate([[0], breaks])
    sizes = np.diff(np.concatenate([starts, [order.size]]))
    heads = np.arange(rows.shape[0])
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        group = np.sort(order[start : start + size])
        while group.size:
            head = group[0]
            parallel = np.linalg.norm(flipped[group] - flipped[head], axis=1) <= tolerance[head]
            heads[group[parallel]] = head
            group = group[~parallel]
    return heads


def parallel_tolerance(errors: Float[np.ndarray, "n"], other: float) -> Float[np.ndarray, "n"]:
    """Return the angle under which two unit rows count as one hyperplane: a multiple of their rounding."""
    return 1e-13 + 8 * (errors + other)


def half_cells(
    rows: Float[np.ndarray, "n r"],
    errors: Float[np.ndarray, "n"],
    progress: Progress | None = None,
    merges: Merges | None = None,
) -> Float[np.ndarray, "m r"]:
    """Return a unit direction inside every cell on the positive side of rows[0]; the negatives are in the others.

    1. Start with the cell {rows[0] u > 0}.
    2. For every further row, list the cells that the earlier hyperplanes leave on its own, by recursion.
    3. Split the cells that it cuts.

    rows: n >= 1 unit rows. Rows parallel to an earlier one cut nothing. The result is deterministic, with at least one
    cell. merges: records what counted as one.
    """
    merges = Merges() if merges is None else merges
    dimension = rows.shape[1]
    if dimension == 1:
        return np.sign(rows[:1])
    if dimension == 2:
        return _half_cells_plane(rows, errors, merges)
    # 1. The first cell. Its name is the key of the one row that is positive there.
    keys = np.asarray(np.random.default_rng(1).integers(1, 2**63, size=rows.shape[0], dtype=np.uint64))
    cells, names = rows[:1].copy(), keys[:1].copy()
    active = [0]
    for i in range(1, rows.shape[0]):
        # 2. Restriction: the cells that the earlier hyperplanes leave on this one are the traces of the cells that it
        # cuts. Deletion: the other cells stay as they are.
        earlier = rows[active]
        cut, across = _cut_by(rows[i], float(errors[i]), earlier, errors[active], merges)
        if cut is not None:
            # 3. Both halves of a cell that is cut are new cells.
            cells, names = _split(cells, names, rows[i], keys[i], cut, across, earlier, keys[active])
            active.append(i)
        if progress is not None:
            progress(i + 1, rows.shape[0])
    return cells


def _half_cells_plane(
    rows: Float[np.ndarray, "n 2"], errors: Float[np.ndarray, "n"], merges: Merges
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
        merges.note(float(gaps[~open_gap].sum()), float(both[~open_gap].max()))
    if np.count_nonzero(near) > 1:
        merges.note(float(np.abs(across[near]).max()), float(errors[near].max() + errors[0]))
    middle = 0.5 * (ends[1:] + ends[:-1])[open_gap]
    frame = np.stack([first, np.array([-first[1], first[0]])])
    return np.stack([np.cos(middle), np.sin(middle)], axis=1) @ frame


def _cut_by(
    row: Float[np.ndarray, "r"],
    error: float,
    earlier: Float[np.ndarray, "k r"],
    errors: Float[np.ndarray, "k"],
    merges: Merges,
) -> tuple[Float[np.ndarray, "m r"] | None, Float[np.ndarray, "k"]]:
    """Return directions inside the cells that the earlier rows leave on the hyperplane of `row`, and earlier @ row.

    There are None instead of directions if an earlier row is parallel to `row`.
    """
    # On {row u = 0} an earlier row acts as its part at right angles to `row`, which is zero if the two are parallel.
    across = earlier @ row
    flat = earlier - across[:, None] * row
    lengths = np.linalg.norm(flat, axis=1)
    parallel = lengths <= parallel_tolerance(errors, error)
    if np.any(parallel):
        merges.note(float(lengths[parallel].max()), float(errors[parallel].max() + error))
        return None, across
    # basis of the hyperplane: columns 1.. of the Householder reflection that sends row to a unit vector
    mirror = row.copy()
    mirror[0] += 1.0 if row[0] >= 0 else -1.0
    basis = np.eye(row.size)[:, 1:] - np.outer(mirror, mirror[1:]) * (2.0 / (mirror @ mirror))
    restricted = flat @ basis
    lengths = np.linalg.norm(restricted, axis=1)
    cells = half_cells(restricted / lengths[:, None], (errors + 2 * error + 4 * EPS) / lengths, merges=merges)
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
