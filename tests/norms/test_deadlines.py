"""At a deadline every bound on a dual norm stays above the norm, and more time never loosens it."""

from itertools import count

import numpy as np
import pytest
import torch

import convexnn_bench as cnn
from convexnn_bench.cones import Cones
from convexnn_bench.deadline import deadline
from convexnn_bench.norms import vector_outputs
from convexnn_bench.norms.all_patterns.bounds import CompleteNorm
from convexnn_bench.norms.all_patterns.decision_rule import positive_bound
from convexnn_bench.norms.relaxation import doubly_nonnegative_bound
from convexnn_bench.norms.scalar_outputs import STOPPED, max_scalar_norm
from convexnn_bench.norms.vector_outputs import UNREFINED, max_vector_norm


def looks(number):
    """A deadline after so many looks at the clock."""
    return deadline(number, count().__next__)


def cones_of(seed, N, p, P):
    rng = np.random.default_rng(seed)
    Phi = rng.standard_normal((N, p))
    sample = cnn.sample_patterns(Phi, P, seed)
    return Cones(Phi, sample.masks, sample.gates), rng


@pytest.mark.parametrize(("seed", "N", "p"), [(0, 20, 3), (1, 30, 5), (2, 12, 9)])
def test_a_stopped_scalar_bound_is_above_the_norm(seed, N, p):
    cones, rng = cones_of(seed, N, p, 30)
    G = rng.standard_normal((cones.P, p))
    exact = max_scalar_norm(cones, G)
    values = []
    for number in (0, 1, 2, 4, 1000):
        with looks(number):
            found = max_scalar_norm(cones, G)
        assert found.lower <= exact.value * (1 + 1e-12)
        assert found.value >= exact.value * (1 - 1e-12)
        values.append(found.value)
        assert found.method == (STOPPED if number == 0 else exact.method) or 0 < number < 1000
    assert values == sorted(values, reverse=True)
    assert values[-1] == exact.value


@pytest.mark.parametrize(("seed", "N", "p"), [(0, 20, 3), (1, 25, 4), (2, 14, 9)])
def test_a_stopped_vector_bound_is_above_the_norm(seed, N, p):
    cones, rng = cones_of(seed, N, p, 12)
    G = rng.standard_normal((cones.P, p, 2))
    full = max_vector_norm(cones, G)
    for number in (0, 1, 3, 6, 12):
        with looks(number):
            found = max_vector_norm(cones, G)
        assert found.value >= full.lower
        assert found.lower <= full.value
        assert found.value >= full.value * (1 - 1e-12)
        assert found.value <= float(np.linalg.norm(G, 2, axis=(1, 2)).max()) * (1 + 1e-12)
    with looks(0):
        assert max_vector_norm(cones, G).method == UNREFINED


def test_a_search_that_ends_within_a_level_keeps_the_bounds_of_the_faces_it_left(monkeypatch):
    from convexnn_bench.norms import face_search

    cones, rng = cones_of(3, 40, 4, 16)
    G = rng.standard_normal((cones.P, 4, 3))
    exact = max_vector_norm(cones, G).value
    monkeypatch.setattr(face_search, "CHUNK_ELEMENTS", 1)  # the clock is looked at before every face
    values = []
    for number in range(8, 80, 8):
        with looks(number):
            values.append(max_vector_norm(cones, G).value)
    assert min(values) >= exact * (1 - 1e-12)
    assert len({round(value / exact, 9) for value in values}) > 1  # some were stopped before they were exact


def test_a_stopped_relaxation_is_a_bound():
    rng = np.random.default_rng(0)
    F, G = rng.standard_normal((6, 4)), rng.standard_normal((4, 2))
    full = doubly_nonnegative_bound(F, G)
    with looks(0):
        assert doubly_nonnegative_bound(F, G) == pytest.approx(np.linalg.norm(G, 2), rel=1e-12)
    with looks(3):
        assert full <= doubly_nonnegative_bound(F, G) <= np.linalg.norm(G, 2) * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("q", [1, 2, 3])
def test_a_stopped_bound_over_all_patterns_is_above_an_attained_value(q):
    rng = np.random.default_rng(q)
    Phi, R = rng.standard_normal((20, 5)), rng.standard_normal((20, q))
    bounds = CompleteNorm(Phi)
    bounds._looked = True  # no enumeration
    found = []
    for number in (0, 3, 170, 100_000):
        with looks(number):
            found.append(bounds.bound(R))
    assert max(one.lower for one in found) <= min(one.value for one in found)
    assert found[0].value > found[-1].value
    assert max(one.value for one in found) <= np.linalg.norm(R) * np.linalg.norm(Phi) * (1 + 1e-9)


def test_patterns_that_were_not_enumerated_for_lack_of_time_are_enumerated_later():
    rng = np.random.default_rng(0)
    Phi, R = rng.standard_normal((12, 3)), rng.standard_normal((12, 1))
    bounds = CompleteNorm(Phi)
    with looks(0):
        stopped = bounds.bound(R)
    exact = bounds.bound(R)
    assert "all" not in stopped.method
    assert "patterns" in exact.method
    assert stopped.value >= exact.value


def test_the_first_rule_is_evaluated_in_the_shortest_time_and_none_after_it():
    rng = np.random.default_rng(0)
    A, B = (torch.as_tensor(rng.standard_normal((15, 4))) for _ in range(2))
    mass = float(torch.linalg.vector_norm(A, dim=1).sum())
    with looks(0):
        assert positive_bound(A, B, 0.0) == pytest.approx(mass, rel=1e-12)
    with looks(2):
        first = positive_bound(A, B, 0.0)
    assert positive_bound(A, B, 0.0) < first < mass


def test_beta_max_does_not_depend_on_a_deadline(monkeypatch):
    monkeypatch.setattr(vector_outputs, "POWER_BLOCKS", 1)
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((12, 3)), rng.standard_normal((12, 2))
    free = cnn.Problem(X, Y, activation="relu", beta_fraction=0.1, patterns=8)
    with looks(0):
        hurried = cnn.Problem(X, Y, activation="relu", beta_fraction=0.1, patterns=8)
    assert hurried.beta == free.beta
