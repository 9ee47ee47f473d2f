"""Training a network stage by stage, with certificates, checkpoints and a history."""

import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convexnn_bench import parallel
from convexnn_bench.datasets import number, whole
from convexnn_bench.errors import ConvexNNError, InputError
from convexnn_bench.layerwise.blocks import BlockStage, BlockTraining
from convexnn_bench.layerwise.checkpoint import checkpoint_in, read_checkpoint
from convexnn_bench.layerwise.data import Data, accuracy, check_data
from convexnn_bench.layerwise.network import LayerwiseNetwork, held
from convexnn_bench.layerwise.plans import StagePlan, Training, check_stages
from convexnn_bench.layerwise.stage import Maps, Stage
from convexnn_bench.layerwise.streamed import Batches, beta_max, certify_stage
from convexnn_bench.layerwise.training import StageTraining
from convexnn_bench.losses import BaseLoss
from convexnn_bench.plugins import LOSSES
from convexnn_bench.records import whole_file
from convexnn_bench.running import check_device
from convexnn_bench.terminal import progress

if TYPE_CHECKING:
    import pandas as pd

Epoch = dict[str, Any]


@dataclass
class LayerwiseResult:
    """history: a dictionary for every epoch: stage (1, 2, ...), epoch, seconds (of training, in this stage), n, P, p,
    q, m, beta, beta_max; at epochs with a certificate also objective, lower_bound (the best so far), gap,
    stationarity_bound, stationarity_error, max_dual_norm, gradient_norm (None in blocks), train_accuracy, test_accuracy
    and ensemble_accuracy (of the stages so far), the last two None without test data.
    """

    network: LayerwiseNetwork
    history: list[Epoch] = field(default_factory=list)

    def to_frame(self) -> "pd.DataFrame":
        import pandas as pd

        return pd.DataFrame(self.history)

    @property
    def stages(self) -> list[Epoch]:
        """The last epoch of every stage."""
        return [epoch for epoch, after in zip(self.history, [*self.history[1:], None], strict=True)
                if after is None or after["stage"] != epoch["stage"]]  # fmt: skip


def train_layerwise(
    X: Any,
    Y: Any,
    stages: Any,
    training: Training | None = None,
    *,
    loss: Any = "cross_entropy",
    beta_fraction: Any = 0.001,
    beta: Any = None,
    test: Any = None,
    seed: Any = 0,
    device: Any = "cpu",
    checkpoint: Any = None,
    on_epoch: Callable[[list[Epoch]], None] = lambda history: None,
    show_progress: bool = True,
) -> LayerwiseResult:
    """Train stages one after the other; each is the convex program of its gates, in Burer-Monteiro form.

    X: images, n x channels x height x width. Y: labels 0..c-1, or n x c. stages: a list of StagePlan.
    loss: a registered loss, F a sum over samples.
    beta: weight decay of every stage's objective F + beta/2 (||U||^2 + ||V||^2); by default beta_fraction times the
    stage's own beta_max, the least beta at which zero is optimal. test: (X, Y) for accuracies. seed: of gates, start
    points, order and augmentation. checkpoint: a folder; after every epoch the state is written there, and a run that
    finds one goes on from it to the same numbers. on_epoch: called with the history after every epoch, off the clock.

    Started by torchrun, several processes share the samples of every step and certificate, and come to the numbers of
    one but for rounding; each has the whole data.

    Raises InputError for arguments that cannot be, or for a checkpoint of another run.
    """
    training = training or Training()
    criterion: BaseLoss = LOSSES.make(loss)
    device, seed = parallel.join(check_device(device)), whole("seed", seed, 0)
    fraction = number("beta_fraction", beta_fraction, 1e-300)
    beta = None if beta is None else number("beta", beta, 1e-300)
    data = check_data(criterion, X, Y, test, device)
    plans = check_stages(stages, data.X.shape[1:])
    asked: dict[str, Any] = {
        "stages": [asdict(plan) for plan in plans],
        "training": asdict(training),
        "loss": repr(criterion),
    }
    asked |= {"beta": beta, "beta_fraction": fraction, "seed": seed, "data": data.digest()}
    run = _Run(data, plans, training, criterion, beta, fraction, seed, device, json.dumps(asked, sort_keys=True))
    if not parallel.same_number(zlib.crc32(run.asked.encode())):
        raise InputError("the processes that share the training were not all given the same data, stages and settings")
    run.on_epoch = on_epoch
    run.open(checkpoint)
    with progress(
        "training", len(plans) * training.epochs * len(data.X), show=show_progress and parallel.rank() == 0
    ) as update:
        for number_, plan in enumerate(plans[len(run.result.network.stages) :], start=len(run.result.network.stages)):
            run.train_stage(number_, plan, update)
    return run.result


def _advance(update: Any, before: int, done: int) -> None:
    update(before + done)


class _Run:
    """The state of `train_layerwise`, and the checkpoint it is kept in."""

    def __init__(
        self, data: Data, plans: tuple[StagePlan, ...], training: Training, loss: BaseLoss, beta: float | None,
        fraction: float, seed: int, device: str, asked: str,
    ):  # fmt: skip
        self.data, self.plans, self.training, self.loss = data, plans, training, loss
        self.beta, self.fraction, self.device, self.asked = beta, fraction, device, asked
        self.generator = torch.Generator().manual_seed(seed)
        self.result = LayerwiseResult(LayerwiseNetwork())
        self.path: Path | None = None
        self.on_epoch: Callable[[list[Epoch]], None] = lambda history: None
        self.under_way: dict[str, Any] | None = None  # of the stage that a checkpoint was written in

    def open(self, folder: Any) -> None:
        """Take up what a checkpoint holds. Raises InputError for one of another run."""
        if folder is None:
            return
        self.path = checkpoint_in(folder)
        if not self.path.is_file():
            return
        kept = read_checkpoint(self.path, self.asked)
        self.result.history = kept["history"]
        self.generator.set_state(kept["generator"].cpu())
        self.under_way = kept["under_way"]
        for number_, (plan, tensors) in enumerate(zip(self.plans, kept["stages"], strict=False)):
            stage = self._stage(number_, plan, kept["scales"][number_])
            stage.load(tensors)
            self.result.network.stages.append(stage)

    def _keep(self, under_way: dict[str, Any] | None) -> None:
        if self.path is None or parallel.rank() != 0:
            return
        done = self.result.network.stages
        kept = {
            "asked": self.asked, "history": self.result.history, "generator": self.generator.get_state(),
            "stages": [stage.tensors() for stage in done], "scales": [stage.scale for stage in done],
            "under_way": under_way,
        }  # fmt: skip
        with whole_file(self.path) as unfinished:
            torch.save(kept, unfinished)

    def _stage(self, number_: int, plan: StagePlan, scale: float) -> Stage:
        kind = BlockStage if self.training.form == "blocks" else Stage
        channels = self._sides(number_)[0] * (4 if plan.downsample else 1)
        return kind(plan, channels, self.data.Y.shape[1], scale).to(self.device)

    def batches(self, stage: Stage) -> Batches:
        """Input of a stage, from the images through the stages before it, in float64: this process's share."""

        def made() -> Iterator[tuple[slice, Maps]]:
            return self.result.network.batches(self.data.X, torch.float64, stage, shared=True)

        kept = held(made, len(self.data.X))
        return made if kept is None else lambda: iter(kept)

    def _begin(self, stage: Stage, batches: Batches) -> tuple[float, float]:
        """Scale a stage, draw it, and find its beta and beta_max."""
        number_ = len(self.result.network.stages)
        squares = torch.zeros((), dtype=torch.float64, device=self.device)
        for _, maps in batches():
            squares += maps.square().sum()
        parallel.sum_over_ranks(squares)
        size = len(self.data.X) * math.prod(self._sides(number_))
        if float(squares) == 0:
            raise InputError(f"stage {number_ + 1}: its input is zero everywhere")
        stage.scale = math.sqrt(size / float(squares))
        stage.draw(self.generator)
        stage.to(self.device)
        largest = beta_max(stage, batches, self.data.Y, self.loss)
        if largest == 0 and self.beta is None:
            raise InputError(f"stage {number_ + 1}: beta_max is 0, zero weights fit the targets: give beta itself")
        return self.fraction * largest if self.beta is None else self.beta, largest

    def _sides(self, number_: int) -> tuple[int, int, int]:
        """Channels, height and width of a stage's input."""
        channels, height, width = self.data.X.shape[1:]
        for plan in self.plans[:number_]:
            channels = plan.gates * plan.m
            if plan.downsample:
                height, width = height // 2, width // 2
        return channels, height, width

    def train_stage(self, number_: int, plan: StagePlan, update: Any) -> None:
        """All epochs of a stage, or those that are left; its last factors join the network."""
        kept, self.under_way = self.under_way, None
        stage = self._stage(number_, plan, 1.0 if kept is None else kept["scale"])
        batches = self.batches(stage)
        if kept is None:
            beta, largest = self._begin(stage, batches)
            best = -math.inf
        else:
            stage.load(kept["tensors"])
            beta, largest, best = kept["beta"], kept["beta_max"], kept["best"]
        how = BlockTraining if self.training.form == "blocks" else StageTraining
        own = how(stage, self.result.network, self.data.X, self.data.Y, self.loss, beta, self.training, self.generator)
        if kept is not None:
            own.restore(kept["training"])
        n = len(self.data.X)
        words = f"stage {number_ + 1} of {len(self.plans)}"
        while own.epoch < self.training.epochs:
            own.run_epoch(partial(_advance, update, (number_ * self.training.epochs + own.epoch) * n))
            epoch = {"stage": number_ + 1, "epoch": own.epoch, "seconds": own.seconds, "n": n, "P": stage.P,
                     "p": stage.p, "q": stage.q, "m": plan.m, "beta": beta, "beta_max": largest}  # fmt: skip
            if own.epoch % self.training.certify_every == 0 or own.epoch == self.training.epochs:
                epoch |= self._score(stage, batches, beta, best)
                best = max(best, epoch["lower_bound"])
                update(text=f"{words}, epoch {own.epoch}: certified gap {epoch['gap']:.1e}")
            self.result.history.append(epoch)
            if not parallel.same_tensors(*own.weights):
                raise ConvexNNError(
                    "the processes that share the training came to different weights: use equal machines"
                )
            last = own.epoch == self.training.epochs
            if last:
                stage.settle()
                self.result.network.stages.append(stage)
            about = {"scale": stage.scale, "tensors": stage.tensors(), "beta": beta, "beta_max": largest, "best": best}
            self._keep(None if last else {**about, "training": own.state()})
            self.on_epoch(self.result.history)

    def _score(self, stage: Stage, batches: Batches, beta: float, best: float) -> Epoch:
        """Certificate and accuracies of a stage as it is."""
        proven, z = certify_stage(stage, batches, self.data.Y, self.loss, beta, best)
        told: Epoch = {
            "objective": proven.primal, "lower_bound": proven.dual, "gap": proven.gap,
            "stationarity_bound": proven.stationarity_bound, "stationarity_error": proven.stationarity_error,
            "max_dual_norm": proven.max_dual_norm, "gradient_norm": proven.gradient_norm,
            "train_accuracy": accuracy(z, self.data.Y),
            "test_accuracy": None, "ensemble_accuracy": None,
        }  # fmt: skip
        if self.data.test is not None:
            images, targets = self.data.test
            found = LayerwiseNetwork([*self.result.network.stages, stage]).predict(images)
            told |= {"test_accuracy": accuracy(found[-2], targets), "ensemble_accuracy": accuracy(found[-1], targets)}
        return told
