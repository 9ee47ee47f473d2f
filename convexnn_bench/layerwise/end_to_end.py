"""The baseline that trains all stages of the same network at once.

The objective and the gates are the same.
"""

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
    on_epoch: Callable[[int, float, LayerwiseNetwork], None] = lambda *progress: None,
) -> tuple[LayerwiseNetwork, float]:
    """Train the network on F of the last stage's predictions + beta/2 (sum_s ||U_s||^2 + ||V||^2).

    Parameters
    ----------
    stages : sequence of Stage
        Their shapes, gates and the scale of the first are used; factors are drawn anew. V is that of the last alone.
    X, Y, loss, beta
        Images, targets, loss and weight decay.
    training : Training
        How to train; `epochs` is the number of all epochs.
    generator : torch.Generator
        Draws factors, order and augmentation.
    on_epoch : callable
        Called after every epoch, off the clock, with the epochs done, the seconds so far and the network.

    Returns
    -------
    LayerwiseNetwork
        The trained network. It has no certificate: this problem is not convex in any lifting here.
    float
        Seconds of training.
    """
    drawn = [_drawn(stage, index == 0, generator) for index, stage in enumerate(stages)]
    for stage in drawn:
        stage.U, stage.V = (weight.to(training.dtype).requires_grad_(True) for weight in (stage.U, stage.V))
    weights = [stage.U for stage in drawn] + [drawn[-1].V]
    optimizer = optimizer_of(weights, training)
    Y, n, seconds = Y.to(training.dtype), len(X), 0.0
    for epoch in range(training.epochs):
        started = time.perf_counter()
        set_rate(optimizer, training, epoch)
        for rows in torch.randperm(n, generator=generator).to(Y.device).split(training.batch):
            images = augmented(X[rows.to(X.device)].to(training.dtype), training.augment, generator)
            # Every rank has drawn the whole batch, so that the generators stay in step, and keeps its rows of it.
            maps, targets = parallel.rank_rows(images), Y[parallel.rank_rows(rows).to(Y.device)]
            value = None
            if len(maps):  # a last batch may have fewer samples than there are processes
                with torch.autocast(X.device.type, torch.bfloat16, enabled=training.mixed):
                    for stage in drawn:
                        maps = stage.hidden(stage.prepared(maps))
                    # The divisor is the whole batch: summed over the ranks, the values are the mean over it.
                    value = loss.value(drawn[-1].predict(maps).to(training.dtype), targets) / len(rows)
            # The mean over a batch estimates F/n, so that the weight decay is beta/n as well.
            step(optimizer, weights, slopes_of(value, weights), beta / n)
        seconds += time.perf_counter() - started
        with torch.no_grad():
            on_epoch(epoch + 1, seconds, LayerwiseNetwork(drawn))
    for stage in drawn:
        stage.U, stage.V = stage.U.detach(), stage.V.detach()
    return LayerwiseNetwork(drawn), seconds


def _drawn(stage: Stage, first: bool, generator: torch.Generator) -> Stage:
    """Return the stage with its gates, and factors drawn anew.

    About half of a drawn map is masked; after the first stage a scale of sqrt(2) restores its mean square.
    """
    new = Stage(stage.plan, stage.channels, stage.c, stage.scale if first else math.sqrt(2.0))
    new.draw(generator)
    new.gates = stage.gates
    return new.to(str(stage.gates.device))
