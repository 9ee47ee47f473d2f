"""Samples that are held out of a training problem, and scores on them.

The training does not depend on them: neither the objective nor its bounds, the patterns or beta_max.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from convexnn_bench.architectures import BaseArchitecture
from convexnn_bench.checks import Array, aligned_copy, check_scale
from convexnn_bench.errors import InputError
from convexnn_bench.labels import Targets, class_index, class_numbers
from convexnn_bench.losses import BaseLoss, plain_loss, read_targets
from convexnn_bench.operator import DataArray, aligned_data, entries, read_data


@dataclass(frozen=True)
class HeldOutScore:
    """Scores of a point on the held-out samples.

    Attributes
    ----------
    samples : int
        Number of held-out samples.
    loss : float or None
        The loss of the predictions, a sum over samples and outputs without weights. If it is None, `missing` says why.
    accuracy : float or None
        The fraction of outputs whose class is predicted, if each target states one class. The predicted class is that
        of the largest score, the first of equal ones. With one output it is that of the sign; 0 counts as negative.
    r2 : float or None
        If the targets are numbers, 1 - sum (y - z)^2 / sum (y - m)^2 over all samples and outputs, with the mean m of
        each output over the held-out samples. It is None if these targets are constant.
    missing : str or None
        The reason in words if there is no score.
    """

    samples: int
    loss: float | None = None
    accuracy: float | None = None
    r2: float | None = None
    missing: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class HeldOut:
    """The held-out samples of a problem.

    Attributes
    ----------
    X : array, n_test x ...
        The samples, in the shape of the problem's samples.
    Y : array, n_out x c
        Their targets, as the loss takes them.
    labels : array n_out, or None
        The class number of each output; None if the targets, held-out or training, state no classes.
    """

    X: DataArray
    Y: Float[np.ndarray, "n_out c"]
    labels: Int[np.ndarray, " n_out"] | None

    def __repr__(self) -> str:
        return f"HeldOut(X: {' x '.join(map(str, self.X.shape))}, Y: {' x '.join(map(str, self.Y.shape))})"

    def score(self, predictions: Float[np.ndarray, "n_out c"], loss: BaseLoss) -> HeldOutScore:
        """Return the scores of predictions on the held-out samples.

        Parameters
        ----------
        predictions : array, n_out x c
            The predictions for `X`.
        loss : BaseLoss
            The loss of the problem. Its weights of training samples and its output bias are not used.
        """
        value = float(plain_loss(loss).value(torch.as_tensor(predictions), torch.as_tensor(self.Y)))
        if not math.isfinite(value):
            return HeldOutScore(self.X.shape[0], missing="the loss on the held-out samples is not finite")
        if self.labels is None:
            return HeldOutScore(self.X.shape[0], value, r2=self._r2(predictions))
        right = class_index(predictions) == self.labels
        return HeldOutScore(self.X.shape[0], value, accuracy=float(right.mean()))

    def _r2(self, predictions: np.ndarray) -> float | None:
        # Divide by the largest deviation, so that squares of extreme numbers stay in the range of float64.
        deviations = self.Y - self.Y.mean(axis=0)
        unit = float(np.abs(deviations).max())
        if not unit > 0:
            return None
        residuals = (self.Y - predictions) / unit
        r2 = 1.0 - float(np.square(residuals).sum()) / float(np.square(deviations / unit).sum())
        return r2 if math.isfinite(r2) else None


def read_held_out(
    architecture: BaseArchitecture,
    loss: BaseLoss,
    training: tuple[DataArray, np.ndarray],
    classes: Sequence[Any] | None,
    X: Array,
    Y: Array | Targets,
) -> HeldOut:
    """Return held-out samples, with targets read as the training targets were.

    Parameters
    ----------
    architecture, loss
        Those of the problem.
    training : pair of arrays
        X and Y of the problem.
    classes : sequence or None
        The labels of the problem, in the order of the outputs.
    X, Y : array
        The samples, and their targets in the form in which a problem takes them.

    Raises
    ------
    InputError
        The arrays do not fit those of the problem, or a label is none of its classes.
    """
    try:
        return _read(architecture, loss, training, classes, read_data(X, architecture), Y)
    except InputError as error:
        raise InputError(f"held-out samples: {error}") from error


def _read(
    architecture: BaseArchitecture,
    loss: BaseLoss,
    training: tuple[DataArray, np.ndarray],
    classes: Sequence[Any] | None,
    X: DataArray,
    Y: Array | Targets,
) -> HeldOut:
    # 1. Check that the samples have the shape of the problem's samples.
    trained_X, trained_Y = training
    if X.shape[1:] != trained_X.shape[1:] or X.shape[0] == 0:
        sample = " x ".join(map(str, trained_X.shape[1:]))
        raise InputError(f"X must hold at least one sample, n_test x {sample} as in training, got shape {X.shape}")
    architecture.check_data(X)
    check_scale("X", entries(X))
    # 2. Check that the targets have the problem's outputs and classes.
    rows = read_targets(loss, Y, lambda rows: architecture.target_rows(rows, X), classes=classes).rows
    n = X.shape[0]
    outputs = n * (len(trained_Y) // trained_X.shape[0])
    if rows.shape != (outputs, trained_Y.shape[1]):
        raise InputError(f"Y must be {outputs} x {trained_Y.shape[1]} for these {n} samples, got {rows.shape}")
    check_scale("Y", rows)
    known = None if class_numbers(trained_Y) is None else class_numbers(rows)
    return HeldOut(aligned_data(X), aligned_copy(rows), known)
