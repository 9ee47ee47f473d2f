"""Train a network stage by stage, with certificates, checkpoints and a history."""

import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from numpy.typing import ArrayLike

from convexnn_bench import parallel
from convexnn_bench.datasets import number, whole
from convexnn_bench.errors import InputError
from convexnn_bench.layerwise.data import check_data
from convexnn_bench.layerwise.plans import StagePlan, Training, check_stages
from convexnn_bench.layerwise.result import Epoch, LayerwiseResult
from convexnn_bench.layerwise.training_run import TrainingRun
from convexnn_bench.losses import BaseLoss
from convexnn_bench.plugins import LOSSES
from convexnn_bench.running import check_device
from convexnn_bench.terminal import progress


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
    run = TrainingRun(data, plans, training, criterion, beta, fraction, seed, device, json.dumps(asked, sort_keys=True))
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
