"""Theorems 3.3 and 3.5 of Sahiner et al. (ICLR 2024) as checks on a point.

Linear and gated activations. Write f for the factored objective, G_k = A_k^*(grad F), and p* for the convex optimum.

Theorem 3.3. At a stationary point U_k^T U_k = V_k^T V_k, so that U_k and V_k have the same kernel. Along
(x w^T, y w^T), with a unit w in it and ||x||^2 + ||y||^2 = 1, a step t moves the block by t^2 x y^T alone, and the
second-order term of f is 2 x^T G_k y + beta, at least beta - ||G_k||_2. A second-order point that is rank deficient in
every block therefore has ||G_k||_2 <= beta, and is global. Only grad F enters, so that kinks of F'' do not matter. In
numbers: a curvature of at least -t beta gives ||G_k||_2 <= (1 + t) beta, and a certified gap of at most
t + eps / dual with eps the stationarity error (Theorem 3.4).

Theorem 3.5. If every block of a stationary point has rank U_k = rank V_k = min(p, q), or is zero with
||G_k||_2 <= beta, the point is global. For q <= p: G_k V_k = -beta U_k gives G_k = -beta U_k V_k^+, which by
U_k^T U_k = V_k^T V_k has all singular values equal to beta. In numbers: with a gradient R and the least singular
value s of the blocks that are not zero, ||G_k||_2 <= (1 + 3/2 e) beta with e = ||R|| ||(U, V)|| / (beta s^2).

Every block is full or deficient once m >= min(p, q): no second-order point is then spurious.
"""

import math
from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates import Certificate, certify
from convexnn_bench.errors import InputError
from convexnn_bench.formulations import Point
from convexnn_bench.norms import spectral_norms
from convexnn_bench.plugins import SEED, Number, Whole
from convexnn_bench.problem import Problem
from convexnn_bench.theorems.conditions import Condition, TheoremCheck, at_least, at_most, global_minimum, stationary
from convexnn_bench.theorems.curvature import as_factors, check_smooth, smallest_curvature
from convexnn_bench.theorems.trust_region import Hessian, spread_start, trust_region_newton


def check_rank_deficient(
    problem: Problem, m: int | None = None, seed: int = 0, *, point: Any = None, tolerance: float = 1e-6,
    steps: int = 500,
) -> TheoremCheck:  # fmt: skip
    """Check Theorem 3.3: a rank-deficient second-order point is a global minimum.

    Parameters
    ----------
    problem : Problem
        A problem with linear or gated activation.
    m : int, optional
        Columns of each block; by default min(p, q) + 1, with which every stationary point is rank deficient.
    seed : int
        Seed of the random start.
    point : Result or arrays, optional
        The point to check, (U, V) or a Result. By default a random start is trained by trust-region Newton.
    tolerance : float
        Tolerance on the relative gradient and on -curvature / beta. The conclusion is a certified gap of at most ten
        tolerances.
    steps : int
        Most steps of trust-region Newton.

    Returns
    -------
    TheoremCheck
        Hypotheses and conclusion with their numbers, and whether the theorem holds.

    Raises
    ------
    UnsupportedError
        If the activation is ReLU.
    InputError
        If an argument is not usable.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], activation="linear", beta=0.1)
    >>> cnn.check_rank_deficient(problem).holds
    True
    """
    problem, tolerance = check_smooth(problem), Number().check("tolerance", tolerance)
    U, V = _trained(problem, m, min(problem.p, problem.q) + 1, seed, point, steps)
    certificate = certify(problem, Point(factors=(U, V)))
    curvature = smallest_curvature(problem, (U, V), seed)
    assert certificate.ranks is not None
    m = U.shape[2]
    hypotheses = (
        stationary(curvature.relative_gradient, tolerance),
        at_least("second order: smallest curvature / beta", curvature.relative, -tolerance),
        Condition(f"rank deficient: largest rank of a block (m = {m})", float(max(certificate.ranks)), f"< {m}",
                  bool(certificate.rank_deficient)),
    )  # fmt: skip
    return TheoremCheck(
        "Theorem 3.3: rank-deficient second-order points are global",
        _about(problem, certificate),
        hypotheses,
        global_minimum(certificate, tolerance),
        certificate,
        (U, V),
        curvature,
        _saddle(problem, certificate, tolerance),
    )


def check_full_rank(
    problem: Problem, m: int | None = None, seed: int = 0, *, point: Any = None, tolerance: float = 1e-6,
    steps: int = 500,
) -> TheoremCheck:  # fmt: skip
    """Check Theorem 3.5: a stationary point of full rank is a global minimum.

    Zero blocks must satisfy ||G_k||_2 <= beta; second-order conditions are not needed.

    Parameters
    ----------
    m : int, optional
        Columns of each block; by default min(p, q).
    problem, seed, point, tolerance, steps
        As in `check_rank_deficient`.

    Returns
    -------
    TheoremCheck
        Hypotheses and conclusion with their numbers, and whether the theorem holds.

    Raises
    ------
    UnsupportedError, InputError
        As in `check_rank_deficient`.

    Notes
    -----
    A small beta gives optima of full rank, except with cross-entropy and c <= d: the rows of its gradient sum to zero,
    so that no stationary block of a perceptron has rank c.
    """
    problem, tolerance = check_smooth(problem), Number().check("tolerance", tolerance)
    U, V = _trained(problem, m, min(problem.p, problem.q), seed, point, steps)
    certificate = certify(problem, Point(factors=(U, V)))
    assert certificate.ranks is not None
    full, ranks = min(problem.p, problem.q), torch.tensor(certificate.ranks)
    hessian = Hessian(problem, U, V)
    # A zero block is stationary whatever G_k is, so that the theorem asks ||G_k|| <= beta of these blocks separately.
    norms = spectral_norms(hessian.G)[ranks == 0] / problem.beta
    partial = int(((ranks > 0) & (ranks < full)).sum())
    hypotheses = (
        stationary(hessian.relative_gradient, tolerance),
        at_most("the same against the least singular value s", _margin(hessian, ranks == full, full), tolerance),
        Condition(f"blocks of partial rank, 0 < rank < {full}, of {problem.P}", float(partial), "= 0", partial == 0),
        at_most(f"largest ||G_k|| / beta - 1 of the {len(norms)} zero blocks" if len(norms) else "no zero blocks",
                 float(norms.max()) - 1 if len(norms) else 0.0, tolerance),
    )  # fmt: skip
    return TheoremCheck(
        "Theorem 3.5: full-rank stationary points are global",
        _about(problem, certificate),
        hypotheses,
        global_minimum(certificate, tolerance),
        certificate,
        (U, V),
    )


def _trained(
    problem: Problem, m: int | None, default: int, seed: int, point: Any, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (U, V) of the point if there is one, else train a random start."""
    m = Whole(optional=True).check("m", m)
    seed, steps = SEED.check("seed", seed), Whole().check("steps", steps)
    if point is not None:
        U, V = as_factors(problem, point)
        if m is not None and m != U.shape[2]:
            raise InputError(f"m = {m} does not fit the point, whose factors have {U.shape[2]} columns: leave m out")
        return U, V
    end = trust_region_newton(problem, *spread_start(problem, default if m is None else m, seed), steps=steps)
    return end.U, end.V


def _margin(hessian: Hessian, chosen: torch.Tensor, full: int) -> float:
    """Return e = ||R|| ||(U, V)|| / (beta s^2).

    s: the least singular value of the factors of the full-rank blocks.
    """
    if not bool(chosen.any()) or hessian.U.shape[2] < full:
        return 0.0
    # A factor with m columns has a singular value with the index min(p, q) only if m >= min(p, q).
    least = min(float(torch.linalg.svdvals(side[chosen])[:, full - 1].min()) for side in (hessian.U, hessian.V))
    size = float(torch.cat([hessian.U, hessian.V], dim=1).square().sum().sqrt())
    slope = float(np.linalg.norm(hessian.flat_gradient()))
    return slope * size / (hessian.beta * least**2) if least > 0 else math.inf


def _saddle(problem: Problem, certificate: Certificate, tolerance: float) -> str:
    """Return the converse of Theorem 3.3 as a note.

    A rank-deficient point with ||G_k|| > beta is a saddle.
    """
    # In a spare column the curvature is beta - ||G_k|| along the top singular pair of G_k, here in units of beta.
    predicted = 1 - certificate.max_dual_norm / problem.beta
    if not certificate.rank_deficient or predicted >= -tolerance:
        return ""
    return (
        f"; a saddle, since ||G_k|| > beta at a rank-deficient point: at a stationary one the curvature / beta is at "
        f"most 1 - ||G_k|| / beta = {predicted:.6g}, and the top singular pair of -G_k descends (`staircase`)"
    )


def _about(problem: Problem, certificate: Certificate) -> str:
    return (
        f"{problem!r}\n  objective {certificate.primal:.9g}, proven lower bound {certificate.dual:.9g}, "
        f"max ||G_k|| / beta - 1 = {certificate.max_dual_norm / problem.beta - 1:.2e}"
    )
