"""Bounds on max ||R^T (Phi u + b 1)_+|| over ||u|| <= 1 and all b.

They are for neurons whose biases have no weight decay.

With columns of R that sum to zero the value at (u, b) does not change with b where |b| >= radius ||u||, since a neuron
is linear on all rows there, or zero. So b may be held in |b| <= radius ||u||, and for every size s

    max over all b  <=  (1 + (radius / s)^2)^(1/2) max ||R^T (Phi u + s w 1)_+||  over ||u||^2 + w^2 <= 1,

the norm over a ball with the constant feature s. A large s costs nothing where the norm over the ball is exact, and
makes decision rules weaker, because their errors in the last coordinate are multiplied by s. The best of a few s is
taken; each of them is rigorous.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.cones import EPS
from convexnn_bench.deadline import deadline, seconds_left, time_is_up
from convexnn_bench.norms.all_patterns.bounds import CompleteNorm
from convexnn_bench.norms.all_patterns.moving_rules import MovingBound
from convexnn_bench.norms.spectral import UNBOUNDED, MaxDualNorm

# Sizes s over the radius. The first is the best for multipliers like noise, a later one for smooth multipliers
# (measured on n = 80 to 300 Gaussian rows of 6 to 10 features).
FIRST, SMALLER, LARGER = 4.0, (2.0,), (16.0, 64.0)


class FreeBiasNorm(CompleteNorm):
    """Bounds for the rows (phi_i, size), of which the last column belongs to a bias without weight decay.

    `bound` is about the ball ||u||^2 + (b / size)^2 <= 1, as that of `CompleteNorm`. It lies in the set of all b with
    ||u|| <= 1, so that every bound over that set is one for the ball.

    Parameters
    ----------
    Phi : array, N x p
        The rows (phi_i, size).
    radius : float
        At least the length of every phi_i.
    """

    def __init__(self, Phi: Float[np.ndarray, "N p"], radius: float):
        super().__init__(Phi)
        self._inner, self._size, self._radius = Phi[:, :-1], float(Phi[0, -1]), radius
        self._balls: dict[float, CompleteNorm] = {}
        # The size of the last bound. It stays once rules were made for it, since they hold for that ball alone.
        self._best, self._fixed = self._size_of(FIRST), False

    def merged(self, R: Float[torch.Tensor, "N q"]) -> Float[torch.Tensor, "n q"]:
        """Return the weights of the rows of the ball of the best size, differentiable in R, with its factor."""
        return self._factor(self._best) * self._ball(self._best).merged(R)

    def moving(self, R: Float[np.ndarray, "N q"], most: int) -> MovingBound | None:
        """Return a bound for the ball of the best size, whose rules can be moved, see `CompleteNorm`."""
        self._fixed = True
        return self._ball(self._best).moving(R, most)

    def bound(self, R: Float[np.ndarray, "N q"], moving: MovingBound | None = None) -> MaxDualNorm:
        """Return a rigorous upper bound and an attained lower bound, the best of those with a few sizes.

        1. Bound the norm with a size of a few radii.
        2. Try larger sizes while they are better, or else a smaller one.
        3. Allow for columns of R that sum to zero up to rounding only.

        moving: rules to bound the norm by, of the size that was the best when they were made.
        """
        if not np.isfinite(R).all():
            return UNBOUNDED
        best = self._cylinder(R, self._best, moving) if moving is not None else self._searched(R)
        # 3. Beyond the radius, up to |b| = size, a sum of rows of R that is not zero adds at most |b| times its length.
        sums = np.abs(R.sum(axis=0)) + (len(R) + 4) * EPS * np.abs(R).sum(axis=0)
        excess = 2 * self._size * float(np.linalg.norm(sums))
        return replace(best, value=best.value + excess, lower=max(best.lower - excess, 0.0))

    def _searched(self, R: Float[np.ndarray, "N q"]) -> MaxDualNorm:
        # 1. A middle size, with half of the time until a deadline.
        size = self._size_of(FIRST)
        with deadline(seconds_left() / 2):
            best = self._cylinder(R, size)
        # 2. In the direction in which the bound falls.
        for direction in (LARGER, SMALLER):
            before = best.value
            for ratio in direction:
                if time_is_up():
                    break
                with deadline(seconds_left() / 2):
                    found = self._cylinder(R, self._size_of(ratio))
                lower, improved = max(best.lower, found.lower), found.value < best.value
                best = replace(found if improved else best, lower=lower)
                if not improved:
                    break
                size = self._size_of(ratio)
            if best.value < before:
                break
        self._best = self._best if self._fixed else size
        return best

    def _size_of(self, ratio: float) -> float:
        return min(2.0 ** math.ceil(math.log2(ratio * self._radius)), self._size)

    def _factor(self, size: float) -> float:
        return math.hypot(1.0, self._radius / size) * (1 + 8 * EPS)

    def _ball(self, size: float) -> CompleteNorm:
        if size not in self._balls:
            self._balls[size] = CompleteNorm(np.hstack([self._inner, np.full((len(self._inner), 1), size)]))
        return self._balls[size]

    def _cylinder(self, R: Float[np.ndarray, "N q"], size: float, moving: MovingBound | None = None) -> MaxDualNorm:
        """Bound the maximum over ||u|| <= 1, |b| <= radius by that over the ball of this size."""
        found = self._ball(size).bound(R, moving)
        # The ball of the smaller size lies in that of `self._size`, so that the lower bound is attained there too.
        return replace(found, value=found.value * self._factor(size), method=f"{found.method}, over all biases")
