"""Polytopes {c >= 0 : M c = M s} around known sizes s, by null spaces and linear programs."""

import numpy as np
from jaxtyping import Float, Int

from convexnn_bench.errors import UnsupportedError

PRECISE = 1e-9  # feasibility tolerance of HiGHS, relative to the sum of the sizes
EQUAL = 0.1 * PRECISE  # difference of columns that count as equal, entrywise, relative to the length of a row


def null_space(M: Float[np.ndarray, "rows J"], threshold: float) -> Float[np.ndarray, "J d"]:
    """Return an orthonormal basis of the null space up to a threshold.

    It is of the right singular vectors whose singular values are at most `threshold`.
    """
    _, values, rows = np.linalg.svd(M, full_matrices=True)
    return rows[int((values > threshold).sum()) :].T


def support_of(
    basis: Float[np.ndarray, "J d"], sizes: Float[np.ndarray, " J"], tolerance: float
) -> Int[np.ndarray, " S"]:
    """Return the indices of sizes above `tolerance` times their sum at some point of sizes + basis y >= 0.

    The linear program is max sum_k t_k subject to t <= r sizes + basis y, 0 <= t <= 1, 0 <= r <= 1 / tolerance. Since r
    may be large, t_k is one wherever the k-th size can be positive.
    """
    from scipy.optimize import linprog

    total = sizes.sum()
    if basis.shape[1] == 0 or total == 0:
        return np.flatnonzero(sizes > tolerance * total)
    J, d = basis.shape
    cost = np.concatenate([-np.ones(J), np.zeros(1 + d)])
    rows = np.hstack([np.eye(J), -sizes[:, None] / total, -basis])
    bounds = [(0, 1)] * J + [(0, 1 / tolerance)] + [(None, None)] * d
    found = linprog(cost, A_ub=rows, b_ub=np.zeros(J), bounds=bounds, method="highs")
    if found.x is None:
        raise UnsupportedError(f"HiGHS could not find the support of the optimal set: {found.message}")
    return np.flatnonzero(found.x[:J] > 0.5)


def least_changes(
    slopes: Float[np.ndarray, "n S"], across: Float[np.ndarray, "rank S"], sizes: Float[np.ndarray, " S"]
) -> Float[np.ndarray, " n"]:
    """Return min <slope, c - sizes> subject to c >= 0 and across (c - sizes) = 0, for each slope.

    The sizes have sum one, and the rows of `across` are orthonormal.
    """
    # 1. Sizes with equal columns may be exchanged, so that all of a group goes to its least slope.
    groups = equal_columns(across)
    least = np.stack([slopes[:, group].min(axis=1) for group in groups], axis=1)
    totals = np.array([sizes[group].sum() for group in groups])
    unlike = across[:, [group[0] for group in groups]]
    # 2. Independent columns fix the totals of the groups. Otherwise they are the variables of a linear program.
    if len(groups) == len(across):
        changes = np.zeros(len(slopes))
    else:
        changes = np.array([_least_change(slope, unlike, totals) for slope in least])
    return least @ totals - slopes @ sizes + changes


def equal_columns(across: Float[np.ndarray, "rank S"]) -> list[Int[np.ndarray, "_"]]:
    """Return the indices of columns in groups whose members are equal up to EQUAL."""
    groups, left = [], np.arange(across.shape[1])
    while left.size:
        equal = np.abs(across[:, left] - across[:, left[:1]]).max(axis=0) <= EQUAL
        groups.append(left[equal])
        left = left[~equal]
    return groups


def _least_change(
    slope: Float[np.ndarray, " S"], across: Float[np.ndarray, "rank S"], sizes: Float[np.ndarray, " S"]
) -> float:
    """Return min <slope, c - sizes> subject to c >= 0 and across (c - sizes) = 0, for sizes of sum one."""
    from scipy.optimize import linprog

    found = linprog(
        slope, A_eq=across, b_eq=across @ sizes, bounds=(0, None), method="highs",
        options={"primal_feasibility_tolerance": PRECISE, "dual_feasibility_tolerance": PRECISE},
    )  # fmt: skip
    if found.x is None:
        raise UnsupportedError(f"HiGHS could not bound a prediction over the optima: {found.message}")
    return float(slope @ (found.x - sizes))
