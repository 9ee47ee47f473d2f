"""Layers of torch.nn as steps of a chain, one function for each kind."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase

from convexnn_bench.modules.pooling import MatrixPool
from convexnn_bench.modules.refusals import WHY_NOT, batch_normalised, normalised, random_objective, refuse
from convexnn_bench.modules.steps import Call, Step, over_classes


def layer_step(layer: torch.nn.Module, call: Call) -> Step:
    """Return the step of a layer. Raise UnsupportedError for a layer that is not read."""
    read = layer_reader(layer)
    if read is None:
        kind = type(layer).__module__.removeprefix("torch.nn.modules.")
        why = WHY_NOT.get(kind, "which is not among the layers of the theory")
        raise refuse(f"has {call.name}, {why}")
    return read(layer, call)


def layer_reader(layer: Any) -> Callable[[Any, Call], Step] | None:
    """Return the function that reads this kind of layer, or None if no function does."""
    # A subclass with the forward of a layer of torch computes the same function.
    return next((LAYERS[kind] for kind in type(layer).__mro__ if kind in LAYERS), None)


def _normalisation_layer(module: Any, call: Call) -> Step:
    raise batch_normalised(call.name) if isinstance(module, _NormBase) else normalised(call.name)


def _dropout_layer(module: Any, call: Call) -> Step:
    if module.p != 0:
        raise random_objective(call.name)
    return Step("identity")


def _attention_layer(module: Any, call: Call) -> Step:
    raise refuse(f"has {call.name}: softmax attention has no convex program of this kind")


def _same(kind: str, module: Any, call: Call) -> Step:
    return Step(kind, module, call.after, call.name)


def _class_axis(module: Any, call: Call) -> Step:
    return over_classes("log_softmax" if isinstance(module, torch.nn.LogSoftmax) else "softmax", module.dim, call)


LAYERS: dict[type, Callable[[Any, Call], Step]] = {
    torch.nn.Linear: partial(_same, "linear"),
    torch.nn.Conv2d: partial(_same, "conv"),
    torch.nn.ReLU: partial(_same, "relu"),
    torch.nn.Identity: partial(_same, "identity"),
    torch.nn.Sigmoid: partial(_same, "sigmoid"),
    **dict.fromkeys((torch.nn.Softmax, torch.nn.LogSoftmax), _class_axis),
    **dict.fromkeys((torch.nn.Flatten, torch.nn.Unflatten), partial(_same, "reshape")),
    **dict.fromkeys((torch.nn.AvgPool2d, torch.nn.AdaptiveAvgPool2d, MatrixPool), partial(_same, "pool")),
    **dict.fromkeys(
        (
            torch.nn.Dropout,
            torch.nn.Dropout1d,
            torch.nn.Dropout2d,
            torch.nn.Dropout3d,
            torch.nn.AlphaDropout,
            torch.nn.FeatureAlphaDropout,
        ),
        _dropout_layer,
    ),
    **dict.fromkeys(
        (_NormBase, torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.RMSNorm, torch.nn.LocalResponseNorm),
        _normalisation_layer,
    ),
    torch.nn.MultiheadAttention: _attention_layer,
}
