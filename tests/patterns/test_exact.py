"""Patterns are complete for gates only if no cell between rows that count as one is missing, in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.architectures import as_integers
from convexnn_bench.patterns import enumerate_patterns, sample_patterns
from convexnn_bench.patterns.exact import ExactRows, multiples


def exact(row) -> list[Fraction]:
    return [Fraction(float(entry)) for entry in row]


def restricted(row, normal):
    """The row on {u : normal u = 0}, without the coordinate that the equation removes."""
    pivot = next(j for j, entry in enumerate(normal) if entry)
    return [row[j] - row[pivot] / normal[pivot] * normal[j] for j in range(len(row)) if j != pivot]


def regions(rows) -> int:
    """The number of open cells between hyperplanes, by deletion and restriction (Zaslavsky 1975)."""
    distinct: list[list[Fraction]] = []
    for row in rows:
        if any(row) and all(any(restricted(row, other)) for other in distinct):
            distinct.append(row)
    if not distinct:
        return 1
    *others, last = distinct
    return regions(others) + regions([restricted(row, last) for row in others])


def one_ulp(row, rng):
    return np.where(rng.random(row.shape) < 0.5, np.nextafter(row, np.inf), row)


def a_copy(X, rng):
    X[1] = one_ulp(X[0], rng)


def an_opposite(X, rng):
    X[1] = -one_ulp(X[0], rng)


def a_third_and_more(X, rng):
    X[1] = X[0] / 3


def a_sum_of_two(X, rng):
    """Three hyperplanes that all but meet in a line, or rows whose rank is two up to rounding."""
    X[2] = X[0] + X[1]


def a_column(X, rng):
    X[:, 1] = X[:, 0] * 0.1


def unit_rows(X, rng):
    """Copies of different lengths, each divided by its own."""
    X[1] = 0.7 * X[0]
    X /= np.linalg.norm(X, axis=1, keepdims=True)


NEAR = [a_copy, an_opposite, a_third_and_more, a_sum_of_two, a_column, unit_rows]


@pytest.mark.parametrize("change", NEAR)
@pytest.mark.parametrize(("n", "d"), [(3, 3), (5, 2), (6, 3), (6, 4)])
def test_patterns_that_count_as_complete_are_all_of_them(change, n, d):
    """Rounding is sometimes exact, so that both answers occur."""
    answers = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((n, d))
        change(X, rng)
        found = enumerate_patterns(X)
        cells = regions([exact(row) for row in X])
        answers.append(found.complete and found.resolved)
        assert not answers[-1] or found.masks.shape[1] + found.zero == cells
        problem = cnn.Problem(X, np.ones(n), activation="gated_relu", beta=0.1)
        assert problem.scope == ("complete" if answers[-1] else "sampled")
    assert not all(answers) or (d == 2 and change is a_sum_of_two)  # in the plane no two hyperplanes meet in a third


@pytest.mark.parametrize("seed", range(6))
def test_exact_copies_multiples_and_sums_stay_complete(seed):
    rng = np.random.default_rng(seed)
    X = rng.integers(-3, 4, (8, 3)).astype(float)
    X[1], X[2], X[3], X[4] = 3 * X[0], -X[0], 0.0, X[0] + X[5]
    if seed % 2:  # rank two, exactly
        X[:, 2] = X[:, 0] - 2 * X[:, 1]
    if seed % 3 == 0:
        X *= 2.0 ** rng.integers(-40, 40, (8, 1))
    found = enumerate_patterns(X)
    assert found.complete
    assert found.resolved
    assert found.copies is None
    assert found.masks.shape[1] + found.zero == regions([exact(row) for row in X])


def test_equal_and_opposite_rows_of_any_numbers_stay_complete():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6, 3))
    X[3], X[4], X[5] = X[0], -X[1], X[2] * 2.0**-30
    found = enumerate_patterns(X)
    assert found.resolved
    assert cnn.Problem(X, np.ones(6), activation="gated_relu", beta=0.1).scope == "complete"


def test_a_decimal_grid_is_complete_in_tens_and_not_in_tenths():
    """Three points on a line: in float64 their tenths are not on one."""
    tens = np.array([[0, 1, 10], [1, 2, 10], [3, 4, 10], [7, 8, 10], [5, 0, 10]], dtype=float)
    tenths = np.column_stack([tens[:, :2] / 10, np.ones(5)])
    assert regions([exact(row) for row in tens]) < regions([exact(row) for row in tenths])
    assert enumerate_patterns(tens).resolved
    assert not enumerate_patterns(tenths).resolved


def test_a_sample_of_all_patterns_that_float64_tells_apart_is_not_complete():
    X = np.array([[0.1, 0.7], [0.3, 2.1], [1.0, 0.0]])
    assert not multiples(X[:1], X[1:2]).any()
    assert not sample_patterns(X, 4).complete
    X[1] = 2 * X[0]
    assert sample_patterns(X, 100).complete


def test_rows_become_integers_at_every_scale():
    X = np.array([[5e-324, 1e308, 0.0], [-0.1, 3.0, 2.0**-1074], [1.5, -2.25, 0.0]])
    for row, whole in zip(X, as_integers(X), strict=True):
        pivot = int(np.flatnonzero(row)[0])
        assert all(type(entry) is int for entry in whole)
        factor = Fraction(whole[pivot]) / Fraction(row[pivot])
        assert [Fraction(entry) for entry in whole] == [factor * entry for entry in exact(row)]


def test_rank_and_traces_in_exact_arithmetic():
    e = np.eye(3)
    rows = ExactRows(np.array([e[0], e[1], e[0] + e[1], e[2], [1.0, 1.0 + 2.0**-52, 0.0]]))
    assert rows.has_rank(3)
    assert not ExactRows(rows.rows[[0, 1, 3]] + 1e-16).has_rank(2)
    # On the plane of e_1 the planes of e_2 and e_1 + e_2 leave the same line; on that of e_3 they do not.
    assert rows.meet((0,), np.array([1, 1]), np.array([2, 4])).tolist() == [True, True]
    assert rows.meet((3,), np.array([2, 0]), np.array([4, 1])).tolist() == [False, False]
    flat = ExactRows(np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0, 1.0, 2.0]]))
    assert flat.has_rank(2)
    assert flat.meet((0,), np.array([1]), np.array([2])).all()


class RoundedAttention(cnn.Attention):
    """An attention layer with rows of its own, of which nothing but their float64 numbers is known."""

    name = "rounded_attention"

    def phi_rows(self, X):
        return 1.0 * super().phi_rows(X)


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 2, 2)])
def test_products_of_tokens_are_compared_before_they_are_rounded(shape):
    """The traces of the rows x_s (x) x_t on each other coincide, which their rounded entries do not show."""
    X = np.random.default_rng(1).standard_normal(shape)
    Y = np.ones(shape[:2])

    def problem(architecture, X):
        return cnn.Problem(X, Y, architecture=architecture, activation="gated_relu", beta=0.1)

    products = [
        [a * b for a in exact(first) for b in exact(second)] for sample in X for first in sample for second in sample
    ]
    found = problem("attention", X)
    assert found.scope == "complete"
    assert found.P + found.pattern_info.zero == regions(products)
    # Equal tokens have equal rows; tokens that differ in the last digit do not, and neither do unknown rows.
    X[0, 1] = X[0, 0]
    assert problem("attention", X).scope == "complete"
    assert problem(RoundedAttention(), X).scope == "sampled"
    X[0, 1, 0] = np.nextafter(X[0, 1, 0], 9.0)
    assert problem("attention", X).scope == "sampled"
    assert cnn.Problem(X, Y, architecture="attention", activation="relu", beta=0.1).scope == "complete"
