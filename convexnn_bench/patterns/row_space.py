"""The distinct hyperplanes of Phi, in well-conditioned coordinates of its row space."""

import dataclasses
from collections.abc import Callable
from functools import cached_property

import numpy as np
from jaxtyping import Float

from convexnn_bench.architectures import Integers
from convexnn_bench.patterns.exact import ExactRows

EPS = float(np.finfo(np.float64).eps)
SMALLEST_COLUMN = 2.0**-1020  # least scale of a column: gates for smaller ones would leave the range of float64


@dataclasses.dataclass(frozen=True)
class ReducedRows:
    """Unit rows in coordinates of the row space: sign(phi_i u) = sign(rows[i] h) for u = lift @ h.

    Attributes
    ----------
    rows : array, n x r
        One unit row for each nonzero row of Phi; `index` has their indices in Phi.
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
    angle : float
        The largest angle between such a row and its representative, in radians, with its rounding.
    exact : ExactRows
        The rows of Phi that are the representatives, in exact arithmetic.
    scaled : bool
        Whether no entry of Phi became zero when rows and columns were scaled.
    """

    rows: Float[np.ndarray, "n r"]
    errors: Float[np.ndarray, "n"]
    lift: Float[np.ndarray, "p r"]
    index: np.ndarray
    head: np.ndarray
    sizes: Float[np.ndarray, "n"]
    moved: Float[np.ndarray, "n"]
    copies: np.ndarray
    angle: float
    exact: ExactRows
    scaled: bool

    @property
    def rank(self) -> int:
        return self.rows.shape[1]

    @cached_property
    def resolved(self) -> bool:
        """Return whether all hyperplanes that count as one are equal.

        The rows of Phi must also have this rank exactly.
        """
        return self.scaled and not self.copies.any() and self.exact.has_rank(self.rank)

    @property
    def merged(self) -> bool:
        """Return whether any hyperplanes count as one."""
        return len(self.distinct) < self.head.size

    @property
    def distinct(self) -> np.ndarray:
        """Return the indices in `rows` of the representatives, one for each hyperplane, in order."""
        return np.flatnonzero(self.head == np.arange(self.head.size))


def reduce_to_row_space(Phi: Float[np.ndarray, "N p"], integers: Callable[[], Integers] | None = None) -> ReducedRows:
    """Return the rows of Phi in well-conditioned coordinates of its row space.

    1. Drop zero rows.
    2. Scale rows and columns.
    3. Whiten by the SVD.
    4. Find the distinct hyperplanes.
    5. Bound the distance by which rows were moved.

    The patterns do not change under u -> T u with T invertible, nor under positive scaling of rows. integers: returns
    the rows before rounding, see `BaseArchitecture.exact_rows`.
    """
    # 1. A zero row is zero for every u and defines no hyperplane.
    height = np.max(np.abs(Phi), axis=1)
    index = np.flatnonzero(height > 0)
    if index.size == 0:
        none = np.zeros(0)
        nothing, lift, exact = np.zeros((0, 0)), np.zeros((Phi.shape[1], 0)), ExactRows(Phi[index])
        return ReducedRows(nothing, none, lift, index, index, none, none, index, 0.0, exact, True)
    # 2. Positive factors of rows leave signs as they are, and factors of columns are a map T. Dividing by the largest
    # entries first keeps the squares of the norms from over- and underflow.
    level = Phi[index] / height[index, None]
    scale = np.max(np.abs(level), axis=0)
    scale = np.maximum(np.where(scale > 0, scale, 1.0), SMALLEST_COLUMN)
    unit = level / scale
    scaled = np.array_equal(unit != 0, Phi[index] != 0)
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
    lift = right[:rank].T / singular[:rank] * (2.0**-500 / scale[:, None])  # the power of two prevents overflow
    # 4. Parallel rows have the same hyperplane. Choose one of them as its representative.
    head = _heads(rows, errors)
    # 5. Row i of Phi is `original` times unit[i], and unit[i] is lengths[i] rows[i] diag(singular) right. The dropped
    # singular values and the angle to the representative bound the distance by which it was moved.
    original = height[index] * (peak * norms)[:, 0]
    sizes = original * lengths * singular[0]
    dropped = np.linalg.norm(left[:, rank:] * singular[rank:], axis=1)
    merged = np.flatnonzero(head != np.arange(head.size))
    copies = np.zeros(head.size, dtype=bool)
    exact = ExactRows(Phi[index], None if integers is None else lambda: integers()[index])
    copies[merged] = ~exact.parallel(merged, head[merged])
    apart = np.minimum(np.linalg.norm(rows - rows[head], axis=1), np.linalg.norm(rows + rows[head], axis=1))
    turned = np.where(copies, apart + errors + errors[head], 0.0)
    moved = original * dropped + sizes * turned
    exact = exact.part(np.delete(np.arange(index.size), merged))
    return ReducedRows(rows, errors, lift, index, head, sizes, moved, copies, float(turned.max()), exact, scaled)


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
    """Return the angle up to which unit rows count as parallel, a multiple of their rounding."""
    return 1e-13 + 8 * (errors + other)
