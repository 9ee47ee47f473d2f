"""Squared hinge, F(z) = 1/2 sum max(0, 1 - y z)^2, y in {-1, 1}, elementwise over outputs."""

from typing import Any

import numpy as np
import torch

from convexnn_bench.labels import encode_labels
from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, RowWeights, Terms, sign_targets


class SquaredHinge(BaseLoss):
    """Squared hinge loss for targets -1 and 1, output by output.

    Of two other labels the larger one is 1.

    Notes
    -----
    F(z) = 1/2 sum max(0, 1 - y z)^2. With a = -y L >= 0, F*(L) = sum a^2/2 - a.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> cnn.SquaredHinge().prepare_targets([1, -1]).tolist()
    [[1.0], [-1.0]]
    """

    name = "squared_hinge"
    labels = "signs"
    smoothness = 1.0
    has_kinks = True

    def prepare_targets(self, Y: np.ndarray) -> np.ndarray:
        signs = encode_labels(self.labels, self.name, np.asarray(Y)).rows
        return sign_targets(self.name, super().prepare_targets(signs))

    def terms(self, z: Predictions, Y: Predictions) -> Terms:
        return 0.5 * (1 - Y * z).clamp_min(0).square()

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        return -Y * (1 - Y * z).clamp_min(0)

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        # At the kink y z = 1 zero is an element of the generalised Hessian.
        active = (Y * z < 1).to(z.dtype)[:, :, None]
        return lambda D: active * D

    def conjugate_terms(self, L: Predictions, Y: Predictions) -> Terms:
        a = -Y * L
        # For a < 0 let y z grow: F is zero there, and <L, z> = -a y z has no upper bound.
        return torch.where(a < 0, torch.inf, a * (0.5 * a - 1))

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        return -Y * (-Y * L).clamp_min(0)

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        # dom F*, a >= 0, is a cone, which holds all non-negative multiples of its points.
        return 0.0, torch.inf

    def parabola(self, L: Predictions, Y: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
        # -F*(s L) = s sum a - s^2/2 sum a^2
        return -Y * L, L

    def cvxpy_weighted_value(self, z: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return 0.5 * cp.sum_squares(cp.multiply(np.sqrt(w), cp.pos(1 - cp.multiply(Y, z)))), []

    def cvxpy_weighted_conjugate(self, L: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        a = cp.multiply(-Y, L)
        return 0.5 * cp.sum_squares(cp.multiply(1 / np.sqrt(w), a)) - cp.sum(a), [a >= 0]
