"""Functions and methods of torch as steps of a chain.

An operation returns None for arguments with which it does not belong to a two-layer network.
"""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from convexnn_bench.modules.refusals import random_objective, refuse
from convexnn_bench.modules.steps import Call, Step, over_classes

# methods that change the type, the device or the memory layout of a value, and the value itself by rounding only
CASTS = ("float", "double", "to", "type", "type_as", "cpu", "cuda", "contiguous", "clone")
RESHAPES = ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "squeeze_", "unsqueeze_", "view_as")


class MeanPool(torch.nn.Module):
    """The mean over the last two axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


Operation = Callable[[Call], Step | None]


def _plain(kind: str, call: Call) -> Step:
    return Step(kind, None, call.after, call.name)


def _clamp(call: Call) -> Step | None:
    """A clamp is a ReLU where its lower bound is zero and it has no upper bound."""
    low, high = call.argument(0, "min"), call.argument(1, "max")
    return _plain("relu", call) if isinstance(low, int | float) and low == 0 and high is None else None


def _mean(call: Call) -> Step | None:
    axes = call.argument(0, "dim")
    over_pixels = isinstance(axes, tuple | list) and sorted(axis % 4 for axis in axes) == [2, 3]
    if not over_pixels:
        return None
    return Step("pool", MeanPool(), call.after, call.name)


def _pool(layer: type[torch.nn.Module], call: Call) -> Step:
    return Step("pool", layer(*call.arguments, **call.named), call.after, call.name)


def _dropout(call: Call) -> Step:
    if call.argument(0, "p", 0.5) and call.argument(1, "training", True):
        raise random_objective(f"the function {call.name}")
    return Step("identity")


def _index(call: Call) -> Step | None:
    """Return a reshape for an index that keeps all entries, such as [:, 0] of a single column."""
    index = call.arguments[0] if isinstance(call.arguments[0], tuple) else call.arguments
    plain = all(entry is None or entry is Ellipsis or isinstance(entry, int | slice) for entry in index)
    if not plain or call.before is None or call.after is None:
        return None
    if _entries(call.before) != _entries(call.after):
        raise refuse("leaves out some values by an index, where all outputs of a layer are read")
    return _plain("reshape", call)


def _entries(size: tuple[int, ...]) -> int:
    return int(torch.Size(size).numel())


def _softmax(call: Call) -> Step | None:
    return over_classes(call.name, call.argument(0, "dim"), call)


OPERATIONS: dict[Any, Operation] = {
    **dict.fromkeys((functional.relu, functional.relu_, torch.relu, torch.relu_), partial(_plain, "relu")),
    **dict.fromkeys(("relu", "relu_"), partial(_plain, "relu")),
    **dict.fromkeys((torch.clamp, torch.clamp_min, torch.clip), _clamp),
    **dict.fromkeys(("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_"), _clamp),
    **dict.fromkeys((*RESHAPES, torch.flatten, torch.reshape, torch.unflatten), partial(_plain, "reshape")),
    **dict.fromkeys((torch.squeeze, torch.unsqueeze), partial(_plain, "reshape")),
    **dict.fromkeys((*CASTS, torch.clone), partial(_plain, "cast")),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    operator.getitem: _index,
    functional.avg_pool2d: partial(_pool, torch.nn.AvgPool2d),
    functional.adaptive_avg_pool2d: partial(_pool, torch.nn.AdaptiveAvgPool2d),
    **dict.fromkeys((functional.dropout, functional.dropout1d, functional.dropout2d, torch.dropout), _dropout),
    **dict.fromkeys((functional.alpha_dropout, functional.feature_alpha_dropout), _dropout),
    **dict.fromkeys((torch.sigmoid, functional.sigmoid, torch.special.expit, "sigmoid"), partial(_plain, "sigmoid")),
    **dict.fromkeys((torch.softmax, functional.softmax, "softmax"), _softmax),
    **dict.fromkeys((torch.log_softmax, functional.log_softmax, "log_softmax"), _softmax),
}
