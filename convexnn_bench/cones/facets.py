"""The facets of a cone {u : K u >= 0}, and a direction inside it."""

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.cones.projection import multipliers, nearest_point, unit_rows

HULL_DIMENSIONS = 8  # p up to which facets come from a convex hull, whose cost grows exponentially with p
REDUNDANT = 1e-12  # distance of a unit row from the cone of the others below which it adds nothing


def interior_direction(K: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "p"] | None:
    """Return a unit direction with K u > 0 for unit rows K, by a linear program.

    Return None if there is no interior.
    """
    from scipy.optimize import linprog

    n, p = K.shape
    if n == 0:
        return np.eye(p)[0]
    if p == 2:
        return _interior_of_plane(K)
    # max t subject to K u >= t, |u_i| <= 1 and t <= 1: the cone has an interior if and only if the optimum is positive.
    bounds = [(-1.0, 1.0)] * p + [(None, 1.0)]
    depth_below_rows = np.column_stack([-K, np.ones(n)])
    answer = linprog(np.append(np.zeros(p), -1.0), A_ub=depth_below_rows, b_ub=np.zeros(n), bounds=bounds)
    if answer.x is None or not np.linalg.norm(answer.x[:p]) > 0:
        return None
    direction = answer.x[:p] / np.linalg.norm(answer.x[:p])
    return direction if np.min(K @ direction) > 1e-12 else None


def unattained(Phi: Float[np.ndarray, "N p"], masks: Bool[np.ndarray, "N P"]) -> int | None:
    """Return the first block whose mask is 1{Phi u >= 0} for no vector u, or None.

    Zero rows are ignored.

    Notes
    -----
    With h = 0 for active rows and h = 1 for the others, u attains the mask if and only if K u >= h after scaling, where
    K = (2 D - I) Phi. By Farkas' lemma there is none if and only if some lam >= 0 has K^T lam = 0 and h^T lam = 1. A
    least-squares problem decides; a cell of half-width below 1e-11 may count as not attained.
    """
    nonzero = np.any(Phi != 0, axis=1)
    if not nonzero.any():
        return None
    rows, masks = unit_rows(Phi[nonzero]), masks[nonzero]
    # 1. Where the least-squares solution for the signs has the mask, it attains it. That is one product for all blocks.
    values = rows @ np.linalg.lstsq(rows, np.where(masks, 1.0, -1.0), rcond=None)[0]
    for k in np.flatnonzero(((values >= 0) != masks).any(axis=0)):
        # 2. Otherwise look for the multipliers of Farkas' lemma.
        signed = np.where(masks[:, k, None], rows, -rows)
        system = unit_rows(np.column_stack([signed, ~masks[:, k]]))
        target = np.append(np.zeros(rows.shape[1]), -1.0)
        if np.linalg.norm(target + multipliers(system, target) @ system) <= 1e-11:
            return int(k)
    return None


def _interior_of_plane(K: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "2"] | None:
    """Return the opposite of the middle of the widest gap between the rows.

    Return None if the gap is at most half a turn.
    """
    # Some u has K u > 0 if and only if the rows lie within an open half plane, opposite to a gap of more than half a
    # turn.
    angles = np.sort(np.arctan2(K[:, 1], K[:, 0]))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    widest = int(np.argmax(gaps))
    middle = angles[widest] + 0.5 * gaps[widest] + np.pi
    direction = np.array([np.cos(middle), np.sin(middle)])
    return direction if np.min(K @ direction) > 1e-15 else None


def reduce_rows(K: Float[np.ndarray, "n p"], gate: Float[np.ndarray, "p"] | None = None) -> np.ndarray:
    """Return the indices of rows that describe {u : K u >= 0} without redundancy.

    A row in doubt is kept.

    Parameters
    ----------
    K : array, n x p
        Zero rows are dropped, and of rows with the same direction the first is kept.
    gate : array, p, optional
        A vector with K gate > 0 on nonzero rows.

    Notes
    -----
    For p = 2 by angles, for p <= HULL_DIMENSIONS by the convex hull of K_i / (K_i gate), and beyond, or without
    interior, by non-negative least squares.
    """
    unit = unit_rows(np.asarray(K, dtype=np.float64))
    index = np.flatnonzero(np.any(unit != 0, axis=1))
    index = index[_first_directions(unit[index])]
    rows = unit[index]
    if rows.shape[0] <= 1:
        return index
    if gate is None or not np.min(rows @ (gate / np.linalg.norm(gate))) > 0.0:
        gate = interior_direction(rows)
    if gate is None:
        return index[_drop_one_by_one(rows)]
    gate = gate / np.linalg.norm(gate)
    if rows.shape[1] == 1:
        return index[:1]
    if rows.shape[1] == 2:
        # The tangents of the angles from the gate to the rows: the facets are the rows that turn furthest to either
        # side.
        slope = (rows @ np.array([-gate[1], gate[0]])) / (rows @ gate)
        return index[np.unique([np.argmin(slope), np.argmax(slope)])]
    kept = _hull_rows(rows, gate) if rows.shape[1] <= HULL_DIMENSIONS else None
    return index[np.sort(kept if kept is not None else _facets_by_shooting(rows, gate))]


def _first_directions(rows: Float[np.ndarray, "n p"]) -> np.ndarray:
    """Return the positions of unit rows that do not repeat an earlier one."""
    _, first = np.unique(np.round(rows, 14) + 0.0, axis=0, return_index=True)
    return np.sort(first)


def _hull_rows(rows: Float[np.ndarray, "n p"], gate: Float[np.ndarray, "p"]) -> np.ndarray | None:
    """Return the facets as vertices of the hull of rows / (rows gate).

    The hull lies in gate^T y = 1. Return None if rounding prevents it.

    With sum_i lam_i K_i = K_j and lam >= 0 the scaled rows satisfy the same with weights that sum to one.
    The answer is confirmed: every row is nonnegative on every extreme ray of the reduced cone.
    """
    from scipy.spatial import ConvexHull, QhullError

    _, singular, right = np.linalg.svd(rows, full_matrices=False)
    rank = int(np.sum(singular > 1e-10 * singular[0]))
    small, inside = rows @ right[:rank].T, right[:rank] @ gate
    # If all rows are nearly parallel, one direction is left, in which the gate may be zero by rounding.
    length = float(np.linalg.norm(inside))
    if length == 0.0 or not np.min(small @ inside) > 0.0:
        return None
    inside /= length
    basis = np.linalg.svd(inside[None, :])[2][1:].T
    points = (small @ basis) / (small @ inside)[:, None]
    if rank == 1:
        return np.array([0])
    if rank == 2:
        return np.unique([np.argmin(points[:, 0]), np.argmax(points[:, 0])])
    # Of linearly independent rows none is a combination of the others.
    if rows.shape[0] <= rank:
        return np.arange(rows.shape[0])
    try:
        kept = ConvexHull(points).vertices
        for _ in range(20):
            equations = ConvexHull(points[kept]).equations
            # a facet n^T y + b <= 0 of the hull is the extreme ray u = -b gate - n of the cone
            rays = -equations[:, -1:] * inside - equations[:, :-1] @ basis.T
            # Qhull may merge facets of the hull that are nearly coplanar. Rows that are negative on an extreme
            # ray are put back.
            worst = np.min(small @ (rays / np.linalg.norm(rays, axis=1)[:, None]).T, axis=1)
            missing = np.setdiff1d(np.flatnonzero(worst < -REDUNDANT), kept)
            if missing.size == 0:
                return np.sort(kept)
            kept = np.concatenate([kept, missing])
    except (QhullError, ValueError, np.linalg.LinAlgError):
        return None
    return None


def _facets_by_shooting(rows: Float[np.ndarray, "n p"], gate: Float[np.ndarray, "p"]) -> np.ndarray:
    """Return the facets, by shooting from the interior (Clarkson 1994).

    A row outside the cone of the facets known so far has a witness, and the segment from the gate to the witness leaves
    the cone through a facet that is not yet known.
    """
    depth = rows @ gate
    known: list[int] = []
    for i in np.argsort(depth):
        while int(i) not in known:
            # By Moreau's decomposition the projection w of -K_i onto the cone of the known facets is zero if and only
            # if K_i is a non-negative combination of them. Otherwise K_i w = -||w||^2 < 0, and the first row that gate
            # + t w meets is a facet, which is not known yet because the known ones are non-negative at w.
            witness, _ = nearest_point(rows[known], -rows[i])
            size = float(np.linalg.norm(witness))
            if size <= REDUNDANT:
                break
            fall = -(rows @ (witness / size))
            fall[known] = 0.0
            with np.errstate(divide="ignore"):
                reach = np.where(fall > 0, depth / np.where(fall > 0, fall, 1.0), np.inf)
            hit = int(np.argmin(reach))
            known.append(hit if np.isfinite(reach[hit]) else int(i))
    return np.array(known, dtype=int)


def _drop_one_by_one(rows: Float[np.ndarray, "n p"]) -> np.ndarray:
    """Drop, in turn, each row that is a nonnegative combination of the others."""
    kept = np.arange(rows.shape[0])
    for i in range(rows.shape[0]):
        others = kept[kept != i]
        # K_i = lam^T K with lam >= 0 makes K_i u >= 0 a consequence of the other rows (Farkas).
        lam = multipliers(rows[others], -rows[i])
        if np.linalg.norm(lam @ rows[others] - rows[i]) <= REDUNDANT:
            kept = others
    return kept
