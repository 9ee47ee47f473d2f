"""Squared loss, F(z) = 1/2 ||z - Y||^2."""

from typing import Any

import numpy as np
import torch

from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, RowWeights, Terms


class Squared(BaseLoss):
    """Squared loss.

    Notes
    -----
    F(z) = 1/2 ||z - Y||_F^2 and F*(L) = 1/2 ||L||_F^2 + <L, Y>, both sums over samples and outputs.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> cnn.Problem([[1.0], [2.0]], [1.0, 3.0], loss=cnn.Squared(), activation="linear", beta=0.1).objective([[[0.0]]])
    5.0
    """

    name = "squared"
    in_torch = {"MSELoss": "lam n c / 2"}
    smoothness = 1.0
    unit_curvature = True

    def terms(self, z: Predictions, Y: Predictions) -> Terms:
        return 0.5 * (z - Y).square()

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        return z - Y

    def rescaled(self, unit: float) -> tuple[BaseLoss, float]:
        return self, unit**2

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        return lambda D: D

    def conjugate_terms(self, L: Predictions, Y: Predictions) -> Terms:
        return L * (0.5 * L + Y)

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        return L

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        # F* is finite everywhere, so that the multiplier may have any length and either sign.
        return -torch.inf, torch.inf

    def parabola(self, L: Predictions, Y: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
        # -F*(s L) = -s <L, Y> - s^2/2 ||L||^2
        return -L * Y, L

    def cvxpy_weighted_value(self, z: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return 0.5 * cp.sum_squares(cp.multiply(np.sqrt(w), z - Y)), []

    def cvxpy_weighted_conjugate(self, L: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return 0.5 * cp.sum_squares(cp.multiply(1 / np.sqrt(w), L)) + cp.sum(cp.multiply(Y, L)), []
