"""Minibatch training of one stage on the fixed stages before it.

The objective is F/n + beta/n R with R the regulariser of the stage. Every process of a shared run takes its part of
each batch, and gradients are summed over the processes.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from convexnn_bench import parallel
from convexnn_bench.layerwise.network import LayerwiseNetwork, cached
from convexnn_bench.layerwise.plans import Training
from convexnn_bench.layerwise.stage import Maps, Stage
from convexnn_bench.losses import BaseLoss


def augmented(X: Maps, how: str, generator: torch.Generator) -> Maps:
    """Shift every sample by up to an eighth of its side, and mirror half of them.

    The shift fills with zeros. A sample is mirrored with probability 1/2.
    """
    if how == "none":
        return X
    n, _, height, width = X.shape
    most = max(1, height // 8)
    # Random numbers are drawn on the CPU, so that a seed means the same on every device.
    down, across = (torch.randint(2 * most + 1, (n,), generator=generator) for _ in range(2))
    mirrored = torch.rand(n, generator=generator) < 0.5
    rows = (down[:, None] + torch.arange(height)).to(X.device)
    columns = across[:, None] + torch.arange(width)
    if how == "crop_flip":
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    columns = columns.to(X.device)
    padded = functional.pad(X, (most,) * 4)
    which = torch.arange(n, device=X.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def optimizer_of(weights: list[torch.Tensor], how: Training) -> torch.optim.Optimizer:
    """Return SGD or Adam without weight decay, which is part of the objective."""
    if how.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=how.rate, momentum=how.momentum)
    return torch.optim.Adam(weights, lr=how.rate)


def set_rate(optimizer: torch.optim.Optimizer, how: Training, epoch: int) -> None:
    """Set the step size of an epoch (0, 1, ...), linear from `rate` to `last_rate` times it."""
    share = epoch / max(1, how.epochs - 1)
    for group in optimizer.param_groups:
        group["lr"] = how.rate * (1 + share * (how.last_rate - 1))


def step(
    optimizer: torch.optim.Optimizer, weights: list[torch.Tensor], slopes: Sequence[torch.Tensor], decay: float
) -> None:
    """Take a step on loss + decay/2 (squared weights).

    slopes: gradients of this process's part of the loss.
    """
    parallel.sum_over_ranks(*slopes)
    for weight, slope in zip(weights, slopes, strict=True):
        # The decay is added after the sum over the ranks, or else every rank would add it.
        weight.grad = slope.add(weight.detach(), alpha=decay)
    optimizer.step()


def slopes_of(loss: torch.Tensor | None, weights: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Return the gradients of a loss; zeros for None, if this process has no sample of the batch."""
    if loss is None:
        return [torch.zeros_like(weight) for weight in weights]
    return torch.autograd.grad(loss, weights)


class StageTraining:
    """Descent on F/n + beta/n R for one stage, an epoch at a time.

    `state` and `restore` let another process go on.
    """

    def __init__(
        self,
        stage: Stage,
        before: LayerwiseNetwork,
        X: Maps,
        Y: torch.Tensor,
        loss: BaseLoss,
        beta: float,
        how: Training,
        generator: torch.Generator,
    ):
        self.stage, self.before, self.X, self.how, self.generator = stage, before, X, how, generator
        self.loss, self.beta = loss, beta
        self.Y = Y.to(how.dtype)
        self.epoch, self.seconds = 0, 0.0
        starts = [getattr(stage, name) for name in stage.trained]
        self.weights = [start.detach().to(how.dtype, copy=True).requires_grad_(True) for start in starts]
        self.optimizer = optimizer_of(self.weights, how)
        self._inputs = self._cached()

    def _cached(self) -> Callable[[torch.Tensor], Maps]:
        """Return the function from rows to the stage's prepared maps: a look-up if they can be kept."""
        # Augmented inputs differ from epoch to epoch, so that keeping them is of no use.
        if self.how.augment != "none":
            return self._drawn
        parts = cached(lambda: self.before.batches(self.X, self.how.dtype, self.stage), len(self.X))
        if parts is None:
            return self._drawn
        kept = self.stage.prepared(torch.cat([maps for _, maps in parts]))
        return lambda rows: kept[parallel.rank_rows(rows).to(kept.device)]

    def _drawn(self, rows: torch.Tensor) -> Maps:
        with torch.no_grad():
            # Every rank augments the whole batch, so that the generators stay in step, and keeps its rows of it.
            images = augmented(self.X[rows.to(self.X.device)].to(self.how.dtype), self.how.augment, self.generator)
            return self.stage.prepared(self.before.features(parallel.rank_rows(images)))

    def run_epoch(self, on_step: Callable[[int], None] = lambda done: None) -> None:
        """Pass once over the samples in a new order."""
        started, n = time.perf_counter(), len(self.X)
        set_rate(self.optimizer, self.how, self.epoch)
        done = 0
        for rows in torch.randperm(n, generator=self.generator).to(self.Y.device).split(self.how.batch):
            self._step(self._inputs(rows), self.Y[parallel.rank_rows(rows).to(self.Y.device)], len(rows))
            done += len(rows)
            on_step(done)
        self.epoch += 1
        self._hand_over()
        self.seconds += time.perf_counter() - started

    def _step(self, maps: Maps, Y: torch.Tensor, batch: int) -> None:
        """Take one step on a batch, of which this process has the samples `maps`."""
        U, V = self.weights
        loss = None
        if len(maps):  # a last batch may have fewer samples than there are processes
            with torch.autocast(maps.device.type, torch.bfloat16, enabled=self.how.mixed):
                z = self.stage.predict(self.stage.hidden(maps, U), V)
            loss = self.loss.value(z.to(self.how.dtype), Y) / batch
        self.descend(slopes_of(loss, self.weights))

    def descend(self, slopes: Sequence[torch.Tensor]) -> None:
        """Take a step with the gradients of F/n over this process's part of the batch."""
        step(self.optimizer, self.weights, slopes, self.beta / len(self.X))

    def _hand_over(self) -> None:
        """Make the stage's tensors copies of the weights."""
        for name, weight in zip(self.stage.trained, self.weights, strict=True):
            # The optimizer changes the weights in place, and the stage must stay as it was certified.
            setattr(self.stage, name, weight.detach().clone())

    def state(self) -> dict[str, Any]:
        """Return all tensors and numbers that the next epochs depend on."""
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "weights": [weight.detach().clone() for weight in self.weights],
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        with torch.no_grad():
            for weight, kept in zip(self.weights, state["weights"], strict=True):
                weight.copy_(kept)
        self._hand_over()
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
