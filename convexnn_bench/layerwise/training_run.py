"""A training stage by stage as it goes on: its stages, its history and its checkpoint."""

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.errors import ConvexNNError, InputError
from convexnn_bench.layerwise.blocks import BlockStage, BlockTraining
from convexnn_bench.layerwise.checkpoint import checkpoint_in, read_checkpoint
from convexnn_bench.layerwise.data import ImageData, accuracy
from convexnn_bench.layerwise.network import LayerwiseNetwork, cached
from convexnn_bench.layerwise.plans import StagePlan, Training
from convexnn_bench.layerwise.result import Epoch, LayerwiseResult
from convexnn_bench.layerwise.stage import Maps, Stage
from convexnn_bench.layerwise.streamed import Batches, beta_max, certify_stage
from convexnn_bench.layerwise.training import StageTraining
from convexnn_bench.losses import BaseLoss
from convexnn_bench.storage import whole_file


def _advance(update: Any, before: int, done: int) -> None:
    update(before + done)


class TrainingRun:
    """The state of `train_layerwise`, and the checkpoint to which it is written."""

    def __init__(
        self, data: ImageData, plans: tuple[StagePlan, ...], training: Training, loss: BaseLoss, beta: float | None,
        fraction: float, seed: int, device: str, asked: str,
    ):  # fmt: skip
        self.data, self.plans, self.training, self.loss = data, plans, training, loss
        self.beta, self.fraction, self.device, self.asked = beta, fraction, device, asked
        self.generator = torch.Generator().manual_seed(seed)
        self.result = LayerwiseResult(LayerwiseNetwork())
        self.path: Path | None = None
        self.on_epoch: Callable[[list[Epoch]], None] = lambda history: None
        self.under_way: dict[str, Any] | None = None  # state of the stage that a checkpoint interrupted

    def open(self, folder: str | os.PathLike[str] | None) -> None:
        """Take over the state of a checkpoint.

        Raise InputError if it belongs to another run.
        """
        if folder is None:
            return
        self.path = checkpoint_in(folder)
        if not self.path.is_file():
            return
        state = read_checkpoint(self.path, self.asked)
        self.result.history = state["history"]
        self.generator.set_state(state["generator"].cpu())
        self.under_way = state["under_way"]
        for index, (plan, tensors) in enumerate(zip(self.plans, state["stages"], strict=False)):
            stage = self._stage(index, plan, state["scales"][index])
            stage.load(tensors)
            self.result.network.stages.append(stage)

    def _write(self, under_way: dict[str, Any] | None) -> None:
        """Write the checkpoint, with the state of an unfinished stage."""
        if self.path is None or parallel.rank() != 0:
            return
        done = self.result.network.stages
        state = {
            "asked": self.asked, "history": self.result.history, "generator": self.generator.get_state(),
            "stages": [stage.tensors() for stage in done], "scales": [stage.scale for stage in done],
            "under_way": under_way,
        }  # fmt: skip
        with whole_file(self.path) as unfinished:
            torch.save(state, unfinished)

    def _stage(self, index: int, plan: StagePlan, scale: float) -> Stage:
        kind = BlockStage if self.training.form == "blocks" else Stage
        channels = self._sides(index)[0] * (4 if plan.downsample else 1)
        return kind(plan, channels, self.data.Y.shape[1], scale).to(self.device)

    def batches(self, stage: Stage) -> Batches:
        """Return this process's part of the input of a stage, in float64.

        It is computed from the images through the stages before it.
        """

        def made() -> Iterator[tuple[slice, Maps]]:
            return self.result.network.batches(self.data.X, torch.float64, stage, shared=True)

        # The input of a stage does not change while the stage is trained.
        kept = cached(made, len(self.data.X))
        return made if kept is None else lambda: iter(kept)

    def _begin(self, stage: Stage, batches: Batches) -> tuple[float, float]:
        """Scale a stage and draw it; return its beta and beta_max."""
        index = len(self.result.network.stages)
        squares = torch.zeros((), dtype=torch.float64, device=self.device)
        for _, maps in batches():
            squares += maps.square().sum()
        parallel.sum_over_ranks(squares)
        size = len(self.data.X) * math.prod(self._sides(index))
        if float(squares) == 0:
            raise InputError(f"stage {index + 1}: its input is zero everywhere")
        stage.scale = math.sqrt(size / float(squares))
        stage.draw(self.generator)
        stage.to(self.device)
        largest = beta_max(stage, batches, self.data.Y, self.loss)
        if largest == 0 and self.beta is None:
            raise InputError(f"stage {index + 1}: beta_max is 0, zero weights fit the targets: give beta itself")
        return self.fraction * largest if self.beta is None else self.beta, largest

    def _sides(self, index: int) -> tuple[int, int, int]:
        """Return channels, height and width of a stage's input."""
        channels, height, width = self.data.X.shape[1:]
        for plan in self.plans[:index]:
            channels = plan.gates * plan.m
            if plan.downsample:
                height, width = height // 2, width // 2
        return channels, height, width

    def train_stage(self, index: int, plan: StagePlan, update: Any) -> None:
        """Train a stage for its remaining epochs, and add it to the network."""
        state, self.under_way = self.under_way, None
        stage = self._stage(index, plan, 1.0 if state is None else state["scale"])
        batches = self.batches(stage)
        if state is None:  # 1. a new stage
            beta, largest = self._begin(stage, batches)
            best = -math.inf
        else:
            stage.load(state["tensors"])
            beta, largest, best = state["beta"], state["beta_max"], state["best"]
        kind = BlockTraining if self.training.form == "blocks" else StageTraining
        run = kind(stage, self.result.network, self.data.X, self.data.Y, self.loss, beta, self.training, self.generator)
        if state is not None:
            run.restore(state["training"])
        n = len(self.data.X)
        words = f"stage {index + 1} of {len(self.plans)}"
        while run.epoch < self.training.epochs:
            # 2. train and certify
            run.run_epoch(partial(_advance, update, (index * self.training.epochs + run.epoch) * n))
            epoch = {"stage": index + 1, "epoch": run.epoch, "seconds": run.seconds, "n": n, "P": stage.P,
                     "p": stage.p, "q": stage.q, "m": plan.m, "beta": beta, "beta_max": largest}  # fmt: skip
            if run.epoch % self.training.certify_every == 0 or run.epoch == self.training.epochs:
                epoch |= self._score(stage, batches, beta, best)
                best = max(best, epoch["lower_bound"])
                update(text=f"{words}, epoch {run.epoch}: certified gap {epoch['gap']:.1e}")
            self.result.history.append(epoch)
            # Equal sums and equal arithmetic keep the ranks equal in every bit. A difference would grow without being
            # seen.
            if not parallel.same_tensors(*run.weights):
                raise ConvexNNError(
                    "the processes that share the training came to different weights: use equal machines"
                )
            last = run.epoch == self.training.epochs
            if last:  # 3. the stage is fixed
                stage.settle()
                self.result.network.stages.append(stage)
            # After its last epoch the stage is in the network, and nothing is under way.
            about = {"scale": stage.scale, "tensors": stage.tensors(), "beta": beta, "beta_max": largest, "best": best}
            self._write(None if last else {**about, "training": run.state()})
            self.on_epoch(self.result.history)

    def _score(self, stage: Stage, batches: Batches, beta: float, best: float) -> Epoch:
        """Return the certificate and the accuracies of a stage as it is."""
        proven, z = certify_stage(stage, batches, self.data.Y, self.loss, beta, best)
        scores: Epoch = {
            "objective": proven.primal, "lower_bound": proven.dual, "gap": proven.gap,
            "stationarity_bound": proven.stationarity_bound, "stationarity_error": proven.stationarity_error,
            "max_dual_norm": proven.max_dual_norm, "gradient_norm": proven.gradient_norm,
            "train_accuracy": accuracy(z, self.data.Y),
            "test_accuracy": None, "ensemble_accuracy": None,
        }  # fmt: skip
        if self.data.test is not None:
            images, targets = self.data.test
            predictions = LayerwiseNetwork([*self.result.network.stages, stage]).predict(images)
            scores["test_accuracy"] = accuracy(predictions[-2], targets)
            scores["ensemble_accuracy"] = accuracy(predictions[-1], targets)
        return scores
