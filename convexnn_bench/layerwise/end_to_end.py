"""The baseline: the same network, all stages trained at once, on the same objective and with the same gates."""

import math
import time
from collections.abc import Callable, Sequence

import torch

from convexnn_bench import parallel
from convexnn_bench.layerwise.network import LayerwiseNetwork
from convexnn_bench.layerwise.plans import Training
from convexnn_bench.layerwise.stage import Maps, Stage
from convexnn_bench.layerwise.training import augmented, optimizer_of, set_rate, slopes_of, step
from convexnn_bench.losses import BaseLoss


def train_end_to_end(
    stages: Sequence[Stage],
    X: Maps,
    Y: torch.Tensor,
    loss: BaseLoss,
    beta: float,
    training: Training,
    generator: torch.Generator,
    on_epoch: Callable[[int, float, LayerwiseNetwork], None] = lambda *told: None,
) -> tuple[LayerwiseNetwork, float]:
    """(network, seconds of training): F of the last stage's predictions + beta/2 (sum_s ||U_s||^2 + ||V||^2).

    stages: shapes, gates and the first one's scale come from them; factors are drawn anew. V is that of the last alone.
    `training.epochs` is the number of epochs in all. on_epoch: called with the epochs done, the seconds so far and the
    network, off the clock. No certificate: this problem is not convex in any lifting here.
    """
    own = [_drawn(stage, place == 0, generator) for place, stage in enumerate(stages)]
    for stage in own:
        stage.U, stage.V = (weight.to(training.dtype).requires_grad_(True) for weight in (stage.U, stage.V))
    weights = [stage.U for stage in own] + [own[-1].V]
    optimizer = optimizer_of(weights, training)
    Y, n, seconds = Y.to(training.dtype), len(X), 0.0
    for epoch in range(training.epochs):
        started = time.perf_counter()
        set_rate(optimizer, training, epoch)
        for rows in torch.randperm(n, generator=generator).to(Y.device).split(training.batch):
            images = augmented(X[rows.to(X.device)].to(training.dtype), training.augment, generator)
            maps, targets = parallel.rank_rows(images), Y[parallel.rank_rows(rows).to(Y.device)]
            value = None
            if len(maps):  # a last batch may have fewer samples than there are processes
                with torch.autocast(X.device.type, torch.bfloat16, enabled=training.mixed):
                    for stage in own:
                        maps = stage.hidden(stage.prepared(maps))
                    value = loss.value(own[-1].predict(maps).to(training.dtype), targets) / len(rows)
            step(optimizer, weights, slopes_of(value, weights), beta / n)
        seconds += time.perf_counter() - started
        with torch.no_grad():
            on_epoch(epoch + 1, seconds, LayerwiseNetwork(own))
    for stage in own:
        stage.U, stage.V = stage.U.detach(), stage.V.detach()
    return LayerwiseNetwork(own), seconds


def _drawn(stage: Stage, first: bool, generator: torch.Generator) -> Stage:
    """The stage with its gates, and factors drawn anew.

    Half of a drawn map is masked; after the first stage sqrt(2) gives maps the mean square of the input again.
    """
    new = Stage(stage.plan, stage.channels, stage.c, stage.scale if first else math.sqrt(2.0))
    new.draw(generator)
    new.gates = stage.gates
    return new.to(str(stage.gates.device))
