"""A loss of predictions plus a bias of the second layer, minimised over that bias.

    F_b(z) = min_b F(z + 1 b^T) + beta/2 ||b||^2           (penalised), or without the last term (free)
    F_b^*(L) = F^*(L) + ||L^T 1||^2 / (2 beta)             (penalised), or F^*(L) where L^T 1 = 0, else +inf (free)

by exchanging the minimum over b with the supremum in the conjugate. A network with a second-layer bias under F is the
network without one under F_b, so that nothing else has to know about the bias. The class is not registered, since its
bias belongs to one problem.
"""

import math
import weakref
from typing import Any

import numpy as np
import torch

from convexnn_bench.losses._balancing import balanced_entries, balanced_rows
from convexnn_bench.losses._best_bias import bias_curvature, minimising_bias, pseudo_inverse, shifts
from convexnn_bench.losses._weights import INWARD, WeightedLoss
from convexnn_bench.losses.base import BaseLoss, Curvature, Directions, Predictions, Scalar

EPS = torch.finfo(torch.float64).eps
LARGEST_SCALE = 1e3  # limit of the multiples of a gradient that are searched, where the loss itself sets none


class OutputBias(BaseLoss):
    """`loss` with an output bias b in R^c: penalised by beta/2 ||b||^2, or free where `beta` is None.

    If the domain of the loss's conjugate contains L, it must contain every L' with entries between those of L and 0.
    The exception is a loss with `rows_sum_to_zero`, whose domain must be that of cross-entropy.
    """

    separable = False
    exact_gradient = False

    def __init__(self, loss: BaseLoss, beta: float | None):
        self.loss, self.beta, self.labels = loss, beta, loss.labels
        self.name = f"{loss.name} with {'a free' if beta is None else 'a penalised'} output bias"
        # minimising over b cannot raise the curvature in z
        self.smoothness = loss.smoothness
        self.rows_sum_to_zero, self.has_kinks = loss.rows_sum_to_zero, loss.has_kinks
        self.largest_weight = loss.largest_weight
        self._kept: list[Any] = []  # z, its version, Y, and the best bias there

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": []}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.loss!r}, beta={self.beta!r})"

    @property
    def penalty(self) -> float:
        """The factor of 1/2 ||b||^2, which is zero for a free bias."""
        return self.beta or 0.0

    def prepare_targets(self, Y: np.ndarray) -> np.ndarray:
        return self.loss.prepare_targets(Y)

    def rows(self, index: slice | torch.Tensor) -> BaseLoss:
        raise TypeError("an output bias couples all rows, so that some of them have no loss of their own")

    def divided(self, unit: float) -> BaseLoss:
        return OutputBias(self.loss.divided(unit), None if self.beta is None else self.beta / unit)

    def rescaled(self, unit: float) -> tuple[BaseLoss, float] | None:
        """Return (F_b', w), with b in the same unit, for which the penalty has the factor beta unit^2 / w."""
        inner = self.loss.rescaled(unit)
        if inner is None:
            return None
        loss, weight = inner
        return OutputBias(loss, None if self.beta is None else self.beta * unit**2 / weight), weight

    # -- the best bias ------------------------------------------------------------------------------------

    def best_bias(self, z: Predictions, Y: Predictions) -> torch.Tensor:
        """Return the minimising b (shape c), and keep the last one, which value and gradient share.

        If a free bias has no minimiser (separable classes), a b of nearly the least value is returned. Any b gives an
        upper bound on F_b(z), and the gradient at it is a multiplier. For autograd b is a constant, since
        grad F_b(z) = grad F(z + 1 b^T).
        """
        kept, version = self._kept, -1 if z.is_inference() else z._version
        if kept and kept[0]() is z and kept[1] == version >= 0 and kept[2]() is Y:
            b: torch.Tensor = kept[3]
            return b
        b = minimising_bias(self.loss, self.penalty, z.detach(), Y)
        # If F does not change under a shift of all entries, the bias that sums to zero is the shortest one.
        b = b - b.mean() if self.rows_sum_to_zero else b
        self._kept = [weakref.ref(z), version, weakref.ref(Y), b]
        return b

    # -- the loss -----------------------------------------------------------------------------------------

    def value(self, z: Predictions, Y: Predictions) -> Scalar:
        b = self.best_bias(z, Y)
        return self.loss.value(z + b, Y) + 0.5 * self.penalty * b.square().sum()

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        return self.loss.gradient(z + self.best_bias(z, Y), Y)

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        """W - W E (beta I + E^T W E)^+ E^T W, with W = F''(z + 1 b^T) and E the c shifts 1 e_j^T: b moves with z."""
        # Differentiate the optimality condition E^T grad F(z + E b) + beta b = 0 along dz: the bias changes by
        # db = -(beta I + E^T W E)^+ E^T W dz, and W E db is the second term.
        curve = self.row_curvature(z, Y)
        WE = curve(shifts(z))
        inverse = pseudo_inverse(self.loss, bias_curvature(WE, self.penalty))

        def product(D: torch.Tensor) -> torch.Tensor:
            WD = curve(D)
            return WD - WE @ (inverse @ WD.sum(dim=0))

        return product

    def row_curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        return self.loss.curvature(z + self.best_bias(z, Y), Y)

    def coupling(self, z: Predictions, Y: Predictions) -> Directions:
        # B = W E S with S S = (beta I + E^T W E)^+
        WE = self.row_curvature(z, Y)(shifts(z))
        inverse = pseudo_inverse(self.loss, bias_curvature(WE, self.penalty))
        if len(inverse) == 1:
            return WE * inverse.sqrt()
        values, vectors = torch.linalg.eigh(inverse)
        return WE @ (vectors * values.clamp_min(0).sqrt())

    def rise(self, z: Predictions, Y: Predictions, gradient: Predictions, error: Predictions) -> Scalar:
        # F_b(z + d) is at most its value at the best bias b of z, F(z + d + 1 b^T) + beta/2 ||b||^2. Adding b rounds
        # once.
        shifted = z + self.best_bias(z, Y)
        return self.loss.rise(shifted, Y, gradient, error + 4 * EPS * shifted.abs().amax(dim=1, keepdim=True))

    # -- the conjugate ------------------------------------------------------------------------------------

    def conjugate(self, L: Predictions, Y: Predictions) -> Scalar:
        plain = self.loss.conjugate(L, Y)
        # a sum of n terms is off by at most n eps times the sum of their sizes
        error = (len(L) + 1) * EPS * L.abs().sum(dim=0)
        total = L.sum(dim=0).abs()
        if self.beta is not None:
            return plain + (total + error).square().sum() / (2 * self.beta)
        balanced = bool((total <= 4 * error).all())  # what is balanced exactly stays so when scaled
        return plain if balanced else torch.full_like(plain, torch.inf)

    def conjugate_size(self, L: Predictions, Y: Predictions) -> Scalar:
        size = self.loss.conjugate_size(L, Y)
        return size if self.beta is None else size + L.sum(dim=0).square().sum() / self.beta

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        # Without a penalty F_b^* is infinite wherever L^T 1 is not zero, so that the sums must vanish exactly.
        L = self.loss.project_dual(L, Y)
        if self.beta is not None:
            return L
        if not self.loss.rows_sum_to_zero:
            return balanced_entries(L)
        # With weights, the rows of L + w Y are w times points of the simplex.
        return balanced_rows(L, INWARD * self.loss.column(Y) * Y if isinstance(self.loss, WeightedLoss) else Y)

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        # The penalty's term is finite for every L, and L^T 1 = 0 survives scaling: F alone sets the range.
        return self.loss.scale_range(L, Y)

    def parabola(self, L: Predictions, Y: Predictions) -> tuple[torch.Tensor, torch.Tensor] | None:
        found = self.loss.parabola(L, Y)
        if found is None or self.beta is None:
            return found
        # The penalty adds s^2/2 ||L^T 1||^2 / beta.
        slope, root = found
        return slope, torch.cat([root.reshape(-1), L.sum(dim=0) / math.sqrt(self.beta)])

    def best_scale(self, L: Predictions, Y: Predictions, lo: float, hi: float) -> float:
        if self.parabola(L, Y) is not None:
            return super().best_scale(L, Y, lo, hi)
        return super().best_scale(L, Y, max(lo, -LARGEST_SCALE), min(hi, LARGEST_SCALE))

    # -- CVXPY --------------------------------------------------------------------------------------------

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
