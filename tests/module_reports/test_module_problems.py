"""Reports on modules: their problem, hints at likely mistakes, and the orientation of weights."""

import numpy as np
import pytest
import torch
from torch import nn

import convexnn_bench as cnn


def trained(X, Y, weight_decay, mean, steps=300, outputs=1, seed=0):
    """A ReLU network, trained with Adam on squares with torch's weight decay."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(X.shape[1], 8), nn.ReLU(), nn.Linear(8, outputs)).double()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02, weight_decay=weight_decay)
    inputs, targets = torch.as_tensor(X), torch.as_tensor(Y.reshape(len(X), -1))
    loss = nn.MSELoss() if mean else (lambda z, y: 0.5 * (z - y).square().sum())
    for _ in range(steps):
        optimiser.zero_grad()
        loss(module(inputs), targets).backward()
        optimiser.step()
    return module


def data(n=40, d=8, outputs=1):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    return X, np.abs(X[:, :outputs]) - 0.5 * X[:, -1:]


@pytest.mark.slow
def test_the_problem_of_a_report_is_no_worse_than_the_network():
    """With too many patterns to enumerate the blocks are those of the neurons, and the optimum is no larger."""
    X, Y = data(n=25, d=6)
    report = cnn.certify_module(trained(X, Y, 0.5, False), X, Y, "squared", 0.5)
    assert report.scope == "complete"
    assert report.problem.scope == "sampled"
    assert 1 < report.problem.P <= 8
    result = cnn.solve(report.problem, "cvxpy_clarabel")
    assert report.dual <= result.objective <= report.primal


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2])
def test_the_network_is_a_point_of_the_problem_of_its_report(outputs):
    X, Y = data(n=16, d=6, outputs=outputs)
    module = trained(X, Y, 0.5, False, steps=20, outputs=outputs)
    report = cnn.certify_module(module, X, Y, "squared", 0.5)
    weights = [layer.detach().numpy() for layer in (module[0].weight, module[0].bias, module[2].weight)]
    point = cnn.Point(network=(np.vstack([weights[0].T, weights[1]]), weights[2]))
    # refused where a neuron has a pattern that is none of the blocks
    assert cnn.certify(report.problem, point, scope="sampled").primal <= report.primal * (1 + 1e-12)
    other = cnn.Problem(report.problem.X, Y, activation="relu", beta=0.5, patterns=1)
    with pytest.raises(cnn.UnsupportedError):
        cnn.certify(other, point, scope="sampled")


def test_a_convolution_gets_the_patterns_of_its_filters():
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((12, 1, 5, 5))
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(4, 1))
    report = cnn.certify_module(module, images, np.ones(12), "squared", 0.5)
    assert 1 < report.problem.P <= 4
    W1 = module[0].weight.detach().double().numpy().reshape(4, -1).T
    Phi = report.problem.Phi
    own = (Phi @ np.vstack([W1, module[0].bias.detach().double().numpy()])) >= 0
    assert {tuple(mask) for mask in report.problem.masks.T} <= {tuple(mask) for mask in own.T}


# -- the wrong reduction ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_forgotten_mean_gets_a_hint_by_the_size_of_the_weights():
    """torch's mean of squares over n = 40 with lam is beta = 20 lam; without reduction="mean" beta is lam."""
    X, Y = data()
    module = trained(X, Y, 0.02, True, steps=600)
    forgotten = cnn.certify_module(module, X, Y, "squared", 0.02)
    assert len(forgotten.hints) == 1
    assert "fits training with beta" in forgotten.hints[0]
    assert "reduction='mean' (--reduction mean): beta would be 0.4, not 0.02" in forgotten.hints[0]
    assert f"Hint: {forgotten.hints[0]}" in str(forgotten).splitlines()
    assert forgotten.to_dict()["hints"] == list(forgotten.hints)
    right = cnn.certify_module(module, X, Y, "squared", 0.02, reduction="mean")
    assert (right.beta, right.hints) == (0.4, ())
    assert right.gap < forgotten.gap


@pytest.mark.slow
def test_a_mean_that_was_a_sum_gets_a_hint():
    X, Y = data()
    module = trained(X, Y, 0.5, False)
    wrong = cnn.certify_module(module, X, Y, "squared", 0.5, reduction="mean")
    assert "If the loss of training was a sum, give reduction='sum'" in wrong.hints[0]
    by_torch = cnn.certify_module(module, X, Y, nn.MSELoss(), 0.5)
    assert "give a loss with reduction='sum'" in by_torch.hints[0]
    assert cnn.certify_module(module, X, Y, "squared", 0.5).hints == ()


def network_of_rows(W2):
    """A network whose outputs on the first and second unit vector are the columns of W2."""
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, len(W2), bias=False)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(2))
        module[2].weight.copy_(torch.tensor(W2))
    return module


ROWS = np.eye(2)[[0, 1, 1, 0]]


@pytest.mark.parametrize(
    ("W2", "loss", "labels", "order", "numbers"),
    [
        # Output 0 was trained for the class of rows 0 and 3. Sorted, that class comes second.
        ([[3.0, -3.0], [-3.0, 3.0]], "cross_entropy", "g b b g", "'g', 'b'", [0, 1, 1, 0]),
        ([[3.0, -3.0], [-3.0, 3.0]], nn.CrossEntropyLoss(), "z a a z", "'z', 'a'", [0, 1, 1, 0]),
        ([[3.0, -3.0]], "logistic", "b g g b", "'g', 'b'", [1, -1, -1, 1]),
        ([[3.0, -3.0]], nn.BCEWithLogitsLoss(), [0, 1, 1, 0], "1, 0", [1, 0, 0, 1]),
    ],
)
def test_labels_in_another_order_than_in_training_get_a_hint(W2, loss, labels, order, numbers):
    module, labels = network_of_rows(W2), np.array(labels.split() if isinstance(labels, str) else labels)
    (hint,) = cnn.certify_module(module, ROWS, labels, loss, 0.1).hints
    assert f"with the classes in the order {order}. If the network was trained with that order" in hint
    right = cnn.certify_module(module, ROWS, np.array(numbers), loss, 0.1)
    assert not any("order" in text for text in right.hints)
    z, signs = module(torch.as_tensor(ROWS)).detach().numpy(), np.array([1, -1, -1, 1])
    # By hand: every margin is 6 between two outputs, or 3 from the boundary of one, and has the wrong sign.
    margin = (z[:, 0] - (z[:, 1] if z.shape[1] == 2 else 0)) * signs
    instead = f"The loss would be {np.log1p(np.exp(-margin)).sum():.6g} instead of {np.log1p(np.exp(margin)).sum():.6g}"
    assert hint.startswith(instead)


def test_the_order_of_three_classes_is_a_cycle_and_not_its_inverse():
    """The outputs are for c, a and b: the hint has the classes in the order of the outputs."""
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(3))
        module[2].weight.copy_(4 * torch.eye(3))
    X, labels = np.eye(3), np.array(["c", "a", "b"])
    (hint,) = cnn.certify_module(module, np.r_[X, X], np.r_[labels, labels], "cross_entropy", 0.1).hints
    assert "in the order 'c', 'a', 'b'" in hint


@pytest.mark.slow
def test_a_large_gap_of_an_untrained_network_is_a_reason_only_for_the_default():
    X, Y = data(n=20)
    module = trained(X, 30 * Y, 1e-4, False, steps=0)
    assert "far below the objective" in cnn.certify_module(module, X, 30 * Y, "squared", 1e-4).hints[0]
    assert cnn.certify_module(module, X, 30 * Y, "squared", 1e-4, reduction="sum").hints == ()


# -- weights in another orientation -----------------------------------------------------------------------------------


def oriented():
    """A problem with p = q = 3, and a network of three neurons that fits it."""
    rng = np.random.default_rng(0)
    X, W1, W2 = rng.standard_normal((20, 3)), rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    Y = np.maximum(X @ W1, 0) @ W2.T
    return cnn.Problem(X, Y, activation="relu", beta=0.1, patterns=5), W1, W2


@pytest.mark.parametrize("way", ["sklearn", "torch", "both"])
def test_square_weights_that_fit_better_transposed_are_not_read_silently(way):
    """scikit-learn's coefs_[1] is M x q, torch's first weight M x p; with M = p = q the sizes cannot tell."""
    problem, W1, W2 = oriented()
    certificate = cnn.certify(problem, (W1, W2))
    given = {"sklearn": (W1, W2.T), "torch": (W1.T, W2), "both": (W1.T, W2.T)}[way]
    with pytest.raises(cnn.InputError, match=r"fit the data better when they are transposed.*coefs_\[1\]"):
        cnn.certify(problem, given)
    # a Point says which way they stand
    assert cnn.certify(problem, cnn.Point(network=given)).primal > certificate.primal


def test_weights_of_another_orientation_get_the_remedy():
    problem, W1, W2 = oriented()
    wide, last = np.hstack([W1, W1]), np.hstack([W2, W2])
    for given, words in (
        ((wide.T, last), r"give W1\.T and W2 .*Linear\.weight"),
        ((wide, last.T), r"give W1 and W2\.T .*coefs_\[1\]"),
        ((wide.T, last.T), r"give W1\.T and W2\.T"),
    ):
        with pytest.raises(cnn.InputError, match=words):
            cnn.certify(problem, cnn.Point(network=given))
    with pytest.raises(cnn.InputError, match=r"got W1 \(3, 6\) and W2 \(3, 5\)$"):
        cnn.certify(problem, cnn.Point(network=(wide, last[:, :5])))
