"""Activation patterns: counts, completeness against brute force, degenerate positions, gates, sampling,
refusals."""

import itertools
import logging
import math

import numpy as np
import pytest
from scipy.optimize import linprog

from convexnn_bench.errors import InputError, PatternBudgetError
from convexnn_bench.patterns.blocks import patterns_from_masks
from convexnn_bench.patterns.enumeration import count_patterns, enumerate_patterns, enumeration_cost
from convexnn_bench.patterns.row_space import reduce_to_row_space
from convexnn_bench.patterns.sampling import sample_patterns


def columns(masks: np.ndarray) -> set[bytes]:
    return {np.packbits(column).tobytes() for column in masks.T}


def cells_by_feasibility(Phi: np.ndarray) -> set[bytes]:
    """Every sign vector with an open cell, one linear program each; without the pattern that contributes
    nothing."""
    nonzero = np.flatnonzero(np.any(Phi != 0, axis=1))
    found = set()
    for choice in itertools.product([False, True], repeat=nonzero.size):
        signs = np.where(choice, 1.0, -1.0)
        answer = linprog(
            np.zeros(Phi.shape[1]),
            A_ub=-signs[:, None] * Phi[nonzero],
            b_ub=-np.ones(nonzero.size),
            bounds=[(None, None)] * Phi.shape[1],
        )
        if answer.status == 0 and any(choice):
            mask = np.ones(Phi.shape[0], dtype=bool)
            mask[nonzero] = choice
            found.add(np.packbits(mask).tobytes())
    return found


def check(Phi: np.ndarray, patterns) -> None:
    """Masks are distinct, and gates lie strictly inside their cells."""
    values = Phi @ patterns.gates
    assert np.array_equal(values >= 0, patterns.masks)
    assert np.all(values[np.any(Phi != 0, axis=1)] != 0)
    assert len(columns(patterns.masks)) == patterns.masks.shape[1]
    assert patterns.masks.dtype == bool
    assert patterns.masks.shape[0] == Phi.shape[0]
    assert patterns.gates.shape == (Phi.shape[1], patterns.masks.shape[1])


@pytest.mark.parametrize(
    ("N", "d"),
    [
        (1, 2),
        (2, 2),
        (7, 2),
        (150, 2),
        (7, 3),
        (40, 3),
        (9, 4),
        (20, 4),
        (9, 5),
        (11, 6),
        (8, 8),
        (4, 7),
        (6, 1),
    ],
)
def test_general_position_has_the_count_of_the_formula(N, d):
    Phi = np.random.default_rng(N + 100 * d).standard_normal((N, d))
    patterns = enumerate_patterns(Phi)
    check(Phi, patterns)
    assert patterns.complete
    assert patterns.masks.shape[1] + patterns.zero == patterns.count == count_patterns(N if d > 1 else 1, min(N, d))


@pytest.mark.parametrize(("N", "d"), [(60, 2), (25, 3), (14, 4), (10, 5)])
def test_no_random_direction_leaves_the_set(N, d):
    rng = np.random.default_rng(d)
    Phi = rng.standard_normal((N, d))
    drawn = Phi @ rng.standard_normal((d, 20000)) >= 0
    assert columns(drawn[:, drawn.any(axis=0)]) <= columns(enumerate_patterns(Phi).masks)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_integer_arrangements_against_linear_programs(seed):
    """Small integers: parallel, antipodal, zero rows, many hyperplanes through one line, deficient rank."""
    rng = np.random.default_rng(seed)
    Phi = rng.integers(-2, 3, size=(7, 2 + seed % 4)).astype(float)
    if seed % 3 == 0:
        Phi[:, -1] = Phi[:, 0] + Phi[:, 1]
    patterns = enumerate_patterns(Phi)
    check(Phi, patterns)
    assert columns(patterns.masks) == cells_by_feasibility(Phi)


DEGENERATE = {
    "duplicate rows": np.array([[1.0, 2.0, 0.5], [1.0, 2.0, 0.5], [0.0, 1.0, 0.0], [3.0, 6.0, 1.5]]),
    "antipodal rows": np.array([[1.0, 2.0, 0.5], [-1.0, -2.0, -0.5], [0.0, 1.0, 0.0]]),
    "zero rows": np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 0.5], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
    "rank one": np.outer([1.0, -2.0, 3.0, 0.0], [1.0, 1.0, 2.0]),
    "rank two of four": np.random.default_rng(0).standard_normal((7, 2))
    @ np.random.default_rng(1).standard_normal((2, 4)),
    "one feature": np.array([[1.0], [-2.0], [0.0], [3.0]]),
    "constant feature": np.column_stack([np.arange(7.0), np.ones(7)]),
    "constant zero feature": np.column_stack([np.arange(1.0, 6.0), np.zeros(5), np.ones(5)]),
    "integer grid": np.array(list(itertools.product([-1.0, 0.0, 1.0], repeat=2))),
    "grid with intercept": np.array([[a, b, 1.0] for a in range(3) for b in range(3)])[:8],
    "scales far apart": np.random.default_rng(2).standard_normal((7, 3)) * np.array([1e-150, 1.0, 1e150]),
    "tiny and huge rows": np.random.default_rng(3).standard_normal((7, 3)) * np.logspace(-100, 100, 7)[:, None],
    "one row": np.array([[0.5, -1.0, 2.0]]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_positions_against_linear_programs(name):
    Phi = DEGENERATE[name]
    patterns = enumerate_patterns(Phi)
    check(Phi, patterns)
    scaled = Phi / np.maximum(np.max(np.abs(Phi), axis=0), 1e-300)
    scaled = scaled / np.maximum(np.max(np.abs(scaled), axis=1, keepdims=True), 1e-300)
    assert columns(patterns.masks) == cells_by_feasibility(scaled)


def test_larger_grid_matches_exact_counts():
    """The 7 x 7 grid with intercept: its cells are the ways a line splits the grid, counted by brute
    force."""
    points = np.array(list(itertools.product(range(7), repeat=2)), dtype=float)
    Phi = np.column_stack([points, np.ones(49)])
    patterns = enumerate_patterns(Phi)
    check(Phi, patterns)
    splits = {np.packbits(np.ones(49, dtype=bool)).tobytes()}
    for a, b in itertools.product(range(-6, 7), repeat=2):
        if math.gcd(a, b) != 1:
            continue
        levels = points @ [a, b]
        # lines of this direction, turned a little either way so that points on the line are cut at any place
        for tilt in (1e-4, -1e-4):
            order = points @ [a - tilt * b, b + tilt * a]
            for level in np.unique(levels):
                for place in np.sort(order[levels == level]):
                    splits.add(np.packbits(order >= place - 1e-9).tobytes())
    assert columns(patterns.masks) == splits


def test_nearly_parallel_rows_keep_their_thin_cell():
    Phi = np.array([[1.0, 0.0], [1.0, 1e-9], [0.0, 1.0]])
    patterns = enumerate_patterns(Phi)
    check(Phi, patterns)
    assert patterns.masks.shape[1] + patterns.zero == 6


def test_two_dimensions_go_round_by_angle():
    Phi = np.random.default_rng(5).standard_normal((30, 2))
    patterns = enumerate_patterns(Phi)
    changes = np.sum(patterns.masks != np.roll(patterns.masks, 1, axis=1), axis=0)
    assert patterns.zero == 0
    assert np.all(changes == 1)


def test_deterministic_and_complements_are_distinct():
    Phi = np.random.default_rng(6).standard_normal((12, 3))
    first, second = enumerate_patterns(Phi), enumerate_patterns(Phi.copy())
    assert np.array_equal(first.masks, second.masks)
    assert np.array_equal(first.gates, second.gates)
    assert columns(first.masks) == columns(~first.masks)


def test_the_zero_pattern_is_left_out_and_reported():
    Phi = np.abs(np.random.default_rng(7).standard_normal((10, 2)))
    patterns = enumerate_patterns(Phi)
    assert patterns.zero == 1
    assert patterns.masks.shape[1] == 19
    assert patterns.masks.any(axis=0).all()
    assert "all-zero pattern removed" in patterns.summary()


@pytest.mark.parametrize(("N", "d"), [(5, 2), (20, 3), (100, 7), (3, 9)])
def test_counts(N, d):
    assert count_patterns(N, d) == 2 * sum(math.comb(N - 1, k) for k in range(d))


def test_counts_stay_exact_and_finite_where_they_are_huge():
    assert count_patterns(5000, 784) > 10**900
    with pytest.raises(InputError, match="N >= 1"):
        count_patterns(0, 2)
    with pytest.raises(InputError, match="r >= 1"):
        count_patterns(3, 0)


def test_cost_names_distinct_hyperplanes():
    Phi = np.array([[1.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    cost = enumeration_cost(Phi)
    assert (cost.rows, cost.rank, cost.patterns) == (3, 2, 6)
    assert "6 patterns (3 distinct hyperplanes of rank 2)" in str(cost)
    assert cost.bytes >= 6 * 5


@pytest.mark.parametrize("copies", [1, 3])
def test_distinct_hyperplanes_among_many_copies(copies):
    rng = np.random.default_rng(8)
    base = rng.standard_normal((40, 4))
    Phi = np.repeat(base, copies, axis=0) * rng.choice([-3.0, 0.1, 7.0], size=(40 * copies, 1))
    assert reduce_to_row_space(rng.permutation(Phi)).distinct.size == 40


def test_refusal_names_count_size_limit_and_way_out():
    Phi = np.random.default_rng(9).standard_normal((569, 30))
    with pytest.raises(PatternBudgetError) as refusal:
        enumerate_patterns(Phi)
    for words in (
        "10^4",
        "569 distinct hyperplanes of rank 30",
        "2.0 GiB",
        "2147483648",
        "patterns=500",
        "memory_limit",
    ):
        assert words in str(refusal.value)


def test_memory_limit_is_the_callers():
    Phi = np.random.default_rng(10).standard_normal((200, 2))
    need = enumeration_cost(Phi).bytes
    assert enumerate_patterns(Phi, memory_limit=need).masks.shape == (200, 400)
    with pytest.raises(PatternBudgetError, match="400 patterns"):
        enumerate_patterns(Phi, memory_limit=need - 1)


def test_progress_is_reported_and_the_cost_is_logged_beforehand(monkeypatch, caplog):
    monkeypatch.setattr("convexnn_bench.patterns.enumeration.LOGGED_AFTER", 0.0)
    seen = []
    with caplog.at_level(logging.INFO, logger="convexnn_bench"):
        enumerate_patterns(np.random.default_rng(11).standard_normal((15, 3)), progress=lambda *at: seen.append(at))
    assert seen == [(i, 15) for i in range(2, 16)]
    assert "212 patterns" in caplog.text


@pytest.mark.parametrize("bad", [np.zeros((4, 2)), np.full((3, 2), np.nan), np.array([[1.0, np.inf]])])
@pytest.mark.parametrize("build", [enumerate_patterns, lambda Phi: sample_patterns(Phi, 3)])
def test_unusable_rows(bad, build):
    with pytest.raises(InputError, match=r"zero|NaN"):
        build(bad)


def test_sample_has_unique_patterns_in_a_fixed_order():
    Phi = np.random.default_rng(12).standard_normal((50, 6))
    patterns = sample_patterns(Phi, 200, seed=3)
    check(Phi, patterns)
    assert patterns.masks.shape == (50, 200)
    assert not patterns.complete
    again = sample_patterns(Phi, 80, seed=3)
    assert np.array_equal(again.masks, patterns.masks[:, :80])
    assert np.allclose(again.gates, patterns.gates[:, :80])
    assert not np.array_equal(sample_patterns(Phi, 80, seed=4).masks, again.masks)


def test_sample_stops_when_there_are_no_more():
    Phi = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    patterns = sample_patterns(Phi, 100)
    check(Phi, patterns)
    assert patterns.masks.shape == (4, 5)
    assert patterns.zero == 1
    assert patterns.duplicates > 1000
    assert patterns.complete
    assert columns(patterns.masks) == columns(enumerate_patterns(Phi).masks)
    assert "5 patterns" in patterns.summary()
    assert "100 requested" in patterns.summary()


@pytest.mark.parametrize("bad", [0, -3, 2.5, True, "many"])
def test_sample_size_must_be_a_positive_integer(bad):
    with pytest.raises(InputError, match="must be a whole number, at least 1"):
        sample_patterns(np.eye(2), bad)


def test_given_masks_stay_as_they_are():
    masks = np.array([[1, 0, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0]])
    patterns = patterns_from_masks(masks, 3)
    assert np.array_equal(patterns.masks, masks == 1)
    assert patterns.masks.dtype == bool
    assert patterns.gates is None
    assert not patterns.complete
    assert "as given" in patterns.summary()
    assert np.array_equal(patterns_from_masks(masks.astype(float), 3).masks, masks == 1)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.ones((4, 2), dtype=bool), "N = 3"),
        (np.ones(3, dtype=bool), "N x P"),
        (np.ones((3, 0), dtype=bool), "at least one"),
        (np.full((3, 2), 2), "0 and 1"),
        (np.full((3, 2), np.nan), "0 and 1"),
        (np.full((3, 2), "x"), "0 and 1"),
    ],
)
def test_masks_that_cannot_be(bad, words):
    with pytest.raises(InputError, match=words):
        patterns_from_masks(bad, 3)


def test_given_masks_are_a_copy():
    masks = np.ones((3, 1), dtype=bool)
    patterns = patterns_from_masks(masks, 3)
    masks[0] = False
    assert patterns.masks.all()
