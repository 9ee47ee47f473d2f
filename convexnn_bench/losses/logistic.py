"""Logistic loss, F(z) = sum log(1 + exp(-y z)), y in {-1, 1}, elementwise over outputs."""

from typing import Any

import numpy as np
import torch

from convexnn_bench.labels import encode_labels
from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, RowWeights, Scalar, Terms, sign_targets


class Logistic(BaseLoss):
    """Logistic loss for targets -1 and 1, output by output.

    Of two other labels the larger one is 1.

    Notes
    -----
    F(z) = sum log(1 + exp(-y z)). With a = -y L in [0, 1], F*(L) = sum a log a + (1 - a) log(1 - a).

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> cnn.Logistic().prepare_targets([1, -1]).tolist()
    [[1.0], [-1.0]]
    """

    name = "logistic"
    in_torch = {"BCEWithLogitsLoss": "lam n c", "BCELoss": "lam n c"}
    labels = "signs"
    # F'' is sigma (1 - sigma), which is at most 1/4.
    smoothness = 0.25

    def prepare_targets(self, Y: np.ndarray) -> np.ndarray:
        signs = encode_labels(self.labels, self.name, np.asarray(Y)).rows
        return sign_targets(self.name, super().prepare_targets(signs))

    def terms(self, z: Predictions, Y: Predictions) -> Terms:
        return torch.logaddexp(torch.zeros_like(z), -Y * z)

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        return -Y * torch.sigmoid(-Y * z)

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        a = torch.sigmoid(-Y * z)
        weight = (a * (1 - a))[:, :, None]
        return lambda D: weight * D

    def rise(self, z: Predictions, Y: Predictions, gradient: Predictions, error: Predictions) -> Scalar:
        # sigma(x + t) <= e^t sigma(x), so that the slope grows at most by this factor. It also grows at most by the
        # smoothness times the error.
        slope = gradient.abs()
        general = slope + 0.125 * error
        return (error * torch.where(error < 1, torch.minimum(slope * error.exp(), general), general)).sum()

    def conjugate_terms(self, L: Predictions, Y: Predictions) -> Terms:
        a = -Y * L
        # xlogy gives 0 log 0 = 0, and xlog1py keeps log(1 - a) accurate for small a.
        value = torch.xlogy(a, a) + torch.special.xlog1py(1 - a, -a)
        return torch.where((a < 0) | (a > 1), torch.inf, value)

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        return -Y * (-Y * L).clamp(0, 1)

    def cvxpy_weighted_value(self, z: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return cp.sum(cp.multiply(w, cp.logistic(cp.multiply(-Y, z)))), []

    def cvxpy_weighted_conjugate(self, L: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        # entr(a) and entr(1 - a) together have the domain 0 <= a <= 1, so that no constraint is needed.
        a = cp.multiply(-Y / w, L)
        return -cp.sum(cp.multiply(w, cp.entr(a) + cp.entr(1 - a))), []
