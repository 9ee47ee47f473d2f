"""certify_module with a time limit: the interval against exact optima, and the better module against torch."""

from functools import partialmethod

import numpy as np
import pytest
import torch
from torch import nn

import convexnn_bench as cnn
from convexnn_bench.certificates import JointBound, joint_bound
from convexnn_bench.module_reports import narrowing, statement, training
from convexnn_bench.module_reports.training import NetworkTraining
from convexnn_bench.norms.all_patterns import bounds

DECAY = 0.3


@pytest.fixture
def few_steps(monkeypatch):
    """Let training and the ascent of the bound end after few steps, whatever the time limit is."""
    monkeypatch.setattr(JointBound, "ascend", partialmethod(JointBound.ascend, steps=10))
    monkeypatch.setattr(joint_bound, "DIRECTIONS", (6,))
    monkeypatch.setattr(narrowing, "IDLE_ROUNDS", 1)
    monkeypatch.setattr(training, "WINDOW", 20)


@pytest.fixture
def without_enumeration(monkeypatch):
    monkeypatch.setattr(bounds, "ENUMERATION_SECONDS", -1.0)
    monkeypatch.setattr(statement, "ENUMERATED", 0)


def data(loss: str, c: int, seed: int, n: int = 8, d: int = 2):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    if loss == "cross_entropy":
        return X, np.r_[np.arange(c), rng.integers(c, size=n - c)]
    return X, rng.choice([-1.0, 1.0], (n, c)) if loss in ("logistic", "squared_hinge") else rng.standard_normal((n, c))


def mlp(d: int, width: int, c: int, bias: bool = True, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(d, width, bias=bias), nn.ReLU(), nn.Linear(width, c, bias=bias)).double()


def torch_objective(module: nn.Module, X: np.ndarray, Y: np.ndarray, loss: str, decay: float = DECAY) -> float:
    """F + decay/2 times the squares of all parameters, by torch."""
    base = cnn.LOSSES.make(loss)
    targets = torch.as_tensor(base.prepare_targets(Y))
    with torch.no_grad():
        F = float(base.value(module(torch.as_tensor(X)).reshape(targets.shape), targets))
    return F + 0.5 * decay * sum(float(parameter.detach().square().sum()) for parameter in module.parameters())


def check(report: cnn.ModuleReport, module: nn.Module, X, Y, loss: str) -> None:
    low, high = report.optimum
    assert low <= high <= report.primal
    assert report.excess <= report.gap
    assert torch_objective(module, X, Y, loss) == pytest.approx(report.primal, rel=1e-9)
    if report.better is not None:
        assert torch_objective(report.better, X, Y, loss) == pytest.approx(high, rel=1e-9)
        assert type(report.better) is type(module)
        assert [type(part) for part in report.better.modules()] == [type(part) for part in module.modules()]


CASES = [("squared", 2), ("huber", 3), ("logistic", 1), ("squared_hinge", 2), ("cross_entropy", 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "c"), CASES)
def test_the_interval_contains_the_exact_optimum(loss, c, few_steps, without_enumeration):
    """The optimum is that of the convex program on all patterns, solved by another route than the report's."""
    X, Y = data(loss, c, 10 * c)
    module = mlp(2, 4, c, bias=c != 2)
    report = cnn.certify_module(module, X, Y, loss, DECAY, time_limit=600)
    check(report, module, X, Y, loss)
    inputs = np.hstack([X, np.ones((len(X), 1))]) if c != 2 else X
    exact = cnn.Problem(
        inputs, Y, activation="relu", loss=loss, beta=DECAY, output_bias=None if c == 2 else "penalised"
    )
    optimum = cnn.solve(exact, "bm_newton", gap=1e-9, time_limit=600)
    low, high = report.optimum
    assert low <= optimum.objective * (1 + 1e-9)
    assert high >= optimum.certificate.dual * (1 - 1e-9)
    assert report.better is not None
    assert report.excess > 0


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_the_interval_closes_where_patterns_are_enumerated(loss, few_steps):
    X, Y = data(loss, 1, 3)
    module = mlp(2, 4, 1, bias=False)
    report = cnn.certify_module(module, X, Y, loss, DECAY, time_limit=600)
    check(report, module, X, Y, loss)
    assert report.width <= 1e-6
    assert "The optimum is known to" in str(report)
    assert report.to_dict()["optimum"] == list(report.optimum)


@pytest.mark.slow
def test_a_small_cnn(few_steps, without_enumeration):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((9, 1, 4, 4)), rng.standard_normal((9, 2))
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 2), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(3, 2)
    module = nn.Sequential(*layers).double()
    report = cnn.certify_module(module, X, Y, "squared", DECAY, time_limit=600)
    check(report, module, X, Y, "squared")
    assert report.better is not None


@pytest.mark.slow
def test_attention(few_steps, without_enumeration):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((7, 2, 2)), rng.standard_normal((7, 2))
    torch.manual_seed(0)
    module = cnn.AttentionBlock(2, 2, 3, "relu", "mean", bias=True).double()
    report = cnn.certify_module(module, X, Y, "squared", DECAY, time_limit=600)
    check(report, module, X, Y, "squared")
    assert report.better is not None
    assert len(report.better.U) >= 3


@pytest.mark.slow
def test_without_a_limit_the_report_is_the_single_bound():
    X, Y = data("squared", 1, 0)
    report = cnn.certify_module(mlp(2, 3, 1), X, Y, "squared", DECAY)
    assert report.better is None
    assert report.excess == 0
    assert report.optimum == (report.dual, report.primal)
    assert report.curve == ()


@pytest.mark.slow
def test_an_interrupt_returns_the_report_so_far(monkeypatch, without_enumeration):
    def interrupted(self, tolerance):
        raise KeyboardInterrupt

    monkeypatch.setattr(NetworkTraining, "descend", interrupted)
    X, Y = data("squared", 1, 0)
    report = cnn.certify_module(mlp(2, 3, 1), X, Y, "squared", DECAY, time_limit=600)
    assert report.optimum == (report.dual, report.primal)
    assert "interrupted" in report.assumptions[-1]


@pytest.mark.slow
def test_training_never_raises_the_objective():
    X, Y = data("logistic", 1, 0, n=20, d=4)
    problem = cnn.Problem(X, Y, activation="relu", loss="logistic", beta=DECAY, patterns=1)
    rng = np.random.default_rng(0)
    network = NetworkTraining(problem, rng.standard_normal((4, 3)), rng.standard_normal((1, 3)))
    values = [network.value]
    for step in (lambda: network.descend(1e-6), lambda: network.grow(4), network.prune) * 2:
        step()
        values.append(network.value)
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]
    assert network.value == pytest.approx(problem.network_objective(network.W1, network.W2), rel=1e-12)


@pytest.mark.slow
def test_a_solver_that_cannot_begin_at_the_network_begins_elsewhere(monkeypatch):
    def refuses(problem, solver, *, start, **more):
        if start is not None:
            raise cnn.InputError("start: no point")
        return cnn.solve(problem, solver, start=start, **more)

    monkeypatch.setattr(narrowing, "solve", refuses)
    X, Y = data("squared", 1, 3)
    report = cnn.certify_module(mlp(2, 4, 1, bias=False), X, Y, "squared", DECAY, time_limit=600)
    assert report.width <= 1e-6
