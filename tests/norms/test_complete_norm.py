"""Bounds over all activation patterns: against brute force, enumeration, and the program they certify."""

import dataclasses

import numpy as np
import pytest
import torch
from problems import LOSS_NAMES, targets
from properties import given, settings
from properties import strategies as st

import convexnn_bench as cnn
from convexnn_bench.certificates import lower_bound, strengthened
from convexnn_bench.deadline import cuts_counted, deadline
from convexnn_bench.norms.all_patterns import bounds as module
from convexnn_bench.norms.all_patterns.ascent import ascend, attained
from convexnn_bench.norms.all_patterns.bounds import CompleteNorm
from convexnn_bench.norms.all_patterns.decision_rule import group_rows, positive_bound
from convexnn_bench.norms.all_patterns.outputs import circle_bound, support_function


def brute_force(Phi: np.ndarray, R: np.ndarray, rng: np.random.Generator, rounds: int = 8) -> float:
    """The largest ||R^T (Phi u)_+|| over random unit vectors, more and more densely around the best."""
    U = rng.standard_normal((Phi.shape[1], 4000))
    best, centre, spread = -1.0, U[:, :1], 1.0
    for _ in range(rounds):
        U = U / np.linalg.norm(U, axis=0).clip(1e-300)
        values = np.linalg.norm(R.T @ np.maximum(Phi @ U, 0), axis=0)
        if values.max() > best:
            best, centre = float(values.max()), U[:, [values.argmax()]]
        spread *= 0.4
        U = centre + spread * rng.standard_normal((Phi.shape[1], 4000))
    return best


def degenerate(seed: int, N: int, p: int) -> np.ndarray:
    """Gaussian rows; some seeds have zero rows, repeated and opposite ones, a zero column, low rank."""
    rng = np.random.default_rng(seed)
    Phi = rng.standard_normal((N, p))
    kind = seed % 5
    if kind == 1:
        Phi[::3] = 0
    elif kind == 2:
        Phi[N // 2 :] = -2 * Phi[: N - N // 2]
    elif kind == 3:
        Phi[:, 0] = 0
    elif kind == 4:
        Phi = np.outer(Phi[:, 0], Phi[0])
    return Phi


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.booleans())
@settings(max_examples=60)
def test_no_direction_exceeds_the_bound(seed, N, p, q, enumerated):
    Phi, rng = degenerate(seed, N, p), np.random.default_rng(seed)
    R = rng.standard_normal((N, q))
    bounds = CompleteNorm(Phi)
    if not enumerated:
        bounds._looked = True  # the relaxation, which large problems get
    found = bounds.bound(R)
    best = brute_force(Phi, R, rng, rounds=4)
    assert best <= found.value * (1 + 1e-12) + 1e-300
    assert found.lower <= found.value
    if enumerated:
        assert found.lower == pytest.approx(found.value, rel=1e-6)
        assert best == pytest.approx(found.value, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("p", [2, 3])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_enumeration_relaxation_and_search_close_in_on_one_value(p, q):
    rng = np.random.default_rng(10 * p + q)
    Phi, R = rng.standard_normal((14, p)), rng.standard_normal((14, q))
    exact = CompleteNorm(Phi).bound(R)
    assert "exact" in exact.method
    relaxed = CompleteNorm(Phi)
    relaxed._looked = True
    above = relaxed.bound(R)
    assert "rule" in above.method
    assert exact.lower <= above.value <= 1.6 * exact.value
    found = brute_force(Phi, R, rng)
    assert found <= exact.value * (1 + 1e-12)
    assert found == pytest.approx(exact.value, rel=1e-3)
    values, U = ascend(Phi, R)
    assert values[0] == pytest.approx(exact.value, rel=2e-2)
    assert attained(Phi, R, U[:, 0]) <= exact.value
    assert attained(Phi, R, U[:, 0]) == pytest.approx(np.linalg.norm(R.T @ np.maximum(Phi @ U[:, 0], 0)), rel=1e-10)


def test_one_feature_and_nothing_at_all():
    Phi, R = np.array([[2.0], [-1.0], [3.0]]), np.array([[1.0], [5.0], [-1.0]])
    assert CompleteNorm(Phi).bound(R).value == pytest.approx(5.0, rel=1e-12)  # u = -1: 5; u = 1: |2 - 3| = 1
    assert CompleteNorm(Phi).bound(np.zeros((3, 2))).value == 0.0
    assert CompleteNorm(np.array([[0.0, 0.0], [3.0, 4.0]])).bound(np.array([[9.0], [2.0]])).value == pytest.approx(10.0)


@pytest.mark.parametrize("rows", [1e-30, 1e30])
@pytest.mark.parametrize("weights", [1e-30, 1e30])
def test_bounds_follow_the_scale(rows, weights):
    rng = np.random.default_rng(0)
    Phi, R = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    base, scaled = CompleteNorm(Phi).bound(R), CompleteNorm(rows * Phi).bound(weights * R)
    assert scaled.value == pytest.approx(rows * weights * base.value, rel=1e-9)
    assert scaled.lower == pytest.approx(rows * weights * base.lower, rel=1e-6)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(0, 12), st.integers(1, 4))
@settings(max_examples=40)
def test_the_decision_rule_bounds_differences_of_positive_parts(seed, first, second, p):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((first, p)), rng.standard_normal((second, p))
    U = rng.standard_normal((p, 20_000))
    U /= np.linalg.norm(U, axis=0)
    reached = (np.maximum(A @ U, 0).sum(axis=0) - np.maximum(B @ U, 0).sum(axis=0)).max()
    assert positive_bound(torch.as_tensor(A), torch.as_tensor(B), 0.0) >= reached - 1e-12


@pytest.mark.slow
def test_grouped_rows_still_bound(monkeypatch):
    from convexnn_bench.norms.all_patterns import decision_rule

    rng = np.random.default_rng(0)
    Phi, R = rng.standard_normal((60, 3)), rng.standard_normal((60, 1))
    assert sorted(set(group_rows(torch.as_tensor(Phi), 7).tolist())) == list(range(7))
    fine, coarse = CompleteNorm(Phi), CompleteNorm(Phi)
    fine._looked = coarse._looked = True
    value = fine.bound(R).value
    monkeypatch.setattr(decision_rule, "GROUPS", 7)
    assert coarse.bound(R).value >= brute_force(Phi, R, rng)
    assert coarse.bound(R).value <= 1.5 * value


@pytest.mark.slow
def test_a_polygon_encloses_the_image():
    rng = np.random.default_rng(2)
    Phi, R = rng.standard_normal((30, 3)), rng.standard_normal((30, 2))
    best = brute_force(Phi, R, rng)
    bounds = [circle_bound(support_function(Phi, R), np.eye(2), best, most) for most in (4, 8, 16)]
    assert bounds[0] >= bounds[1] >= bounds[2] >= best


# -- the certificates they give ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("enumerated", [True, False])
def test_a_complete_bound_from_sampled_patterns_is_below_the_optimum_over_all(loss, enumerated, monkeypatch):
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((9, 2)), targets(loss, 9, 1, rng)
    full = cnn.Problem(X, Y, activation="relu", loss=loss, beta_fraction=0.1, patterns="all")
    solved = cnn.solve(full, "cvxpy_clarabel", gap=1e-9)
    assert solved.gap <= 1e-6
    sampled = cnn.Problem(X, Y, activation="relu", loss=loss, beta=full.beta, patterns=2)
    sampled.all_patterns._looked = not enumerated
    network = cnn.certify(sampled, cnn.Point(network=solved.network, dual=solved.certificate.multiplier))
    assert network.scope == "complete"
    assert network.dual <= solved.objective * (1 + 1e-9)
    assert network.primal == pytest.approx(solved.objective, rel=1e-6)
    assert network.gap <= (1e-6 if enumerated else 0.5)
    inside = cnn.solve(sampled, "cvxpy_clarabel", gap=1e-9)
    assert inside.certificate.scope == "sampled"
    assert inside.objective >= solved.objective * (1 - 1e-7)
    widened = cnn.certify(sampled, inside, scope="complete")
    assert widened.dual <= solved.objective * (1 + 1e-9)
    assert widened.primal == inside.objective
    Lambda = torch.as_tensor(rng.standard_normal(full.Y.shape))
    value, norm, _ = lower_bound(sampled, full.loss.project_dual(Lambda, torch.as_tensor(full.Y)), "complete")
    assert value <= solved.objective
    assert norm.lower <= norm.value


def test_scopes_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    gated = cnn.Problem(X, Y, beta=0.1, patterns=3)
    zero = np.zeros((gated.P, 2, 1))
    with pytest.raises(cnn.InputError, match="gates are part of the model"):
        cnn.certify(gated, zero, scope="complete")
    full = cnn.Problem(X, Y, activation="relu", beta=0.1)
    with pytest.raises(cnn.InputError, match="all activation patterns"):
        cnn.certify(full, np.zeros((full.P, 2, 1)), scope="sampled")
    with pytest.raises(cnn.InputError, match="scope must be"):
        cnn.certify(full, np.zeros((full.P, 2, 1)), scope="everything")


# -- column generation ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "c"), [(16, 3, 1), (12, 3, 3), (20, 2, 2)])
@pytest.mark.parametrize("seed", range(2))
def test_column_generation_reaches_the_optimum_over_all_patterns(n, d, c, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    Y = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ rng.standard_normal((3, c))
    full = cnn.Problem(X, Y, activation="relu", beta_fraction=0.05, patterns="all")
    exact = cnn.solve(full, "cvxpy_clarabel", gap=1e-9)
    sampled = cnn.Problem(X, Y, activation="relu", beta=full.beta, patterns=2)
    result = cnn.solve(sampled, "column_generation", gap=1e-6, time_limit=600)
    assert result.certificate.scope == "complete"
    assert result.certificate.dual <= exact.objective * (1 + 1e-8)
    assert result.objective == pytest.approx(exact.objective, rel=1e-4 if exact.gap > 1e-6 else 1e-6)
    assert result.status == "gap_reached" or exact.gap > 1e-6
    used = int(result.network[0].shape[1])
    assert used <= full.P / 2
    again = cnn.solve(sampled, "column_generation", gap=1e-6, time_limit=600)
    np.testing.assert_array_equal(again.network[0], result.network[0])


@pytest.mark.slow
def test_column_generation_above_beta_max_and_without_relu():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((8, 2)), rng.standard_normal(8)
    zero = cnn.solve(cnn.Problem(X, Y, activation="relu", beta_fraction=1.5), "column_generation")
    assert zero.objective == pytest.approx(0.5 * float(Y @ Y), rel=1e-12)
    assert zero.gap <= 1e-9
    gated = cnn.solve(cnn.Problem(X, Y, beta=0.1, patterns=3), "column_generation")
    assert gated.status == "skipped"
    assert "for ReLU" in gated.reason


def test_patterns_are_enumerated_only_where_they_are_few(monkeypatch):
    Phi = np.random.default_rng(0).standard_normal((40, 3))
    assert CompleteNorm(Phi)._enumerated(1) is not None
    monkeypatch.setattr(module, "ENUMERATION_SECONDS", 0.0)
    assert CompleteNorm(Phi)._enumerated(1) is None


@pytest.mark.slow
def test_patterns_are_enumerated_in_a_part_of_the_time_that_is_left():
    """200 rows of 3 features take 0.2 s, and their cells 0.8 s if all are searched; the clock stands still."""
    Phi = np.random.default_rng(0).standard_normal((200, 3))
    norm = CompleteNorm(Phi)
    for left, cells in ((0.7, None), (1.3, None), (1.6, 39_802)):
        with deadline(left, lambda: 0.0), cuts_counted() as cuts:
            found = norm._enumerated(1)
        assert (None if found is None else found.P) == cells
        assert bool(cuts) == (cells is None)  # a bound without the cells counts as cut short


def test_a_bound_that_was_proven_before_stands_where_a_later_one_is_cut_short():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((12, 3)), rng.standard_normal(12)
    problem = cnn.Problem(X, Y, activation="relu", beta_fraction=0.5, patterns=4)
    point = cnn.Point(network=(np.zeros((3, 1)), np.zeros((1, 1))))
    with deadline(0.0):
        late = cnn.certify(cnn.Problem(X, Y, activation="relu", beta=problem.beta, patterns=4), point)
    early = cnn.certify(problem, point)
    assert late.dual < early.dual
    for one, other in ((late, early), (early, late)):
        best = strengthened(one, other)
        assert (best.dual, best.gap) == (early.dual, early.gap)
    assert strengthened(late, dataclasses.replace(early, scope="sampled")) is late
