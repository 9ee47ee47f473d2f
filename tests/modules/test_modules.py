"""certify_module and `convexnn-bench certify`: readings against torch, bounds against CVXPY, files against abuse."""

import dataclasses
import json
import pickle
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch
from problems import LOSS_NAMES, targets
from textbook import loss_expression
from torch import nn
from typer.testing import CliRunner

import convexnn_bench as cnn
from convexnn_bench.cli import app
from convexnn_bench.losses._output_bias import OutputBias
from convexnn_bench.modules import load_state, read_module


class Own(nn.Module):
    """A chain in a forward of one's own."""

    def __init__(self, flatten: str = "view", pool: bool = False):
        super().__init__()
        self.flatten, self.pool = flatten, pool
        self.body = nn.Conv2d(1, 3, 2) if pool else nn.Linear(8, 5)
        self.head = nn.Linear(3 if pool else 5, 2)

    def forward(self, x):
        if self.pool:
            return self.head(nn.functional.relu(self.body(x)).mean(dim=(2, 3)))
        if self.flatten == "view":
            x = x.view(x.size(0), -1)
        elif self.flatten == "flatten":
            x = torch.flatten(x, 1)
        elif self.flatten == "shape":
            x = x.reshape(x.shape[0], -1)
        elif self.flatten == "len":
            x = x.view(len(x), -1)
        else:
            x = x.view(-1, 8)
        h = self.body(x)
        return self.head(h.clamp(min=0) if self.flatten == "width" else h.relu())


IMAGES = (3, 1, 2, 4)
LAYOUTS = {
    "mlp": (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (4, 4)),
    "no biases": (nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)), (5, 4)),
    "linear": (nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2, bias=False)), (5, 4)),
    "nested": (
        nn.Sequential(
            nn.Flatten(),
            nn.Sequential(OrderedDict(a=nn.Linear(8, 3), b=nn.ReLU(inplace=True))),
            nn.Identity(),
            nn.Dropout(0.0),
            nn.Linear(3, 1),
        ),
        IMAGES,
    ),
    "view": (Own(), IMAGES),
    "flatten": (Own("flatten"), IMAGES),
    "shape": (Own("shape"), IMAGES),
    "len": (Own("len"), IMAGES),
    "width": (Own("width"), IMAGES),
    "global mean": (Own(pool=True), IMAGES),
    "cnn": (
        nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2)),
        (2, 2, 5, 5),
    ),
    "strided cnn": (
        nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)),
        (2, 1, 5, 5),
    ),
    "small cnn": (
        nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2, 1)
        ),
        (2, 1, 3, 4),
    ),
    "same padding": (
        nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)),
        (2, 1, 2, 3),
    ),
    "valid padding": (
        nn.Sequential(nn.Conv2d(1, 2, 2, padding="valid"), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1)),
        (2, 1, 2, 3),
    ),
    "adaptive": (
        nn.Sequential(
            nn.Conv2d(1, 2, 2, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)
        ),
        (2, 1, 4, 6),
    ),
    "overlapping pool": (
        nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.AvgPool2d(3, stride=1), nn.Flatten(), nn.Linear(12, 1)),
        (4, 1, 5, 6),
    ),
    "linear cnn": (nn.Sequential(nn.Conv2d(1, 2, 2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 1)), (4, 1, 3, 5)),
    "attention": (cnn.AttentionBlock(3, 2, 4, "relu"), (4, 3, 3)),
    "small attention": (cnn.AttentionBlock(1, 1, 3, "relu"), (3, 2, 1)),
    "attention in a Sequential": (nn.Sequential(cnn.AttentionBlock(3, 2, 4, "relu")), (4, 3, 3)),
    "pooled attention": (cnn.AttentionBlock(3, 2, 4, output="mean"), (4, 3, 3)),
}


def sample(name):
    """A layout's module, data, and its outputs (float32) with targets of their shape."""
    module, shape = LAYOUTS[name]
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape)
    with torch.no_grad():
        outputs = module(torch.as_tensor(X, dtype=torch.float32)).numpy()
    return module, X, outputs, rng.standard_normal(outputs.shape)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(name):
    module, X, outputs, _ = sample(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    reading = read_module(module, X)
    flat = outputs.reshape(-1, outputs.shape[-1])
    np.testing.assert_allclose(reading.predict(X), flat, rtol=1e-4, atol=1e-5)  # the module runs in float32 here
    squares = sum(float(value.detach().double().square().sum()) for value in module.parameters())
    read = [reading.W1, reading.W2, *([] if reading.output_bias is None else [reading.output_bias])]
    assert sum(float(np.sum(weight**2)) for weight in read) == pytest.approx(squares, rel=1e-12)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(value.dtype == torch.float32 for value in module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "linear", "nested", "overlapping pool", "linear cnn", "pooled attention"])
def test_the_report_of_a_layout(name):
    module, X, outputs, Y = sample(name)
    report = cnn.certify_module(module, X, Y, "squared", 0.3)
    squares = sum(float(value.detach().double().square().sum()) for value in module.parameters())
    assert report.primal == pytest.approx(0.5 * np.sum((outputs - Y) ** 2) + 0.15 * squares, rel=1e-5)
    assert report.dual <= report.primal
    assert (report.scope, report.beta, report.infeasibility) == ("complete", 0.3, 0.0)
    assert "of any width" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["primal"] == report.primal


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(x + torch.relu(self.a(x)))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), "Tanh"),
        (nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(), nn.Linear(3, 1)), "LeakyReLU"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Linear(3, 1)), "random objective"),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1)), "BatchNorm1d"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)), "linear -> relu"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1), nn.ReLU()), "linear -> relu -> linear -> relu"),
        (nn.Linear(4, 1), "chain linear"),
        (nn.MultiheadAttention(4, 2), "softmax"),
        (Residual(), "no chain"),
        (Branching(), "values of its data"),
        (nn.Sequential(nn.Conv2d(1, 2, (1, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1)), "square kernels"),
        (nn.Sequential(nn.Conv2d(1, 2, 2, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)), "square kernels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_match_is_refused_with_the_reason(module, reason):
    X = np.ones((3, 1, 2, 2)) if "square" in reason else np.ones((3, 4))
    with pytest.raises(cnn.UnsupportedError, match=reason) as caught:
        cnn.certify_module(module, X, np.ones(3), "squared", 0.1)
    assert "supported are" in str(caught.value)


class Twice(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


def small(*, first=None):
    return nn.Sequential(first or nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))


def hooked():
    module = small()
    module[2].register_forward_hook(lambda layer, given, out: 2 * out)
    return module


def tied():
    layer = nn.Linear(4, 4, bias=False)
    return nn.Sequential(layer, nn.ReLU(), layer)


def unused():
    module = Own("flatten")
    module.spare = nn.Linear(2, 2)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (hooked(), (2, 4), "does not reproduce"),
        (Twice(*small()), (2, 4), "uses mul"),
        (tied(), (2, 4), "the same weights twice"),
        (unused(), (2, 8), "6 parameters|parameters where"),
        (small(first=nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))), (2, 4), "weight.original0"),
        (small(first=nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))), (2, 4), "weight.original"),
        (small(), (2, 3, 4), "is a Flatten missing"),
        (Own("width"), (2, 16), "is a Flatten missing|does not take X"),
        (small(first=nn.LazyLinear(3)), (2, 4), "not initialised"),
        (small(), (4,), "X must hold at least one sample"),
        (small(), (0, 4), "X must hold at least one sample"),
    ],
    ids=lambda value: "",
)
def test_another_objective_or_another_map_than_the_one_read_is_refused(module, shape, words):
    """Hooks change the map, shared weights and parametrisations the penalty: no bound on what was read holds."""
    with pytest.raises(cnn.ConvexNNError, match=words):
        cnn.certify_module(module, np.ones(shape), np.ones(len(np.ones(shape))), "squared", 0.1)


@pytest.mark.slow
def test_labels_as_torch_users_have_them():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6, 4))
    binary, three = small().double(), nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3)).double()
    zero_one = rng.integers(2, size=6)
    first = cnn.certify_module(binary, X, zero_one, "logistic", 0.2)
    second = cnn.certify_module(binary, X, 2 * zero_one - 1, "logistic", 0.2)
    assert (first.primal, first.dual) == (second.primal, second.dual)
    assert "Labels 0/1" in str(first)
    assert "Labels 0/1" not in str(second)
    labels = rng.integers(2, size=6)  # the third class does not occur
    report = cnn.certify_module(three, X, labels, "cross_entropy", 0.2)
    squares = sum(float(value.detach().square().sum()) for value in three.parameters())
    with torch.no_grad():
        value = nn.CrossEntropyLoss(reduction="sum")(three(torch.as_tensor(X)), torch.as_tensor(labels))
    assert report.primal == pytest.approx(float(value) + 0.1 * squares, rel=1e-12)
    with pytest.raises(cnn.InputError, match="as many columns or classes as the module has outputs, 3"):
        cnn.certify_module(three, X, np.array([0, 1, 2, 3, 0, 1]), "cross_entropy", 0.2)


@pytest.mark.slow
def test_what_is_said_is_rounded_to_the_safe_side():
    report = cnn.certify_module(
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), np.eye(2), np.ones(2), "squared", 0.1
    )
    for gap in (0.001234, 0.2241, 3.339, 12.51, 1234.5):
        said = str(dataclasses.replace(report, primal=report.dual * (1 + gap)))
        words = said.split("so it is at most ")[1].split()
        stated = float(words[0]) / 100 if words[1] == "%" else float(words[0]) - 1
        assert gap * (1 - 1e-9) <= stated <= 1.15 * gap
        assert float(said.split("can reach below ")[1].split(",")[0]) <= report.dual


class Named(nn.Module):
    """Layers with names, and a forward that may fail in another way."""

    def __init__(self, cut=False):
        super().__init__()
        self.hidden, self.out, self.cut = nn.Linear(4, 3), nn.Linear(3, 1), cut

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x))[:, : 2 if self.cut else 3])


@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (Named(), (3, 5), "its layer 'hidden' has in_features=4 and gets 5 (X has 5 columns)"),
        (Named(cut=True), (3, 4), "its layer 'out' has in_features=3 and gets 2 (X has 4 columns)"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)),
            (3, 3, 3, 3),
            "its layer '0' has in_channels=1 and gets 3 (X is n x channels x h x w)",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)),
            (3, 1, 4, 4),
            "its layer '3' has in_features=8 and gets 18 (X is 3 x 1 x 4 x 4)",
        ),
        (nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 1)), (3, 5), "unflatten"),
    ],
    ids=["first layer", "second layer", "channels", "pooled size", "no such layer"],
)
def test_a_module_that_does_not_take_X_is_refused_by_the_layer(module, shape, words):
    with pytest.raises(cnn.InputError) as caught:
        cnn.certify_module(module, np.ones(shape), np.ones(3), weight_decay=0.1)
    assert words in str(caught.value)
    assert "mat1" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight_decay": None}, "weight_decay must be a positive number"),
        ({"weight_decay": 0.0}, "weight_decay must be a positive number"),
        ({"reduction": "none"}, "reduction must be one of 'sum', 'mean'"),
        ({"output_bias": True}, "output_bias must be"),
        ({"X": np.full((3, 4), np.nan)}, "X has 12 NaN"),
        (
            {"X": np.ones((3, 5))},
            r"cannot be applied to X of shape \(3, 5\): its layer '0' has in_features=4 and gets 5 \(X has 5 columns\)",
        ),
        ({"Y": np.ones(2)}, "Y has 2 rows"),
        ({"loss": "hinge"}, "hinge"),
        (
            {"module": "model.pt"},
            "must be a torch.nn.Module, got str: a file of weights is read by convexnn-bench certify",
        ),
        ({"loss": "cross_entropy", "Y": np.array(["b", "g", "b"])}, "one output need the logistic loss"),
        (
            {
                "loss": "logistic",
                "Y": np.array(["b", "g", "b"]),
                "module": nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),
            },
            "two outputs need the cross_entropy loss",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments(change, words):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    given = {"module": module, "X": np.ones((3, 4)), "Y": np.ones(3), "loss": "squared", "weight_decay": 0.1, **change}
    with pytest.raises(cnn.ConvexNNError, match=words):
        cnn.certify_module(**given)


TORCH_MEAN = {
    "squared": nn.MSELoss(),
    "cross_entropy": nn.CrossEntropyLoss(),
    "logistic": nn.BCEWithLogitsLoss(),
    "huber": nn.HuberLoss(),
    "squared_hinge": lambda z, y: 0.5 * (1 - y * z).clamp_min(0).square().mean(),
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", TORCH_MEAN)
@pytest.mark.parametrize("c", [1, 3])
def test_beta_from_torchs_mean_losses(loss, c):
    """torch's mean loss plus lam/2 ||w||^2 is the package's objective up to one factor: gradients are parallel."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    c = 3 if loss == "cross_entropy" else c
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, c)).double()
    X, lam = rng.standard_normal((7, 4)), 0.03
    Y = {
        "cross_entropy": rng.integers(3, size=7),
        "logistic": rng.integers(2, size=(7, c)),
        "squared_hinge": rng.choice([-1.0, 1.0], size=(7, c)),
    }.get(loss, rng.standard_normal((7, c)))
    report = cnn.certify_module(module, X, Y, loss, lam, reduction="mean")
    target = torch.as_tensor(Y) if loss == "cross_entropy" else torch.as_tensor(Y, dtype=torch.float64)
    decay = sum(value.square().sum() for value in module.parameters())
    total = TORCH_MEAN[loss](module(torch.as_tensor(X)), target) + 0.5 * lam * decay
    factor = report.beta / lam
    assert report.primal == pytest.approx(factor * float(total.detach()), rel=1e-12)
    assert f"In those units the objective is {float(total.detach()):.6g}"[:-1] in str(report)
    total.backward()
    ours = torch.as_tensor(report.problem.Y)
    copy = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, c)).double()
    copy.load_state_dict(module.state_dict())
    decay = sum(value.square().sum() for value in copy.parameters())
    (cnn.LOSSES.make(loss).value(copy(torch.as_tensor(X)), ours) + 0.5 * report.beta * decay).backward()
    for mine, torchs in zip(copy.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, factor * torchs.grad, rtol=1e-9, atol=1e-12)
    assert factor == {"squared": 7 * c / 2, "cross_entropy": 7.0}.get(loss, 7.0 * c)


def exact_optimum(problem: "cnn.Problem", base: str, beta_bias: float | None) -> float:
    """The textbook program with an output bias as a variable of its own; scalar outputs or two classes in the plane."""
    b = cp.Variable((1, problem.c))
    total, cost, constraints = np.ones((problem.n_out, 1)) @ b, 0, []
    for k in range(problem.P):
        D = problem.masks[:, [k]].astype(float)
        K = (2 * D - 1) * problem.X
        S = cp.Variable((problem.p + problem.q, problem.p + problem.q), PSD=True)
        p = problem.p
        constraints += [K @ S[:p, :p] @ K.T >= 0]
        total = total + (D * problem.X) @ S[:p, p:]
        cost += 0.5 * cp.trace(S)
    objective = loss_expression(cnn.LOSSES.make(base), total, problem.Y) + problem.beta * cost
    if beta_bias is not None:
        objective += 0.5 * beta_bias * cp.sum_squares(b)
    program = cp.Problem(cp.Minimize(objective), constraints)
    program.solve(solver=cp.CLARABEL)
    assert program.status in ("optimal", "optimal_inaccurate")
    return float(program.value)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("output_bias", ["penalised", "free"])
def test_no_bound_exceeds_the_optimum_with_an_output_bias(loss, output_bias):
    rng = np.random.default_rng(3)
    X, lam = rng.standard_normal((5, 1)), 0.2
    Y = targets(loss, 5, 1, rng)
    reports = []
    for seed in range(3):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(1, 6), nn.ReLU(), nn.Linear(6, Y.shape[1])).double()
        optimiser = torch.optim.LBFGS(module.parameters(), max_iter=100 * seed, line_search_fn="strong_wolfe")
        given = cnn.LOSSES.make(loss)

        def objective(module=module, optimiser=optimiser, given=given):
            optimiser.zero_grad()
            decayed = [w for name, w in module.named_parameters() if output_bias == "penalised" or name != "2.bias"]
            value = given.value(module(torch.as_tensor(X)), torch.as_tensor(Y))
            value = value + 0.5 * lam * sum(w.square().sum() for w in decayed)
            value.backward()
            return value

        if seed:
            optimiser.step(objective)
        report = cnn.certify_module(module, X, Y, loss, lam, output_bias=output_bias)
        assert report.primal == pytest.approx(float(objective().detach()), rel=1e-12)
        reports.append(report)
    optimum = exact_optimum(reports[0].problem, loss, lam if output_bias == "penalised" else None)
    assert all(report.dual <= optimum + 1e-6 * (1 + optimum) for report in reports)
    assert all(report.primal >= optimum - 1e-6 * (1 + optimum) for report in reports)
    solved = cnn.solve(reports[0].problem, "cvxpy_clarabel", gap=1e-6)
    assert solved.objective == pytest.approx(optimum, rel=1e-5)
    assert solved.certificate.dual <= optimum + 1e-6 * (1 + optimum)
    assert solved.certificate.dual == pytest.approx(optimum, rel=1e-4)


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("beta", [0.3, None])
def test_the_loss_with_a_bias_is_its_minimum_over_the_bias(loss, beta):
    rng = np.random.default_rng(5)
    base = cnn.LOSSES.make(loss)
    wrapped = OutputBias(base, beta)
    Y = torch.as_tensor(targets(loss, 9, 2, rng))
    z = torch.as_tensor(rng.standard_normal(Y.shape))
    bias = wrapped.best_bias(z, Y)
    value = float(wrapped.value(z, Y))

    def at(b):
        return float(base.value(z + b, Y)) + 0.5 * (beta or 0.0) * float(b.square().sum())

    assert value == pytest.approx(at(bias), rel=1e-14)
    for _ in range(50):
        assert at(bias + 0.1 * torch.as_tensor(rng.standard_normal(bias.shape))) >= value - 1e-12
    direction = torch.as_tensor(rng.standard_normal(z.shape))
    slope = (float(wrapped.value(z + 1e-5 * direction, Y)) - float(wrapped.value(z - 1e-5 * direction, Y))) / 2e-5
    gradient = wrapped.gradient(z, Y)
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-5, abs=1e-7)
    # Fenchel: F*(L) + F(z) >= <L, z>, with equality at the gradient; the projection changes it by rounding only
    L = wrapped.project_dual(gradient, Y)
    torch.testing.assert_close(L, gradient, rtol=1e-6, atol=1e-9)
    assert float(wrapped.conjugate(L, Y)) + value == pytest.approx(float((L * z).sum()), rel=1e-6, abs=1e-7)
    other = torch.as_tensor(rng.standard_normal(z.shape))
    far = wrapped.project_dual(other, Y)
    assert float(wrapped.conjugate(far, Y)) + value >= float((far * z).sum()) - 1e-9
    if beta is None:
        whole = (far / 2.0**-60).numpy().astype(object)  # exact integers
        assert all(sum(int(entry) for entry in column) == 0 for column in whole.T)


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e-9, 1e-3, 1.0])
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_small_multipliers_are_balanced_exactly(loss, size):
    """As they are where nearly all samples are fitted: columns sum to zero, and the conjugate is finite."""
    rng, wrapped = np.random.default_rng(8), OutputBias(cnn.LOSSES.make(loss), None)
    for _ in range(20):
        Y = torch.as_tensor(targets(loss, 12, 3, rng))
        L = wrapped.project_dual(size * torch.as_tensor(rng.standard_normal(Y.shape)), Y)
        assert torch.isfinite(wrapped.conjugate(L, Y))
        assert all(sum(map(Fraction, column)) == 0 for column in L.T.tolist())
        assert float(L.abs().max()) <= 100 * size


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("beta", [None, 1e-3])
def test_the_bias_is_found_from_far_away(loss, beta):
    """Where every sample is in the flat part of a Huber or a sigmoid, Newton's matrix is zero or tiny."""
    rng = np.random.default_rng(6)
    Y = torch.as_tensor(targets(loss, 30, 3, rng))
    z = torch.as_tensor(rng.standard_normal(Y.shape)) + 1e4 * torch.arange(1, Y.shape[1] + 1)
    wrapped = OutputBias(cnn.LOSSES.make(loss), beta)
    gradient = cnn.LOSSES.make(loss).gradient(z + wrapped.best_bias(z, Y), Y)
    slope = gradient.sum(dim=0) + (beta or 0.0) * wrapped.best_bias(z, Y)
    assert float(slope.abs().max()) <= 1e-7 * float(gradient.abs().sum())
    points = z.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(wrapped.value(points, Y), points)
    torch.testing.assert_close(by_autograd, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_separable_classes_with_a_free_bias_keep_a_valid_bound():
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    one = cnn.certify_module(module, np.ones((4, 2)), np.ones(4), "logistic", 0.1, output_bias="free")
    assert 0 <= one.dual <= one.primal  # one class: the infimum is zero, reached by no bias
    single = cnn.certify_module(module, np.ones((1, 2)), np.ones(1), "squared", 0.1, output_bias="free")
    assert single.dual <= 1e-12


# -- files and the command -----------------------------------------------------------------------------------


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def write(folder, module, X, Y):
    torch.save(module.state_dict(), folder / "model.pt")
    np.savez(folder / "data.npz", X=X, Y=Y)
    return [str(folder / "model.pt"), str(folder / "data.npz")]


def run(*arguments):
    return CliRunner().invoke(app, ["certify", *arguments])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", []),
        ("linear", ["--activation", "linear"]),
        ("small cnn", ["--stride", "2", "--padding", "1", "--pool", "2"]),
        ("small attention", []),
        ("pooled attention", ["--activation", "linear", "--pool", "global"]),
    ],
)
def test_the_command_certifies_a_state_dict(name, options, tmp_path):
    module, X, _, Y = sample(name)
    files = write(tmp_path, module, X, Y)
    expected = cnn.certify_module(module, X, Y, "squared", 0.2)
    said = run(*files, "--weight-decay", "0.2", *options)
    assert said.exit_code == 0, said.output
    # The command adds how the file was read.
    assert set(str(expected).splitlines()) < set(said.output.splitlines())
    assert "of float64) were read." in said.output
    answer = json.loads(run(*files, "--weight-decay", "0.2", "--json", *options).output)
    assert answer["dual"] == expected.dual
    assert answer["beta"] == 0.2


def test_damaged_files_are_refused_in_words(tmp_path):
    rng = np.random.default_rng(0)
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    write(tmp_path, module, np.ones((4, 2)), np.arange(4.0))
    torch.save(module.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)

    def load_data(path):
        return cnn.DATASETS.make("file", path=str(path)).data()

    sources = [(load_state, "model.pt"), (load_state, "old.pt"), (load_data, "data.npz")]
    refused = 0
    for trial in range(150):
        load, name = sources[trial % 3]
        damaged = bytearray((tmp_path / name).read_bytes())
        for place in rng.integers(len(damaged), size=trial % 11):
            damaged[place] = rng.integers(256)
        path = tmp_path / f"damaged{Path(name).suffix}"
        path.write_bytes(damaged[: rng.integers(len(damaged)) if trial % 2 else None])
        try:
            load(path)
        except cnn.InputError:
            refused += 1
    assert refused >= 75


@pytest.mark.slow
def test_the_command_refuses_in_one_line_and_unpickles_nothing(tmp_path):
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    model, data = write(tmp_path, module, np.ones((4, 2)), np.ones(4))
    trap = tmp_path / "trap"
    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Malicious(trap)))
    torch.save({"weight": Malicious(trap)}, tmp_path / "worse.pt")
    torch.save(module, tmp_path / "whole.pt")
    np.savez(tmp_path / "objects.npz", X=np.array([Malicious(trap)], dtype=object), Y=np.ones(1))
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    torch.save({"a.weight": torch.ones(3, 2)}, tmp_path / "one.pt")
    torch.save({**module.state_dict(), "3.scale": torch.ones(1)}, tmp_path / "more.pt")
    torch.save({**module.state_dict(), "0.bias": torch.ones(2)}, tmp_path / "bias.pt")
    torch.save({**module.state_dict(), "0.weight": torch.ones(3, 2).to_sparse()}, tmp_path / "sparse.pt")
    torch.save({**module.state_dict(), "0.weight": torch.ones(3, 2, dtype=torch.complex64)}, tmp_path / "complex.pt")
    images = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
    torch.save(images.state_dict(), tmp_path / "images.pt")
    np.savez(tmp_path / "images.npz", X=np.ones((2, 1, 3, 3)), Y=np.ones(2))
    pictures = [str(tmp_path / "images.pt"), str(tmp_path / "images.npz")]
    good = ["--weight-decay", "0.1"]
    for arguments, words in (
        ([str(tmp_path / "bad.pt"), data, *good], "state_dict"),
        ([str(tmp_path / "worse.pt"), data, *good], "state_dict"),
        ([str(tmp_path / "whole.pt"), data, *good], "torch.save(model.state_dict(), path)"),
        ([model, str(tmp_path / "objects.npz"), *good], "plain arrays"),
        ([model, str(tmp_path / "other.npz"), *good], "holds the arrays a"),
        ([str(tmp_path / "none.pt"), data, *good], "there is no file"),
        ([model, str(tmp_path / "none.csv"), *good], "there is no file"),
        ([model, model, *good], "DATA must end in .csv"),
        ([model, f"file[path={data},targets=values]", *good], "leave this parameter of DATA out"),
        ([str(tmp_path / "one.pt"), data, *good], "Linear, Linear"),
        ([str(tmp_path / "more.pt"), data, *good], "3.scale"),
        ([str(tmp_path / "bias.pt"), data, *good], "do not fit together"),
        ([str(tmp_path / "sparse.pt"), data, *good], "0.weight must be a dense real tensor"),
        ([str(tmp_path / "complex.pt"), data, *good], "0.weight must be a dense real tensor"),
        ([*pictures, *good, "--stride", "0"], "stride must be at least 1"),
        ([*pictures, *good, "--pool", "3"], "Output size is too small"),
        ([*pictures, *good, "--pool", "²"], "pool must be"),
        ([pictures[0], data, *good], "n x channels x height x width"),
        ([model, data, "--weight-decay", "-1"], "weight_decay must be a positive number"),
        ([model, data, *good, "--activation", "tanh"], "'relu', 'linear'"),
        ([model, data, *good, "--loss", "squard"], "squared"),
    ):
        said = run(*arguments)
        assert said.exit_code == 2, (arguments, said.output)
        assert said.stderr.count("\n") == 1
        assert words in said.stderr
    assert not trap.exists()


def test_the_command_reads_tables_and_images(tmp_path):
    rng = np.random.default_rng(0)
    X, kinds = np.round(rng.standard_normal((12, 2)), 3), np.array(["no", "yes"])[np.arange(12) % 2]
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).double()
    torch.save(module.state_dict(), tmp_path / "model.pt")
    rows = "".join(f"{a},{b},{kind}\n" for (a, b), kind in zip(X, kinds, strict=True))
    (tmp_path / "data.csv").write_text(f"a,b,kind\n{rows}")
    arguments = ["--weight-decay", "0.1", "--loss", "logistic", "--activation", "linear", "--json"]
    answer = json.loads(run(str(tmp_path / "model.pt"), str(tmp_path / "data.csv"), *arguments).stdout)
    assert answer["dual"] == cnn.certify_module(module, X, kinds, "logistic", 0.1).dual
    assert answer["assumptions"][-2:] == ["Labels 'no'/'yes' are -1/+1.", "Line 1 was read as the header: a,b,kind."]
    spec = f"file[path={tmp_path / 'data.csv'},standardize=true]"
    standard = (X - X.mean(axis=0)) / X.std(axis=0)
    answer = json.loads(run(str(tmp_path / "model.pt"), spec, *arguments).stdout)
    assert answer["dual"] == pytest.approx(cnn.certify_module(module, standard, kinds, "logistic", 0.1).dual)
    # Images of bytes, without an axis for their channel.
    images, labels = rng.integers(0, 256, (6, 4, 4), dtype=np.uint8), np.arange(6) % 3
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(18, 3)).double()
    torch.save(network.state_dict(), tmp_path / "cnn.pt")
    np.savez(tmp_path / "images.npz", x_train=images, y_train=labels)
    spec = f"file[path={tmp_path / 'images.npz'},scale=255]"
    options = ["--weight-decay", "0.1", "--loss", "cross_entropy", "--activation", "linear", "--json"]
    said = run(str(tmp_path / "cnn.pt"), spec, *options)
    assert said.exit_code == 0, said.output
    answer = json.loads(said.stdout)
    report = cnn.certify_module(network, images[:, None] / 255, labels, "cross_entropy", 0.1)
    assert answer["primal"] == pytest.approx(report.primal, rel=1e-12)
    assert "The images have one channel." in answer["assumptions"]


# -- networks as people train them ---------------------------------------------------------------------------


def gaps_of_training(module, X, Y, loss, beta, checkpoints):
    """Proven gaps at some steps of Adam on the full objective."""
    inputs, given = torch.as_tensor(X), cnn.LOSSES.make(loss)
    rows = torch.as_tensor(given.prepare_targets(2 * Y - 1 if loss == "logistic" else Y))
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=beta)
    gaps = []
    for step in range(checkpoints[-1] + 1):
        if step in checkpoints:
            gaps.append(cnn.certify_module(module, X, Y, loss, beta).gap)
        optimiser.zero_grad()
        given.value(module(inputs), rows).backward()
        optimiser.step()
    return gaps


@pytest.mark.slow
def test_the_gap_of_a_network_on_breast_cancer_shrinks_with_training():
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    X = ((source.data - source.data.mean(axis=0)) / source.data.std(axis=0))[:200]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 1)).double()
    gaps = gaps_of_training(module, X, source.target[:200, None], "logistic", 2.0, (0, 20, 400))
    assert gaps[2] < gaps[1] < gaps[0]


@pytest.mark.slow
def test_the_gap_of_a_network_on_digits_shrinks_with_training():
    from sklearn.datasets import load_digits

    source = load_digits(n_class=3)
    X = source.images[:80].reshape(80, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(80, 16) / 16
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 3)).double()
    gaps = gaps_of_training(module, X, source.target[:80], "cross_entropy", 1.0, (0, 40, 400))
    assert gaps[2] < gaps[1] < gaps[0]


@pytest.mark.parametrize("size", [1e120, 1e200, 1e307])
@pytest.mark.parametrize("relu", [True, False])
def test_outputs_that_overflow_are_named(size, relu):
    layers = [nn.Linear(2, 3), *([nn.ReLU()] if relu else []), nn.Linear(3, 1)]
    module = nn.Sequential(*layers).double()
    for parameter in module.parameters():
        parameter.data = torch.full_like(parameter, 1e190)
    with pytest.raises(cnn.InputError, match="outputs on X are not finite numbers; rescale"):
        cnn.certify_module(module, size * np.eye(2), np.ones(2), weight_decay=0.1)
