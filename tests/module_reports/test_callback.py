"""The callback in a plain loop, with a stand-in for a trainer, and in Lightning where it is installed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import convexnn_bench as cnn

LOSS = nn.MSELoss(reduction="sum")


def task():
    torch.manual_seed(0)
    X = torch.randn(15, 2, dtype=torch.float64)
    y = X[:, :1].abs()
    module = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    return X, y, module, torch.optim.Adam(module.parameters(), lr=0.02, weight_decay=0.1)


def one_epoch(X, y, module, optimizer, steps=20):
    for _ in range(steps):
        optimizer.zero_grad()
        LOSS(module(X), y).backward()
        optimizer.step()


@pytest.mark.slow
def test_a_plain_loop_has_a_curve_and_stops(capsys):
    X, y, module, optimizer = task()
    callback = cnn.CertifyCallback(X, y, LOSS, optimizer=optimizer, every=5, gap=0.2)
    for epoch in range(1, 101):
        one_epoch(X, y, module, optimizer)
        if callback(module, epoch):
            break
    assert epoch < 100
    epochs, objectives, bounds = np.array(callback.curve).T
    assert list(epochs) == list(range(5, epoch + 1, 5))
    assert objectives[-1] - bounds[-1] <= 0.2 * bounds[-1]
    assert np.all(np.diff(bounds) >= 0)
    assert bounds.max() <= objectives.min()
    report = cnn.certify_module(module, X, y, LOSS, 0.1)
    assert callback.report.primal == report.primal == objectives[-1]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(epochs)
    assert lines[0].startswith(f"epoch 5: objective {objectives[0]:.6g}, optimum at least {bounds[0]:.6g}")
    axis = callback.plot().axes[0]
    assert [list(line.get_ydata()) for line in axis.lines] == [list(objectives), list(bounds)]


class Wrapper(nn.Module):
    """A module as trainers have it: the network is a part of it."""

    def __init__(self, model):
        super().__init__()
        self.model = model


def test_a_trainer_is_told_to_stop(capsys):
    X, y, module, optimizer = task()
    callback = cnn.CertifyCallback(X, y, LOSS, every=2, gap=1e9, network="model", show=False)
    trainer = SimpleNamespace(current_epoch=0, optimizers=[optimizer], should_stop=False)
    callback.on_train_epoch_end(trainer, Wrapper(module))
    assert (callback.curve, trainer.should_stop) == ([], False)
    trainer.current_epoch = 1
    callback.on_train_epoch_end(trainer, Wrapper(module))
    ((epoch, objective, bound),) = callback.curve
    assert epoch == 2
    report = cnn.certify_module(module, X, y, LOSS, 0.1)
    assert (objective, bound) == (report.primal, report.dual)
    assert trainer.should_stop is (bound > 0)
    assert capsys.readouterr().out == ""


def test_wrong_arguments():
    X, y, module, _ = task()
    with pytest.raises(cnn.InputError, match="every"):
        cnn.CertifyCallback(X, y, every=0)
    with pytest.raises(cnn.InputError, match="gap"):
        cnn.CertifyCallback(X, y, gap=-1.0)
    with pytest.raises(cnn.InputError, match="the curve is empty"):
        cnn.CertifyCallback(X, y).plot()
    with pytest.raises(cnn.InputError, match="network must be the name of a submodule, such as 'model', got 'net'"):
        cnn.CertifyCallback(X, y, LOSS, 0.1, every=1, network="net")(Wrapper(module), 1)
    with pytest.raises(cnn.InputError, match="weight_decay must be a positive number"):
        cnn.CertifyCallback(X, y, LOSS, every=1)(module, 1)


def test_lightning():
    try:
        from lightning.pytorch import Callback
    except ImportError:
        callback = cnn.CertifyCallback(*task()[:2])
        with pytest.raises(cnn.InputError, match="pip install lightning"):
            callback.lightning()
        pytest.skip("PyTorch Lightning is not installed")
    X, y, module, optimizer = task()
    callback = cnn.CertifyCallback(X, y, LOSS, 0.1, every=1, show=False)
    inner = callback.lightning()
    assert isinstance(inner, Callback)
    inner.on_train_epoch_end(SimpleNamespace(current_epoch=0, optimizers=[optimizer], should_stop=False), module)
    assert len(callback.curve) == 1
