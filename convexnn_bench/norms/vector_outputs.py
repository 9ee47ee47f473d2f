"""Dual norms of vector-output ReLU blocks, for G p x q with q > 1.

They are max ||G^T u|| over K u >= 0, ||u|| <= 1.

The square is the maximum of u^T M u, M = G G^T, over a polyhedral cone, which is NP-hard in general (cone-constrained
PCA; Sahiner et al., ICLR 2024, eq. 23; ICLR 2021). In the plane there is a closed form. For small p the maximum is
computed by branch and bound over faces (face_search.py). Beyond, the doubly non-negative relaxation (relaxation.py)
bounds it from above and projected power iterations from below.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.cones import EPS, Cones, nearest_point
from convexnn_bench.deadline import time_is_up
from convexnn_bench.norms.face_search import FaceSearch
from convexnn_bench.norms.relaxation import doubly_nonnegative_bound
from convexnn_bench.norms.spectral import MaxDualNorm, spectral_norms

if TYPE_CHECKING:
    from convexnn_bench.cones import PlaneCones

FACE_DIMENSIONS = 8  # p up to which facets are cheap and faces few
MOST_NODES = 300_000  # most faces that one call searches
POWER_BLOCKS = 4  # blocks, of largest spectral norm, whose lower bound comes from power iterations
BATCH = 16  # blocks whose faces are searched together
MOST_RELAXATIONS = 40  # blocks of one call that are relaxed
MOST_ROWS = 200  # rows of a cone that enter a relaxation, whose multipliers grow with their square

PLANE = "closed form in the plane, exact"
FACES = "branch and bound over the faces of the cones, exact"
STOPPED = "branch and bound over the faces of the cones, stopped early"
UNREFINED = "spectral norm, stopped early"
RELAXATION = "doubly non-negative relaxation"


def max_vector_norm(cones: Cones, G: Float[np.ndarray, "P p q"], nodes: int = MOST_NODES) -> MaxDualNorm:
    """Bound the largest dual norm of all blocks, G[k] in cone k, from above and, attained, from below.

    1. Bound all blocks by their spectral norms.
    2. Take the closed form in the plane.
    3. Find attained values of the most promising blocks by power iterations.
    4. Bound the other blocks in descending order of their spectral norms, until none can exceed the largest found.

    nodes: how many faces the branch and bound may look at; with more the upper bound is not exact. At a deadline the
    blocks that are left keep the bounds that they have.
    """
    # 1. Spectral norms bound all blocks: leaving out the cone only enlarges the maximum.
    norms = spectral_norms(torch.as_tensor(G)).numpy()
    top = int(norms.argmax())
    scale = float(norms[top])
    if scale == 0.0:
        return MaxDualNorm(0.0, top, 0.0, PLANE if cones.plane is not None else FACES)
    unit = G / scale
    upper, lower = norms / scale, np.zeros(cones.P)
    method, exact = FACES, np.zeros(cones.P, dtype=bool)
    # 2. In the plane, the closed form.
    if cones.plane is not None:
        method, exact = PLANE, ~cones.plane.flat
        upper[exact], lower[exact] = (side[exact] for side in plane_norms(cones.plane, unit))
    open_blocks = np.flatnonzero(~exact)
    # 3. Attained values of the most promising blocks, below which no other block needs to be bounded.
    for k in open_blocks[np.argsort(-upper[open_blocks], kind="stable")][:POWER_BLOCKS]:
        if time_is_up():
            break
        lower[k] = power_iterations(cones, int(k), unit[k])
    # 4. Branch and bound, or the relaxation.
    if open_blocks.size:
        method = _refine(cones, unit, upper, lower, open_blocks, nodes, method)
    block = int(upper.argmax())
    value = float(upper[block])
    return MaxDualNorm(scale * value * (1 + 4 * EPS), block, min(scale * float(lower.max()), scale * value), method)


def _refine(
    cones: Cones,
    unit: Float[np.ndarray, "P p q"],
    upper: Float[np.ndarray, "P"],
    lower: Float[np.ndarray, "P"],
    blocks: np.ndarray,
    nodes: int,
    method: str,
) -> str:
    """Tighten in place the bounds in `upper` that exceed the largest lower bound.

    Return the method.
    """
    order = blocks[np.argsort(-upper[blocks], kind="stable")]
    relaxed = 0
    for start in range(0, order.size, BATCH):
        part = order[start : start + BATCH]
        part = part[upper[part] > lower.max()]
        if part.size == 0:
            break
        if time_is_up():
            return STOPPED if start > 0 else UNREFINED
        if cones.p <= FACE_DIMENSIONS and nodes > 0:
            search = FaceSearch([cones.facets[int(k)] for k in part], unit[part], float(lower.max()))
            nodes -= search.run(nodes)
            upper[part] = np.minimum(upper[part], search.upper)
            lower[part] = np.maximum(lower[part], search.lower)
            if search.complete:
                continue
            method = STOPPED
        else:
            method = RELAXATION
        reached = float(lower.max())
        for k in part[np.argsort(-upper[part], kind="stable")]:
            # Only the largest bound counts, so that blocks below the bounds reached so far stay as they are.
            if upper[k] <= reached or relaxed >= MOST_RELAXATIONS or time_is_up():
                break
            relaxed += 1
            upper[k] = min(upper[k], _relaxation(cones, int(k), unit[k]))
            reached = max(reached, float(upper[k]))
    return method


def _relaxation(cones: Cones, k: int, g: Float[np.ndarray, "p q"]) -> float:
    """Return the doubly non-negative bound with the facets, or with the most violated rows if p is large."""
    if cones.p <= FACE_DIMENSIONS:
        rows = cones.facets[k]
    else:
        rows = cones.signed_rows(k)
        # Leaving out rows enlarges the cone, so that the bound stays an upper one.
        leading = np.linalg.svd(g)[0][:, : min(g.shape)]
        # the rows that the leading directions, with either sign, violate most
        depth = np.minimum((rows @ leading).min(axis=1), -(rows @ leading).max(axis=1))
        rows = rows[np.argsort(depth)[: min(2 * cones.p, MOST_ROWS)]]
    return doubly_nonnegative_bound(rows, g)


def plane_norms(
    plane: "PlaneCones", G: Float[np.ndarray, "P 2 q"]
) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    """Return (upper, lower) bounds in the plane.

    A quadratic form on an arc has its maxima at top eigenvectors or at the ends, so that the maximum is attained at the
    top eigenvector of G G^T if it or its negative lies in the cone, and otherwise at the better of the two rays.
    """
    M = G @ G.transpose(0, 2, 1)
    values, vectors = np.linalg.eigh(M)
    top, w = np.maximum(values[:, 1], 0.0), vectors[:, :, 1]
    a, b = np.sum(plane.f1 * w, axis=1), np.sum(plane.f2 * w, axis=1)
    depth = np.maximum(np.minimum(a, b), np.minimum(-a, -b))
    ends = [np.einsum("ka,kab,kb->k", r, M, r) for r in (plane.r1, plane.r2)]
    rays = np.maximum(np.maximum(*ends), 0.0)
    rounding = 64 * (G.shape[2] + 4) * EPS * top
    upper = np.sqrt(np.where(depth >= -1e-12, top, np.minimum(rays, top)) + rounding)
    lower = np.sqrt(np.maximum(np.where(depth >= 0, top, rays) - rounding, 0.0))
    return upper, np.minimum(lower, upper)


def power_iterations(cones: Cones, k: int, g: Float[np.ndarray, "p q"], steps: int = 20) -> float:
    """Return the largest ||g^T u|| of projected power iterations in cone k, u <- Pi(M u) / ||Pi(M u)||.

    Each step maximises a linear minorant of u^T M u over the cone and the ball, so that the values never decrease.
    """
    rows = cones.facets[k] if cones.p <= FACE_DIMENSIONS else cones.signed_rows(k)
    M = g @ g.T
    vectors = np.linalg.eigh(M)[1]
    leading = range(cones.p - 1, max(cones.p - 4, -1), -1)
    starts = [sign * vectors[:, j] for j in leading for sign in (1.0, -1.0)]
    inside = cones.interior(k)
    best = 0.0
    for u in starts if inside is None else [*starts, inside]:
        value = -1.0
        for _ in range(steps):
            u = nearest_point(rows, u)[0]
            size = float(np.linalg.norm(u))
            if size <= 1e-12:
                break
            u = u / size
            now = float(np.linalg.norm(g.T @ u))
            if now <= value * (1 + 1e-10):
                value = max(value, now)
                break
            value, u = now, M @ u
        best = max(best, value)
    return best * (1 - (cones.p + g.shape[1] + 8) * EPS)
