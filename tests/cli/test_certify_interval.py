"""`convexnn-bench certify --time-limit`: the files that it writes, and its errors."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from convexnn_bench.cli import app


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((8, 2)), rng.standard_normal(8)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False)).double()
    torch.save(module.state_dict(), tmp_path / "model.pt")
    np.savez(tmp_path / "data.npz", X=X, Y=Y)
    return tmp_path, X, Y


def run(folder, *more):
    arguments = ["certify", str(folder / "model.pt"), str(folder / "data.npz"), "--weight-decay", "0.3", *more]
    return CliRunner().invoke(app, arguments)


@pytest.mark.slow
def test_the_better_network_and_the_figure_are_written(files):
    folder, X, Y = files
    better, figure = folder / "better.pt", folder / "sandwich.svg"
    said = run(folder, "--time-limit", "60", "--better", str(better), "--plot", str(figure), "--json")
    assert said.exit_code == 0, said.output
    answer = json.loads(said.stdout)
    low, high = answer["optimum"]
    assert low <= high < answer["primal"]
    state = torch.load(better, weights_only=True)
    first, second = state["0.weight"].numpy(), state["2.weight"].numpy()
    residual = np.maximum(X @ first.T, 0) @ second.T - Y[:, None]
    assert 0.5 * np.sum(residual**2) + 0.15 * (np.sum(first**2) + np.sum(second**2)) == pytest.approx(high, rel=1e-9)
    assert "<svg" in figure.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--better", "b.pt"], "--better b.pt: without --time-limit"),
        (["--time-limit", "1", "--plot", "figure.txt"], "must end in .svg"),
        (["--time-limit", "1", "--better", "no/such/folder/b.pt"], "does not exist"),
    ],
)
def test_files_that_cannot_be_made_are_refused_first(files, more, words):
    said = run(files[0], *more)
    assert said.exit_code == 2
    assert words in said.output
