"""The sandwich between lines and chords, on functions of the weight decay that are known exactly."""

import math

import numpy as np
import pytest

from convexnn_bench.certificates import Line
from convexnn_bench.regularisation.sandwich import Candidate, Interval, Knot, Sandwich


def knot(f, slope, beta, above=0.0, below=0.0):
    """A knot on the graph of a concave function: its tangent, raised, and its value, lowered."""
    return Knot(beta, Candidate(Line(f(beta) - beta * slope(beta) + above, slope(beta))), f(beta) - below)


def root(beta):
    return math.sqrt(beta)


def slope_of_root(beta):
    return 0.5 / math.sqrt(beta)


@pytest.mark.parametrize(("above", "below"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.02)])
def test_the_gap_of_an_interval_is_the_largest_on_a_dense_grid(above, below):
    first, second = (knot(root, slope_of_root, beta, above, below) for beta in (0.1, 2.0))
    sandwich = Sandwich(first, second)
    grid = np.geomspace(0.1, 2.0, 20001)
    gaps = [sandwich.high(beta) / sandwich.low(beta) - 1 for beta in grid]
    assert max(gaps) <= sandwich.gap <= max(gaps) * (1 + 1e-4)
    assert abs(grid[np.argmax(gaps)] - sandwich.intervals[0].split) < 1e-3


def test_a_knot_narrows_the_enclosure_and_a_poor_one_does_not_widen_it():
    sandwich = Sandwich(*(knot(root, slope_of_root, beta) for beta in (0.1, 2.0)))
    grid = np.geomspace(0.1, 2.0, 50)
    before = [bound(beta) for bound in (sandwich.low, sandwich.high) for beta in grid]
    sandwich.add(knot(root, slope_of_root, 0.7, above=1.0, below=1.0))  # proves nothing
    after = [bound(beta) for bound in (sandwich.low, sandwich.high) for beta in grid]
    assert after == pytest.approx(before, rel=1e-12)
    wide = Interval.between(sandwich.knots[0], sandwich.knots[-1]).gap
    assert sandwich.gap <= wide * (1 + 1e-9)
    sandwich.add(knot(root, slope_of_root, 0.6))
    assert sandwich.gap < 0.5 * wide
    assert all(sandwich.low(beta) <= root(beta) <= sandwich.high(beta) for beta in grid)


def test_an_old_knot_keeps_its_better_point_and_its_better_bound():
    sandwich = Sandwich(*(knot(root, slope_of_root, beta) for beta in (0.1, 2.0)))
    sandwich.add(knot(root, slope_of_root, 0.5, above=0.1))
    sandwich.add(knot(root, slope_of_root, 0.5, below=0.1))
    assert len(sandwich.knots) == 3
    assert sandwich.knots[1].bound == root(0.5)
    assert sandwich.high(0.5) == pytest.approx(root(0.5))


def test_negative_optima_have_finite_gaps_and_a_change_of_sign_has_none():
    def shifted(by):
        return lambda beta: root(beta) - by

    low = Interval.between(*(knot(shifted(5.0), slope_of_root, beta) for beta in (0.1, 2.0)))
    grid = np.geomspace(0.1, 2.0, 5001)
    sandwich = Sandwich(low.first, low.second)
    worst = max((sandwich.high(beta) - sandwich.low(beta)) / abs(sandwich.low(beta)) for beta in grid)
    assert worst <= low.gap <= worst * (1 + 1e-4)
    crossing = Interval.between(*(knot(shifted(0.5), slope_of_root, beta) for beta in (0.1, 2.0)))
    assert crossing.gap == math.inf
    assert 0.1 < crossing.split < 2.0
