"""Dual norms of scalar-output ReLU blocks, for one vector g a block.

They are max |g^T u| over K u >= 0, ||u|| <= 1.

With Pi the projection onto the cone {u : K u >= 0} it is max(||Pi(g)||, ||Pi(-g)||) (Sahiner et al., ICLR 2024,
eq. 23, with q = 1). Upper bounds come from the multipliers lam >= 0 of the projection, as ||g + K^T lam|| plus an
allowance for rounding (weak duality), and lower bounds from the projected point itself.
"""

import numpy as np
from jaxtyping import Float

from convexnn_bench.cones import EPS, Cones, PlaneCones, nearest_point
from convexnn_bench.deadline import time_is_up
from convexnn_bench.norms.spectral import MaxDualNorm

CHUNK_ELEMENTS = 1_000_000  # products of rows and blocks at a time, 8 MB
METHOD = "projection onto the cones, exact"
STOPPED = "projection onto the cones, stopped early"

Bounds = tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]


def max_scalar_norm(cones: Cones, G: Float[np.ndarray, "P p"]) -> MaxDualNorm:
    """Bound the largest dual norm of all blocks.

    Blocks are taken in descending order of a cheap bound, until no other can exceed the largest norm found. At a
    deadline the cheap bound of the next block covers all that are left.
    """
    G = cones.checked(G, 2)
    if cones.plane is not None:
        upper, _ = dual_norms(cones, G)
        value, block = float(np.max(upper)), int(np.argmax(upper))
        return MaxDualNorm(value, block, value, METHOD)
    cheap = single_row_bounds(cones, G)
    largest, block, reached = -1.0, 0, 0.0
    for k in np.argsort(-cheap, kind="stable"):
        if cheap[k] <= largest:
            break
        if time_is_up():
            return MaxDualNorm(float(cheap[k]), int(k), min(reached, float(cheap[k])), STOPPED)
        above, below = dual_norm(cones, int(k), G[k])
        bound, reached = min(above, float(cheap[k])), max(reached, below)
        if bound > largest:
            largest, block = bound, int(k)
    return MaxDualNorm(largest, block, largest, METHOD)


def dual_norms(cones: Cones, G: Float[np.ndarray, "P p"]) -> Bounds:
    """Return (upper, lower) bounds on the dual norm of every block.

    The upper bounds are rigorous, and the lower ones are attained.
    """
    G = cones.checked(G, 2)
    upper, lower = np.zeros(cones.P), np.zeros(cones.P)
    if cones.plane is not None:
        sides = [plane_bounds(cones.plane, G), plane_bounds(cones.plane, -G)]
        upper, lower = np.maximum(sides[0][0], sides[1][0]), np.maximum(sides[0][1], sides[1][1])
    for k in cones.general_blocks():
        upper[k], lower[k] = dual_norm(cones, k, G[k])
    return upper, lower


def dual_norm(cones: Cones, k: int, g: Float[np.ndarray, "p"]) -> tuple[float, float]:
    """Return (upper, lower) bounds on the dual norm of block k."""
    # All rows, whether or not the facets are known by now: the same problem has the same bound to the last bit,
    # whatever was asked of its cones before.
    rows, p = cones.signed_rows(k), cones.p
    upper = lower = 0.0
    length = float(np.linalg.norm(g))
    for side in (g, -g) if length > 0 else ():
        point, lam = nearest_point(rows, side)
        # g^T u <= (g + K^T lam)^T u for lam >= 0 and u in the cone, hence at most ||g + K^T lam||, with equality at the
        # projection. Multipliers of zero give ||g||, and the projection itself attains the lower bound.
        rest = np.linalg.norm(side + lam @ rows)
        bound = _norm_above(rest, length + lam.sum(), p + int(np.sum(lam > 0)))
        upper = max(upper, min(float(bound), length * (1 + (p + 8) * EPS)))
        size = float(np.linalg.norm(point))
        lower = max(lower, float(side @ point) / size if size > 0 else 0.0)
    return upper, min(lower, upper)


def single_row_bounds(cones: Cones, G: Float[np.ndarray, "P p"]) -> Float[np.ndarray, "P"]:
    """Bound every dual norm by ||g + lam K_i|| with the one row i and lam >= 0 that help most.

    The bound for either sign of g is taken, and the larger of the two returned.
    """
    squares = np.sum(G * G, axis=1)
    worst = np.zeros(cones.P)
    step = max(1, CHUNK_ELEMENTS // max(1, cones.rows.shape[0]))
    for start in range(0, cones.P, step):
        part = slice(start, start + step)
        values = cones.rows @ G[part].T
        values = np.where(cones.signs[:, part], values, -values)
        # min over lam >= 0 of ||g + lam K_i||^2 is ||g||^2 - ((-K_i g)_+)^2 for a unit row. -g has (K_i g)_+ instead,
        # and the larger of the two bounds is the one with the smaller cut.
        cut = np.minimum(np.max(-values, axis=0, initial=0.0), np.max(values, axis=0, initial=0.0))
        slack = 8 * (cones.p + 8) * EPS * squares[part]
        worst[part] = np.sqrt(np.maximum(squares[part] - cut**2, 0.0) + slack)
    return np.minimum(worst, np.sqrt(squares)) * (1 + (cones.p + 8) * EPS)


def plane_bounds(plane: PlaneCones, G: Float[np.ndarray, "P 2"]) -> Bounds:
    """Return (upper, lower) bounds on max g^T u over each cone of the plane and the unit ball."""
    length = np.linalg.norm(G, axis=1)
    a, b = np.sum(plane.f1 * G, axis=1), np.sum(plane.f2 * G, axis=1)
    # multipliers of one facet, of the other, and of both, the solution of a system with their cosine
    cosine = np.sum(plane.f1 * plane.f2, axis=1)
    determinant = np.sum(plane.f2 * np.stack([-plane.f1[:, 1], plane.f1[:, 0]], axis=1), axis=1) ** 2
    safe = np.where(determinant > 0, determinant, 1.0)
    both = (-(a - cosine * b) / safe, -(b - cosine * a) / safe)
    zero = np.zeros_like(a)
    upper = length * (1 + 8 * EPS)
    for lam1, lam2 in ((-a, zero), (zero, -b), both):
        lam1, lam2 = np.maximum(lam1, 0.0), np.maximum(lam2, 0.0)
        rest = np.linalg.norm(G + lam1[:, None] * plane.f1 + lam2[:, None] * plane.f2, axis=1)
        upper = np.minimum(upper, _norm_above(rest, length + lam1 + lam2, 4))
    c = np.maximum(np.sum(plane.r1 * G, axis=1), np.sum(plane.r2 * G, axis=1))
    lower = np.where(np.minimum(a, b) >= 0, length, np.maximum(c, 0.0))
    return upper, np.minimum(lower, upper)


def _norm_above(
    value: np.ndarray | np.floating, scale: np.ndarray | np.floating, terms: int
) -> np.ndarray | np.floating:
    """Raise a norm computed in float64 as `value` by its rounding error.

    It is made of `terms` sums of total size `scale`.

    A sum of n products is off by at most n eps times the sum of their sizes; four times that is allowed.
    """
    return value * (1 + (terms + 8) * EPS) + 4 * (terms + 8) * EPS * scale
