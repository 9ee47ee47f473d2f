"""Training a network stage by stage, with certificates, checkpoints and a history."""

import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike

from convexnn_bench import parallel
from convexnn_bench.datasets import number, whole
from convexnn_bench.errors import ConvexNNError, InputError
from convexnn_bench.layerwise.blocks import BlockStage, BlockTraining
from convexnn_bench.layerwise.checkpoint import checkpoint_in, read_checkpoint
from convexnn_bench.layerwise.data import ImageData, accuracy, check_data
from convexnn_bench.layerwise.network import LayerwiseNetwork, cached
from convexnn_bench.layerwise.plans import StagePlan, Training, check_stages
from convexnn_bench.layerwise.stage import Maps, Stage
from convexnn_bench.layerwise.streamed import Batches, beta_max, certify_stage
from convexnn_bench.layerwise.training import StageTraining
from convexnn_bench.losses import BaseLoss
from convexnn_bench.plugins import LOSSES
from convexnn_bench.running import check_device
from convexnn_bench.storage import whole_file
from convexnn_bench.terminal import progress

if TYPE_CHECKING:
    import pandas as pd

Epoch = dict[str, Any]  # one entry of the history, see LayerwiseResult


@dataclass
class LayerwiseResult:
    """A network trained stage by stage, and how the training went.

    Attributes
    ----------
    network : LayerwiseNetwork
        The trained stages.
    history : list of dict
        One dictionary for every epoch: stage (1, 2, ...), epoch, seconds (of training, in this stage), n, P, p, q, m,
        beta, beta_max. Epochs with a certificate also have objective, lower_bound (the best so far), gap,
        stationarity_bound, stationarity_error, max_dual_norm, gradient_norm (None in blocks), train_accuracy,
        test_accuracy and ensemble_accuracy (of the stages so far); the last two are None without test data.
    """

    network: LayerwiseNetwork
    history: list[Epoch] = field(default_factory=list)

    def to_frame(self) -> "pd.DataFrame":
        """Return the history, one row for each epoch."""
        import pandas as pd

        return pd.DataFrame(self.history)

    @property
    def stages(self) -> list[Epoch]:
        """The last epoch of every stage."""
        return [epoch for epoch, after in zip(self.history, [*self.history[1:], None], strict=True)
                if after is None or after["stage"] != epoch["stage"]]  # fmt: skip


def train_layerwise(
    X: ArrayLike | torch.Tensor,
    Y: ArrayLike | torch.Tensor,
    stages: Sequence[StagePlan],
    training: Training | None = None,
    *,
    loss: str | BaseLoss = "cross_entropy",
    beta_fraction: float = 0.001,
    beta: float | None = None,
    test: tuple[Any, Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[list[Epoch]], None] = lambda history: None,
    show_progress: bool = True,
) -> LayerwiseResult:
    """Train the stages of a network one after the other, each in Burer-Monteiro form, and certify each.

    Every stage is the convex program of its gates. For each stage:

    1. Scale its input to a mean square of one, draw its gates and factors, and set its beta.
    2. Train its factors for `training.epochs` epochs, and certify them every `training.certify_every` epochs.
    3. Fix it. Its masked maps are the input of the next stage.

    Parameters
    ----------
    X : array
        Images, n x channels x height x width.
    Y : array
        Labels 0, ..., c - 1, or targets n x c.
    stages : sequence of StagePlan
        The stages in their order.
    training : Training, optional
        How each stage is trained.
    loss : str or BaseLoss
        A registered loss; F is a sum over samples.
    beta_fraction : float
        beta of every stage as a fraction of its own beta_max, the least beta at which zero is optimal.
    beta : float, optional
        Weight decay of every stage's objective F + beta/2 (||U||^2 + ||V||^2), in place of beta_fraction.
    test : (X, Y), optional
        Other samples, for accuracies.
    seed : int
        Seed of gates, start points, order and augmentation.
    device : str or torch.device
        "cpu", "cuda" or "cuda:0".
    checkpoint : path, optional
        A folder to which the state is written after every epoch. A run that finds a state there goes on from it, to
        the same numbers.
    on_epoch : callable
        Called with the history after every epoch, off the clock.
    show_progress : bool
        Show a bar on stderr, on a terminal or in a notebook only.

    Returns
    -------
    LayerwiseResult
        The network and its history.

    Raises
    ------
    InputError
        If an argument is not usable, or the checkpoint belongs to another run.

    Notes
    -----
    Under torchrun the processes share the samples of every step and certificate, and reach the numbers of one process
    up to rounding. Each process needs the whole data.
    """
    training = training or Training()
    criterion: BaseLoss = LOSSES.make(loss)
    device, seed = parallel.join(check_device(device)), whole("seed", seed, 0)
    fraction = number("beta_fraction", beta_fraction, 1e-300)
    beta = None if beta is None else number("beta", beta, 1e-300)
    data = check_data(criterion, X, Y, test, device)
    plans = check_stages(stages, data.X.shape[1:])
    # Everything that the numbers depend on. A checkpoint with another description belongs to another run.
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
        for index, plan in enumerate(plans[len(run.result.network.stages) :], start=len(run.result.network.stages)):
            run.train_stage(index, plan, update)
    return run.result


def _advance(update: Any, before: int, done: int) -> None:
    update(before + done)


class _Run:
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
        """Take over the state of a checkpoint. Raises InputError if it belongs to another run."""
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
        """Return the input of a stage in float64, from the images through the stages before it: this process's part."""

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
