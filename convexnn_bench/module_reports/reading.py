"""Read a user's module and its targets for a report."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.labels import Targets
from convexnn_bench.losses import BaseLoss, read_targets
from convexnn_bench.modules import (
    Reading,
    TrainingLoss,
    folded,
    head_of,
    read_module,
)


def read_part(
    module: torch.nn.Module, X: np.ndarray, head: str | None, fold_batch_norm: bool
) -> tuple[torch.nn.Module, Reading, np.ndarray, str]:
    """Return the module to certify, its reading, its inputs, and a condition.

    The report holds under this condition, which is empty for a whole module.
    """
    # 1. The head of a deeper module, and its features.
    part, condition, names = module, "", None
    if head is not None:
        found = head_of(module, X, head)
        part, X, condition, names = found.module, found.features, found.condition, found.names
    # 2. Batch normalisation.
    note = ""
    if fold_batch_norm:
        part, note = folded(part, X)
    # 3. The two layers. Their parameters have the names that they have in the module.
    reading = read_module(part, X)
    if names is not None:
        own = {role: names.get(name, name) for role, name in reading.parameters.items()}
        reading = replace(reading, parameters=own)
    return part, replace(reading, notes=(*([note] if note else []), *reading.notes)), X, condition


def check_head(reading: Reading, training: TrainingLoss) -> None:
    """Raise UnsupportedError if the module's last function is not part of its loss."""
    head, name = reading.head, training.base.name
    # CrossEntropyLoss applies a log-softmax, and a second log-softmax changes nothing.
    if head == training.head or (head == "log_softmax" and name == "cross_entropy"):
        return
    if head is None:
        raise UnsupportedError(
            f"{training.words} takes outputs after a {training.head}, and this module does not end in one: give the "
            "loss with which it was trained"
        )
    if head == "sigmoid" and name == "logistic":
        raise UnsupportedError(
            "the module ends in a sigmoid. If it was trained with BCELoss, give loss=torch.nn.BCELoss(): the sigmoid "
            f"then belongs to the loss. {training.words} applies a sigmoid itself, and with two of them the loss is "
            "not convex in the outputs, so that there is no convex program"
        )
    counterpart = "BCELoss" if head == "sigmoid" else "NLLLoss"
    raise UnsupportedError(
        f"the module ends in a {head}, after which the loss {training.words} is not convex in the outputs of the last "
        f"layer; a module that ends in it is read with loss=torch.nn.{counterpart}()"
    )


def module_targets(loss: BaseLoss, Y: Any, reading: Reading, inputs: np.ndarray, c: int) -> Targets:
    """Return targets n_out x c for a network of c outputs, read as by a problem."""
    targets = read_targets(loss, Y, lambda rows: reading.architecture.target_rows(rows, inputs), outputs=c)
    if targets.rows.shape[1] != c:
        two = "; labels of two classes with two outputs need the cross_entropy loss" if loss.labels == "signs" else ""
        raise InputError(
            f"Y must have as many columns or classes as the module has outputs, {c}, got {targets.rows.shape[1]}"
            f"{two if c == 2 else ''}"
        )
    return targets
