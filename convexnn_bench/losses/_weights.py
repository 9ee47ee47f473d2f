"""A loss whose rows are weighted.

    F_w(z) = sum_i w_i f(z_i, y_i),   F_w*(L) = sum_i w_i f*(L_i / w_i, y_i),   w_i >= 0,

A row with w_i = 0 contributes nothing to F_w, and F_w*(L) is finite only if L_i = 0. Such a row stays among the
predictions and the masks. The class is not registered, since the weights belong to one problem.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, Scalar, Terms, by_rows, of_rows

EPS = torch.finfo(torch.float64).eps
# Factor on gradients and projections that keeps L_i / w_i in the domain of f* despite the rounding of products.
INWARD = 1 - 8 * EPS

Column = Float[torch.Tensor, "n_out 1"]


class WeightedLoss(BaseLoss):
    """`loss`, a sum over rows, with a weight for each row of predictions.

    Parameters
    ----------
    loss : BaseLoss
        A separable loss.
    weights : array n_out
        Non-negative numbers, not all zero.
    """

    def __init__(self, loss: BaseLoss, weights: Float[np.ndarray, " n_out"]):
        self.loss, self.weights = loss, weights
        self.name, self.labels = f"weighted {loss.name}", loss.labels
        self.smoothness = loss.smoothness * float(weights.max())
        self.rows_sum_to_zero, self.has_kinks = loss.rows_sum_to_zero, loss.has_kinks
        self.exact_gradient, self.largest_weight = loss.exact_gradient, max(1.0, float(weights.max()))
        self._copies: dict[tuple[str, torch.dtype], Column] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_copies": {}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.loss!r}, {len(self.weights)} weights)"

    def column(self, z: torch.Tensor) -> Column:
        """Return the weights as a column on the device of z, in its dtype."""
        key = (str(z.device), z.dtype)
        if key not in self._copies:
            self._copies[key] = torch.as_tensor(self.weights, dtype=z.dtype, device=z.device)[:, None]
        return self._copies[key]

    def copies(self) -> dict[tuple[str, torch.dtype], Column]:
        """Return the columns that were made so far, by device and dtype."""
        return dict(self._copies)

    def rows(self, index: slice | torch.Tensor) -> "WeightedLoss":
        chosen = index if isinstance(index, slice) else index.cpu().numpy()
        part = WeightedLoss.__new__(WeightedLoss)
        part.__dict__.update({**vars(self), "weights": self.weights[chosen]})
        part._copies = {key: copy[index] for key, copy in self._copies.items()}
        return part

    def divided(self, unit: float) -> "WeightedLoss":
        return WeightedLoss(self.loss, self.weights / unit)

    def prepare_targets(self, Y: np.ndarray) -> np.ndarray:
        return self.loss.prepare_targets(Y)

    def terms(self, z: Predictions, Y: Predictions) -> Terms:
        w = self.column(z)
        # A term that overflows must not count if its weight is zero.
        return torch.where(w > 0, w * of_rows(self.loss, "terms")(z, Y), 0.0)

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        w = self.column(z)
        return torch.where(w > 0, w * INWARD * self.loss.gradient(z, Y), 0.0)

    def rescaled(self, unit: float) -> tuple[BaseLoss, float] | None:
        found = self.loss.rescaled(unit)
        return None if found is None else (WeightedLoss(found[0], self.weights), found[1])

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        w, curve = self.column(z)[:, :, None], self.loss.curvature(z, Y)
        return lambda D: w * curve(D)

    def rise(self, z: Predictions, Y: Predictions, gradient: Predictions, error: Predictions) -> Scalar:
        w, slope = self.column(z), self._unweighted(gradient) / INWARD
        return torch.where(w > 0, w * by_rows(self.loss.rise, z, Y, slope, error), 0.0).sum()

    # -- the conjugate ------------------------------------------------------------------------------------

    def _unweighted(self, L: Predictions) -> Predictions:
        """Return L_i / w_i, zero where w_i = 0."""
        w = self.column(L)
        return torch.where(w > 0, L / torch.where(w > 0, w, 1.0), 0.0)

    def conjugate_terms(self, L: Predictions, Y: Predictions) -> Terms:
        w = self.column(L)
        terms = w * of_rows(self.loss, "conjugate_terms")(self._unweighted(L), Y)
        # If w_i = 0, <L_i, z_i> has no upper bound, so that F_w* is infinite unless L_i = 0.
        unweighted = torch.where((L == 0).all(dim=1, keepdim=True), 0.0, torch.inf)
        return torch.where(w > 0, terms, unweighted)

    def conjugate_size(self, L: Predictions, Y: Predictions) -> Scalar:
        # The terms are products L Y and L (L / w).
        U = self._unweighted(L)
        return (L.abs() * (2.0 if self.rows_sum_to_zero else U.abs() + Y.abs())).sum()

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        w = self.column(L)
        # L / w is stretched by its rounding, so that an unchanged row lies in the domain of w f*(. / w).
        outer = self._unweighted(L) * (1 + 2 * EPS)
        inside = self.loss.project_dual(outer, Y)
        same = (inside == outer).all(dim=1, keepdim=True)
        return torch.where(w > 0, torch.where(same, L, w * INWARD * inside), 0.0)

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        return self.loss.scale_range(self._unweighted(L), Y)

    def parabola(self, L: Predictions, Y: Predictions) -> tuple[torch.Tensor, torch.Tensor] | None:
        found = self.loss.parabola(self._unweighted(L), Y)
        if found is None:
            return None
        w = self.column(L)
        return w * found[0], w.sqrt() * found[1]

    # -- CVXPY --------------------------------------------------------------------------------------------

    def cvxpy_value(self, z: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        kept = np.flatnonzero(self.weights)
        rows = z if len(kept) == len(Y) else z[kept]
        value: tuple[Any, list[Any]] = of_rows(self.loss, "cvxpy_weighted_value")(
            rows, Y[kept], self.weights[kept, None]
        )
        return value

    def cvxpy_conjugate(self, L: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        kept, absent = np.flatnonzero(self.weights), np.flatnonzero(self.weights == 0)
        rows = L[kept] if absent.size else L
        value, domain = of_rows(self.loss, "cvxpy_weighted_conjugate")(rows, Y[kept], self.weights[kept, None])
        return value, [*domain, *([L[absent] == 0] if absent.size else [])]
