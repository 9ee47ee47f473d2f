"""Networks whose first biases have no weight decay: exact optima, bounds over all biases, scikit-learn's networks."""

import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import nn

import convexnn_bench as cnn
from convexnn_bench.norms import FreeBiasNorm


def line(n=9, outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(3.0, 5.0, n))  # far from zero: a shift of the data changes nothing
    return x, np.abs(x - 4.0)[:, None] * np.arange(1, outputs + 1) + 0.2 * rng.standard_normal((n, outputs))


def exact_on_a_line(features, Y, beta):
    """The optimum by CVXPY.

    For one feature x the value ||R^T (s x + b)_+|| is convex in b between two samples, so that neurons with a kink at a
    sample suffice. Each has a column of `features`, and its penalty is the length of its second-layer weights.
    """
    V, b = cp.Variable((features.shape[1], Y.shape[1])), cp.Variable((1, Y.shape[1]))
    error = features @ V + np.ones((len(Y), 1)) @ b - Y
    penalty = cp.sum(cp.norm(V, axis=1))
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(error) + beta * penalty)).solve(solver="CLARABEL")


def hinges(x):
    """(x - x_j)_+ and (x_j - x)_+ at all samples."""
    difference = x[..., None] - np.ravel(x)
    return np.concatenate([np.maximum(difference, 0.0), np.maximum(-difference, 0.0)], axis=-1)


def network(inputs, width=8, outputs=1, seed=0, output_bias=True):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs, bias=output_bias)).double()


def trained(module, X, Y, beta, steps=25):
    """L-BFGS on half the squares, with weight decay on the weights and not on the biases."""
    inputs, targets = torch.as_tensor(X), torch.as_tensor(Y)
    optimiser = torch.optim.LBFGS(module.parameters(), max_iter=20, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        squares = sum(p.square().sum() for name, p in module.named_parameters() if name.endswith("weight"))
        value = 0.5 * (module(inputs) - targets).square().sum() + 0.5 * beta * squares
        value.backward()
        return value

    for _ in range(steps):
        optimiser.step(closure)
    return float(closure().detach())


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("output_bias", [True, False])
def test_the_optimum_on_a_line(outputs, output_bias):
    x, Y = line(outputs=outputs)
    exact = exact_on_a_line(hinges(x), Y, 0.1)
    module = network(1, outputs=outputs, output_bias=output_bias)
    reached = trained(module, x[:, None], Y, 0.1)
    kind = "free" if output_bias else "penalised"
    report = cnn.certify_module(module, x[:, None], Y, "squared", 0.1, bias_decay=False, output_bias=kind)
    assert report.primal == pytest.approx(reached, rel=1e-9)
    assert report.dual <= exact * (1 + 1e-7) <= report.primal * (1 + 1e-6)
    assert report.scope == "complete"
    assert "without weight decay" in str(report)
    solved = cnn.solve(report.problem, "column_generation", iterations=60).certificate
    # The relaxation is smaller by at most a relative 5e-7.
    assert solved.dual <= exact * (1 + 1e-7)
    assert solved.primal == pytest.approx(exact, rel=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("output_bias", [True, False])
def test_the_interval_and_the_better_network(output_bias):
    """Without an output bias the better network has a hidden neuron as its constant."""
    x, Y = line()
    exact = exact_on_a_line(hinges(x), Y, 0.1)
    module, kind = network(1, output_bias=output_bias), "free" if output_bias else "penalised"
    report = cnn.certify_module(
        module, x[:, None], Y, "squared", 0.1, bias_decay=False, output_bias=kind, time_limit=600
    )
    low, high = report.optimum
    assert low <= exact * (1 + 1e-7)
    assert exact <= high * (1 + 1e-7)
    assert high == pytest.approx(low, rel=2e-6)
    with torch.no_grad():
        error = report.better(torch.as_tensor(x[:, None])) - torch.as_tensor(Y)
        squares = sum(p.square().sum() for name, p in report.better.named_parameters() if name.endswith("weight"))
    assert float(0.5 * error.square().sum() + 0.05 * squares) == pytest.approx(high, rel=1e-9)
    assert [type(layer) for layer in report.better] == [type(layer) for layer in module]
    assert (report.better[2].bias is None) == (not output_bias)


@pytest.mark.slow
def test_the_optimum_of_a_convolution_with_one_pixel_a_patch():
    rng = np.random.default_rng(0)
    images, Y = rng.uniform(1.0, 2.0, (6, 1, 1, 2)), rng.standard_normal((6, 1))
    exact = exact_on_a_line(hinges(images[:, 0, 0]).mean(axis=1), Y, 0.02)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 1)
    ).double()
    trained(module, images, Y, 0.02)
    report = cnn.certify_module(module, images, Y, "squared", 0.02, bias_decay=False, output_bias="free")
    assert report.dual <= exact * (1 + 1e-7) <= report.primal * (1 + 1e-6)
    solved = cnn.solve(report.problem, "column_generation", iterations=60).certificate
    assert solved.dual <= exact * (1 + 1e-7)
    assert solved.primal == pytest.approx(exact, rel=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "outputs"), [(2, 1), (2, 2), (3, 1)])
def test_no_training_falls_below_the_bound(d, outputs):
    rng = np.random.default_rng(d)
    X = 2.0 + rng.standard_normal((12, d))
    Y = np.abs(X[:, :1] - 2.0) + 0.3 * rng.standard_normal((12, outputs))
    modules = [network(d, 20, outputs, seed) for seed in range(4)]
    best = min((trained(module, X, Y, 0.2), seed) for seed, module in enumerate(modules))
    report = cnn.certify_module(modules[best[1]], X, Y, "squared", 0.2, bias_decay=False, output_bias="free")
    assert report.scope == "complete"
    assert report.dual <= best[0]
    assert report.gap < 0.3
    assert all(
        cnn.certify_module(module, X, Y, "squared", 0.2, bias_decay=False, output_bias="free").dual <= best[0]
        for module in modules
    )


def test_without_relu_the_biases_belong_to_the_output_bias():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((15, 3)), rng.standard_normal((15, 2))
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    report = cnn.certify_module(module, X, Y, "squared", 0.5, bias_decay=False)
    plain = cnn.Problem(X, Y, activation="linear", beta=0.5, output_bias="free")
    assert np.array_equal(report.problem.X, plain.X)
    optimum = cnn.solve(plain, "bm_newton")
    assert report.dual <= optimum.objective <= report.primal
    assert cnn.solve(report.problem, "bm_newton").objective == pytest.approx(optimum.objective, rel=1e-9)


# -- the norm over all biases -----------------------------------------------------------------------------------------


def rows_and_multiplier(n, d, q, seed, smooth):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d))
    R = rng.standard_normal((n, q)) + (3.0 * np.sign(rows[:, :1] - 0.3) if smooth else 0.0)
    # exactly balanced columns, as those of a free output bias are
    R = np.round(R * 2**20) / 2**20
    R[0] -= R.sum(axis=0)
    return rows, R, float(np.linalg.norm(rows, axis=1).max()) * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize(("n", "d", "q"), [(30, 1, 1), (12, 2, 2), (60, 6, 1), (40, 6, 2)])
def test_the_norm_bounds_every_direction_and_every_bias(n, d, q, smooth):
    rows, R, radius = rows_and_multiplier(n, d, q, n, smooth)
    size = 2.0 ** (10 + math.ceil(math.log2(radius)))
    found = FreeBiasNorm(np.column_stack([rows, np.full(n, size)]), radius).bound(R)
    rng = np.random.default_rng(1)
    U = rng.standard_normal((d, 20_000))
    U /= np.linalg.norm(U, axis=0)
    b = rng.uniform(-1.2 * radius, 1.2 * radius, 20_000)
    values = np.linalg.norm(R.T @ np.maximum(rows @ U + b, 0.0).reshape(n, -1), axis=0)
    assert values.max() <= found.value
    assert found.lower <= found.value
    assert "over all biases" in found.method
    if d <= 2:  # enumerated: the only loss is that of the largest size
        assert found.value <= found.lower * 1.002


def test_rows_that_do_not_sum_to_zero_are_allowed_for():
    """The bound is then about |b| <= size, at which the neuron is the constant b."""
    rows, R, radius = rows_and_multiplier(10, 2, 1, 0, smooth=False)
    R[0] += 0.5
    size = 64.0 * 2.0 ** math.ceil(math.log2(radius))
    found = FreeBiasNorm(np.column_stack([rows, np.full(10, size)]), radius).bound(R)
    assert found.value >= abs(size * R.sum())


# -- scikit-learn -----------------------------------------------------------------------------------------------------


def as_torch(estimator):
    """A fitted MLPClassifier or MLPRegressor with one hidden layer as a torch module, as in docs/howto/network.md."""
    layers = []
    for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        layer = nn.Linear(*weight.shape).double()
        layer.load_state_dict({"weight": torch.as_tensor(weight.T), "bias": torch.as_tensor(bias)})
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("kind", ["squared", "logistic", "cross_entropy"])
def test_the_objective_of_scikit_learn(kind):
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 2))
    value = X[:, 0] ** 2 - X[:, 1]
    y = value if kind == "squared" else np.digitize(value, [0.5] if kind == "logistic" else [0.0, 1.0])
    made = MLPRegressor if kind == "squared" else MLPClassifier
    estimator = made(hidden_layer_sizes=(10,), alpha=0.5, solver="lbfgs", max_iter=300, tol=1e-9, random_state=0).fit(
        X, y
    )
    report = cnn.certify_module(as_torch(estimator), X, y, kind, 0.5, bias_decay=False, output_bias="free")
    # `loss_` is the mean of the losses plus alpha / (2 n) times the squared weights at the last step.
    assert report.primal == pytest.approx(40 * estimator.loss_, rel=1e-4)
    assert 0 < report.gap < 0.25
