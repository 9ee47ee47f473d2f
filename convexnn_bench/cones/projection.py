"""Polyhedral cones {u : K u >= 0}: projections, and differences of two points.

Both rest on one non-negative least squares problem (Lawson & Hanson 1974; Moreau 1962): the nearest point of the cone
to u is u + K^T lam with lam = argmin_{lam >= 0} ||u + K^T lam||. For any lam >= 0 the number ||g + K^T lam|| bounds
max {g^T u : K u >= 0, ||u|| <= 1} (weak duality).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float

EPS = float(np.finfo(np.float64).eps)
FEASIBLE = 1e-13  # K v >= -FEASIBLE ||v|| for unit rows counts as inside


def unit_rows(K: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
    """Scale rows to length one; zero rows stay zero."""
    largest = np.max(np.abs(K), axis=1, keepdims=True, initial=0.0)
    K = K / np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(K, axis=1, keepdims=True)
    return K / np.where(lengths > 0, lengths, 1.0)


def nonnegative_least_squares(A: Float[np.ndarray, "p k"], b: Float[np.ndarray, "p"]) -> Float[np.ndarray, "k"]:
    """Return argmin_{x >= 0} ||A x - b|| for ||b|| = 1.

    A second method is used if the first does not end at a solution.
    """
    from scipy.optimize import lsq_linear, nnls

    try:
        x = nnls(A, b, maxiter=10 * A.shape[1] + 50)[0]
        if _is_least_squares(A, b, x):
            return x
    except RuntimeError:
        x = np.zeros(A.shape[1])
    other = np.maximum(lsq_linear(A, b, bounds=(0, np.inf), method="bvls", tol=1e-15).x, 0.0)
    # The best of them is returned. Any x >= 0 is a valid multiplier, so that a poor one only weakens a bound.
    candidates = (x, other, np.zeros(A.shape[1]))
    return min(candidates, key=lambda y: float(np.linalg.norm(A @ y - b)))


def _is_least_squares(A: Float[np.ndarray, "p k"], b: Float[np.ndarray, "p"], x: Float[np.ndarray, "k"]) -> bool:
    """Return whether x >= 0 is optimal.

    With r = b - A x, the conditions are A^T r <= 0 and x^T A^T r = 0.

    Active-set codes can end elsewhere if the gradient is pure rounding.
    """
    residual = b - A @ x
    gradient = residual @ A
    tolerance = 1e-12 + 64 * EPS * float(x.sum())
    return bool(np.max(gradient) <= tolerance and abs(x @ gradient) <= tolerance * (1 + float(x.sum())))


def multipliers(K: Float[np.ndarray, "n p"], u: Float[np.ndarray, "p"]) -> Float[np.ndarray, "n"]:
    """Return argmin_{lam >= 0} ||u + K^T lam|| for unit rows K, ||u|| = 1.

    If there are many rows, only a working set is solved. The rows that its solution violates most are added to it.
    """
    n, p = K.shape
    if n <= 4 * p + 20:
        return nonnegative_least_squares(K.T, -u)
    lam = np.zeros(n)
    working = np.argsort(K @ u)[: p + 1]
    for _ in range(100):
        # The optimum over the working rows, with zeros for the others, is that over all rows if no other row is
        # negative at its point. Rows whose multiplier is zero make room for the most violated ones.
        part = nonnegative_least_squares(K[working].T, -u)
        point = u + part @ K[working]
        values = K @ point
        violated = np.flatnonzero(values < -4 * EPS)
        violated = violated[~np.isin(violated, working)]
        if violated.size == 0:
            lam[working] = part
            return lam
        violated = violated[np.argsort(values[violated])[: p + 1]]
        working = np.concatenate([working[part > 0], violated])
    return nonnegative_least_squares(K.T, -u)


def nearest_point(
    K: Float[np.ndarray, "n p"], u: Float[np.ndarray, "p"]
) -> tuple[Float[np.ndarray, "p"], Float[np.ndarray, "n"]]:
    """Return the nearest point of {v : K v >= 0} to u and its multipliers, for unit K.

    The point satisfies K v >= -1e-13 ||v||. If rounding does not allow that, it is projected again, and at last
    replaced by zero, which lies in every cone.
    """
    length = float(np.linalg.norm(u))
    if length == 0.0 or K.shape[0] == 0:
        return u.copy(), np.zeros(K.shape[0])
    point = u / length
    if np.min(K @ point) >= -4 * EPS:
        return u.copy(), np.zeros(K.shape[0])
    lam = multipliers(K, point)
    point = point + lam @ K
    size = float(np.linalg.norm(point))
    # Rounding in lam K may leave the point outside: its direction is projected again. lam stays as it is, because any
    # lam >= 0 gives a valid bound.
    for _ in range(4):
        if size <= 1e-14:
            return np.zeros_like(u), lam * length
        if np.min(K @ point) >= -FEASIBLE * size:
            return point * length, lam * length
        direction = point / size
        point = size * (direction + multipliers(K, direction) @ K)
        size = float(np.linalg.norm(point))
    return np.zeros_like(u), lam * length


def least_distance(F: Float[np.ndarray, "k p"], h: Float[np.ndarray, "k"]) -> Float[np.ndarray, "p"] | None:
    """Return the shortest x with F x >= h, or None if there is none.

    This is problem LDP of Lawson & Hanson, 1974.
    """
    size = float(np.max(np.abs(h), initial=0.0))
    if size == 0.0 or np.max(h) <= 0.0:
        return np.zeros(F.shape[1])
    # Let r = A lam - e at the non-negative least squares solution, where e is the last unit vector. Then x has the
    # entries -r_i / r_(p+1). If r is zero, then F^T lam = 0 and h^T lam > 0, which no x with F x >= h allows (Farkas).
    A = np.vstack([F.T, h / size])
    target = np.append(np.zeros(F.shape[1]), 1.0)
    lam = nonnegative_least_squares(A, target)
    residual = A @ lam - target
    if np.linalg.norm(residual) <= 1e-11:
        return None
    # residual[-1] = -||residual||^2 at the solution; rounding may lose it on very thin cones
    if not residual[-1] < 0.0:
        return None
    x = -residual[:-1] / residual[-1]
    # The active constraints hold with equality, and solving them for the shortest x is more accurate than the quotient.
    active = lam > 0
    sharper = np.linalg.lstsq(F[active], h[active] / size, rcond=None)[0]
    if np.min(F @ sharper - h / size) >= min(float(np.min(F @ x - h / size)), -FEASIBLE):
        x = sharper
    return x * size


def split_difference(
    F: Float[np.ndarray, "k p"], z: Float[np.ndarray, "p"], gate: Float[np.ndarray, "p"] | None
) -> tuple[Float[np.ndarray, "p"], Float[np.ndarray, "p"]] | None:
    """Return (a, b), both in {u : F u >= 0}, a - b = z, with ||a|| + ||b|| least.

    Return None if no such pair exists.

    For s in (0, 1), (||a|| + ||b||)^2 <= ||a||^2 / s + ||b||^2 / (1 - s), with equality at the best s; for
    fixed s the best a is the point of {F a >= (F z)_+} nearest to s z, and ||b|| / (1 - s) - ||a|| / s grows
    with s.
    """
    length = float(np.linalg.norm(z))
    if length == 0.0 or np.min(F @ z, initial=np.inf) >= 0.0:
        return z.copy(), np.zeros_like(z)
    if np.max(F @ z) <= 0.0:
        return np.zeros_like(z), -z
    unit = z / length
    part = partial(_nearest_part, F, unit)
    if part(0.5) is None:
        return None
    try:
        a = part(_best_share(part, unit))
    except ArithmeticError:  # on cones too thin for float64 any pair will do: the norm is then an upper bound
        a = part(0.5)
    if a is None:
        return None
    # Moving a and b along the gate by the same amount brings both into the cone and leaves a - b as it is.
    lack = -min(float(np.min(F @ a)), float(np.min(F @ (a - unit))))
    if lack > 0.0 and gate is not None:
        gate = gate / np.linalg.norm(gate)
        a = a + gate * (lack / float(np.min(F @ gate)))
    return a * length, (a - unit) * length


def _nearest_part(
    F: Float[np.ndarray, "k p"], unit: Float[np.ndarray, "p"], share: float
) -> Float[np.ndarray, "p"] | None:
    """Return the point a nearest to share z with a and a - z in the cone, or None.

    z has norm one.
    """
    # a = s z + x lies in the cone, and a - z too, if and only if F x >= (F z)_+ - s F z; the nearest a has the
    # shortest x.
    values = F @ unit
    x = least_distance(F, np.maximum(values, 0.0) - share * values)
    return None if x is None else share * unit + x


def _best_share(part: Callable[[float], Float[np.ndarray, "p"] | None], unit: Float[np.ndarray, "p"]) -> float:
    """Return the share s at which ||b|| / (1 - s) = ||a|| / s.

    It is a root of an increasing function.

    Raises
    ------
    ArithmeticError
        If rounding leaves the least-distance problem of some share without a solution.
    """
    from scipy.optimize import brentq

    def slope(share: float) -> float:
        a = part(share)
        if a is None:
            raise ArithmeticError("the least-distance problem lost its solution")
        return float(np.linalg.norm(a - unit) / (1 - share) - np.linalg.norm(a) / share)

    low, high = 1e-9, 1 - 1e-9
    if not slope(low) < 0 < slope(high):
        return low if slope(low) >= 0 else high
    return float(brentq(slope, low, high, xtol=1e-12, rtol=1e-12))
