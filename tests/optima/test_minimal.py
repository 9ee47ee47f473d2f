"""The smallest network: at most n_out c neurons, the same predictions, and never a larger objective."""

import itertools

import numpy as np
import pytest
import torch
from problems import random_problem, targets

import convexnn_bench as cnn
from convexnn_bench.optima.sizes import basic_sizes
from convexnn_bench.running import Result

ARCHITECTURES = {
    "mlp": (cnn.MLP(), (3,)),
    "cnn": (cnn.CNN(patch=2, pool=2), (1, 3, 3)),
    "attention": (cnn.Attention(), (2, 2)),
}
KINDS = ("blocks", "factors", "network")
LOSSES = ("squared", "cross_entropy", "logistic", "squared_hinge", "huber")


def small_problem(name: str, activation: str, c: int, loss: str, seed: int, n: int = 3) -> cnn.Problem:
    """A problem with fewer predictions than a random point has neurons."""
    rng = np.random.default_rng(seed)
    architecture, sample = ARCHITECTURES[name]
    tokens = 2 if name == "attention" else 1
    Y = targets(loss, n * tokens, c, rng)
    Y = Y.reshape(n, tokens, -1) if name == "attention" else Y
    X = rng.standard_normal((n, *sample))
    return cnn.Problem(X, Y, architecture, activation, loss, beta_fraction=0.1, patterns=5, seed=seed)


def random_point(problem: cnn.Problem, kind: str, rng: np.random.Generator) -> cnn.Point:
    """A point with many neurons; ReLU factors lie in their cones, ReLU networks have patterns of their own."""
    if kind == "network":
        return cnn.Point(network=(rng.standard_normal((problem.p, 25)), rng.standard_normal((problem.q, 25))))
    U, V = rng.standard_normal((problem.P, problem.p, 4)), rng.standard_normal((problem.P, problem.q, 4))
    U = problem.cones.project(U) if problem.has_cone else U
    if kind == "factors":
        return cnn.Point(factors=(U, V))
    factors = (U, V) if problem.vector_cone else None
    return cnn.Point(blocks=U @ V.transpose(0, 2, 1), cone_factors=factors)


def result_of(problem: cnn.Problem, point: cnn.Point) -> Result:
    return Result(problem, "by hand", {}, "stalled", "a point", certificate=cnn.certify(problem, point), point=point)


def neurons_of(result: Result) -> int:
    W1, W2 = result.network
    return int(((W1 != 0).any(axis=0) & (W2 != 0).any(axis=0)).sum())


def predictions(problem: cnn.Problem, result: Result) -> np.ndarray:
    """The network's predictions on the data, as `result.predict` computes them from the raw rows."""
    return result.predict(problem.X).reshape(problem.Y.shape)


def check_guarantees(number: int, architecture: str, activation: str, kind: str) -> None:
    """One and two outputs, with a loss that the number chooses."""
    for c in (1, 2):
        problem = small_problem(architecture, activation, c, LOSSES[(number + c) % len(LOSSES)], number)
        result = result_of(problem, random_point(problem, kind, np.random.default_rng(number)))
        small = cnn.minimal_network(result)
        assert small.objective <= result.objective
        assert small.gap <= result.gap
        assert neurons_of(small) <= min(neurons_of(result), problem.Y.size)
        assert small.point.formulation == result.point.formulation
        before, after = predictions(problem, result), predictions(problem, small)
        assert np.linalg.norm(after - before) <= 1e-8 * np.linalg.norm(before)
        assert small.certificate.infeasibility <= 1e-8
        # the certificate is that of the new point
        assert cnn.certify(problem, small, small.certificate.scope).primal == small.certificate.primal
        left, before = neurons_of(small), neurons_of(result)
        words = f"none of {before} neurons" if left == before else f"{left} of {before} neurons are left"
        assert small.reason.startswith(words)


COMBINATIONS = list(itertools.product(ARCHITECTURES, ("linear", "gated_relu", "relu"), KINDS))
BY_NUMBER = [pytest.param(number, *names, id="-".join(names)) for number, names in enumerate(COMBINATIONS)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "architecture", "activation", "kind"), [p for p in BY_NUMBER if p.values[2:] != ("relu", "network")]
)
def test_guarantees_of_every_kind_of_point(number, architecture, activation, kind):
    check_guarantees(number, architecture, activation, kind)


@pytest.mark.slow  # bounds over all patterns
@pytest.mark.parametrize(
    ("number", "architecture", "activation", "kind"), [p for p in BY_NUMBER if p.values[2:] == ("relu", "network")]
)
def test_guarantees_of_relu_networks(number, architecture, activation, kind):
    check_guarantees(number, architecture, activation, kind)


@pytest.mark.parametrize("solver", ["fista", "bm_lbfgs", "network_lbfgs"])
def test_blocks_with_equal_masks_need_one_neuron_of_three(solver):
    """Near the optimum the copies of a block share its weight, in directions that are not quite equal."""
    base = random_problem(3, n=5, d=3, c=1, patterns=4)
    masks = np.hstack([base.masks] * 3)
    problem = cnn.Problem(base.X, base.Y, beta=base.beta, patterns=masks)
    result = cnn.solve(problem, solver, gap=1e-10, iterations=2000, time_limit=None)
    small = cnn.minimal_network(result)
    active = [(np.linalg.norm(r.blocks, axis=(1, 2)) > 1e-8).reshape(3, 4).sum(axis=0) for r in (result, small)]
    assert (active[0] == 3).any()
    assert active[1].max() == 1
    assert small.objective <= result.objective
    np.testing.assert_allclose(problem.predict(small.blocks), problem.predict(result.blocks), rtol=0, atol=1e-9)


def test_traces_of_an_interior_point_method_are_left_out():
    """It returns tiny blocks where zero is optimal, and these are independent of the others."""
    problem = random_problem(6, "logistic", n=12, d=2, c=1, patterns="all")
    exact = cnn.solve(problem, "bm_newton", gap=1e-12)
    traces = 1e-11 * np.random.default_rng(0).standard_normal(exact.blocks.shape)
    result = result_of(problem, cnn.Point(blocks=exact.blocks + traces))
    small = cnn.minimal_network(result)
    assert (neurons_of(result), neurons_of(small)) == (problem.P, neurons_of(exact))
    assert small.objective <= result.objective
    before, after = problem.predict(result.blocks), problem.predict(small.blocks)
    assert np.linalg.norm(after - before) <= 1e-8 * np.linalg.norm(before)


def test_neurons_of_one_pattern_and_sign_become_one():
    """Two directions in one cone are replaced by their sum, which is shorter than both together."""
    X = np.array([[1.0, 0.0], [0.0, 1.0]])
    problem = cnn.Problem(X, [1.0, 1.0], activation="relu", beta=0.1)
    W1 = np.array([[1.0, 0.5], [0.5, 1.0]])
    result = result_of(problem, cnn.Point(network=(W1, np.ones((1, 2)))))
    small = cnn.minimal_network(result)
    assert neurons_of(small) == 1
    W1, W2 = small.network
    np.testing.assert_allclose(W1 @ W2.T, [[1.5], [1.5]])
    assert small.objective == pytest.approx(0.25 + 0.1 * 1.5 * 2**0.5)


def test_a_relu_network_with_patterns_of_its_own_stays_one():
    """Its patterns are not among the problem's blocks, so that no other formulation has the point."""
    problem = random_problem(5, "squared", "relu", n=6, d=4, patterns=2)
    result = result_of(problem, random_point(problem, "network", np.random.default_rng(0)))
    assert result.blocks is None
    small = cnn.minimal_network(result)
    assert neurons_of(small) <= 6
    assert small.certificate.scope == "complete"


def test_a_point_without_neurons_to_spare_is_kept():
    problem = random_problem(7, "logistic", c=1, n=12, patterns=3)
    result = cnn.solve(problem, "bm_newton", gap=1e-9)
    small = cnn.minimal_network(result)
    assert neurons_of(small) == neurons_of(result)
    assert small.objective <= result.objective
    assert small.reason.endswith(result.reason)


@pytest.mark.parametrize(("activation", "kind"), [("gated_relu", "blocks"), ("relu", "factors"), ("relu", "blocks")])
def test_a_saved_result_has_the_same_certificate(activation, kind, tmp_path):
    problem = small_problem("mlp", activation, 1, "squared", seed=4)
    result = result_of(problem, random_point(problem, kind, np.random.default_rng(4)))
    small = cnn.minimal_network(result)
    assert small.point is not result.point
    again = cnn.load_result(small.save(tmp_path / "small.npz"))
    assert again.certificate == small.certificate
    assert cnn.certify(again.problem, again).primal == small.objective
    assert cnn.certify(again.problem, again).gap == pytest.approx(small.gap)


def test_the_zero_network_stays_zero():
    problem = random_problem(8, c=1)
    for point in (cnn.Point(blocks=np.zeros((4, 3, 1))), cnn.Point(network=(np.zeros((3, 2)), np.zeros((1, 2))))):
        small = cnn.minimal_network(result_of(problem, point))
        assert neurons_of(small) == 0
        assert small.objective == pytest.approx(problem.objective(np.zeros((4, 3, 1))), rel=1e-13)


@pytest.mark.parametrize("predictions", [3, 50])
def test_a_basic_solution_has_the_least_sum_of_all(predictions):
    """The least sum over every choice of three columns, each solved on its own, is that of the linear program."""
    rng = np.random.default_rng(2)
    A, s = rng.standard_normal((3, 8)), rng.random(8)
    choices = (list(chosen) for chosen in itertools.combinations(range(8), 3))
    vertices = [np.linalg.solve(A[:, chosen], A @ s) for chosen in choices]
    least = min(t.sum() for t in vertices if t.min() >= 0)
    A = np.linalg.qr(rng.standard_normal((predictions, 3)))[0] @ A  # of rank three, however many predictions there are
    t = basic_sizes(A, s)
    assert t.sum() == pytest.approx(least)
    assert (t > 0).sum() == 3
    np.testing.assert_allclose(A @ t, A @ s, atol=1e-13)


def test_without_the_linear_program_dependent_neurons_leave_one_by_one(monkeypatch):
    rng = np.random.default_rng(3)
    A, s = rng.standard_normal((4, 30)), rng.random(30)
    A[:, 20:] = A[:, :10]  # copies
    monkeypatch.setattr("convexnn_bench.optima.sizes._linear_program", lambda rows, s: None)
    t = basic_sizes(A, s)
    assert (t > 0).sum() == 4
    assert t.min() >= 0
    assert t.sum() <= s.sum()
    np.testing.assert_allclose(A @ t, A @ s, atol=1e-12)


def test_what_cannot_be_reduced_is_refused():
    problem = random_problem(9, "squared", "relu", d=2)
    with pytest.raises(cnn.InputError, match="must be a Result"):
        cnn.minimal_network(problem)
    skipped = cnn.solve(problem, "semismooth_newton")
    with pytest.raises(cnn.UnsupportedError, match="no point to reduce: skipped"):
        cnn.minimal_network(skipped)
    outside = torch.as_tensor(np.random.default_rng(1).standard_normal((problem.P, 2, 1)))
    point = cnn.Point(factors=(outside, torch.ones(problem.P, 1, 1).double()))
    with pytest.raises(cnn.UnsupportedError, match="violates the ReLU cones"):
        cnn.minimal_network(result_of(problem, point))
