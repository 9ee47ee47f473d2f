"""Heads of deeper networks given their features, and batch normalisation that is folded."""

import numpy as np
import pytest
import torch
from torch import nn

import convexnn_bench as cnn

LAM = 0.1


class Deep(nn.Module):
    """Features with batch normalisation and dropout, and a head of two layers."""

    def __init__(self, dropout=0.0, after=None, functional=False):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(dropout), nn.Linear(5, 3))
        self.after, self.functional = after, functional

    def forward(self, x):
        x = self.classifier(self.features(x))
        return x if self.after is None else self.after(x)


def deep(**settings):
    torch.manual_seed(0)
    model = Deep(**settings).double()
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 4)), rng.integers(3, size=20)
    with torch.no_grad():
        model(torch.as_tensor(X))  # running statistics
    return model, X, y


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classifier", "auto"])
def test_the_head_is_certified_on_its_features_in_evaluation_mode(name):
    model, X, y = deep()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    report = cnn.certify_module(model, X, y, "cross_entropy", LAM, head=name)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        model.eval()
        features = model.features(torch.as_tensor(X))
        value = nn.functional.cross_entropy(model(torch.as_tensor(X)), torch.as_tensor(y), reduction="sum")
    squares = sum(float(p.detach().square().sum()) for p in model.classifier.parameters())
    assert report.primal == pytest.approx(float(value) + 0.5 * LAM * squares, rel=1e-12)
    alone = cnn.certify_module(model.classifier, features.numpy(), y, "cross_entropy", LAM)
    assert (report.primal, report.dual) == (alone.primal, alone.dual)
    first, second = str(report).splitlines()[:2]
    assert "given the frozen features that the layers before it compute in evaluation mode (20 x 6)" in first
    assert "nothing is said about the optimum of the whole network" in first
    assert second.startswith("The head's training objective is")
    assert "global optimum of the head on these features" in second
    assert report.to_dict()["condition"] == report.condition != ""
    assert alone.condition == ""
    assert ("found by themselves" in report.condition) == (name == "auto")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classifier", "auto"])
def test_the_optimiser_of_the_whole_model_has_the_weight_decay_of_its_head(name):
    model, X, y = deep()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=LAM)
    report = cnn.certify_module(model, X, y, "cross_entropy", optimizer=optimizer, head=name)
    plain = cnn.certify_module(model, X, y, "cross_entropy", LAM, head=name)
    assert (report.primal, report.dual) == (plain.primal, plain.dual)
    assert "0.1 on classifier.0.weight" in str(report)
    assert "features.0" not in "".join(report.assumptions)
    names = {f"classifier.{index}.{kind}": LAM for index in (0, 3) for kind in ("weight", "bias")}
    named = cnn.certify_module(model, X, y, "cross_entropy", names, head=name)
    assert (named.primal, named.dual) == (plain.primal, plain.dual)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.head = nn.Sequential(self.inner, nn.ReLU(), nn.Linear(4, 3))

    def forward(self, x):
        return self.head(torch.relu(self.inner(x)))


@pytest.mark.parametrize(
    ("model", "head", "words"),
    [
        (Deep(), "classifer", "head must be 'auto' or the name of a submodule, such as 'features', 'classifier'"),
        (Deep(), 3, "head must be the name of a submodule or 'auto', got 3"),
        (Deep(), "features", "the outputs of the model are not those of its head at 'features'"),
        (Deep(after=nn.Softmax(dim=1)), "classifier", "are not those of its head at 'classifier'"),
        (Deep(dropout=0.5), "auto", "dropout with p > 0"),
        (Deep(dropout=0.5), "classifier", "random objective"),
        (Tied(), "head", "which the model uses as inner.weight and head.0.weight"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 3)), "auto", "ends in two Linear layers"),
        (nn.Sequential(nn.Linear(4, 3)), "auto", "calls '0'"),
        ("deep.pt", "auto", "must be a torch.nn.Module, got str"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_head_is_refused_with_the_reason(model, head, words):
    X = np.ones((6, 1, 2, 2)) if "ends in two" in words else np.random.default_rng(0).standard_normal((6, 4))
    with pytest.raises(cnn.ConvexNNError, match=words):
        cnn.certify_module(model, X, np.arange(6) % 3, "cross_entropy", LAM, head=head)


def test_a_deeper_module_is_refused_without_a_head():
    model, X, y = deep()
    with pytest.raises(cnn.UnsupportedError, match="head='auto'"):
        cnn.certify_module(
            nn.Sequential(nn.Linear(4, 6), nn.ReLU(), *model.classifier[:2], nn.Linear(5, 3)),
            X,
            y,
            "cross_entropy",
            LAM,
        )


# -- batch normalisation ----------------------------------------------------------------------------------------------


def normalised(convolution):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    if convolution:
        first = [nn.Conv2d(2, 3, 2, bias=False), nn.BatchNorm2d(3)]
        module, X = nn.Sequential(*first, nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)), rng.standard_normal((8, 2, 3, 3))
    else:
        module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1))
        X = rng.standard_normal((8, 4))
    module = module.double()
    with torch.no_grad():
        module[1].weight.uniform_(0.5, 2.0)
        for _ in range(5):
            module(torch.as_tensor(X))
    return module, X, rng.standard_normal(8)


@pytest.mark.slow
@pytest.mark.parametrize("convolution", [False, True])
def test_batch_normalisation_is_folded_if_that_is_accepted(convolution):
    module, X, y = normalised(convolution)
    with pytest.raises(cnn.UnsupportedError, match="fold_batch_norm=True"):
        cnn.certify_module(module, X, y, "squared", LAM)
    report = cnn.certify_module(module, X, y, "squared", LAM, fold_batch_norm=True)
    # by hand: y = gamma (W x + b - mean) / sigma + beta
    norm, first, last = module[1], module[0], module[-1]
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    weight = first.weight.detach() * scale.reshape(-1, *[1] * (first.weight.ndim - 1))
    bias = 0.0 if first.bias is None else first.bias.detach()
    shift = (bias - norm.running_mean) * scale + norm.bias.detach()
    with torch.no_grad():
        error = module.eval()(torch.as_tensor(X))[:, 0] - torch.as_tensor(y)
        squares = sum(value.square().sum() for value in (weight, shift, last.weight, last.bias))
    assert report.primal == pytest.approx(float(0.5 * error.square().sum() + 0.5 * LAM * squares), rel=1e-10)
    assert report.dual <= report.primal
    assert "the gap is about the objective stated here, which training did not minimise" in str(report)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), "'0' follows no Linear"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 1)), "'2' follows no Linear"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.ReLU(), nn.Linear(3, 1)),
            "no running statistics",
        ),
    ],
    ids=["inputs", "after ReLU", "statistics"],
)
def test_a_batch_normalisation_that_cannot_be_folded_is_refused(module, words):
    with pytest.raises(cnn.UnsupportedError, match=words):
        cnn.certify_module(
            module, np.random.default_rng(0).standard_normal((5, 4)), np.ones(5), "squared", LAM, fold_batch_norm=True
        )


def test_an_optimiser_says_nothing_about_folded_weights():
    module, X, y = normalised(False)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=LAM)
    with pytest.raises(cnn.InputError, match="give weight_decay"):
        cnn.certify_module(module, X, y, "squared", optimizer=optimizer, fold_batch_norm=True)
