"""Translate the loss of training into F and a factor.

The loss is a name, a loss of this package or a loss of torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from convexnn_bench.checks import as_numpy
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.losses import BaseLoss, CrossEntropy, Huber, Logistic, Squared
from convexnn_bench.plugins import LOSSES, Choice

REDUCTIONS = ("sum", "mean")


@dataclass(frozen=True)
class TrainingLoss:
    """The data term of training as this package's F times a factor.

    Attributes
    ----------
    base : BaseLoss
        F, a sum over samples and outputs.
    reduction : {"sum", "mean"}
        Whether training took the sum or the mean of the losses.
    scale : float
        Training adds up `scale` times F. It is 2 for torch's squares, which lack the factor 1/2.
    rows : bool
        Whether the mean is over the n rows of outputs instead of all n c outputs.
    head : str or None
        "log_softmax" or "sigmoid" if the loss of torch takes outputs after that function.
    words : str
        How messages name the loss.
    is_torch : bool
        Whether it is a loss of torch.
    """

    base: BaseLoss
    reduction: str
    scale: float
    rows: bool
    head: str | None
    words: str
    is_torch: bool = False

    def check_labels(self, Y: Any) -> None:
        """Raise InputError for labels that this package reads, but torch's loss reads differently."""
        if self.is_torch and self.base.name == "logistic":
            labels = as_numpy(Y, "Y")
            if labels.dtype.kind not in "fiub" or not np.isin(labels, (0, 1)).all():
                raise InputError(f"{self.words} takes labels 0 and 1, and Y has others")

    def beta(self, lam: float, outputs: tuple[int, ...]) -> float:
        """Return beta, for weight decay lam/2 ||w||^2 beside this loss of n x c outputs.

        The objective scale F / count + lam/2 ||w||^2 is scale / count times F + beta/2 ||w||^2.
        """
        n, c = outputs
        count = 1 if self.reduction == "sum" else n if self.rows else n * c
        return lam * count / self.scale


def training_loss(loss: Any, reduction: str | None) -> TrainingLoss:
    """Return the loss of training.

    Raise InputError or UnsupportedError if it is not covered.

    loss: a name or an instance of this package's losses, whose sum is this package's F and whose mean is that of torch;
    or a loss of torch.nn, or its function, with its own reduction. reduction: "sum" or "mean", or None, which is "sum"
    for this package's losses, and the loss's own for those of torch.
    """
    if reduction is not None:
        Choice(REDUCTIONS).check("reduction", reduction)
    loss = FUNCTIONS[loss]() if callable(loss) and loss in FUNCTIONS else loss
    if isinstance(loss, torch.nn.Module):
        return _of_torch(loss, reduction)
    if isinstance(loss, type) and issubclass(loss, torch.nn.Module):
        raise InputError(f"loss must be an instance of a loss, not its class: give {loss.__name__}()")
    base: BaseLoss = LOSSES.make(loss)
    # The mean of a loss is that of its counterpart in torch. Only MSELoss differs from F, by a factor.
    scale = 2.0 if reduction == "mean" and base.name == "squared" else 1.0
    return TrainingLoss(base, reduction or "sum", scale, base.name == "cross_entropy", None, base.name)


def _of_torch(loss: Any, reduction: str | None) -> TrainingLoss:
    name = type(loss).__name__
    if type(loss) not in COUNTERPARTS:
        raise UnsupportedError(
            f"loss {name} is not covered{WHY.get(type(loss), '')}; covered losses of torch are "
            f"{', '.join(kind.__name__ for kind in COUNTERPARTS)}"
        )
    if loss.reduction not in REDUCTIONS:
        raise InputError(f"the reduction of {name} must be 'sum' or 'mean', got {loss.reduction!r}")
    if reduction not in (None, loss.reduction):
        raise InputError(f"reduction={reduction!r} contradicts that of the loss, {name}(reduction={loss.reduction!r})")
    for setting, plain in (("weight", None), ("pos_weight", None), ("label_smoothing", 0.0), ("ignore_index", -100)):
        value = getattr(loss, setting, plain)
        if value is not plain and value != plain:
            raise UnsupportedError(f"{name} with {setting}={_short(value)} is not covered: {ADVICE[setting]}")
    base, scale, head = COUNTERPARTS[type(loss)](loss)
    rows = isinstance(loss, torch.nn.CrossEntropyLoss | torch.nn.NLLLoss)
    return TrainingLoss(base, loss.reduction, scale, rows, head, f"{name}(reduction={loss.reduction!r})", True)


def _short(value: Any) -> str:
    return f"{value.flatten()[:5].tolist()}" if isinstance(value, torch.Tensor) else repr(value)


def _smooth(loss: Any) -> tuple[BaseLoss, float, str | None]:
    # SmoothL1Loss is r^2 / (2 b) up to b and |r| - b/2 beyond, which is Huber's loss divided by b.
    if not loss.beta > 0:
        raise UnsupportedError("SmoothL1Loss(beta=0) is L1Loss, which is not covered; a small positive beta is")
    return Huber(delta=float(loss.beta)), 1.0 / float(loss.beta), None


# F, the factor by which torch's terms exceed those of F, and the function that the module must end in
COUNTERPARTS: dict[type, Callable[[Any], tuple[BaseLoss, float, str | None]]] = {
    torch.nn.MSELoss: lambda loss: (Squared(), 2.0, None),
    torch.nn.CrossEntropyLoss: lambda loss: (CrossEntropy(), 1.0, None),
    torch.nn.NLLLoss: lambda loss: (CrossEntropy(), 1.0, "log_softmax"),
    torch.nn.BCEWithLogitsLoss: lambda loss: (Logistic(), 1.0, None),
    torch.nn.BCELoss: lambda loss: (Logistic(), 1.0, "sigmoid"),
    torch.nn.HuberLoss: lambda loss: (Huber(delta=float(loss.delta)), 1.0, None),
    torch.nn.SmoothL1Loss: _smooth,
}
WHY = {
    torch.nn.L1Loss: ", since it has no derivative at zero; HuberLoss with a small delta is close to it",
    torch.nn.PoissonNLLLoss: ": no loss of this package is its counterpart",
}
ADVICE = {
    "weight": "all samples and classes count alike in this version",
    "pos_weight": "all samples and classes count alike in this version",
    "label_smoothing": "give the smoothed rows of probabilities as Y and a loss without label_smoothing",
    "ignore_index": "leave the ignored samples out of X and Y, and give a loss without ignore_index",
}
FUNCTIONS: dict[Any, Callable[[], torch.nn.Module]] = {
    functional.mse_loss: torch.nn.MSELoss,
    functional.cross_entropy: torch.nn.CrossEntropyLoss,
    functional.nll_loss: torch.nn.NLLLoss,
    functional.binary_cross_entropy_with_logits: torch.nn.BCEWithLogitsLoss,
    functional.binary_cross_entropy: torch.nn.BCELoss,
    functional.huber_loss: torch.nn.HuberLoss,
    functional.smooth_l1_loss: torch.nn.SmoothL1Loss,
    functional.l1_loss: torch.nn.L1Loss,
}
