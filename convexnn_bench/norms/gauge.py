"""The norm of vector-output ReLU blocks Z_k, by factors.

The factors (U, V) satisfy U_k V_k^T = Z_k, with U_k in its cone.

The norm is the least 1/2 (||U||^2 + ||V||^2) over such pairs. It is the nuclear norm if the left singular vectors,
or their negatives, lie in the cone. Otherwise its doubly non-negative relaxation is solved,

    min 1/2 (tr S + tr T)   subject to   [[S, Z], [Z^T, T]] >= 0,  F S F^T >= 0,

and S is factored over the cone, which makes the norm exact. If no such factors of S are found, the best pair over a
set of cone vectors gives an upper bound.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from convexnn_bench.cones import Cones
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.norms.cone_factors import EXACT, FLAT, Frame, cone_frame, cone_pool, factor_block
from convexnn_bench.norms.conic_forms import norm_cone_lmi, unpack_answer
from convexnn_bench.plugins import importable

Pair = tuple[Float[np.ndarray, "p _"], Float[np.ndarray, "q _"]]  # the same m columns, as many as the block needs

INSIDE = 1e-13  # a unit vector with F u >= -INSIDE lies in the cone, as for projections
SOLVED = 1e-6  # error of the solver in Z, relative, that may be corrected
REPRODUCED = 1e-12  # error of U V^T, relative to the product of the norms of the factors


def gauge_factors(
    cones: Cones, Z: Float[np.ndarray, "P p q"]
) -> tuple[Float[np.ndarray, "P p m"], Float[np.ndarray, "P q m"]]:
    """Return (U, V) with U_k V_k^T = Z_k to rounding and the columns of U_k in cone k.

    1. Take the factors of the nuclear norm where the singular vectors lie in the cone.
    2. Solve the relaxation of all other blocks as one program.
    3. Bring all blocks to the same number of columns.

    Raises
    ------
    InputError
        If Z_k has columns outside the span of its cone.
    UnsupportedError
        If CVXPY and Clarabel are needed and not installed, or no pair was found.
    """
    # 1. The norm is at least the nuclear norm, and equal to it where the singular vectors lie in the cone.
    pairs: dict[int, Pair] = {}
    open_frames: dict[int, Frame] = {}
    for k in np.flatnonzero(np.any(Z != 0, axis=(1, 2))).tolist():
        pair = singular_pair(cones.facets[k], Z[k])
        if pair is not None:
            pairs[k] = pair
            continue
        frame = cone_frame(cones, k)
        if np.linalg.norm(frame.across @ Z[k]) > 1e-9 * np.linalg.norm(Z[k]):
            raise InputError(
                f"block {k} is no sum of products u v^T with u in its cone; the cone has no interior (its mask is not "
                "attained by any direction)"
            )
        open_frames[k] = frame
    # 2. The relaxation for all other blocks. The norm is homogeneous, so that blocks of spectral norm one stand for
    # them.
    if open_frames:
        keys = list(open_frames)
        scales = [float(np.linalg.norm(Z[k], 2)) for k in keys]
        unit = np.stack([Z[k] / scale for k, scale in zip(keys, scales, strict=True)])
        found = relaxed_pairs(list(open_frames.values()), unit)
        for k, scale, (U, V) in zip(keys, scales, found, strict=True):
            pairs[k] = U * np.sqrt(scale), V * np.sqrt(scale)
    # 3. Zero columns bring all blocks to the same number of them.
    m = max([1, *(U.shape[1] for U, _ in pairs.values())])
    P, p, q = Z.shape
    left, right = np.zeros((P, p, m)), np.zeros((P, q, m))
    for k, (U, V) in pairs.items():
        left[k, :, : U.shape[1]], right[k, :, : U.shape[1]] = U, V
    return left, right


def singular_pair(rows: Float[np.ndarray, "F p"], Z: Float[np.ndarray, "p q"]) -> Pair | None:
    """Return the factors of the nuclear norm, or None.

    Return None if a left singular vector and its negative lie outside the cone.
    """
    left, values, right = np.linalg.svd(Z, full_matrices=False)
    kept = values > 1e-14 * values[0]
    U, V = left[:, kept] * np.sqrt(values[kept]), right[kept].T * np.sqrt(values[kept])
    # u v^T = (-u)(-v)^T: either sign of a singular vector will do.
    depth = rows @ left[:, kept]
    signs = np.where(depth.min(axis=0, initial=0.0) >= -INSIDE, 1.0, -1.0)
    if np.min(depth * signs, initial=0.0) < -INSIDE:
        return None
    return U * signs, V * signs


def relaxed_pairs(frames: Sequence[Frame], Z: Float[np.ndarray, "B p q"]) -> list[Pair]:
    """Return balanced pairs with U V^T = Z from the relaxation of all blocks in one program.

    The program is solved in its dual form, min sum_k <G_k, Z_k> subject to ||G_k||^dual <= 1.
    """
    if not (importable("cvxpy") and importable("clarabel")):
        raise UnsupportedError(
            "the norm of vector-output ReLU blocks needs the packages cvxpy and clarabel (pip install cvxpy clarabel); "
            "or give the blocks' factors (U, V)"
        )
    import cvxpy as cp

    _, p, q = Z.shape
    G = cp.Variable(Z.size)
    cones, read = norm_cone_lmi(G, list(frames), p, q)
    program = cp.Problem(cp.Minimize(Z.ravel() @ G), cones)
    _solve(program)
    pairs = []
    for frame, block, W in zip(frames, Z, read(), strict=True):
        # The multiplier of a block is its (S, Z, T). If S factors over the cone, the pair attains the relaxation's
        # value, which is a lower bound on the norm. Otherwise the best pair over a set of cone vectors bounds the norm
        # from above.
        U, V, exact = factor_block(frame, W[:p, :p], W[:p, p:])
        pair = reproduced(frame, block, U, V) if exact else None
        if pair is None:
            pair = pursued_pair(frame, block, U)
        if pair is None:
            raise UnsupportedError(
                "no decomposition of a vector-output ReLU block into products u v^T with u in its cone was found: give "
                "its factors (U, V)"
            )
        pairs.append(pair)
    return pairs


def reproduced(frame: Frame, Z: Float[np.ndarray, "p q"], U: np.ndarray, V: np.ndarray) -> Pair | None:
    """Correct a pair to U V^T = Z, balanced, with U in the cone.

    Return None if it is off by more than SOLVED.

    V is corrected, and columns are added for the part of Z that U does not span.
    """
    U = frame.project(U)
    # The least change of V after which U V^T is as near to Z as the columns of U allow.
    V = V + (np.linalg.pinv(U, rcond=EXACT) @ (Z - U @ V.T)).T
    rest = Z - U @ V.T
    if np.linalg.norm(rest) > SOLVED * np.linalg.norm(Z):
        return None
    if np.linalg.norm(rest) > REPRODUCED * np.linalg.norm(U) * np.linalg.norm(V):
        more = spanning_columns(frame)
        U, V = np.concatenate([U, more], axis=1), np.concatenate([V, (np.linalg.pinv(more) @ rest).T], axis=1)
    if np.linalg.norm(U @ V.T - Z) > REPRODUCED * np.linalg.norm(U) * np.linalg.norm(V):
        return None
    # For a given product u v^T the cost 1/2 (||u||^2 + ||v||^2) is least at ||u|| = ||v||.
    lengths = np.linalg.norm(U, axis=0), np.linalg.norm(V, axis=0)
    alive = (lengths[0] > 0) & (lengths[1] > 0)
    ratio = np.sqrt(lengths[1][alive] / lengths[0][alive])
    return U[:, alive] * ratio, V[:, alive] / ratio


def spanning_columns(frame: Frame) -> Float[np.ndarray, "p r"]:
    """Return vectors of the cone that span its span, those of the pool that are furthest apart."""
    from scipy.linalg import qr

    pool = cone_pool(frame.rows).T
    _, triangle, order = qr(pool, mode="economic", pivoting=True)
    rank = int(np.sum(np.abs(np.diag(triangle)) > FLAT))
    return frame.project(frame.map @ pool[:, order[:rank]])


def pursued_pair(frame: Frame, Z: Float[np.ndarray, "p q"], U: np.ndarray) -> Pair | None:
    """Minimise sum_j ||v_j|| with sum_j u_j v_j^T = Z.

    The u_j are the directions of U, extreme rays and other cone vectors.
    """
    import cvxpy as cp

    pool = np.concatenate([frame.project(U), frame.project(frame.map @ cone_pool(frame.rows).T)], axis=1)
    lengths = np.linalg.norm(pool, axis=0)
    pool = pool[:, lengths > 1e-9 * np.max(lengths, initial=0.0)]
    pool = pool / np.linalg.norm(pool, axis=0)
    V = cp.Variable((Z.shape[1], pool.shape[1]))
    program = cp.Problem(cp.Minimize(cp.sum(cp.norm(V, 2, axis=0))), [pool @ V.T == Z])
    _solve(program)
    if V.value is None:
        return None
    used = np.linalg.norm(V.value, axis=0)
    used = used > 1e-8 * np.max(used)
    return reproduced(frame, Z, pool[:, used], V.value[:, used])


def _solve(program: object) -> None:
    """Solve by Clarabel at tight tolerances; `reproduced` judges the result."""
    import cvxpy as cp

    assert isinstance(program, cp.Problem)
    options = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-9, "max_threads": 1, "accept_unknown": True}
    data, chain, inverse = program.get_problem_data(cp.CLARABEL, solver_opts=options, canon_backend="SCIPY")
    unpack_answer(program, chain.solve_via_data(program, data, solver_opts=options), chain, inverse)
