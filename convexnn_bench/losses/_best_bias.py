"""The output bias that minimises a loss: argmin_b F(z + 1 b^T) + penalty/2 ||b||^2.

If F'' is diag(weights) the bias is the mean residual. Otherwise Newton's method looks, from b = 0, for a zero of the
slope

    g(b) = E^T grad F(z + E b) + penalty b,        g'(b) = E^T F''(z + E b) E + penalty I,

where E are the c shifts 1 e_j^T. Near the solution each step squares the error, and no value of F is needed. Where the
slope does not fall, as for saturated predictions or a class that does not occur, a damped Newton method on the values
begins anew.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float

from convexnn_bench.losses._weights import WeightedLoss
from convexnn_bench.losses.base import BaseLoss, Directions, Predictions

SLOPE_ROUNDING = 4  # largest slope that counts as rounding, in eps times the sum of the magnitudes of its terms
PLAIN_STEPS = 16  # largest number of undamped Newton steps; 4 to 8 are usual
PLAIN_PROGRESS = 0.5  # largest ratio of the relative slopes after and before an undamped step
LARGEST_ROUNDING = 64  # as SLOPE_ROUNDING, for a slope that a Newton step does not reduce
DAMPED_STEPS = 100  # largest number of damped Newton steps
SETTLED = 1e-16  # relative decrease of the value that counts as none: half the rounding of float64
SHORT = 1.1  # a step is doubled if the value falls by more than this multiple of the predicted decrease
LARGEST_GROWTH = 2.0**60  # limit of the length of a step, which doubles while that lowers the value

Bias = Float[torch.Tensor, " c"]
BiasMatrix = Float[torch.Tensor, "c c"]


def minimising_bias(loss: BaseLoss, penalty: float, z: Predictions, Y: Predictions) -> Bias:
    """Return the minimiser, or a bias of nearly the least value if there is none."""
    inner = loss.loss if isinstance(loss, WeightedLoss) else loss
    if inner.unit_curvature:
        return _mean_residual(loss, penalty, z, Y)
    found = _by_newton(loss, penalty, z, Y)
    return _by_damped_newton(loss, penalty, z, Y) if found is None else found


def shifts(z: Predictions) -> Directions:
    """Return the c directions 1 e_j^T."""
    n, c = z.shape
    if c == 1:
        return z.new_ones(n, 1, 1)
    return torch.eye(c, dtype=z.dtype, device=z.device).expand(n, c, c).contiguous()


def bias_curvature(WE: Directions, penalty: float) -> BiasMatrix:
    """Return penalty I + E^T W E from the products W E with the c shifts E."""
    matrix = WE.sum(dim=0)
    return matrix + penalty * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device) if penalty else matrix


def pseudo_inverse(loss: BaseLoss, matrix: BiasMatrix) -> BiasMatrix:
    """Return (penalty I + E^T W E)^+ for the matrix of `bias_curvature`."""
    if len(matrix) == 1:
        return torch.where(matrix > 0, 1 / matrix, 0.0)
    # The matrix is diagonal for a sum over entries. That of cross-entropy is zero along the vector of ones, up to
    # rounding.
    smallest = 1e-13 if loss.rows_sum_to_zero else torch.finfo(matrix.dtype).eps
    return torch.linalg.pinv(matrix, rtol=smallest, hermitian=True)


def _mean_residual(loss: BaseLoss, penalty: float, z: Predictions, Y: Predictions) -> Bias:
    """Return the mean residual, which is best if F'' is diag(weights). A second step reduces rounding."""
    weight = loss.column(z).sum() if isinstance(loss, WeightedLoss) else len(z)
    b = -loss.gradient(z, Y).sum(dim=0) / (weight + penalty)
    return b - (loss.gradient(z + b, Y).sum(dim=0) + penalty * b) / (weight + penalty)


def _by_newton(loss: BaseLoss, penalty: float, z: Predictions, Y: Predictions) -> Bias | None:
    """Return b by Newton's method from zero, or None if a step does not halve the relative slope.

    A step costs one gradient and one curvature, and waits for the device once.
    """
    b, last, directions, eps = torch.zeros_like(z[0]), math.inf, shifts(z), torch.finfo(z.dtype).eps
    before = b
    for _ in range(PLAIN_STEPS):
        # 1. Evaluate the slope, relative to the sum of the magnitudes of its terms.
        shifted = z + b
        slopes = loss.gradient(shifted, Y)
        g, sizes = slopes.sum(dim=0), slopes.abs().sum(dim=0)
        if penalty:
            g, sizes = g + penalty * b, sizes + penalty * b.abs()
        now = float((g.abs() / sizes.clamp_min(1e-300)).max())
        # 2. End where it is zero up to rounding. A slope that stays just above is rounding as well.
        if now <= SLOPE_ROUNDING * eps:
            return b
        if not now <= PLAIN_PROGRESS * last:
            return before if last <= LARGEST_ROUNDING * eps else None
        # 3. Take the Newton step.
        before, last = b, now
        b = b - _solved(loss, bias_curvature(loss.curvature(shifted, Y)(directions), penalty), g)
    return None


def _solved(loss: BaseLoss, matrix: BiasMatrix, g: Bias) -> Bias:
    """Return matrix^+ g for a slope g. Entries are not finite if the matrix is singular for another reason."""
    if len(g) == 1:
        return g / matrix[0]
    if loss.rows_sum_to_zero:
        # g sums to zero. Along the vector of ones, where the matrix is zero, any positive curvature gives this step.
        matrix = matrix + matrix.diagonal().mean()
    return torch.linalg.solve_ex(matrix, g)[0]


def _by_damped_newton(loss: BaseLoss, penalty: float, z: Predictions, Y: Predictions) -> Bias:
    """Return b by a damped Newton method, with gradient steps where the loss is flat."""

    def value(b: torch.Tensor) -> float:
        return float(loss.value(z + b, Y) + 0.5 * penalty * b.square().sum())

    # 1. Start at zero or at a shift by the mean, whichever has the lowest value.
    b = min([torch.zeros_like(z[0]), -z.mean(dim=0), (Y - z).mean(dim=0)], key=value)
    now = value(b)
    # A class that does not occur would have the bias minus infinity. Beyond `reach` probabilities are below e^-128.
    reach = 2.0 * float(z.abs().max() + Y.abs().max()) + 128.0
    for _ in range(DAMPED_STEPS):
        # 2. End where the slope is zero up to rounding.
        slopes = loss.gradient(z + b, Y)
        g = slopes.sum(dim=0) + penalty * b
        sizes = slopes.abs().sum(dim=0) + penalty * b.abs()
        if bool((g.abs() <= SLOPE_ROUNDING * torch.finfo(z.dtype).eps * sizes).all()):
            break
        # 3. Take the Newton step of least length; cross-entropy does not change under a shift of all entries.
        step = -(pseudo_inverse(loss, bias_curvature(loss.curvature(z + b, Y)(shifts(z)), penalty)) @ g)
        step = (b + step).clamp(-reach, reach) - b
        moved, after = _line_search(value, b, step, now, -0.5 * float(g @ step), reach)
        # 4. If the value does not fall, as in the flat part of a saturated Huber loss, step along the gradient.
        if not now - after > SETTLED * abs(now):
            steepest = -g / max(loss.smoothness * len(z) + penalty, 1e-300)
            further, below = _line_search(value, moved, steepest, after, 0.0, reach)
            # Rounding hides differences of values. Of the last point and the full Newton step, take the one with the
            # smaller slope.
            if not now - below > SETTLED * abs(now):
                return _smaller_slope(loss, penalty, z, Y, moved, b + step)
            moved, after = further, below
        b, now = moved, after
    return b


def _smaller_slope(loss: BaseLoss, penalty: float, z: Predictions, Y: Predictions, *biases: Bias) -> Bias:
    """Return the bias with the smallest slope."""

    def slope(b: torch.Tensor) -> float:
        return float((loss.gradient(z + b, Y).sum(dim=0) + penalty * b).abs().max())

    return min((b for b in biases if bool(torch.isfinite(b).all())), key=slope)


def _line_search(
    value: Callable[[torch.Tensor], float],
    b: torch.Tensor,
    step: torch.Tensor,
    now: float,
    predicted: float,
    reach: float,
) -> tuple[torch.Tensor, float]:
    """Return (b', value at b') along the step, with a value that is not above `now`.

    Halve a step that raises the value. Double a step if the value falls by more than SHORT times the predicted
    decrease. Doubling keeps all entries of b' within `reach`.
    """
    if not bool(torch.isfinite(step).all()):
        return b, now
    # 1. Halve the step until the value does not rise.
    length, after = 1.0, value(b + step)
    while not after <= now and length > 1e-10:
        length *= 0.5
        after = value(b + length * step)
    if not after <= now:
        return b, now
    # 2. A step that was taken whole may be far too short where the loss is nearly flat: double it while that helps.
    while now - after > SHORT * predicted and 1.0 <= length < LARGEST_GROWTH:
        doubled = b + 2 * length * step
        longer = value(doubled)
        if not longer < after or bool((doubled.abs() > reach).any()):
            break
        length, after = 2 * length, longer
    return b + length * step, after
