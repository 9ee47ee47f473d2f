"""Certificates of any point, by one function, from raw parameters in float64.

Weak duality: if ||A_k^* Lambda||_k^dual <= beta for every block, then p* >= -F*(Lambda). With
Lambda = s grad F(A(Z)) that holds for s <= beta / max_k ||G_k||^dual, and the best admissible s is taken.
It needs no stationarity. (Sahiner et al., ICLR 2024, section 3 and its appendix.)
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.certificates.certificate import Certificate, relative_gap
from convexnn_bench.certificates.objective import check_conjugate, loss_upper_bound, objective_upper_bound
from convexnn_bench.certificates.points import PointLike, as_point
from convexnn_bench.checks import SMALLEST_BETA, as_numpy
from convexnn_bench.deadline import deadline
from convexnn_bench.errors import InputError, NotFiniteError
from convexnn_bench.formulations import Evaluation, Point
from convexnn_bench.losses import BaseLoss
from convexnn_bench.norms import EPS, MaxDualNorm, MovingBound, max_dual_norm, spectral_norms
from convexnn_bench.operator import (
    TINY,
    Operator,
    adjoint_rounding,
    is_moderate,
    multiplier_underflow,
    power_of_two,
    prediction_rounding,
    sum_rounding,
)
from convexnn_bench.plugins import LIMIT, Choice
from convexnn_bench.problem import Problem

# relative violation of the ReLU cones above which a gap is refused (tests hold projections to a tenth of it)
FEASIBILITY_TOLERANCE = 1e-8
# fraction of the bound by which a point that violates its cones within the tolerance above may fall below the bound
ROUNDING_TOLERANCE = 1e-10
# multipliers whose scale is outside this range are rescaled first, if the loss allows any scale
SMALL, LARGE = 2.0**-300, 2.0**300
# singular values below this fraction of the largest one of all blocks count as zero in the rank tests
RANK_TOLERANCE = 1e-6


def lower_bound(
    problem: Problem,
    Lambda: torch.Tensor,
    scope: str | None = None,
    *,
    device: str = "cpu",
    G: torch.Tensor | None = None,
    moving: MovingBound | None = None,
) -> tuple[float, MaxDualNorm, torch.Tensor]:
    """Return (-F*(s Lambda) at the best admissible s, max_k ||A_k^* Lambda||^dual, s Lambda): a lower bound on p*.

    Lambda: n_out x c in dom F*, float64 on `device`. scope "complete": the maximum over every activation pattern of a
    ReLU network, of which the problem's blocks are a sample. The dual norms and the value are on the safe side of their
    rounding. G: A_k^* Lambda of every block (P x p x q), where the caller has just computed it with
    `problem.operator(device).adjoint`. moving: rules that bound the norms over all patterns, in place of a search for
    some. Raise InputError where beta is too small for float64.
    """
    operator, loss, scope = problem.operator(device), problem.loss, scope or problem.scope
    # 1. Bound the largest dual norm from above. A bound that is too large only shortens the multiplier, so that it
    # stays feasible.
    norm, largest = _enlarged_norm(problem, operator, Lambda, scope, G, moving)
    # 2. If the norm is extreme, divide the multiplier by a power of two, which is exact, and bound it again. Products
    # and squares of entries of about one neither overflow nor underflow.
    scale = 1.0
    if not (is_moderate(largest) and is_moderate(problem.beta / largest)):
        scale = power_of_two(Lambda)
        norm, largest = _enlarged_norm(problem, operator, Lambda / scale, scope, moving=moving)
    # 3. Choose the best feasible multiple of the multiplier.
    underflow = multiplier_underflow(operator)
    value, scaled = best_dual(loss, operator.Y, Lambda, problem.beta, largest, scale=scale, underflow=underflow)
    return value, norm.scaled(scale), scaled


def _enlarged_norm(
    problem: Problem,
    operator: Operator,
    Lambda: torch.Tensor,
    scope: str,
    G: torch.Tensor | None = None,
    moving: MovingBound | None = None,
) -> tuple[MaxDualNorm, float]:
    """Return bounds on max_k ||A_k^* Lambda||^dual for the computed adjoint, and an upper bound for the exact one."""
    # Over the problem's blocks, or over every pattern of a ReLU network.
    if scope == problem.scope:
        norm = _norm_of_blocks(problem, operator, Lambda, G)
    else:
        norm = problem.all_patterns.bound(problem.operator().second_layer_adjoint(Lambda.cpu()).numpy(), moving)
    # Every dual norm is at most the Frobenius norm. By the triangle inequality the exact norm of A_k^* Lambda is
    # therefore at most that of its computed value plus the rounding of the adjoint.
    return norm, norm.value + adjoint_rounding(operator, Lambda)


def _norm_of_blocks(problem: Problem, operator: Operator, Lambda: torch.Tensor, G: torch.Tensor | None) -> MaxDualNorm:
    """Bound the largest dual norm over the problem's blocks, or over all directions if the blocks are all patterns."""
    G = operator.adjoint(Lambda) if G is None else G
    moved = problem.pattern_info.moved
    if not problem.has_cone or moved is None or problem.scope == "sampled":
        return max_dual_norm(problem.cones, G)
    # The blocks are all patterns of rows within distance `moved` of the rows of Phi. For a direction u, |u| <= 1, this
    # changes (phi_i^T u)_+ R_i by at most moved_i ||R_i||, where R = C^*(Lambda).
    norm = max_dual_norm(problem.closed_cones, G)
    R = operator.second_layer_adjoint(Lambda)
    lengths = torch.linalg.vector_norm(R, dim=1) + R.abs().amax(dim=1)
    allowed = float(torch.as_tensor(moved).to(lengths) @ lengths)
    return MaxDualNorm(norm.value + allowed, norm.block, max(norm.lower - allowed, 0.0), norm.method)


def best_dual(
    loss: BaseLoss,
    Y: torch.Tensor,
    Lambda: torch.Tensor,
    beta: float,
    norm: float,
    *,
    scale: float = 1.0,
    underflow: float = 0.0,
) -> tuple[float, torch.Tensor]:
    """Return (-F*(s Lambda), s Lambda) at the best s with s ||A_k^* Lambda||^dual <= beta, the value rounded down.

    Lambda: n_out x c in dom F*, float64. norm: an upper bound on max_k ||A_k^* Lambda / scale||^dual. scale: a power of
    two. underflow: a bound on the change of a dual norm of s Lambda that underflow of entries causes.
    """
    # 1. Bound the admissible scales. s Lambda must stay in dom F*, and is feasible in every block if |s| norm <= beta.
    lo, hi = loss.scale_range(Lambda, Y)
    if hi == math.inf and not SMALL < scale < LARGE:
        Lambda, scale = Lambda / scale, 1.0
    limit = _largest_scale(beta, underflow, norm, scale)
    # 2. Maximise -F*(s Lambda), which is concave in s. Every admissible s gives a valid bound, so that an inexact
    # maximiser only makes it less tight.
    s = loss.best_scale(Lambda, Y, max(lo, -limit), min(hi, limit))
    value, scaled = _rounded_down_dual(loss, Y, s * Lambda)
    # 3. If the value overflows, use the multiplier zero, which is feasible.
    return (value, scaled) if math.isfinite(value) else _rounded_down_dual(loss, Y, torch.zeros_like(Lambda))


def _largest_scale(beta: float, underflow: float, norm: float, scale: float) -> float:
    """Return an s with s norm scale + underflow <= beta, rounded down.

    Raise InputError if s is outside the normal numbers of float64.
    """
    if norm == 0:
        return math.inf
    # for an infinite norm, and for NaN, only s = 0 is certain to be feasible
    if not norm < math.inf:
        return 0.0
    # The factor 1 - 4 eps leaves room for the rounding of the quotient and of s Lambda.
    limit = (beta - underflow) / norm * (1 - 4 * EPS)
    if not min(limit, limit / scale) >= SMALLEST_BETA:
        raise InputError(
            f"beta = {beta:.6g} is too small for a bound in float64: beta / max_k ||A_k^* L|| is {limit / scale:.3g} "
            f"for a multiplier L of this point, which must be at least {SMALLEST_BETA:g}; rescale X, Y and beta"
        )
    return limit / scale


def _rounded_down_dual(loss: BaseLoss, Y: torch.Tensor, L: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Return (-F*(L), L), where the value is lowered by a bound on its rounding error."""
    # F* is a sum of products, or of entropies of numbers in [0, 1], whose rounding is relative to one. Rows of L that
    # sum to zero do so only up to rounding, and an entropy magnifies that error by |log| <= 40.
    c = Y.shape[1]
    numbers = [-loss.conjugate(L, Y), loss.conjugate_size(L, Y), L.abs().amax()]
    value, size, largest = torch.stack(numbers).tolist()
    rounding = sum_rounding(L.numel()) + (8 + c * (40 if loss.rows_sum_to_zero else 1)) * EPS
    underflow = 4 * TINY * loss.largest_weight * L.numel() if largest > 0 else 0.0
    return value - rounding * (size + abs(value)) - underflow + 0.0, L  # + 0.0: no minus zero


def certify(
    problem: Problem, point: PointLike, scope: str | None = None, *, time_limit: float | None = None
) -> Certificate:
    """Certify a point: bound how far its objective is above the global optimum.

    Parameters
    ----------
    problem : Problem
        The training problem.
    point : Result, Point, array, pair of arrays or torch.nn.Module
        A result, blocks (P x p x q), factors (U, V), network weights (W1, W2), or a torch module without biases that
        is a network of this problem.
    scope : {"sampled", "complete"}, optional
        The program that the bound is about: the one with the problem's blocks, or that of the original ReLU network,
        with every activation pattern. The default is "complete" for a ReLU network and the problem's own scope for
        every other point. A point of a sampled ReLU program may take "complete" too, because its neurons form a
        network.
    time_limit : float, optional
        Seconds after which the bound on the dual norms is improved no further, which weakens the lower bound and keeps
        it valid. None for no limit.

    Returns
    -------
    Certificate
        Objective, lower bound, gap and their scope, all in float64.

    Raises
    ------
    InputError
        The point or the scope does not fit the problem.
    UnsupportedError
        The norm of vector-output ReLU blocks could not be evaluated; or, with scope="sampled", a ReLU network has
        patterns that are not among the problem's blocks.

    Notes
    -----
    Weak duality: p* >= -F*(Lambda) for every Lambda with ||A_k^* Lambda||^dual <= beta in every block k. The
    multiplier is grad F at the point, scaled to the best admissible length (Sahiner et al., ICLR 2024, section 3).

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
    >>> certificate = certify(problem, cnn.solve(problem, "bm_newton"))
    >>> certificate.gap <= 1e-6, certificate.scope
    (True, 'complete')
    """
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a Problem, got {type(problem).__name__}")
    LIMIT.check("time_limit", time_limit)
    with deadline(time_limit):
        return _certified(problem, as_point(problem, point), scope)


def _certified(problem: Problem, point: Point, scope: str | None) -> Certificate:
    # 1. The program that the bound is about.
    scope = _scope(problem, point, scope)
    # A network that uses other patterns is no point of the sampled program, whose optimum it may even undercut.
    if scope == "sampled":
        point.check_patterns(problem)
    # 2. Compute its objective F + beta R, in its own formulation, rounded up.
    device = point.device(problem)
    at = point.evaluate(problem, device)
    operator, loss = problem.operator(device), problem.loss
    _check_finite(at)
    gradient = loss.gradient(at.predictions, operator.Y)
    value = float(loss.value(at.predictions, operator.Y))
    rounding = prediction_rounding(operator, at.sizes, at.columns)
    F = loss_upper_bound(loss, at.predictions, operator.Y, value, gradient, rounding)
    primal = objective_upper_bound(F, problem.beta, at.regulariser, at.regulariser_rounding)
    # 3. The lower bound. It holds for any point; the gap needs a point in the cones.
    # grad F lies in dom F* up to rounding, which the projection removes.
    Lambda = loss.project_dual(gradient, operator.Y)
    check_conjugate(loss, at.predictions, operator.Y, value, gradient, Lambda)
    G = operator.adjoint(Lambda) if scope == problem.scope else None
    dual, norm, multiplier = lower_bound(problem, Lambda, scope, device=device, G=G)
    dual, multiplier = _better_bound(problem, point, dual, multiplier, scope, device)
    # The objective of an infeasible point may lie below p*, so that its distance from the bound says nothing.
    refused = None
    if at.infeasibility > FEASIBILITY_TOLERANCE:
        refused = (
            f"the point violates the ReLU cones by {at.infeasibility:.1e} of its largest pre-activation "
            f"(allowed {FEASIBILITY_TOLERANCE:.0e})"
        )
    # 4. <grad F, A(Z)> + beta R is zero at a stationary point, since F + beta R has no slope along Z there.
    error = float((gradient * at.predictions).sum()) + problem.beta * at.regulariser
    ranks = {} if at.factors is None or problem.has_cone or G is None else _rank_tests(problem, at.factors, G)
    return concluded(
        primal, dual, problem.beta, norm, error, multiplier, scope=scope, infeasibility=at.infeasibility,
        refused=refused, **ranks,
    )  # fmt: skip


def _check_finite(at: Evaluation) -> None:
    """Raise NotFiniteError if predictions or norms overflow."""
    if not bool(torch.isfinite(at.predictions).all()) or not math.isfinite(at.regulariser):
        raise NotFiniteError("the point's predictions or norms overflow float64; rescale the point, or the data")


def _better_bound(
    problem: Problem, point: Point, dual: float, multiplier: torch.Tensor, scope: str, device: str
) -> tuple[float, torch.Tensor]:
    """Return the larger of two bounds: the one passed in, and that of the multiplier of the point, if it has one."""
    # A solver's own multiplier may be the better one away from stationarity. Projection and scaling make any finite
    # array feasible, so that a wrong multiplier gives a weaker bound and never a false one.
    if point.dual is None:
        return dual, multiplier
    loss, Y = problem.loss, problem.operator(device).Y
    candidate = torch.as_tensor(np.asarray(as_numpy(point.dual, "dual"), dtype=np.float64))
    if candidate.numel() != Y.numel():
        raise InputError(
            f"dual must have the shape of Y, {tuple(Y.shape)}, got {tuple(candidate.shape)}; of a result of other data "
            "give the arrays alone, such as result.blocks"
        )
    candidate = candidate.reshape(Y.shape).to(Y.device)
    if not bool(torch.isfinite(candidate).all()):
        return dual, multiplier
    try:
        other, _, scaled = lower_bound(problem, loss.project_dual(candidate, Y), scope, device=device)
    except InputError:  # every feasible multiple of such a large multiplier underflows
        return dual, multiplier
    return (other, scaled) if other > dual else (dual, multiplier)


def concluded(
    primal: float,
    dual: float,
    beta: float,
    norm: MaxDualNorm,
    stationarity_error: float,
    multiplier: torch.Tensor | None,
    *,
    refused: str | None = None,
    **fields: Any,
) -> Certificate:
    """Return the certificate of an objective and a lower bound. norm: that of grad F. fields: its other fields."""
    refused = refused or _contradiction(primal, dual)
    return Certificate(
        primal=primal,
        dual=dual,
        gap=math.nan if refused else relative_gap(primal, dual),
        # Theorem 3.4 bounds (p_hat - p*) / p* by this at a stationary point. The error of stationarity is reported
        # beside it, since the same proof adds it at every other point.
        stationarity_bound=max(norm.value / beta - 1.0, 0.0),
        stationarity_error=stationarity_error,
        max_dual_norm=norm.value,
        worst_block=norm.block,
        dual_norm_lower=norm.lower,
        dual_norm_method=norm.method,
        refused=refused,
        multiplier=None if multiplier is None else multiplier.cpu().numpy(),
        **fields,
    )


def strengthened(certificate: Certificate, other: Certificate) -> Certificate:
    """Return the certificate with the lower bound of another point of the same program, if that bound is larger.

    A bound once proven holds for every point. The other one may be the larger, too, because this one met a deadline.
    """
    if other.scope != certificate.scope or not other.dual > certificate.dual:
        return certificate
    refused = certificate.refused or _contradiction(certificate.primal, other.dual)
    gap = math.nan if refused else relative_gap(certificate.primal, other.dual)
    return replace(certificate, dual=other.dual, multiplier=other.multiplier, gap=gap, refused=refused)


def _contradiction(primal: float, dual: float) -> str | None:
    """Return why no gap is stated if objective and bound contradict weak duality, else None."""
    # Weak duality says dual <= p* <= primal. If the numbers contradict it by more than the tolerance of the cones
    # explains, one of them is wrong.
    if primal < dual - ROUNDING_TOLERANCE * abs(dual):
        return f"the objective {primal:.12g} came out below the proven bound {dual:.12g}: rounding is too large here"
    return None


def _scope(problem: Problem, point: Point, scope: str | None) -> str:
    if scope is None:
        return point.default_scope(problem)
    Choice(("sampled", "complete", None)).check("scope", scope)
    # A ReLU network chooses its patterns, so that a bound over all of them is about it. Gates are part of the model:
    # over other gates the bound would be about another problem.
    if scope == problem.scope or (scope == "complete" and problem.has_cone):
        return str(scope)
    reason = (
        "its blocks are all activation patterns" if problem.scope == "complete" else "its gates are part of the model"
    )
    raise InputError(
        f"scope={scope!r} does not fit this {problem.activation.name} problem: {reason}; leave scope out, or give "
        f"{problem.scope!r}"
    )


def _rank_tests(
    problem: Problem, factors: tuple[torch.Tensor, torch.Tensor], G: Float[torch.Tensor, "P p q"]
) -> dict[str, Any]:
    """Return the fields that say whether Theorems 3.3 and 3.5 apply at a Burer-Monteiro point without cones."""
    # 1. The norm of the gradient (G_k V_k + beta U_k, G_k^T U_k + beta V_k), relative to that of the penalty's gradient
    # beta (U, V).
    U, V = factors
    left, right = G @ V + problem.beta * U, G.transpose(1, 2) @ U + problem.beta * V
    size = problem.beta * math.sqrt(float(U.square().sum() + V.square().sum()))
    slope = math.sqrt(float(left.square().sum() + right.square().sum()))
    # 2. Numerical ranks. At a stationary point U_k^T U_k = V_k^T V_k, so that both factors have the same singular
    # values. Elsewhere the smaller one of each pair decides.
    values = torch.minimum(*(_padded_singular_values(factor) for factor in (U, V)))
    floor = RANK_TOLERANCE * float(torch.stack([U.abs().amax(), V.abs().amax()]).max())
    ranks = (values > floor).sum(dim=1)
    # 3. Theorem 3.5: a stationary point is global if every block has full rank, or is zero with ||G_k|| <= beta.
    norms = spectral_norms(G)
    full = (ranks == min(problem.p, problem.q)) | ((ranks == 0) & (norms <= problem.beta * (1 + 1e-9)))
    return {
        "gradient_norm": slope / size if size > 0 else slope / problem.beta,
        "full_rank": bool(full.all()),
        # Theorem 3.3: for a unit w in the common kernel of U_k and V_k the second-order term along (x w^T, y w^T) is
        # 2 x^T G_k y + beta (||x||^2 + ||y||^2). Where it is never negative, ||G_k|| <= beta.
        "rank_deficient": bool((ranks < U.shape[2]).all()),
        "ranks": tuple(int(rank) for rank in ranks),
    }


def _padded_singular_values(factor: torch.Tensor) -> torch.Tensor:
    """Return the singular values of every block, with zeros appended up to m of them."""
    # There are min(p, m) of them for U_k and min(q, m) for V_k, which differ where p or q is below m.
    values = torch.linalg.svdvals(factor)
    return torch.nn.functional.pad(values, (0, factor.shape[2] - values.shape[1]))
