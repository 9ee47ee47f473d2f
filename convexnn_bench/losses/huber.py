"""Huber loss, F(z) = sum h(z - y), h(r) = r^2/2 for |r| <= delta, delta |r| - delta^2/2 beyond."""

import copy
from typing import Any

import numpy as np
import torch

from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, Scalar, parabola_vertex
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
    smoothness = 1.0

    def __init__(self, delta: float = 1.0):
        self.delta: float = Number().check("huber loss: delta", delta)

    def value(self, z: Predictions, Y: Predictions) -> Scalar:
        # h(r) = t (r - t/2) with t = r clipped to [-delta, delta]
        r = z - Y
        t = r.clamp(-self.delta, self.delta)
        return (t * (r - 0.5 * t)).sum()

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

    def conjugate(self, L: Predictions, Y: Predictions) -> Scalar:
        # F grows with slope delta, so that <L, z> - F(z) has no upper bound where an |L| exceeds delta.
        return torch.where((L.abs() > self.delta).any(), torch.inf, (L * (0.5 * L + Y)).sum())

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        return L.clamp(-self.delta, self.delta)

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        # dom F* is the box |L| <= delta, which is symmetric: negative scales are admissible too.
        return -1.0, 1.0

    def best_scale(self, L: Predictions, Y: Predictions, lo: float, hi: float) -> float:
        # the squared loss's parabola, its vertex clipped to the range
        return parabola_vertex(-L * Y, L, lo, hi)

    def cvxpy_value(self, z: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        delta: Any = self.delta  # CVXPY's annotation says int, its documentation a positive number
        return 0.5 * cp.sum(cp.huber(z - Y, delta)), []  # CVXPY's huber is twice h

    def cvxpy_conjugate(self, L: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return 0.5 * cp.sum_squares(L) + cp.sum(cp.multiply(Y, L)), [cp.abs(L / self.delta) <= 1]
