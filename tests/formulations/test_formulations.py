"""The maps between formulations never raise the objective beyond rounding."""

import numpy as np
import pytest
import torch
from problems import combinations, random_problem
from properties import given
from properties import strategies as st

import convexnn_bench as cnn
from convexnn_bench.algorithms.descent.network_objective import NetworkObjective
from convexnn_bench.formulations import burer_monteiro, convex, network
from convexnn_bench.losses._output_bias import OutputBias

ROUNDING = 1e-11
PAIRS = st.sampled_from(combinations())
SEEDS = st.integers(0, 100_000)


def complete_problem(seed: int, loss: str, activation: str) -> cnn.Problem:
    """All patterns, so that every ReLU network is a point of the program."""
    return random_problem(seed, loss, activation, n=7, d=2, patterns="all")


def random_blocks(problem, seed) -> torch.Tensor:
    """Random blocks, some of them zero; differences of two cone vectors for ReLU."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((problem.P, problem.p, problem.q))
    if problem.has_cone:
        pair = problem.cones.project(rng.standard_normal((problem.P, problem.p, 2)))
        Z = pair[:, :, :1] - pair[:, :, 1:]
    Z[rng.random(problem.P) < 0.3] = 0.0
    return torch.as_tensor(Z)


def assert_not_above(new: float, old: float) -> None:
    assert new <= old + ROUNDING * (1 + abs(old))


@pytest.mark.slow
@given(PAIRS, SEEDS)
def test_convex_to_burer_monteiro_keeps_the_objective(pair, seed):
    problem = complete_problem(seed % 50, *pair)
    Z = random_blocks(problem, seed)
    U, V = convex.to_factors(problem, Z)
    assert problem.factored_objective(U, V) == pytest.approx(problem.objective(Z), rel=1e-10)
    np.testing.assert_allclose(burer_monteiro.to_blocks(U, V), Z, atol=1e-9)
    if problem.has_cone:
        assert problem.cones.violation(U.numpy()) < 1e-9
    wide = convex.to_factors(problem, Z, m=U.shape[2] + 2)
    assert wide[0].shape[2] == U.shape[2] + 2
    assert problem.factored_objective(*wide) == pytest.approx(problem.objective(Z), rel=1e-10)


@pytest.mark.slow
@given(PAIRS, SEEDS)
def test_burer_monteiro_to_convex_never_raises(pair, seed):
    problem = complete_problem(seed % 50, *pair)
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((problem.P, problem.p, 3)) * rng.random((problem.P, 1, 3))
    V = rng.standard_normal((problem.P, problem.q, 3)) * 3
    U = torch.as_tensor(problem.cones.project(U) if problem.has_cone else U)
    V = torch.as_tensor(V)
    old = problem.factored_objective(U, V)
    assert_not_above(problem.objective(burer_monteiro.to_blocks(U, V)), old)
    if problem.has_cone:
        signs = V.clamp_min(0), (-V).clamp_min(0)
        split = torch.stack([(U * sign).sum(dim=2) for sign in signs], dim=2)
        assert problem.cones.violation(split.numpy()) < 1e-9
        assert_not_above(convex.objective(problem, burer_monteiro.to_blocks(U, V), split), old)


@pytest.mark.slow
@given(PAIRS, SEEDS)
def test_balancing_never_raises_and_keeps_the_blocks(pair, seed):
    problem = complete_problem(seed % 50, *pair)
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((problem.P, problem.p, 2)) * 10.0 ** rng.integers(-3, 3, size=(problem.P, 1, 2))
    U, V = torch.as_tensor(U), torch.as_tensor(rng.standard_normal((problem.P, problem.q, 2)))
    U[0, :, 0] = 0.0
    balanced = burer_monteiro.balance(U, V)
    torch.testing.assert_close(burer_monteiro.to_blocks(*balanced), burer_monteiro.to_blocks(U, V))
    norms = [torch.linalg.vector_norm(factor, dim=1) for factor in balanced]
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-9, atol=1e-12)
    assert_not_above(problem.factored_objective(*balanced), problem.factored_objective(U, V))


@pytest.mark.slow
@given(PAIRS, SEEDS)
def test_burer_monteiro_to_network_never_raises(pair, seed):
    problem = complete_problem(seed % 50, *pair)
    U, V = convex.to_factors(problem, random_blocks(problem, seed))
    W1, W2 = burer_monteiro.to_network(problem, U, V)
    old = problem.factored_objective(U, V)
    assert problem.network_objective(W1, W2) == pytest.approx(old, rel=1e-10)


@pytest.mark.slow
@given(PAIRS, SEEDS, st.integers(1, 25))
def test_network_to_factors_and_to_convex_never_raise(pair, seed, M):
    problem = complete_problem(seed % 50, *pair)
    rng = np.random.default_rng(seed)
    W1 = torch.as_tensor(rng.standard_normal((problem.p, M)))
    W2 = torch.as_tensor(rng.standard_normal((problem.q, M)))
    old = problem.network_objective(W1, W2)
    U, V = network.to_factors(problem, W1, W2)
    assert_not_above(problem.factored_objective(U, V), old)
    assert_not_above(problem.objective(burer_monteiro.to_blocks(U, V)), old)
    balanced = burer_monteiro.balance(U, V)
    assert_not_above(problem.factored_objective(*balanced), problem.factored_objective(U, V))


def test_round_trip_keeps_gates(combination):
    """network -> factors -> network gives every neuron back its own gate."""
    problem = complete_problem(3, *combination)
    rng = np.random.default_rng(0)
    W1, W2 = (
        torch.as_tensor(rng.standard_normal((problem.p, 9))),
        torch.as_tensor(rng.standard_normal((problem.q, 9))),
    )
    again = burer_monteiro.to_network(problem, *network.to_factors(problem, W1, W2))
    expected = network.predict(problem, W1, W2)
    torch.testing.assert_close(network.predict(problem, *again), expected, rtol=1e-10, atol=1e-10)


def test_neurons_on_a_boundary_and_dead_neurons_are_placed():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    problem = cnn.Problem(X, np.arange(4.0), activation="relu", beta=0.1, patterns="all")
    W1 = torch.tensor([[0.0, 1.0, -1.0, 0.0], [1.0, 0.0, -1.0, 0.0]], dtype=torch.float64)
    W2 = torch.ones(1, 4, dtype=torch.float64)
    U, V = network.to_factors(problem, W1, W2)
    assert problem.cones.violation(U.numpy()) <= 1e-12
    torch.testing.assert_close(
        problem.operator().apply_factors(U, V), network.predict(problem, W1, W2), rtol=1e-12, atol=1e-12
    )


def test_a_network_outside_the_sampled_patterns_is_refused():
    problem = random_problem(0, "squared", "relu", n=30, patterns=3)
    W1, W2 = np.random.default_rng(0).standard_normal((3, 10)), np.ones((1, 10))
    with pytest.raises(cnn.UnsupportedError, match="not among the 3 blocks"):
        cnn.certify(problem, (W1, W2), scope="sampled")
    certificate = cnn.certify(problem, (W1, W2))  # as a network it is held to all patterns
    assert certificate.scope == "complete"
    assert certificate.dual <= certificate.primal


def test_too_few_columns_for_the_rank_is_refused():
    problem = random_problem(1, c=2)
    with pytest.raises(cnn.InputError, match="m = 1"):
        convex.to_factors(problem, random_blocks(problem, 0) + 1.0, m=1)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.floats(0.01, 3.0))
def test_soft_threshold_is_the_prox_of_the_nuclear_norm(seed, threshold):
    """Optimality: (Z - X) / t is a subgradient of the nuclear norm at X, by the SVD of Z alone."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((3, 4, 3))
    left, values, right = np.linalg.svd(Z, full_matrices=False)
    expected = (left * np.maximum(values - threshold, 0)[:, None, :]) @ right
    found = convex.soft_threshold(torch.as_tensor(Z), threshold)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    flipped = convex.soft_threshold(torch.as_tensor(Z.transpose(0, 2, 1).copy()), threshold)
    np.testing.assert_allclose(flipped, expected.transpose(0, 2, 1), atol=1e-10)


def test_start_points_follow_the_scale_of_the_data_and_the_seed():
    small = random_problem(2)
    large = cnn.Problem(1000 * small.X, small.Y, beta=small.beta, patterns=small.masks)
    one = burer_monteiro.start(small, small.operator(), 2, seed=0)
    again = burer_monteiro.start(small, small.operator(), 2, seed=0)
    other = burer_monteiro.start(small, small.operator(), 2, seed=1)
    scaled = burer_monteiro.start(large, large.operator(), 2, seed=0)
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])
    norms = [float(torch.linalg.vector_norm(burer_monteiro.to_blocks(*pair))) for pair in (one, scaled)]
    assert norms[1] == pytest.approx(norms[0] / 1000, rel=1e-6)


@pytest.mark.parametrize("pair", combinations())
@pytest.mark.parametrize("architecture", ["mlp", cnn.CNN(patch=2, pool=2), "attention"])
def test_network_gradients_by_parts_are_those_of_all_samples_at_once(pair, architecture, monkeypatch):
    """Parts of whole samples that do not divide n, against autograd on the plain network all at once."""
    loss, activation = pair
    draw = np.random.default_rng(3)
    shape = {"mlp": (13, 4), "attention": (13, 3, 2)}.get(architecture, (13, 1, 5, 5))
    X = draw.standard_normal(shape)
    n_out, c = (39, 2) if architecture == "attention" else (13, 2)
    Y = np.where(draw.standard_normal((n_out, c)) > 0, 1.0, -1.0)
    Y = np.eye(c)[(Y[:, 0] > 0).astype(int)] if loss == "cross_entropy" else Y
    Y = Y.reshape(13, 3, c) if architecture == "attention" else Y
    problem = cnn.Problem(X, Y, architecture=architecture, activation=activation, loss=loss, beta=0.3, patterns=5)
    objective = NetworkObjective(problem, 7, 0, "cpu")
    monkeypatch.setattr(type(objective.operator), "part_size", lambda self, columns: 2 * self.N // len(self.X))
    x = objective.start + 0.1
    assert len(objective._parts) == (1 if activation == "linear" else 4)
    value, gradient = objective(x)
    leaf = x.clone().requires_grad_(True)
    W1, W2 = objective.weights(leaf)
    z = network.forward(problem, problem.operator(), W1, W2)
    whole = problem.loss.value(z, problem.operator().Y) + 0.5 * problem.beta * leaf.square().sum()
    whole.backward()
    torch.testing.assert_close(value, whole.detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-12, atol=1e-12 * float(leaf.grad.abs().max()))
    torch.testing.assert_close(network.predict(problem, W1.detach(), W2.detach()), z.detach(), rtol=1e-13, atol=1e-13)
    assert all(map(torch.equal, (value, gradient), objective(x)))  # the same numbers a second time


@pytest.mark.parametrize("M", [3, 5, 10, 13])  # fewer neurons than gates, one each, two, and a remainder
def test_neuron_j_carries_gate_j_mod_P(M):
    problem = cnn.Problem(np.random.default_rng(0).standard_normal((9, 4)), np.ones(9), beta=1.0, patterns=5)
    masks = network.gate_masks(problem, problem.operator(), M)
    assert problem.P == 5
    np.testing.assert_array_equal(masks, np.stack([problem.masks[:, j % problem.P] for j in range(M)], axis=1))


def test_a_loss_with_an_output_bias_is_taken_whole():
    """It is no sum over rows."""
    X = np.random.default_rng(0).standard_normal((2000, 3))
    plain = cnn.Problem(X, X[:, :1], loss="squared", beta=1.0, patterns=4)
    assert len(NetworkObjective(plain, 200, 0, "cpu")._parts) > 1
    biased = cnn.Problem(X, X[:, :1], loss=OutputBias(plain.loss, None), beta=1.0, patterns=4)
    assert len(NetworkObjective(biased, 200, 0, "cpu")._parts) == 1
