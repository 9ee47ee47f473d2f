"""Upper bounds on the objective of a point, and a check of a loss's conjugate.

The objective F(z) + beta R is computed in float64. It is raised here by bounds on the rounding of the predictions z, of
R and of both sums (Higham, Accuracy and Stability of Numerical Algorithms, sections 3.1 and 4.2), so that the
objective in a certificate is never below the exact objective of the point.
"""

import math

import torch
from jaxtyping import Float

from convexnn_bench.errors import InputError, NotFiniteError
from convexnn_bench.losses import BaseLoss
from convexnn_bench.operator import EPS, TINY, sum_rounding

Predictions = Float[torch.Tensor, "n_out c"]


def loss_upper_bound(
    loss: BaseLoss, z: Predictions, Y: Predictions, value: float, gradient: Predictions, error: Predictions
) -> float:
    """Return an upper bound on F at every point within `error` of z, entry by entry.

    value, gradient: F(z) and grad F(z) in float64.
    """
    # 1. Differences and exponents of predictions are rounded once more when F is evaluated.
    error = error + 4 * EPS * z.abs().amax(dim=1, keepdim=True)
    rise = float(loss.rise(z, Y, gradient, error))
    # 2. The rounding of the sum is relative to its terms, which are non-negative unless a user's loss has a constant.
    size = abs(value) if value > 0 else abs(value) + float((gradient * z).abs().sum())
    rounding = (sum_rounding(z.numel()) + z.shape[1] * EPS) * size
    # Underflow changes a term by at most TINY. At z = 0 a value of zero is exact.
    underflow = 0.0 if value == 0 and not bool(z.any()) else 4 * TINY * loss.largest_weight * z.numel()
    return value + 1.0001 * rise + rounding + underflow


def objective_upper_bound(F: float, beta: float, R: float, rounding: float) -> float:
    """Return an upper bound on F + beta R from upper bounds F and R (1 + rounding).

    Raise NotFiniteError if it overflows.
    """
    penalty = beta * R * (1 + rounding)
    total = F + penalty + 4 * EPS * (abs(F) + penalty)
    # Comparisons with NaN are false, so that a point that overflows would pass every later check.
    if not math.isfinite(total):
        raise NotFiniteError(
            f"the point's objective is not a finite number of float64: loss {F:.6g}, penalty {penalty:.6g} = beta R "
            f"with beta = {beta:.6g} and R = {R:.6g}; rescale the point, or the data"
        )
    return total + 0.0


def check_conjugate(
    loss: BaseLoss, z: Predictions, Y: Predictions, value: float, gradient: Predictions, Lambda: Predictions
) -> None:
    """Raise InputError unless the Fenchel-Young inequality holds, up to rounding.

    F(z) + F*(Lambda) - <Lambda, z> is non-negative for every Lambda, and zero at Lambda = grad F(z). A conjugate that
    is too small would give a bound above the optimum. Lambda: the projection of `gradient` onto dom F*.
    """
    norm = torch.linalg.vector_norm
    terms = [loss.conjugate(Lambda, Y), (Lambda * z).sum(), norm(Lambda), norm(z), norm(Y)]
    if Lambda is not gradient:
        terms.append(norm(Lambda - gradient))
    conjugate, product, norm_Lambda, norm_z, norm_Y, *removed = torch.stack(terms).tolist()
    residual = value + conjugate - product
    # By the Cauchy-Schwarz inequality the products of entries add up to at most the products of norms.
    size = abs(value) + abs(conjugate) + norm_Lambda * (norm_z + norm_Lambda + norm_Y)
    tiny = TINY * loss.largest_weight * z.numel()
    allowed = (sum_rounding(z.numel()) + (64 + 40 * z.shape[1]) * EPS) * size + 16 * tiny
    words = None
    if residual < -allowed or (loss.exact_gradient and residual > allowed):
        words = (
            f"F(z) + F*(L) - <L, z> is {residual:.6g} at the gradient L, where it must be zero (rounding allows "
            f"{allowed:.1e})"
        )
    # The projection onto dom F* removes rounding only, unless the gradient itself is inexact.
    if loss.exact_gradient and any(distance > 64 * EPS * norm_Lambda + tiny for distance in removed):
        words = f"the gradient is outside the domain of F* by {removed[0]:.6g}"
    if words is not None:
        raise InputError(
            f"loss {loss.name!r}: its value, gradient and conjugate do not belong together: {words}; no bound "
            "from this conjugate can be trusted"
        )
