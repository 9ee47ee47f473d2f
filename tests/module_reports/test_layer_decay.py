"""Reports for networks whose layers, or biases, have different weight decay."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import nn

import convexnn_bench as cnn

LAM = {"0.weight": 0.4, "0.bias": 0.1, "2.weight": 0.02, "2.bias": 0.3}


def data(n=14, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 2))
    return X, np.abs(X[:, 0]) - 0.5 * X[:, 1] + 0.1 * rng.standard_normal(n)


def network(width=6, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width, bias=bias), nn.ReLU(), nn.Linear(width, 1, bias=bias)).double()


def objective(module, X, y, lam):
    """Half the squares plus lam/2 times the squares of each parameter, by torch."""
    error = module(torch.as_tensor(X))[:, 0] - torch.as_tensor(y)
    return 0.5 * error.square().sum() + sum(
        0.5 * lam[name] * parameter.square().sum() for name, parameter in module.named_parameters()
    )


def trained(module, X, y, lam, steps=25):
    """The module after L-BFGS on its own objective."""
    optimiser = torch.optim.LBFGS(module.parameters(), max_iter=20, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = objective(module, X, y, lam)
        value.backward()
        return value

    for _ in range(steps):
        optimiser.step(closure)
    return module


@pytest.mark.parametrize("lam", [LAM, {**LAM, "0.bias": 0.0}, {**LAM, "2.bias": 0.0}, dict.fromkeys(LAM, 0.2)])
def test_primal_is_the_users_own_objective(lam):
    """By torch, which is no smaller than the objective with balanced neurons, for which the problem is stated."""
    X, y = data()
    module = network()
    report = cnn.certify_module(module, X, y, "squared", lam)
    assert report.primal == pytest.approx(float(objective(module, X, y, lam).detach()), rel=1e-12)
    assert report.beta == pytest.approx((lam["0.weight"] * lam["2.weight"]) ** 0.5, rel=1e-12)
    with torch.no_grad():
        lengths = module[0].weight.square().sum(dim=1) * lam["0.weight"] + module[0].bias.square() * lam["0.bias"]
        product = (lengths * module[2].weight[0].square() * lam["2.weight"]).sqrt().sum()
        penalty = product + 0.5 * lam["2.bias"] * module[2].bias.square().sum()
        balanced = float(objective(module, X, y, dict.fromkeys(LAM, 0.0)) + penalty)
    assert report.dual < balanced < report.primal
    assert report.dual <= report.certificate.primal <= balanced * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("lam", [{"0.weight": 0.4, "2.weight": 0.02}, {"0.weight": 0.02, "2.weight": 0.4}])
def test_the_optimum_is_that_of_the_textbook_program_with_the_geometric_mean(lam):
    """Without biases, by CVXPY on the activation patterns, and approached by training with both numbers."""
    X, y = data()
    masks = cnn.enumerate_patterns(X).masks
    pairs = [(cp.Variable(2), cp.Variable(2)) for _ in range(masks.shape[1])]
    signs = [2.0 * masks[:, k] - 1.0 for k in range(masks.shape[1])]
    prediction = sum(cp.multiply(masks[:, k].astype(float), X @ (v - w)) for k, (v, w) in enumerate(pairs))
    beta = (lam["0.weight"] * lam["2.weight"]) ** 0.5
    penalty = beta * sum(cp.norm(v) + cp.norm(w) for v, w in pairs)
    cones = [cp.multiply(sign, X @ u) >= 0 for sign, pair in zip(signs, pairs, strict=True) for u in pair]
    exact = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(prediction - y) + penalty), cones).solve(solver="CLARABEL")
    layers = {"first": lam["0.weight"], "second": lam["2.weight"]}
    best = np.inf
    for seed in range(3):
        module = trained(network(20, bias=False, seed=seed), X, y, lam)
        report = cnn.certify_module(module, X, y, "squared", layers)
        assert report.dual <= exact * (1 + 1e-7) <= report.primal * (1 + 2e-7)
        best = min(best, report.primal)
    assert best == pytest.approx(exact, rel=1e-3)
    solved = cnn.solve(report.problem, "cvxpy_clarabel")
    assert solved.objective == pytest.approx(exact, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("lam", [LAM, {**LAM, "0.bias": 0.0, "2.bias": 0.0}, {**LAM, "0.bias": 0.0}])
def test_no_training_falls_below_the_optimum_of_the_problem(lam):
    """The network of the problem's own solution reaches the same objective in the user's terms."""
    X, y = data()
    module = network()
    report = cnn.certify_module(module, X, y, "squared", lam)
    optimum = cnn.solve(report.problem, "cvxpy_clarabel")
    assert optimum.certificate.gap < 1e-5
    values = [float(objective(trained(network(25, seed=seed), X, y, lam), X, y, lam).detach()) for seed in range(3)]
    assert min(values) >= optimum.certificate.dual
    # With a penalised output bias and none on the first ones the infimum is not attained.
    assert min(values) == pytest.approx(optimum.certificate.dual, rel=2e-2)


def test_an_optimiser_says_the_same_as_its_numbers():
    X, y = data()
    module = network()
    groups = [{"params": [parameter], "weight_decay": LAM[name]} for name, parameter in module.named_parameters()]
    report = cnn.certify_module(module, X, y, "squared", optimizer=torch.optim.Adam(groups))
    named = cnn.certify_module(module, X, y, "squared", LAM)
    assert (report.primal, report.dual) == (named.primal, named.dual)
    assert "Adam has 0.4 on 0.weight, 0.1 on 0.bias, 0.02 on 2.weight, 0.3 on 2.bias" in str(report)
    assert "beta_1 = 0.4, beta_2 = 0.02" in str(report)
    uniform = cnn.certify_module(module, X, y, "squared", optimizer=torch.optim.SGD(module.parameters(), 1, 0, 0, 0.2))
    plain = cnn.certify_module(module, X, y, "squared", 0.2)
    assert (uniform.primal, uniform.dual, uniform.beta) == (plain.primal, plain.dual, 0.2)


def test_means_are_turned_into_sums_for_every_layer():
    X, y = data()
    module = network()
    mean = cnn.certify_module(module, X, y, nn.MSELoss(), {"first": 0.2, "second": 0.1})
    summed = cnn.certify_module(module, X, y, "squared", {"first": 0.2 * len(y) / 2, "second": 0.1 * len(y) / 2})
    assert mean.primal == pytest.approx(summed.primal, rel=1e-12)
    assert mean.dual == pytest.approx(summed.dual, rel=1e-9)


def test_another_beta_keeps_the_ratio_of_the_output_bias():
    X, y = data()
    problem = cnn.certify_module(network(), X, y, "squared", {"first": 0.2, "second": 0.1}).problem
    assert problem.output_bias == "penalised"
    changed = problem.with_beta(3 * problem.beta)
    assert changed.loss.beta == pytest.approx(3 * problem.loss.beta, rel=1e-15)


def test_a_report_with_biases_of_their_own_can_be_saved(tmp_path):
    X, y = data()
    for bias in (0.0, 0.3):
        problem = cnn.certify_module(network(), X, y, "squared", {**LAM, "0.bias": bias}).problem
        again = cnn.load_problem(problem.save(tmp_path / "problem.npz"))
        assert np.array_equal(again.Phi, problem.Phi)
        assert (again.beta, again.scope, again.beta_max) == (problem.beta, problem.scope, problem.beta_max)
        assert again.architecture.bias_radius == problem.architecture.bias_radius
