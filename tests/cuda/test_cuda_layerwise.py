"""Layerwise training with device="cuda": the numbers of the CPU, and after a checkpoint those of an unbroken run."""

import numpy as np
import pytest
import torch

from convexnn_bench.layerwise import StagePlan, Training, train_layerwise
from convexnn_bench.layerwise.end_to_end import train_end_to_end
from convexnn_bench.plugins.registry import LOSSES

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((8, 2, 8, 8)), np.arange(8) % 2
PLANS = [StagePlan(gates=3, pool=2, m=2), StagePlan(gates=3, pool=2, m=2, downsample=True)]
WAYS = {
    "plain": {},
    "sgd": {"optimizer": "sgd"},
    "blocks": {"form": "blocks"},
    "augmented": {"augment": "crop_flip"},
    "float64": {"precision": "float64"},
    "bfloat16": {"precision": "bfloat16"},
}


def trained(device, epochs=2, **named):
    how = Training(epochs=epochs, batch=4, certify_every=epochs, **named.pop("how", {}))
    return train_layerwise(X, Y, PLANS, how, test=(X[:4], Y[:4]), device=device, show_progress=False, **named)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_same_numbers(cuda, way):
    host, device = (trained(at, how=WAYS[way]) for at in ("cpu", "cuda"))
    accuracy = cuda if way != "bfloat16" else max(cuda, 1e-2)
    for own, other in zip(device.stages, host.stages, strict=True):
        for name in ("objective", "lower_bound", "max_dual_norm", "beta_max"):
            assert own[name] == pytest.approx(other[name], rel=max(accuracy, 1e-5 if way != "float64" else 0)), name
    kept = [tensor for stage in device.network.stages for tensor in stage.tensors().values()]
    assert all(tensor.device.type == "cuda" for tensor in kept)
    assert [z.device.type for z in device.network.predict(torch.as_tensor(X, device="cuda"))] == 3 * ["cuda"]


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_a_checkpoint_is_taken_up(cuda, tmp_path):
    """Half a stage, then the rest."""

    def stop(history):
        if len(history) == 1:
            raise Stopped

    whole = trained("cuda", epochs=3)
    with pytest.raises(Stopped):
        trained("cuda", epochs=3, checkpoint=tmp_path, on_epoch=stop)
    again = trained("cuda", epochs=3, checkpoint=tmp_path)
    assert len(again.history) == len(whole.history) == 6
    assert again.stages[-1]["objective"] == pytest.approx(whole.stages[-1]["objective"], rel=max(cuda, 1e-6))


@pytest.mark.slow
def test_nothing_waits_within_a_step(traffic, tmp_path):
    """Neither at first nor after a checkpoint: Adam's count of steps stays where torch keeps it, on the host."""
    before = trained("cuda", epochs=1, checkpoint=tmp_path).stages
    assert traffic.count("wait", "to_host", within="layerwise/training.py") == 0
    assert traffic.count("to_device", within="layerwise/training.py:") == 2  # the order of the samples, once an epoch
    assert len(before) == 2
    traffic.notes.clear()

    def stop(history):
        if len(history) == 1:
            raise Stopped

    with pytest.raises(Stopped):
        trained("cuda", epochs=3, checkpoint=tmp_path / "other", on_epoch=stop)
    traffic.notes.clear()
    trained("cuda", epochs=3, checkpoint=tmp_path / "other")
    assert traffic.count("wait", within="layerwise/training.py") == 0


@pytest.mark.slow
def test_end_to_end(cuda):
    found = []
    for at in ("cpu", "cuda"):
        stages, generator = trained(at, epochs=1).network.stages, torch.Generator().manual_seed(0)
        images, rows = torch.as_tensor(X, dtype=torch.float32, device=at), torch.eye(2, device=at)[torch.as_tensor(Y)]
        loss, how = LOSSES.make("cross_entropy"), Training(epochs=2, batch=4)
        network, _ = train_end_to_end(stages, images, rows, loss, 0.1, how, generator)
        found.append(network.predict(images)[-1].cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
