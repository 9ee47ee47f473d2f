"""`convexnn-bench certify`: weight decay by layers, biases without it, and heads, as in `certify_module`."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import convexnn_bench as cnn
from convexnn_bench.cli import app

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((6, 2)), RNG.standard_normal(6)


def layers():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()


class Deep(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.features, self.classifier = features, layers()

    def forward(self, given):
        return self.classifier(self.features(given))


def run(folder, module, samples, *flags):
    torch.save(module.state_dict(), folder / "model.pt")
    np.savez(folder / "data.npz", X=samples, Y=Y)
    arguments = ["certify", str(folder / "model.pt"), str(folder / "data.npz"), *flags]
    return CliRunner().invoke(app, arguments)


def answer(folder, module, samples, *flags):
    said = run(folder, module, samples, *flags, "--json")
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


@pytest.mark.parametrize(
    ("flags", "decay", "keywords"),
    [
        pytest.param(["--weight-decay", "0.3", "--no-bias-decay"], 0.3, {"bias_decay": False}, marks=pytest.mark.slow),
        (
            ["--weight-decay-first", "0.6", "--weight-decay-second", "0.1"],
            {"first": 0.6, "second": 0.1},
            {},
        ),
    ],
    ids=["biases", "layers"],
)
def test_the_flags_state_the_same_problem_as_the_call(tmp_path, flags, decay, keywords):
    torch.manual_seed(0)
    module = layers()
    found = answer(tmp_path, module, X, *flags)
    expected = cnn.certify_module(module, X, Y, "squared", decay, **keywords)
    plain = cnn.certify_module(module, X, Y, "squared", 0.3)
    assert found["primal"] == pytest.approx(expected.primal, rel=1e-12)
    assert found["dual"] == pytest.approx(expected.dual, rel=1e-9)
    assert found["primal"] != pytest.approx(plain.primal, rel=1e-3)
    assert found["assumptions"][:2] == list(expected.assumptions[:2])


@pytest.mark.parametrize("head", ["classifier", "auto"])
@pytest.mark.parametrize("before", [1, 2])
def test_a_head_is_certified_on_the_features_before_it(tmp_path, head, before):
    torch.manual_seed(1)
    module = Deep(nn.Sequential(*[part for _ in range(before) for part in (nn.Linear(2, 2), nn.ReLU())]).double())
    with torch.no_grad():
        features = module.features(torch.as_tensor(X)).numpy()
    found = answer(tmp_path, module, features, "--weight-decay", "0.3", "--head", head)
    expected = cnn.certify_module(module, X, Y, "squared", 0.3, head=head)
    assert found["primal"] == pytest.approx(expected.primal, rel=1e-9)
    assert found["dual"] == pytest.approx(expected.dual, rel=1e-9)
    assert "'classifier.0' and 'classifier.2' of MODEL" in found["condition"]
    assert "nothing is said about the optimum of the whole network" in found["condition"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "the command has none of them"),
        (["--weight-decay", "1", "--weight-decay-first", "1"], "--weight-decay and --weight-decay-first"),
        (["--weight-decay-second", "1"], "the command has --weight-decay-second"),
        (["--weight-decay-first", "0", "--weight-decay-second", "1"], "'first' is 0"),
        (["--weight-decay", "1", "--head", "tail"], "--head tail"),
    ],
)
def test_flags_that_do_not_belong_together_are_refused(tmp_path, flags, words):
    said = run(tmp_path, layers(), X, *flags)
    assert said.exit_code == 2
    assert words in said.output


def test_the_last_two_matrices_must_fit_each_other(tmp_path):
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1)).double()
    said = run(tmp_path, module, X, "--weight-decay", "1", "--head", "auto")
    assert said.exit_code == 2
    assert "0.weight 3x2 and 1.weight 1x4" in said.output
