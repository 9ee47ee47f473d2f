"""Basic solutions for the sizes of neurons whose directions are fixed.

With the unit vectors u_j and v_j of the neurons fixed, predictions and penalty are linear in their sizes s >= 0:

    f = sum_j s_j a_j,   a_j = C(D_j Phi u_j v_j^T),        R = sum_j s_j.

The linear program min sum_j s_j subject to sum_j s_j a_j = f, s >= 0 has a basic solution, in which the a_j of the
neurons that are left are linearly independent. So at most n_out c neurons are left (Caratheodory's theorem; Mishkin &
Pilanci, Optimal sets and solution paths of ReLU networks, ICML 2023).
"""

import numpy as np
from jaxtyping import Float

EPS = float(np.finfo(np.float64).eps)
SOLVER_ZERO = 1e-9  # size, relative to the sum of sizes, up to which a size in HiGHS' solution counts as zero
REFINED = 1e-11  # largest change of the predictions after refinement, relative to sum_j s_j ||a_j||

Columns = Float[np.ndarray, "e J"]
Sizes = Float[np.ndarray, " J"]


def basic_sizes(A: Columns, s: Sizes) -> Sizes:
    """Return sizes t >= 0 with A t = A s, sum(t) <= sum(s) and linearly independent columns where t > 0.

    1. Find the row space of A, in which the constraints are orthonormal rows.
    2. Solve the linear program by HiGHS, and refine its basic solution by least squares on its support.
    3. If the refined solution does not reproduce A s, continue with s.
    4. Remove dependent columns one at a time.

    The equations hold up to rounding, relative to sum_j s_j ||a_j||.
    """
    kept = s > 0
    if not kept.all():
        t = np.zeros_like(s)
        t[kept] = basic_sizes(A[:, kept], s[kept])
        return t
    # 1. A triangular factor of A has the same equations and lengths. Orthonormal rows W^T of its row space turn A t =
    # A s into W^T t = W^T s.
    if A.shape[0] > A.shape[1]:
        A = np.asarray(np.linalg.qr(A, mode="r"))
    _, values, rows = np.linalg.svd(A, full_matrices=False)
    rank = int((values > EPS * max(A.shape) * values.max(initial=0.0)).sum())
    if rank == len(s):
        return s
    # 2. and 3. Take the refined basic solution, or s.
    start = _refined(A, s, _linear_program(rows[:rank], s))
    start = s if start is None else start
    # 4. Remove dependent columns.
    return _independent(A, start)


def without_smallest(A: Columns, s: Sizes, part: float) -> Sizes:
    """Return s with zeros for the smallest s_j ||a_j||, which add up to at most `part` ||A s||."""
    lengths = s * np.linalg.norm(A, axis=0)
    order = np.argsort(lengths)
    spared = order[np.cumsum(lengths[order]) <= part * np.linalg.norm(A @ s)]
    return np.where(np.isin(np.arange(len(s)), spared), 0.0, s)


def _linear_program(rows: Float[np.ndarray, "rank J"], s: Sizes) -> Sizes | None:
    """Return a basic solution of min sum(t), rows t = rows s, t >= 0, or None.

    It is exact to about 1e-7. Return None if HiGHS has none.
    """
    from scipy.optimize import linprog

    total = s.sum()
    # The dual simplex method ends at a vertex, where an interior-point method may end inside a face.
    found = linprog(np.ones(len(s)), A_eq=rows, b_eq=rows @ (s / total), bounds=(0, None), method="highs-ds")
    return None if found.x is None else total * np.where(found.x > SOLVER_ZERO, found.x, 0.0)


def _refined(A: Columns, s: Sizes, t: Sizes | None) -> Sizes | None:
    """Return t moved so that A t = A s on its support.

    Return None if that fails or raises the sum of sizes.
    """
    if t is None:
        return None
    kept = np.flatnonzero(t)
    t[kept] += np.linalg.lstsq(A[:, kept], A @ (s - t), rcond=None)[0]
    error = np.linalg.norm(A @ (t - s)) / (np.linalg.norm(A, axis=0) @ s)
    if t.min() < 0 or error > REFINED or t.sum() > s.sum() * (1 + len(s) * EPS):
        return None
    return t


def _independent(A: Columns, s: Sizes) -> Sizes:
    """Return sizes with the same A s, no larger sum, and independent columns where they are positive.

    Along a vector w with A w = 0 and sum(w) <= 0, s + t w keeps A s until a size becomes zero, which is removed.
    """
    s, kept = s.copy(), np.flatnonzero(s > 0)
    _, values, rows = np.linalg.svd(A[:, kept], full_matrices=True)
    rank = int((values > EPS * max(A.shape) * values.max(initial=0.0)).sum())
    null = rows[rank:].T  # orthonormal columns
    while null.shape[1]:
        # 1. Step along the first null vector until the first size is zero.
        w = null[:, 0] if null[:, 0].sum() <= 0 else -null[:, 0]
        falling = np.flatnonzero(w < 0)
        ratios = s[kept[falling]] / -w[falling]
        out = falling[np.argmin(ratios)]
        s[kept] = np.maximum(s[kept] + ratios.min() * w, 0.0)
        s[kept[out]] = 0.0
        # 2. Reflect the other null vectors so that they vanish at this size; they remain orthonormal.
        null = _vanishing(null, int(out))
    return s


def _vanishing(null: Float[np.ndarray, "J d"], index: int) -> Float[np.ndarray, "J less"]:
    """Return an orthonormal basis of the vectors in the span of `null` whose entry at `index` is zero."""
    row = null[index] / np.linalg.norm(null[index])
    # The Householder reflection that maps `row` to plus or minus the last unit vector.
    v = row.copy()
    v[-1] += np.copysign(1.0, row[-1])
    reflected = null - np.outer(null @ v, 2.0 * v / (v @ v))
    reflected[index, :-1] = 0.0
    return reflected[:, :-1]
