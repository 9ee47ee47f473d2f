"""Bounds in coordinates of the row space hold for the rows themselves."""

import numpy as np
import pytest
from test_complete_norm import brute_force

from convexnn_bench.norms.all_patterns import bounds as module
from convexnn_bench.norms.all_patterns.bounds import CompleteNorm, row_space_coordinates


def low_rank(seed, n, p, rank):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p)), rng


@pytest.mark.parametrize(("n", "p", "rank"), [(7, 30, 7), (6, 200, 4), (40, 12, 5), (3, 2000, 2)])
def test_coordinates_miss_no_more_than_they_say(n, p, rank):
    rows, rng = low_rank(n, n, p, rank)
    L, slack = row_space_coordinates(rows)
    assert L.shape == (n, rank)
    assert np.all(slack <= 1e-8 * np.linalg.norm(rows, axis=1))
    # For every u of the ball there is a w in it with the same products, namely the least-squares solution.
    for _ in range(20):
        u = rng.standard_normal(p)
        u /= np.linalg.norm(u)
        w = np.linalg.lstsq(L, rows @ u, rcond=None)[0]
        assert np.linalg.norm(w) <= 1 + 1e-9
        assert np.all(np.abs(L @ w - rows @ u) <= slack + 1e-11 * np.linalg.norm(rows, axis=1))


def test_full_rank_is_left_as_it_is():
    rows = np.random.default_rng(0).standard_normal((20, 4))
    L, slack = row_space_coordinates(rows)
    assert L is rows
    assert not slack.any()
    # A direction that is small and not zero may carry the norm of a heavy row.
    almost = rows.copy()
    almost[:, 3] *= 1e-9
    assert row_space_coordinates(almost)[0] is almost


@pytest.mark.slow
@pytest.mark.parametrize(("n", "p", "rank", "q"), [(8, 20, 8, 1), (9, 40, 3, 2), (12, 6, 2, 3)])
def test_the_bound_is_that_of_the_rows_themselves(n, p, rank, q, monkeypatch):
    rows, rng = low_rank(q, n, p, rank)
    R = rng.standard_normal((n, q))
    reduced = CompleteNorm(rows)
    assert reduced.rows.shape[1] < p
    found = reduced.bound(R)
    basis = np.linalg.svd(rows, full_matrices=False)[2][:rank].T
    best = brute_force(rows @ basis, R, rng, rounds=4)
    assert best <= found.value
    monkeypatch.setattr(module, "row_space_coordinates", lambda rows: (rows, np.zeros(len(rows))))
    plain = CompleteNorm(rows).bound(R)
    assert found.lower <= plain.value
    assert plain.lower <= found.value
    assert found.value <= plain.value * (1 + 1e-6) or "rule" in found.method
