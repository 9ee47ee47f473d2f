"""From single outputs to vectors: bounds on max ||z|| over a set H.

H = {R^T (Phi u)_+ : ||u|| <= 1}, of which the support function is known.

h(v) = max_{z in H} v^T z is a single-output problem, which decision_rule.py bounds. It is convex and positively
homogeneous in v, so that bounds at v_1 and v_2 bound it at every non-negative combination of the two: in the plane that
encloses H in a polygon. In more dimensions ||z||^2 is the sum over pairs of coordinates, each pair in its polygon.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.cones import EPS
from convexnn_bench.deadline import deadline, seconds_left, time_is_up, working_on
from convexnn_bench.norms.all_patterns.decision_rule import LONGEST, WORK, positive_bound, step_cost

CLOSE = 1e-4  # relative distance to an attained value at which a bound is not improved any further
MOST_DIRECTIONS = 16  # most directions in one plane

Support = Callable[[Float[np.ndarray, " q"], float], float]
Reached = Callable[[Float[np.ndarray, "q k"]], float]


def support_function(Phi: Float[np.ndarray, "N p"], R: Float[np.ndarray, "N q"]) -> Support:
    """Return h(v, enough), a rigorous upper bound on max v^T R^T (Phi u)_+ over the unit ball.

    Entries of Phi and R are at most about one in size. The work for one R, and the time until a deadline, are divided
    among the directions that `vector_bound` may take.
    """
    expected = 2 if R.shape[1] == 1 else directions(Phi, R) * ((R.shape[1] + 1) // 2)
    share, calls = WORK / expected, itertools.count(1)
    rows, size = torch.as_tensor(Phi), float(np.linalg.norm(np.linalg.norm(Phi, axis=1) * np.linalg.norm(R, axis=1), 1))

    def bound(v: Float[np.ndarray, " q"], enough: float) -> float:
        # v^T R^T (Phi u)_+ = sum_i r_i (phi_i^T u)_+ with r = R v: r_i > 0 gives the rows a_i = r_i phi_i, and r_i < 0
        # the b_j.
        r, call = torch.as_tensor(R @ v), next(calls)
        working_on(f"bounding direction {call} of at most {max(call, expected)}")
        with deadline(seconds_left() / max(1, expected + 1 - call)):
            value = positive_bound(rows[r > 0] * r[r > 0, None], rows[r < 0] * -r[r < 0, None], enough, share)
        return value + 4 * (len(v) + 4) * EPS * size * float(np.linalg.norm(v))  # rounding of R v and of its products

    return bound


def directions(Phi: Float[np.ndarray, "N p"], R: Float[np.ndarray, "N q"]) -> int:
    """Return the most directions in one plane: or fewer if the work for so many does not fit."""
    half = Phi.shape[0] // 2
    planes, steps = (R.shape[1] + 1) // 2, LONGEST * step_cost(half, half, Phi.shape[1])
    return max(
        (most for most in (MOST_DIRECTIONS, MOST_DIRECTIONS // 2) if planes * most * steps <= 2 * WORK), default=4
    )


def line_bound(support: Support, v: Float[np.ndarray, " q"], lower: float) -> float:
    """Bound max |v^T z| over H."""
    enough = lower * (1 + CLOSE)
    return max(support(v, enough), support(-v, enough))


def circle_bound(support: Support, basis: Float[np.ndarray, "q 2"], lower: float, most: int = MOST_DIRECTIONS) -> float:
    """Bound max ||basis^T z|| over H, for two orthonormal columns, by a polygon of at most `most` tangents.

    Each tangent is added where the last polygon reaches furthest, until that is within CLOSE of the attained value
    `lower`.
    """
    enough = lower * (1 + CLOSE)
    angles = [k * math.pi / 2 for k in range(5)]
    values = [support(basis @ _on_circle(angle), enough) for angle in angles[:4]]
    values.append(values[0])
    # Between two tangents the polygon reaches furthest at their intersection. The arc that reaches furthest is split.
    while True:
        arcs = [arc(angles[k], angles[k + 1], values[k], values[k + 1]) for k in range(len(angles) - 1)]
        worst = max(range(len(arcs)), key=lambda k: arcs[k][0])
        reach, angle = arcs[worst]
        if len(arcs) >= most or reach <= enough or reach <= max(values) * (1 + CLOSE) or time_is_up():
            return reach
        values.insert(worst + 1, support(basis @ _on_circle(angle), enough))
        angles.insert(worst + 1, angle)


def _on_circle(angle: float) -> Float[np.ndarray, " 2"]:
    return np.array([math.cos(angle), math.sin(angle)])


def arc(left: float, right: float, a: float, b: float) -> tuple[float, float]:
    """Return the largest value of a function over left <= t <= right, and t.

    The function is (a sin(right - t) + b sin(t - left)) / sin(right - left).
    """
    gap = right - left
    peak = math.atan2(b - a * math.cos(gap), a * math.sin(gap))
    if not 0 < peak < gap:
        return max(a, b) * (1 + 64 * EPS), left + gap / 2
    # A rounded angle moves the tangent by eps / sin(gap), relative to its length.
    reach = math.sqrt(max((a - b) ** 2 + 4 * a * b * math.sin(gap / 2) ** 2, 0.0)) / math.sin(gap)
    return max(reach, a, b) * (1 + 64 * EPS / math.sin(gap)), left + peak


def vector_bound(
    support: Support, R: Float[np.ndarray, "N q"], size: float, reached: Reached, most: int = MOST_DIRECTIONS
) -> float:
    """Bound max ||z|| over H in a line, a plane, or pairs of coordinates, according to the rank of R.

    size: at least ||Phi||_2. reached(basis): an attained value of ||basis^T z||. most: directions in one plane.
    """
    basis, rest = row_space(R)
    # ||z|| <= ||b^T z|| + ||(R - R b b^T)^T (Phi u)_+||, and the last term is at most `rest` times `size`.
    if basis.shape[1] == 1:
        return line_bound(support, basis[:, 0], reached(basis)) + rest * size
    if basis.shape[1] == 2:
        return circle_bound(support, basis, reached(basis), most) + rest * size
    return _pairs(support, R, size, reached, most)


def _pairs(support: Support, R: Float[np.ndarray, "N q"], size: float, reached: Reached, most: int) -> float:
    """Bound ||z||^2 by a sum over pairs of coordinates, columns of R of similar size together.

    After a deadline a pair is bounded by the norm of its columns times `size`.
    """
    q = R.shape[1]
    order = np.argsort(-np.linalg.norm(R, axis=0), kind="stable")
    total = 0.0
    for k in range(0, q, 2):
        pair = np.eye(q)[:, order[k : k + 2]]
        if not np.any(R @ pair):
            continue
        if time_is_up():
            total += (float(np.linalg.norm(R @ pair)) * (1 + 4 * R.size * EPS) * size) ** 2
            continue
        one = pair.shape[1] == 1
        lower = reached(pair)
        total += (line_bound(support, pair[:, 0], lower) if one else circle_bound(support, pair, lower, most)) ** 2
    return math.sqrt(total) * (1 + 16 * q * EPS)


def row_space(R: Float[np.ndarray, "N q"]) -> tuple[Float[np.ndarray, "q r"], float]:
    """Return orthonormal columns b that span the rows of R to rounding.

    Return also an upper bound on ||R - R b b^T||.
    """
    _, values, right = np.linalg.svd(R, full_matrices=False)
    basis = right[values > 1e-13 * values[0]].T
    return basis, outside(R, basis)


def outside(R: Float[np.ndarray, "N q"], basis: Float[np.ndarray, "q r"]) -> float:
    """Return an upper bound on ||R - R b b^T|| for orthonormal columns b."""
    rounding = 8 * (R.shape[1] + 8) * EPS * float(np.linalg.norm(R))
    return float(np.linalg.norm(R - (R @ basis) @ basis.T)) + rounding
