"""Products of cone vectors from the doubly non-negative relaxation.

(S, Z) becomes (U, V) with U V^T = Z.

If S = U U^T with the columns of U in the cone {u : F u >= 0}, then F S F^T is completely positive, V^T = U^+ Z gives
V V^T = Z^T S^+ Z <= T, and the factors cost no more than 1/2 (tr S + tr T): the relaxation is exact. A doubly
non-negative matrix of order at most four, or of rank at most two, is completely positive (Berman & Shaked-Monderer,
Completely Positive Matrices, 2003, theorems 2.1 and 2.4). Beyond that such a U may not exist, and is searched for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from convexnn_bench.cones import Cones, nearest_point, nonnegative_least_squares, reduce_rows, unit_rows

FLAT = 1e-9  # length of the projection of a unit facet row on its cone below which the row vanishes on the cone
RANK = 1e-8  # eigenvalues of S, relative to the largest, that count as zero: an error in Z of the same order, whose
# effect on the objective is of second order, because the solution is stationary
EXACT = 1e-7  # |Q Q^T - I| below which columns reproduce S
RAYS = 400  # sets of facets that are intersected in search of extreme rays


@dataclass(frozen=True)
class Frame:
    """Coordinates x of a cone, u = map x, in which it is round: {map x : rows x >= 0}.

    facets: unit rows within the span of the cone, F x p. rows: the same in these coordinates, of length one.
    map: p x p, of norm one, zero across the span. gram: map^T map, plus the projector `across` the span.
    """

    facets: Float[np.ndarray, "F p"]
    rows: Float[np.ndarray, "F p"]
    map: Float[np.ndarray, "p p"]
    across: Float[np.ndarray, "p p"]

    @property
    def gram(self) -> Float[np.ndarray, "p p"]:
        return self.map.T @ self.map + self.across

    def project(self, U: Float[np.ndarray, "p m"]) -> Float[np.ndarray, "p m"]:
        """Nearest points of the cone, in u."""
        inside = U - self.across @ U
        return np.stack([nearest_point(self.facets, column)[0] for column in inside.T], axis=1)


@dataclass(frozen=True)
class Relaxation:
    """A solution of the doubly non-negative relaxation in the coordinates of the frames, and its value.

    inner: the matrices [[S', Z'], [Z'^T, T]], P x (p + q) x (p + q), with S = map S' map and Z = map Z'.
    """

    frames: list[Frame]
    inner: Float[np.ndarray, "P d d"]
    value: float

    @property
    def weights(self) -> Float[np.ndarray, " P"]:
        """1/2 (tr S + tr T) of every block."""
        maps = np.stack([frame.map for frame in self.frames])
        p = maps.shape[1]
        S, T = maps @ self.inner[:, :p, :p] @ maps, self.inner[:, p:, p:]
        return 0.5 * (np.trace(S, axis1=1, axis2=2) + np.trace(T, axis1=1, axis2=2))


def cone_frames(cones: Cones) -> list[Frame]:
    """Return the frame of every block."""
    return [cone_frame(cones, k) for k in range(cones.P)]


def cone_frame(cones: Cones, k: int) -> Frame:
    """Return the frame of block k, whose facets are F.

    With F^T F = sum s_i^2 w_i w_i^T over the span, map = sum a_i w_i w_i^T with a_i = min_j s_j / s_i, and a_i = 1
    along lines of the cone, for which s_i = 0.
    """
    rows, across = cones.facets[k], np.zeros((cones.p, cones.p))
    if cones.interior(k) is None:
        # A row is non-negative on the cone, where its maximum over unit vectors is the length of its projection: if
        # that is zero, the row vanishes on the cone. Such rows span what the cone does not.
        flat = np.array([np.linalg.norm(nearest_point(rows, row)[0]) <= FLAT for row in rows], dtype=bool)
        _, values, basis = np.linalg.svd(rows[flat], full_matrices=False)
        basis = basis[values > FLAT]
        across = basis.T @ basis
        rows = rows[~flat] - rows[~flat] @ across
        rows = unit_rows(rows[reduce_rows(rows)])
    values, basis = np.linalg.eigh(rows.T @ rows)
    pointed = values > 1e-14 * max(1.0, float(values[-1]))
    least = np.min(values[pointed], initial=np.inf)
    stretch = np.sqrt(np.where(pointed, least, 1.0) / np.where(pointed, values, 1.0))
    shape = (basis * stretch) @ basis.T
    shape = shape - across @ shape - shape @ across + across @ shape @ across
    return Frame(rows, unit_rows(rows @ shape), shape, across)


def factor_block(
    frame: Frame, S: Float[np.ndarray, "p p"], Z: Float[np.ndarray, "p q"]
) -> tuple[Float[np.ndarray, "p m"], Float[np.ndarray, "q m"], bool]:
    """Return (U, V, exact) with U V^T = Z and the columns of U in the cone.

    S and Z are in the frame's coordinates.

    exact: whether U U^T is S to rounding of the solver. Otherwise U spans the range of S as far as the cone allows, and
    the cost may exceed that of the relaxation.
    """
    values, basis = np.linalg.eigh(S)
    kept = values > RANK * max(float(values[-1]), 0.0)
    if not kept.any():
        return np.zeros((len(S), 1)), np.zeros((Z.shape[1], 1)), True
    # Every U with U U^T = S is B Q with B = basis diag(roots) and Q Q^T = I, and V^T = U^+ Z = Q^+ B^+ Z.
    roots, basis = np.sqrt(values[kept]), basis[:, kept]
    Q, exact = tight_frame(frame.rows @ (basis * roots))
    V = (np.linalg.pinv(Q) @ ((basis.T @ Z) / roots[:, None])).T
    return frame.map @ (basis * roots) @ Q, V, exact


def tight_frame(A: Float[np.ndarray, "F r"]) -> tuple[Float[np.ndarray, "r m"], bool]:
    """Return (Q, exact): columns with A Q >= 0 and Q Q^T = I.

    The rows of A have A A^T >= 0 up to rounding.

    Explicit for r <= 2: rows in the plane within a right angle of each other fit between two orthogonal vectors.
    """
    r = A.shape[1]
    lengths = np.linalg.norm(A, axis=1)
    # short rows are rounding and have no direction; `round_relaxation` projects on the cones
    A = A[lengths > 1e-9 * np.max(lengths, initial=0.0)]
    if len(A) <= 1 or r == 1:
        turn = np.eye(r)
        return turn * np.where((A @ turn).sum(axis=0) >= 0, 1.0, -1.0), True
    if r == 2:
        # The rows lie within 45 degrees of their middle, so that two orthogonal vectors at 45 degrees to either side of
        # the middle have no negative product with any of them.
        middle = np.arctan2(*A[0][::-1])
        angles = np.arctan2(A[:, 1], A[:, 0]) - middle
        angles = np.arctan2(np.sin(angles), np.cos(angles))
        middle += 0.5 * (angles.min() + angles.max())
        sides = middle + np.array([-np.pi / 4, np.pi / 4])
        return np.stack([np.cos(sides), np.sin(sides)]), True
    return _search(unit_rows(A))


def _search(A: Float[np.ndarray, "F r"]) -> tuple[Float[np.ndarray, "r m"], bool]:
    """Search a tight frame for r > 2, with more cone vectors each time.

    Non-negative least squares on sum_j w_j q_j q_j^T = I gives weights of cone vectors, and the columns are then moved.
    """
    best, error = np.zeros((A.shape[1], 0)), np.inf
    for draws in (0, 1, 2, 4, 8):
        columns = move_columns(A, weigh(cone_pool(A, draws)))
        distance = float(np.abs(columns @ columns.T - np.eye(A.shape[1])).max())
        if distance < error:
            best, error = columns, distance
        if error <= EXACT:
            return best, True
    return best, False


def cone_pool(A: Float[np.ndarray, "F r"], draws: int = 8) -> Float[np.ndarray, "J r"]:
    """Return unit vectors of {q : A q >= 0}.

    They are extreme rays, and the nearest points to 4 r random vectors a draw.
    """
    r = A.shape[1]
    rng = np.random.default_rng(0)
    bases = [np.linalg.qr(rng.standard_normal((r, r)))[0] for _ in range(2 * draws)]
    drawn = np.concatenate([np.zeros((0, r)), *bases, *(-basis for basis in bases)])
    near = np.array([nearest_point(A, column)[0] for column in drawn]).reshape(-1, r)
    kept = np.linalg.norm(near, axis=1) > 1e-6
    return np.concatenate([extreme_rays(A), unit_rows(near[kept])])


def weigh(pool: Float[np.ndarray, "J r"]) -> Float[np.ndarray, "r m"]:
    """Return the columns sqrt(w_j) q_j, w_j > 0, with sum_j w_j q_j q_j^T nearest to the identity."""
    r = pool.shape[1]
    if len(pool) == 0:
        return np.zeros((r, 0))
    # sum_j w_j q_j q_j^T is linear in w: column j of the r^2 x J matrix is q_j q_j^T.
    products = np.einsum("ja,jb->abj", pool, pool).reshape(r * r, -1)
    weights = nonnegative_least_squares(products, np.eye(r).ravel() / np.sqrt(r)) * np.sqrt(r)
    return (pool * np.sqrt(weights)[:, None])[weights > 0].T


def move_columns(A: Float[np.ndarray, "F r"], Q: Float[np.ndarray, "r m"]) -> Float[np.ndarray, "r m"]:
    """Move the columns, with A Q >= 0, to reduce ||Q Q^T - I||, by sequential quadratic programming."""
    from scipy.optimize import minimize

    r, m = Q.shape
    if m == 0:
        return Q

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        Q = x.reshape(r, m)
        rest = Q @ Q.T - np.eye(r)
        return 0.25 * float(np.sum(rest**2)), (rest @ Q).ravel()

    # The constraint A Q >= 0 for the entries of Q row by row.
    inside = np.kron(A, np.eye(m))
    constraint: dict[str, Any] = {"type": "ineq", "fun": lambda x: inside @ x, "jac": lambda x: inside}
    options = {"maxiter": 200, "ftol": 1e-18}
    found = minimize(value, Q.ravel(), jac=True, method="SLSQP", constraints=[constraint], options=options)
    return found.x.reshape(r, m)


def extreme_rays(A: Float[np.ndarray, "F r"]) -> Float[np.ndarray, "J r"]:
    """Return unit extreme rays of {q : A q >= 0}, those on the first RAYS sets of r - 1 rows."""
    from itertools import combinations, islice

    r = A.shape[1]
    sets = list(islice(combinations(range(len(A)), r - 1), RAYS))
    if not sets:
        return np.zeros((0, r))
    # On an extreme ray r - 1 independent rows vanish: it is the null vector of these rows, with one of both signs.
    rays = np.linalg.svd(A[np.array(sets)])[2][:, -1]
    rays = np.concatenate([rays, -rays])
    return rays[np.min(rays @ A.T, axis=1) >= -1e-10]
