"""Power laws, cost = factor size^exponent, fitted to measured costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convexnn_bench.errors import InputError

Number = int | float


@dataclass(frozen=True)
class PowerLaw:
    """cost = factor size^exponent.

    error: standard error of the exponent; low, high: its 95 % confidence interval.
    """

    exponent: float
    factor: float
    error: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.exponent:.2f} ± {self.error:.2f}"


def fit_power_law(sizes: Sequence[Number], costs: Sequence[Number]) -> PowerLaw:
    """Least squares on logarithms, log cost = log factor + exponent log size.

    The interval is Student's, exponent ± t(0.975, points - 2) error. Raises InputError for fewer than three different
    sizes, or values that are not positive and finite.
    """
    from scipy.special import stdtrit  # scipy.stats takes several times as long to load

    x, y = np.asarray(sizes, dtype=float), np.asarray(costs, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(np.unique(x)) < 3:
        raise InputError(f"a power law needs costs at three different sizes at least, got sizes {list(sizes)}")
    if not all(np.isfinite(v).all() and (v > 0).all() for v in (x, y)):
        raise InputError(f"sizes and costs must be positive and finite, got {list(sizes)} and {list(costs)}")
    x, y = np.log(x), np.log(y)
    across, up = x - x.mean(), y - y.mean()
    exponent = float(across @ up / (across @ across))
    # Two parameters are fitted, so that points - 2 degrees of freedom remain for the error.
    freedom = len(x) - 2
    error = math.sqrt(float(np.sum((up - exponent * across) ** 2)) / freedom / float(across @ across))
    width = float(stdtrit(freedom, 0.975)) * error
    factor = math.exp(float(y.mean()) - exponent * float(x.mean()))
    return PowerLaw(exponent, factor, error, exponent - width, exponent + width)
