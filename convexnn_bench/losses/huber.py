"""Huber loss, F(z) = sum h(z - y).

h(r) = r^2/2 for |r| <= delta, and delta |r| - delta^2/2 beyond.
"""

import copy
from typing import Any

import numpy as np
import torch

from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, RowWeights, Terms
from convexnn_bench.plugins import Number


class Huber(BaseLoss):
    """Huber loss: the squared loss with slopes clipped at `delta`.

    Parameters
    ----------
    delta : float
        Largest slope, a positive number.

    Raises
    ------
    InputError
        `delta` is not a positive finite number.

    Notes
    -----
    F(z) = sum h(z - y) with h(r) = r^2/2 for |r| <= delta and delta |r| - delta^2/2 beyond. F*(L) = 1/2 ||L||^2 +
    <L, Y> where every |L| <= delta, else infinity.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> cnn.Huber(delta=0.5)
    Huber(delta=0.5)
    """

    name = "huber"
    in_torch = {"HuberLoss": "lam n c", "SmoothL1Loss": "lam n c delta"}
    smoothness = 1.0
    has_kinks = True

    def __init__(self, delta: float = 1.0):
        self.delta: float = Number().check("huber loss: delta", delta)

    def terms(self, z: Predictions, Y: Predictions) -> Terms:
        # h(r) = t (r - t/2) with t = r clipped to [-delta, delta]
        r = z - Y
        t = r.clamp(-self.delta, self.delta)
        return t * (r - 0.5 * t)

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        return (z - Y).clamp(-self.delta, self.delta)

    def rescaled(self, unit: float) -> tuple[BaseLoss, float]:
        loss = copy.copy(self)
        loss.delta = self.delta / unit
        return loss, unit**2

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        # h'' is 1 between the kinks and 0 beyond. At a kink 1 is an element of the generalised Hessian.
        inside = ((z - Y).abs() <= self.delta).to(z.dtype)[:, :, None]
        return lambda D: inside * D

    def conjugate_terms(self, L: Predictions, Y: Predictions) -> Terms:
        # F grows with slope delta, so that <L, z> - F(z) has no upper bound where an |L| exceeds delta.
        return torch.where(L.abs() > self.delta, torch.inf, L * (0.5 * L + Y))

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        return L.clamp(-self.delta, self.delta)

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        # dom F* is the box |L| <= delta, which is symmetric: negative scales are admissible too.
        return -1.0, 1.0

    def parabola(self, L: Predictions, Y: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
        return -L * Y, L  # as for the squared loss

    def cvxpy_weighted_value(self, z: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        delta: Any = self.delta  # CVXPY's annotation says int, its documentation a positive number
        return 0.5 * cp.sum(cp.multiply(w, cp.huber(z - Y, delta))), []  # CVXPY's huber is twice h

    def cvxpy_weighted_conjugate(self, L: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        squares = cp.sum_squares(cp.multiply(1 / np.sqrt(w), L))
        domain = [cp.abs(cp.multiply(1 / (self.delta * w), L)) <= 1]
        return 0.5 * squares + cp.sum(cp.multiply(Y, L)), domain
