"""The units of solvers: data and targets divided by powers of two.

Tolerances and first steps of numerical methods suit data of ordinary size, not prices of 1e6 or lengths in millimetres.
With X = a X' and Y = b Y', an architecture of degree d, A(.; a X') = a^d A(.; X'), and a loss with
F(b z', b Y') = w F'(z', Y'), the objective is

    F(A(Z)) + beta R(Z) = w (F'(A'(Z')) + beta' R(Z')),   beta' = beta b / (a^d w),

with Z = (b / a^d) Z' and the multiplier Lambda = (w / b) Lambda'. Sample weights are divided by a unit of their own,
which multiplies w.

Both problems are therefore equivalent, and powers of two change no digit. For the squared loss F' = F, for Huber's loss
F' has delta / b, and for both w = b^2. Losses for classification have no unit of Y (b = 1). Columns of X are not scaled
one by one, since that would change the weight decay. Factors and weights are multiplied by the square root of b / a^d,
which keeps pairs balanced. The exponent of b / a^d is made even, so that this root is a power of two.

Certificates are computed for the problem and the points in the user's units.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from convexnn_bench.checks import SMALLEST_BETA
from convexnn_bench.formulations import Point
from convexnn_bench.operator import entries
from convexnn_bench.problem import Problem

ORDINARY = 2.0**-8, 2.0**8  # range of the largest magnitude in which data are not scaled
LARGEST_BETA = 1 / SMALLEST_BETA  # if the scaled beta is outside the two limits, nothing is scaled


@dataclass(frozen=True)
class Scaling:
    """A problem in the solver's units, and the way back for its points.

    Attributes
    ----------
    problem : Problem
        The problem for the solver, which is the user's problem if both units are one.
    blocks : float
        b / a^d, the unit of Z, an even power of two.
    multiplier : float
        w / b, the unit of Lambda.
    """

    problem: Problem
    blocks: float = 1.0
    multiplier: float = 1.0

    @classmethod
    def of(cls, problem: Problem) -> "Scaling":
        """Choose units in which the largest |X|, |Y| and sample weight are about one.

        Sizes in the range ORDINARY stay as they are.
        """
        loss, degree = problem.loss, problem.architecture.degree
        of_X = _exponent(entries(problem.X)) if degree else 0
        of_Y = _exponent(problem.Y) if loss.rescaled(2.0) is not None else 0
        # Make the exponent of b / a^d even, by the unit of X if its degree is odd, else by that of Y.
        if (of_Y - (degree or 0) * of_X) % 2:
            of_X, of_Y = (of_X + 1, of_Y) if of_X and degree and degree % 2 else (of_X, of_Y + 1)
        weights = problem.sample_weight
        of_weights = 0 if weights is None else _exponent(weights)
        if of_X == of_Y == of_weights == 0:
            return cls(problem)
        scaled, blocks = problem.rescaled(2.0**of_X, 2.0**of_Y, 2.0**of_weights), 2.0 ** (of_Y - (degree or 0) * of_X)
        if not SMALLEST_BETA <= scaled.beta <= LARGEST_BETA:
            return cls(problem)
        weight = problem.beta * blocks / scaled.beta
        return cls(scaled, blocks, weight / 2.0**of_Y)

    def restored(self, point: Point) -> Point:
        """Return the solver's point in the user's units.

        Arrays are multiplied by powers of two, without rounding.
        """
        return _rescaled(point, self.blocks, self.multiplier)

    def applied(self, point: Point) -> Point:
        """Return the user's point in the solver's units, the inverse of `restored`."""
        return _rescaled(point, 1.0 / self.blocks, 1.0 / self.multiplier)


def _rescaled(point: Point, blocks: float, multiplier: float) -> Point:
    """Return the point with blocks and multipliers times powers of two."""
    if blocks == multiplier == 1.0:
        return point
    root = math.sqrt(blocks)
    units = {"blocks": blocks, "split": blocks, "dual": multiplier}
    return type(point)(**{name: _times(value, units.get(name, root)) for name, value in vars(point).items()})


def _exponent(array: np.ndarray) -> int:
    """Return e with the largest magnitude in [1/2, 1) 2^e.

    Return 0 if it is in the range ORDINARY or zero.
    """
    largest = max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))
    return 0 if largest == 0 or ORDINARY[0] <= largest <= ORDINARY[1] else math.frexp(largest)[1]


def _times(value: Any, unit: float) -> Any:
    """Return an array, or each array of a pair, times the unit."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(_times(part, unit) for part in value)
    return (value if isinstance(value, torch.Tensor) else np.asarray(value)) * unit
