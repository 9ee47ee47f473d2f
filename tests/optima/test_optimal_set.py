"""The set of all optima against closed forms, enumeration of vertices, and CVXPY."""

import dataclasses
import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch
from problems import random_problem, targets

import convexnn_bench as cnn


def with_several_gates(seed: int, loss: str = "squared", n: int = 5, gates: int = 60, **options) -> cnn.Problem:
    """A problem on n samples in the plane, with many gates of which several have the same mask."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 2))
    directions = rng.standard_normal((2, gates))
    masks = X @ directions >= 0
    some = cnn.sample_patterns(X, 2)
    patterns = dataclasses.replace(some, masks=masks, gates=directions, complete=False)
    Y = targets(loss, n, 1, rng)
    options = {"beta_fraction": 0.2, **options}
    return cnn.Problem(X, Y, loss=loss, patterns=patterns, **options)


def three_gates() -> tuple[cnn.Problem, cnn.OptimalSet]:
    """Two samples at 120 degrees: the gate of both has the sum of the gradients of the other two, equally long."""
    problem = cnn.Problem([[1.0, 0.0], [-0.5, 0.75**0.5]], [1.0, 1.0], beta=0.1)
    return problem, cnn.optimal_set(cnn.solve(problem, "bm_newton", gap=1e-12))


def vertices(optima: cnn.OptimalSet, problem: cnn.Problem, f: np.ndarray) -> list[np.ndarray]:
    """Blocks of all vertices of {c >= 0, sum_k c_k a_k = f}: every choice of independent columns, one by one."""
    gradient = problem.loss.gradient(torch.as_tensor(f), torch.as_tensor(problem.Y)).numpy()
    G = np.stack([problem.X.T @ (mask * gradient[:, 0]) for mask in problem.masks.T])[optima.active]
    directions = -G / np.linalg.norm(G, axis=1)[:, None]
    A = np.stack([problem.masks[:, k] * (problem.X @ u) for k, u in zip(optima.active, directions, strict=True)], 1)
    rank = np.linalg.matrix_rank(A, tol=1e-4)
    found = []
    for chosen in map(list, itertools.combinations(range(A.shape[1]), rank)):
        c, *_ = np.linalg.lstsq(A[:, chosen], f[:, 0], rcond=None)
        if np.linalg.matrix_rank(A[:, chosen], tol=1e-4) < rank or c.min() < -1e-9:
            continue
        if np.linalg.norm(A[:, chosen] @ c - f[:, 0]) <= 1e-4:
            Z = np.zeros((problem.P, problem.p, 1))
            Z[optima.active[chosen], :, 0] = c[:, None] * directions[chosen]
            found.append(Z)
    return found


def by_gates(problem: cnn.Problem, Z: np.ndarray, X: np.ndarray) -> np.ndarray:
    return np.einsum("nk,np,kp->n", X @ problem.gates >= 0, X, Z[:, :, 0])


def test_three_dependent_gates_in_closed_form():
    """c_1 = c_2 = 0.9 - t / 2 and c_12 = t, 0 <= t <= 1.8: every prediction is linear in t."""
    problem, optima = three_gates()
    assert not optima.is_unique
    assert optima.dimension == 1
    assert sorted(optima.support) == [0, 1, 2]
    new = np.random.default_rng(0).standard_normal((20, 2))
    low, high = optima.prediction_range(new)
    masks = problem.masks.T.tolist()
    ends = []
    for t in (0.0, 1.8):
        Z = np.zeros((3, 2, 1))
        Z[masks.index([True, False]), :, 0] = (0.9 - t / 2) * problem.X[0]
        Z[masks.index([False, True]), :, 0] = (0.9 - t / 2) * problem.X[1]
        Z[masks.index([True, True]), :, 0] = t * (problem.X[0] + problem.X[1])
        ends.append(by_gates(problem, Z, new))
        assert cnn.certify(problem, Z).gap < 1e-12
    np.testing.assert_allclose(low[:, 0], np.minimum(*ends), atol=1e-5)
    np.testing.assert_allclose(high[:, 0], np.maximum(*ends), atol=1e-5)
    # on the data all optima agree
    low, high = optima.prediction_range(problem.X)
    np.testing.assert_allclose(low, high, atol=1e-5)
    np.testing.assert_allclose(low[:, 0], 0.9, atol=1e-5)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_the_range_of_predictions_is_attained_at_the_vertices(loss):
    problem = with_several_gates(7, loss, gates=24)
    result = cnn.solve(problem, "fista", gap=1e-12, iterations=3000, time_limit=None)
    optima = cnn.optimal_set(result)
    assert optima.dimension >= 2
    new = np.random.default_rng(5).standard_normal((15, 2))
    low, high = optima.prediction_range(new)
    found = vertices(optima, problem, problem.predict(result.blocks))
    assert all(cnn.certify(problem, Z).gap < 1e-8 for Z in found)
    values = np.stack([by_gates(problem, Z, new) for Z in found])
    np.testing.assert_allclose(low[:, 0], values.min(axis=0), atol=1e-4)
    np.testing.assert_allclose(high[:, 0], values.max(axis=0), atol=1e-4)
    assert (high - low).max() > 0.1
    # the smallest network, and the point itself, are among the optima
    for point in (result, cnn.minimal_network(result)):
        inside = point.predict(new)
        assert (inside >= low - 1e-6).all()
        assert (inside <= high + 1e-6).all()


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("output_bias", [None, "free", "penalised"])
def test_the_range_of_predictions_by_cvxpy(output_bias):
    """Least and largest prediction over all blocks and biases with the predictions and the penalty of the optimum."""
    problem = with_several_gates(9, n=4, gates=12, beta=0.2, beta_fraction=None, output_bias=output_bias)
    result = cnn.solve(problem, "bm_newton", gap=1e-12)
    new = np.random.default_rng(6).standard_normal((2, 2))
    low, high = cnn.optimal_set(result).prediction_range(new)
    blocks, bias = [cp.Variable(2) for _ in range(problem.P)], cp.Variable(1)
    z = sum(cp.multiply(mask, problem.X @ u) for mask, u in zip(problem.masks.T, blocks, strict=True))
    f, best = problem.predict(result.blocks), result.predict(np.zeros((1, 2)))[0]  # the prediction at zero is the bias
    optimal = [
        cp.norm(z + bias - f[:, 0]) <= 1e-6,
        sum(cp.norm(u, 2) for u in blocks) <= np.linalg.norm(result.blocks, axis=1).sum() * (1 + 1e-6),
        *([] if output_bias == "free" else [cp.abs(bias - best) <= 1e-6]),
    ]
    for i, x in enumerate(new):
        value = sum(float(x @ g >= 0) * (x @ u) for g, u in zip(problem.gates.T, blocks, strict=True)) + bias
        for goal, end in ((cp.Minimize, low), (cp.Maximize, high)):
            found = cp.Problem(goal(value[0]), optimal).solve(solver=cp.CLARABEL)
            # these blocks need not be parallel to the gradients, and reach further by the root of the 1e-6
            outwards = (end[i, 0] - found) * (1 if end is low else -1)
            assert -1e-4 <= outwards <= 0.02
    assert (high - low).max() > 5


@pytest.mark.parametrize("output_bias", [None, "free"])
def test_samples_without_weight_do_not_count(output_bias):
    """The set of optima is that without these samples, and a weight of two is two equal samples."""
    problem = with_several_gates(9, gates=24, output_bias=output_bias)
    X, Y, masks = problem.X, problem.Y, problem.masks
    rows = [0, 1, 2, 2, 3]  # sample 4 is left out, and sample 2 counts twice
    copied = dataclasses.replace(problem.pattern_info, masks=masks[rows])
    options = {"beta": problem.beta, "output_bias": output_bias}
    weights = {"sample_weight": [1.0, 1.0, 2.0, 1.0, 0.0], "patterns": problem.pattern_info}
    new = np.random.default_rng(8).standard_normal((10, 2))
    ranges = []
    for twin in (cnn.Problem(X, Y, **options, **weights), cnn.Problem(X[rows], Y[rows], **options, patterns=copied)):
        optima = cnn.optimal_set(cnn.solve(twin, "bm_newton", gap=1e-12))
        assert optima.dimension >= 2
        ranges.append(np.hstack(optima.prediction_range(new)))
    np.testing.assert_allclose(*ranges, atol=1e-4)
    assert (ranges[0][:, 1] - ranges[0][:, 0]).max() > 0.1


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
@pytest.mark.parametrize("activation", ["linear", "gated_relu"])
def test_a_generic_problem_has_one_optimum(loss, activation):
    problem = random_problem(4, loss, activation, n=20, d=3, c=1, patterns=10)
    loss_of = cnn.Huber(delta=100.0) if loss == "huber" else loss
    problem = cnn.Problem(problem.X, problem.Y, activation=activation, loss=loss_of, beta_fraction=0.05, patterns=10)
    result = cnn.solve(problem, "bm_newton", gap=1e-13)
    optima = cnn.optimal_set(result)
    assert optima.is_unique
    nonzero = np.flatnonzero(np.linalg.norm(result.blocks, axis=(1, 2)) > 1e-6)
    np.testing.assert_array_equal(optima.support, nonzero)
    low, high = optima.prediction_range(problem.X[:3] + 1)
    np.testing.assert_array_equal(low, high)
    np.testing.assert_array_equal(low, result.predict(problem.X[:3] + 1))


@pytest.mark.slow
def test_a_cnn_with_two_gates_of_one_mask():
    """The sizes of the two blocks add up to the same number at every optimum."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((6, 1, 3, 3)), rng.standard_normal(6)
    base = cnn.Problem(X, y, architecture=cnn.CNN(patch=2), beta_fraction=0.3, patterns=5)
    masks = np.hstack([base.masks, base.masks])
    problem = cnn.Problem(X, y, architecture=cnn.CNN(patch=2), beta=base.beta, patterns=masks)
    optima = cnn.optimal_set(cnn.solve(problem, "bm_newton", gap=1e-12))
    assert set(optima.support % 5) == set(cnn.optimal_set(cnn.solve(base, "bm_newton", gap=1e-12)).support)
    assert optima.dimension == len(optima.support) / 2
    with pytest.raises(cnn.UnsupportedError, match="masks without gates"):
        optima.prediction_range(X)


def test_zero_is_the_only_optimum_above_beta_max():
    base = random_problem(5, c=1)
    problem = base.with_beta(fraction=1.5)
    optima = cnn.optimal_set(cnn.solve(problem, "fista", gap=1e-12))
    assert optima.is_unique
    assert len(optima.active) == len(optima.support) == 0
    assert not np.any(optima.prediction_range(problem.X))


@pytest.mark.slow
def test_the_tolerance_follows_from_the_gap_and_is_stated():
    """It is max ||A_k|| sqrt(2 L (primal - dual)) / beta, with the matrices of the blocks written out."""
    problem = with_several_gates(6, "logistic")
    result = cnn.solve(problem, "fista", gap=1e-11, iterations=3000, time_limit=None)
    optima = cnn.optimal_set(result)
    length = max(np.linalg.norm(mask[:, None] * problem.X, 2) for mask in problem.masks.T)
    gap = result.certificate.primal - result.certificate.dual
    assert optima.tolerance == pytest.approx(length * (2 * 0.25 * gap) ** 0.5 / problem.beta)
    assert f"{optima.tolerance:.2g}" in repr(optima)
    assert "from the certified gap" in repr(optima)
    # the multiplier of a more accurate run is within the bound that the tolerance rests on
    better = cnn.solve(problem, "semismooth_newton", gap=1e-14).certificate.multiplier
    assert np.linalg.norm(result.certificate.multiplier - better) <= (2 * 0.25 * gap) ** 0.5
    mine = cnn.optimal_set(result, tolerance=5e-4)
    assert mine.tolerance == 5e-4
    assert "as given" in repr(mine)
    assert len(mine.active) >= len(optima.active)


@pytest.mark.slow
def test_what_is_refused_and_why():
    relu = cnn.solve(random_problem(7, "squared", "relu", d=2), "fista", gap=1e-8)
    vector = cnn.solve(random_problem(7, c=2), "bm_newton", gap=1e-8)
    coarse = cnn.solve(random_problem(7, c=1), "fista", gap=1e-3)
    flat = random_problem(7, "squared_hinge", c=1, n=9, beta_fraction=0.001)
    skipped = cnn.solve(random_problem(7, "squared", "relu", d=2), "semismooth_newton")
    for result, words in (
        (relu, "a difference of two vectors of a cone"),
        (vector, "optimal_set is for one output"),
        (coarse, r"gap .* is too large .* solve with gap="),
        (cnn.solve(flat, "bm_newton", gap=1e-10), "no curvature at [0-9] of 9 predictions"),
        (dataclasses.replace(skipped, problem=coarse.problem), "no certified gap"),
    ):
        with pytest.raises(cnn.UnsupportedError, match=words):
            cnn.optimal_set(result)
    with pytest.raises(cnn.InputError, match="must be a Result"):
        cnn.optimal_set(relu.problem)
    for tolerance in (0.0, 0.5, "small", True):
        with pytest.raises(cnn.InputError, match=r"a number above 0 and below 0\.001, or None"):
            cnn.optimal_set(coarse, tolerance=tolerance)
