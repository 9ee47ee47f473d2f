"""A loss of predictions plus a bias of the second layer, minimised over that bias.

    F_b(z) = min_b F(z + 1 b^T) + beta/2 ||b||^2           (penalised), or without the last term (free)
    F_b^*(L) = F^*(L) + ||L^T 1||^2 / (2 beta)             (penalised), or F^*(L) where L^T 1 = 0, else +inf (free)

by exchanging the minimum over b with the supremum in the conjugate. A network with a second-layer bias under F is the
network without one under F_b, so that nothing else has to know about the bias. The class is not registered, since its
bias belongs to one problem.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, Scalar

EPS = torch.finfo(torch.float64).eps
GRID_BITS = 40  # entries of a balanced multiplier are multiples of 2^-40 of the largest, so that their sums are exact
NEWTON_STEPS = 100  # at most, for the best bias
SETTLED = 1e-16  # relative decrease of the value that counts as none: half the rounding of float64
LARGEST_GROWTH = 2.0**60  # limit of the length of a step, which doubles while that lowers the value
LARGEST_SCALE = 1e3  # limit of the multiples of a gradient that are searched, where the loss itself sets none


class OutputBias(BaseLoss):
    """`loss` with an output bias b in R^c: penalised by beta/2 ||b||^2, or free where `beta` is None.

    The domain of the loss's conjugate must hold, with L, every L' with entries between those of L and 0, or, where
    `rows_sum_to_zero`, be that of cross-entropy.
    """

    separable = False
    exact_gradient = False

    def __init__(self, loss: BaseLoss, beta: float | None):
        self.loss, self.beta, self.labels = loss, beta, loss.labels
        self.name = f"{loss.name} with {'a free' if beta is None else 'a penalised'} output bias"
        # minimising over b cannot raise the curvature in z
        self.smoothness = loss.smoothness
        self.rows_sum_to_zero = loss.rows_sum_to_zero

    def prepare_targets(self, Y: np.ndarray) -> np.ndarray:
        return self.loss.prepare_targets(Y)

    def rescaled(self, unit: float) -> tuple[BaseLoss, float] | None:
        """Return (F_b', w), with b in the same unit, for which the penalty has the factor beta unit^2 / w."""
        inner = self.loss.rescaled(unit)
        if inner is None:
            return None
        loss, weight = inner
        return OutputBias(loss, None if self.beta is None else self.beta * unit**2 / weight), weight

    def best_bias(self, z: Predictions, Y: Predictions) -> torch.Tensor:
        """Return the minimising b (shape c), by a damped Newton method with gradient steps where the loss is flat.

        Where a free bias has no minimiser (separable classes) the last iterate is returned; any b gives an upper bound
        on F_b(z), and its gradient a multiplier. For autograd b is a constant: grad F_b(z) = grad F(z + 1 b^T).
        """
        z = z.detach()
        weight = self.beta or 0.0

        def value(b: torch.Tensor) -> float:
            return float(self.loss.value(z + b, Y)) + 0.5 * weight * float(b.square().sum())

        def slope(b: torch.Tensor) -> torch.Tensor:
            return self.loss.gradient(z + b, Y).sum(dim=0) + weight * b

        # 1. Start at zero, or at a shift of the mean where that has a lower value.
        starts = [torch.zeros_like(z[0]), -z.mean(dim=0), (Y - z).mean(dim=0)]
        b = min(starts, key=value)
        now = value(b)
        for _ in range(NEWTON_STEPS):
            # 2. Newton step.
            g = slope(b)
            # cross-entropy does not see a shift of all entries: the least-squares step leaves it alone
            curvature = torch.func.jacrev(slope)(b)
            # c x c; torch has this driver on the CPU only
            system = curvature.cpu(), -g[:, None].cpu()
            newton = torch.linalg.lstsq(*system, driver="gelsd").solution[:, 0].to(b.device)
            moved, after = _line_search(value, b, newton, now)
            # 3. Where it changes nothing, as in the flat part of a saturated Huber loss, step along the gradient.
            if not now - after > SETTLED * abs(now):
                further, below = _line_search(value, moved, -g / max(self.smoothness * len(z) + weight, 1e-300), after)
                if not now - below > SETTLED * abs(now):
                    return moved
                moved, after = further, below
            b, now = moved, after
        return b

    def value(self, z: Predictions, Y: Predictions) -> Scalar:
        b = self.best_bias(z, Y)
        return self.loss.value(z + b, Y) + 0.5 * (self.beta or 0.0) * b.square().sum()

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        return self.loss.gradient(z + self.best_bias(z, Y), Y)

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        """W - W E (beta I + E^T W E)^+ E^T W, with W = F''(z + 1 b^T) and E the c shifts 1 e_j^T: b moves with z."""
        # Differentiate the optimality condition E^T grad F(z + E b) + beta b = 0 along dz: the bias changes by
        # db = -(beta I + E^T W E)^+ E^T W dz, and W E db is the second term.
        inner = self.loss.curvature(z + self.best_bias(z, Y), Y)
        shifts = torch.eye(Y.shape[1], dtype=z.dtype, device=z.device).expand(len(z), -1, -1).contiguous()
        WE = inner(shifts)  # n x c x c
        inverse = torch.linalg.pinv(WE.sum(dim=0) + (self.beta or 0.0) * shifts[0], hermitian=True)

        def product(D: torch.Tensor) -> torch.Tensor:
            WD = inner(D)
            return WD - WE @ (inverse @ WD.sum(dim=0))

        return product

    def rise(self, z: Predictions, Y: Predictions, gradient: Predictions, error: Predictions) -> Scalar:
        # F_b(z + d) is at most its value at the best bias b of z, F(z + d + 1 b^T) + beta/2 ||b||^2. Adding b rounds
        # once.
        shifted = z + self.best_bias(z, Y)
        return self.loss.rise(shifted, Y, gradient, error + 4 * EPS * shifted.abs().amax(dim=1, keepdim=True))

    def conjugate(self, L: Predictions, Y: Predictions) -> Scalar:
        plain = self.loss.conjugate(L, Y)
        # a sum of n terms is off by at most n eps times the sum of their sizes
        error = (len(L) + 1) * EPS * L.abs().sum(dim=0)
        total = L.sum(dim=0).abs()
        if self.beta is not None:
            return plain + (total + error).square().sum() / (2 * self.beta)
        balanced = bool((total <= 4 * error).all())  # what is balanced exactly stays so when scaled
        return plain if balanced else torch.full_like(plain, torch.inf)

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        # Without a penalty F_b^* is infinite wherever L^T 1 is not zero, so that the sums must vanish exactly.
        L = self.loss.project_dual(L, Y)
        if self.beta is not None:
            return L
        return balanced_rows(L, Y) if self.loss.rows_sum_to_zero else balanced_entries(L)

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        # The penalty's term is finite for every L, and L^T 1 = 0 survives scaling: F alone sets the range.
        return self.loss.scale_range(L, Y)

    def best_scale(self, L: Predictions, Y: Predictions, lo: float, hi: float) -> float:
        return super().best_scale(L, Y, max(lo, -LARGEST_SCALE), min(hi, LARGEST_SCALE))

    def cvxpy_value(self, z: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        b: Any = cp.Variable((1, Y.shape[1]))
        value, domain = self.loss.cvxpy_value(z + np.ones((len(Y), 1)) @ b, Y)
        return (value if self.beta is None else value + 0.5 * self.beta * cp.sum_squares(b)), domain

    def cvxpy_conjugate(self, L: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        value, domain = self.loss.cvxpy_conjugate(L, Y)
        total = cp.sum(L, axis=0)
        if self.beta is None:
            return value, [*domain, total == 0]
        return value + cp.sum_squares(total) / (2 * self.beta), domain


def _line_search(
    value: Callable[[torch.Tensor], float], b: torch.Tensor, step: torch.Tensor, now: float
) -> tuple[torch.Tensor, float]:
    """Return (b', value at b') along the step, not above `now`. Halve a step that is too long, else double it."""
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
    while 1.0 <= length < LARGEST_GROWTH:
        longer = value(b + 2 * length * step)
        if not longer < after:
            break
        length, after = 2 * length, longer
    return b + length * step, after


def _on_grid(L: Predictions) -> tuple[torch.Tensor, float]:
    """Return (whole numbers q, grid) with q * grid = L, rounded toward zero."""
    largest = float(L.abs().max())
    # entries next to the least numbers of float64 go to zero
    grid = 2.0 ** (int(np.ceil(np.log2(largest))) - GRID_BITS) if largest > 1e-290 else 1.0
    return torch.trunc(L / grid).to(torch.int64), grid


def _take(stock: torch.Tensor, amount: int) -> torch.Tensor:
    """Return whole numbers 0 <= t <= stock that sum to `amount`, proportional to `stock` up to rounding."""
    total = int(stock.sum())
    # The factor just below one keeps the sum of the floors from exceeding the amount; the loop deals out the rest,
    # first where most is left.
    share = torch.floor(stock.double() * (amount / max(total, 1) * (1 - 1e-12))).to(torch.int64)
    share = torch.minimum(share.clamp_min(0), stock)
    for index in (stock - share).argsort(descending=True).tolist():
        missing = amount - int(share.sum())
        if missing <= 0:
            break
        share[index] += min(missing, int(stock[index] - share[index]))
    return share


def balanced_entries(L: Predictions) -> Predictions:
    """Return L with columns that sum to zero exactly: the entries of each column's heavier sign shrink towards zero."""
    q, grid = _on_grid(L)
    for column in range(q.shape[1]):
        # An entry only moves towards zero, and the domain of such a loss contains every point in between.
        excess = int(q[:, column].sum())
        sign = 1 if excess > 0 else -1
        q[:, column] -= sign * _take((sign * q[:, column]).clamp_min(0), abs(excess))
    return q.to(L.dtype) * grid


def balanced_rows(L: Predictions, Y: Predictions) -> Predictions:
    """Return L with rows and columns that sum to zero exactly and rows of L + Y in the simplex (Y one-hot).

    In each row the label's entry is minus the sum of the others. Then probability moves, within rows, from classes
    whose column sum is too large to those where it is too small.
    """
    q, grid = _on_grid(L)
    label = Y.argmax(dim=1, keepdim=True)
    q.scatter_(1, label, 0)
    q.scatter_(1, label, -q.sum(dim=1, keepdim=True))
    # more than is ever moved, and small enough for exact sums
    full = torch.floor(Y / grid).clamp_max(2.0**44).to(torch.int64)
    sums = q.sum(dim=0)
    for high in torch.nonzero(sums > 0).flatten().tolist():
        for low in torch.nonzero(sums < 0).flatten().tolist():
            amount = min(int(sums[high]), -int(sums[low]))
            if amount > 0:
                moved = _take((q[:, high] + full[:, high]).clamp_min(0), amount)
                q[:, high] -= moved
                q[:, low] += moved
                sums = q.sum(dim=0)
    return q.to(L.dtype) * grid
