"""The best multiple s of a multiplier: where the concave function -F*(s L) is largest."""

from collections.abc import Callable

import torch

# Lengths relative to the range of s. At a distance of FIRST_STEP from the minimiser of a smooth function its value is
# larger by the square of that, which is below the rounding of float64.
FIRST_STEP, STEP_GROWTH = 1e-8, 30.0
NEAREST_POINT = 1e-9  # to which a search finds the minimiser


def parabola_vertex(slope: torch.Tensor, L: torch.Tensor, lo: float, hi: float) -> float:
    """Return the argmax over [lo, hi] of s sum(slope) - s^2/2 sum(L^2), with slope linear in L.

    Both sums are taken of numbers divided by the largest entry of L, against underflow.
    """
    # The vertex is sum(slope) / sum(L^2). For L = 0 the function is constant, and any s in the range will do.
    largest = L.abs().max()
    size, norm, along = torch.stack([largest, (L / largest).square().sum(), (slope / largest).sum()]).tolist()
    return min(max(along / norm / size if size > 0 else 0.0, lo), hi)


def convex_minimiser(value: Callable[[float], float], lo: float, hi: float) -> float:
    """Return a minimiser over [lo, hi] of a convex function, nearly.

    Notes
    -----
    F*(s L) is least at s = 1 if L is a gradient of F at an optimum. Before that the largest feasible s is below one and
    is the minimiser, so that two values at the right end decide most searches.
    """
    from scipy.optimize import minimize_scalar

    # 1. Step to the left from hi, each time STEP_GROWTH times as far, until the value rises. The minimiser then lies
    # between the last point and the one before the last but one.
    length = hi - lo
    step, right, middle, least = FIRST_STEP * length, hi, hi, value(hi)
    while hi - step > lo and (now := value(hi - step)) <= least:
        right, middle, least = middle, hi - step, now
        step *= STEP_GROWTH
    # 2. Search between the two, unless the value rises at the first step already.
    candidates = [hi, lo, *([1.0] if lo <= 1.0 <= hi else [])]  # the search never visits the end points
    if middle < hi:
        inside, options = (max(lo, hi - step), right), {"xatol": NEAREST_POINT * length}
        candidates.insert(0, float(minimize_scalar(value, bounds=inside, method="bounded", options=options).x))
    return min(candidates, key=value)
