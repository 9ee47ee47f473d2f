"""Lower bounds on the optimum by weak duality, from any multiplier Lambda.

If ||A_k^* Lambda||_k^dual <= beta for every block, then p* >= -F*(Lambda). With
Lambda = s grad F(A(Z)) that holds for s <= beta / max_k ||G_k||^dual, and the best admissible s is taken.
The point need not be stationary (Sahiner et al., ICLR 2024, section 3 and its appendix).
"""

import math

import torch

from convexnn_bench.checks import SMALLEST_BETA
from convexnn_bench.errors import InputError
from convexnn_bench.losses import BaseLoss
from convexnn_bench.norms import EPS, MaxDualNorm, MovingBound, max_dual_norm
from convexnn_bench.operator import (
    TINY,
    Operator,
    adjoint_rounding,
    is_moderate,
    multiplier_underflow,
    power_of_two,
    sum_rounding,
)
from convexnn_bench.problem import Problem

# multipliers whose scale is outside this range are rescaled first, if the loss allows any scale
SMALL, LARGE = 2.0**-300, 2.0**300


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
