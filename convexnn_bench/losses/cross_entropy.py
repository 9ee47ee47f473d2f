"""Softmax cross-entropy, F(z) = sum_i logsumexp(z_i) - <y_i, z_i>."""

from typing import Any

import numpy as np
import torch

from convexnn_bench.errors import InputError
from convexnn_bench.labels import encode_labels
from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, RowWeights, Scalar, Terms


class CrossEntropy(BaseLoss):
    """Softmax cross-entropy against labels or rows of probabilities.

    Labels may be of any kind, also one-hot rows.

    Notes
    -----
    F(z) = sum_i logsumexp(z_i) - <y_i, z_i>, and F*(L) = sum (L + Y) log(L + Y) where the rows of L + Y lie in the
    simplex, else infinity. Labels of shape n become one-hot rows, with one column for each label that occurs, in order.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> cnn.CrossEntropy().prepare_targets([0, 2, 1])
    array([[1., 0., 0.],
           [0., 0., 1.],
           [0., 1., 0.]])
    """

    name = "cross_entropy"
    in_torch = {"CrossEntropyLoss": "lam n", "NLLLoss": "lam n"}
    labels = "one_hot"
    rows_sum_to_zero = True
    smoothness = 0.5  # the largest eigenvalue of diag(p) - p p^T over the simplex

    def prepare_targets(self, Y: np.ndarray) -> np.ndarray:
        # A single column holds labels, since as probabilities it would hold nothing but ones.
        Y = super().prepare_targets(encode_labels(self.labels, self.name, np.asarray(Y)).rows)
        if (Y < 0).any() or not np.allclose(Y.sum(axis=1), 1.0, rtol=0, atol=1e-9):
            row = int(np.argmax(np.maximum(-Y.min(axis=1), np.abs(Y.sum(axis=1) - 1))))
            raise InputError(
                f"rows of Y must be non-negative and sum to one for the cross_entropy loss; row {row} sums to "
                f"{Y[row].sum():g} with least entry {Y[row].min():g}"
            )
        # Accepted rows may be off by 1e-9; the formulas of value and conjugate need sums of one.
        rows: np.ndarray = Y / Y.sum(axis=1, keepdims=True)
        return rows

    def terms(self, z: Predictions, Y: Predictions) -> Terms:
        # logsumexp(z) - <y, z> without its cancellation: every term below is non-negative
        # Rows of Y sum to one, so that it equals <y, top - z> + log(1 + sum of exp(z_j - top) over the others j).
        top, where = z.max(dim=1, keepdim=True)
        others = (z - top).scatter(1, where, -torch.inf).exp().sum(dim=1)
        return ((Y * (top - z)).sum(dim=1) + torch.log1p(others))[:, None]

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        return _closed(torch.softmax(z, dim=1) - Y, Y)

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        p = torch.softmax(z, dim=1)[:, :, None]

        def product(D: torch.Tensor) -> torch.Tensor:  # (diag(p_i) - p_i p_i^T) D_i
            weighted = p * D
            return weighted - p * weighted.sum(dim=1, keepdim=True)

        return product

    def rise(self, z: Predictions, Y: Predictions, gradient: Predictions, error: Predictions) -> Scalar:
        # For a one-hot row with label l, the slope along d is sum_j p_j (d_j - d_l) over j != l. Each p_j grows at most
        # by the factor e^(2 max |d|), and the entries of |grad| add up to twice the sum of these p_j.
        general = (error * (gradient.abs() + 0.25 * error)).sum(dim=1)
        largest = error.amax(dim=1)
        one_hot = gradient.abs().sum(dim=1) * largest * (2 * largest).exp()
        return torch.where((Y == 1).any(dim=1) & (largest < 1), torch.minimum(one_hot, general), general).sum()

    def conjugate_terms(self, L: Predictions, Y: Predictions) -> Terms:
        probability = L + Y
        # rows may leave the simplex by rounding only; anything more is outside the domain
        slack = 1e-12 * probability.shape[1]
        inside = (probability >= -slack).all(dim=1, keepdim=True) & (L.sum(dim=1, keepdim=True).abs() <= slack)
        probability = probability.clamp_min(0)
        # near a fitted label log(L + Y) is log1p of a small number, which L + Y would round away
        near = torch.special.xlog1py(probability, (L + (Y - 1)).clamp_min(-1))
        value = torch.where(Y > 0.5, near, torch.xlogy(probability, probability))
        return torch.where(inside, value, torch.inf)

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        size = L.abs().sum(dim=1, keepdim=True)
        # Rows that are feasible, with a sum of zero up to rounding, stay as they are: a gradient is not disturbed.
        balanced = L.sum(dim=1, keepdim=True).abs() <= 4 * L.shape[1] * torch.finfo(L.dtype).eps * size
        inside = (L + Y >= 0).all(dim=1, keepdim=True) & balanced
        # The others are clipped at zero and divided by their sum: a point of the simplex, not the nearest one.
        probability = (L + Y).clamp_min(0)
        total = probability.sum(dim=1, keepdim=True)
        # a row without any positive entry goes to L = 0
        moved = torch.where(total > 0, probability / total.clamp_min(1e-300), Y) - Y
        return torch.where(inside, L, _closed(moved, Y))

    def cvxpy_weighted_value(self, z: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return cp.sum(cp.multiply(w[:, 0], cp.log_sum_exp(z, axis=1))) - cp.sum(cp.multiply(w * Y, z)), []

    def cvxpy_weighted_conjugate(self, L: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        # The domain of entr keeps L + Y >= 0, so that the sums of the rows are all that is left to constrain.
        probability = cp.multiply(1 / w, L) + Y
        return -cp.sum(cp.multiply(w, cp.entr(probability))), [cp.sum(probability, axis=1) == 1]


def _closed(L: Predictions, Y: Predictions) -> Predictions:
    """L with the entry of each row's likeliest class set to minus the sum of the others.

    Rows of a dual point sum to zero. Differences of probabilities do so to eps; after this correction they do to eps
    times their own size, which a bound on a nearly fitted problem needs.
    """
    where = Y.argmax(dim=1, keepdim=True)
    return L.scatter(1, where, -L.scatter(1, where, 0.0).sum(dim=1, keepdim=True))
