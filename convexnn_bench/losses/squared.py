"""Squared loss, F(z) = 1/2 ||z - Y||^2."""

from typing import Any

import numpy as np
import torch

from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, Scalar, parabola_vertex


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
    smoothness = 1.0
    unit_curvature = True

    def value(self, z: Predictions, Y: Predictions) -> Scalar:
        return 0.5 * (z - Y).square().sum()

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        return z - Y

    def rescaled(self, unit: float) -> tuple[BaseLoss, float]:
        return self, unit**2

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        return lambda D: D

    def conjugate(self, L: Predictions, Y: Predictions) -> Scalar:
        return (L * (0.5 * L + Y)).sum()

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        return L

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        # F* is finite everywhere, so that the multiplier may have any length and either sign.
        return -torch.inf, torch.inf

    def best_scale(self, L: Predictions, Y: Predictions, lo: float, hi: float) -> float:
        # -F*(s L) is a parabola in s with its vertex at -<L, Y> / ||L||^2
        return parabola_vertex(-L * Y, L, lo, hi)

    def cvxpy_value(self, z: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return 0.5 * cp.sum_squares(z - Y), []

    def cvxpy_conjugate(self, L: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return 0.5 * cp.sum_squares(L) + cp.sum(cp.multiply(Y, L)), []
