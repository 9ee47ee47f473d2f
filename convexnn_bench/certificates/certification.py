"""Certify any point by one function, from its raw parameters in float64.

The multiplier of the bound is the gradient of F at the point (`bounds`), or the point's own multiplier where that gives
the larger bound.
"""

import math

import numpy as np
import torch

from convexnn_bench.certificates.bounds import lower_bound
from convexnn_bench.certificates.certificate import Certificate
from convexnn_bench.certificates.conclusion import concluded
from convexnn_bench.certificates.objective import check_conjugate, loss_upper_bound, objective_upper_bound
from convexnn_bench.certificates.points import PointLike, as_point
from convexnn_bench.certificates.rank_tests import rank_tests
from convexnn_bench.checks import as_numpy
from convexnn_bench.deadline import deadline
from convexnn_bench.errors import InputError, NotFiniteError
from convexnn_bench.formulations import Evaluation, Point
from convexnn_bench.operator import prediction_rounding
from convexnn_bench.plugins import LIMIT, Choice
from convexnn_bench.problem import Problem

# relative violation of the ReLU cones above which a gap is refused (tests hold projections to a tenth of it)
FEASIBILITY_TOLERANCE = 1e-8


def certify(
    problem: Problem, point: PointLike, scope: str | None = None, *, time_limit: float | None = None
) -> Certificate:
    """Return the certificate of a point, with bounds in float64.

    This is `convexnn_bench.certify` without verified arithmetic; its docstring states arguments, errors and theorem.
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
    ranks = {} if at.factors is None or problem.has_cone or G is None else rank_tests(problem, at.factors, G)
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
    """Return the larger of two bounds: `dual`, and that of the point's own multiplier."""
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
