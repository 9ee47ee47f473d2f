"""Certificates with a budget: weaker, valid, and soon back."""

import numpy as np
import pytest
import torch

import convexnn_bench as cnn


def network(d, hidden, c, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(d, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, c))


def data(n, d, c, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((n, c))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "c"), [(12, 3, 1), (30, 6, 2), (10, 40, 3)])
def test_a_budget_that_is_spent_gives_a_weaker_bound(n, d, c):
    X, Y = data(n, d, c)
    module = network(d, 4, c)
    full = cnn.certify_module(module, X, Y, weight_decay=0.5)
    short = cnn.certify_module(module, X, Y, weight_decay=0.5, time_limit=1e-9)
    assert short.primal == full.primal
    assert short.dual <= full.dual * (1 + 1e-12)
    assert short.dual >= 0  # the zero multiplier proves as much for the squared loss
    assert short.certificate.max_dual_norm >= full.certificate.dual_norm_lower
    assert short.certificate.multiplier is not None


def test_a_certificate_of_a_point_takes_a_budget():
    X, Y = data(25, 4, 2)
    problem = cnn.Problem(X, Y, activation="relu", beta_fraction=0.2, patterns=15)
    point = cnn.Point(network=(np.ones((4, 2)), np.ones((2, 2))))
    for scope in ("complete", "sampled"):
        where = point if scope == "complete" else cnn.Point(blocks=np.zeros((problem.P, 4, 2)))
        full = cnn.certify(problem, where, scope)
        short = cnn.certify(problem, where, scope, time_limit=1e-9)
        assert short.dual <= full.dual * (1 + 1e-12)
        assert short.primal == full.primal


@pytest.mark.parametrize("value", [0, -1.0, "5", float("nan")])
def test_a_limit_is_a_positive_number(value):
    X, Y = data(4, 2, 1)
    with pytest.raises(cnn.InputError, match="time_limit must be a positive number, or None"):
        cnn.certify_module(network(2, 2, 1), X, Y, weight_decay=0.1, time_limit=value)
    with pytest.raises(cnn.InputError, match="progress must be"):
        cnn.certify_module(network(2, 2, 1), X, Y, weight_decay=0.1, progress="no")


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "c"), [(60, 1000, 1), (20, 5000, 1), (15, 2000, 2)])
def test_wide_data_are_certified_in_their_row_space(n, d, c):
    """The factorisations of d x d matrices that this takes otherwise would need minutes."""
    X, Y = data(n, d, c)
    module = network(d, 3, c)
    report = cnn.certify_module(module, X, Y, weight_decay=1.0)
    assert report.problem.all_patterns.rows.shape == (n, n)
    assert report.dual <= report.primal
    # The same training problem in an orthonormal basis of the row space has the same optimum.
    basis = np.linalg.qr(np.column_stack([X, np.ones(n)]).T)[0]
    small = cnn.Problem(np.column_stack([X, np.ones(n)]) @ basis, Y, activation="relu", beta=1.0, patterns=1)
    again = small.all_patterns.bound(np.asarray(report.certificate.multiplier))
    assert again.lower <= 1 + 1e-9  # the multiplier is feasible there, too


def test_progress_is_silent_without_a_terminal(capfd):
    X, Y = data(25, 6, 2)
    cnn.certify_module(network(6, 3, 2), X, Y, weight_decay=0.5, progress=True, time_limit=0.2)
    assert capfd.readouterr() == ("", "")
