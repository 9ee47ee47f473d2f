"""Load networks and data from files without running code in them: state dicts and plain arrays alone."""

import warnings
from pathlib import Path
from typing import Any

import torch

from convexnn_bench.errors import InputError
from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.plugins import Choice

SAVE = "save it with torch.save(model.state_dict(), path)"
State = dict[str, torch.Tensor]


def load_state(path: Any) -> State:
    """Return the tensors of a state dict, or of {"state_dict": ...}. Raise InputError for any other content."""
    path = _existing("MODEL", path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says what torch warns of
            # A pickle may run any code when it is loaded; weights_only admits tensors and plain containers.
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise anything
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} does not hold plain tensors, and nothing else is loaded: {SAVE} ({first})") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    tensors = isinstance(loaded, dict) and loaded and all(isinstance(value, torch.Tensor) for value in loaded.values())
    if not tensors:
        raise InputError(f"{path} must hold a state dict, got {type(loaded).__name__}: {SAVE}")
    for name, value in loaded.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not plain or value.is_complex() or value.numel() == 0:
            raise InputError(f"{path}: {name} must be a dense real tensor with entries, got {_kind(value)}")
    return {str(name): value for name, value in loaded.items()}


def _kind(value: torch.Tensor) -> str:
    return f"shape {tuple(value.shape)}, {value.dtype}, {value.layout}, on {value.device}"


def _existing(name: str, path: Any) -> Path:
    if not Path(path).is_file():
        raise InputError(f"{name}: there is no file {path}")
    return Path(path)


def module_from_state(state: State, activation: str, stride: int, padding: int, pool: str) -> torch.nn.Module:
    """Return the network with these parameters: weights of 2 and 2 axes, of 4 and 2 axes, or U and V of 3 axes.

    activation: "relu" or "linear". stride, padding and pool ("none", "global", or the side of the AvgPool2d window) are
    those of a CNN, which do not follow from its parameters. Raise InputError where the parameters are of no such
    network.
    """
    # 1. Tell the kind of network by the axes of its weights.
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    weights = [name for name, shape in shapes.items() if len(shape) >= 2]
    axes = [len(shapes[name]) for name in weights]
    listed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    Choice(("relu", "linear")).check("activation", activation)
    if set(shapes) == {"U", "V"} and axes == [3, 3]:
        heads, d, _ = shapes["U"]
        block = AttentionBlock(d, shapes["V"][2], heads, activation, "mean" if pool == "global" else "tokens")
        return _filled(block, state, listed)
    if stride < 1 or padding < 0:
        raise InputError(f"stride must be at least 1 and padding at least 0, got {stride} and {padding}")
    if axes not in ([2, 2], [4, 2]):
        raise InputError(
            "the parameters must be those of Linear, Linear, of Conv2d, Linear, or U and V of an AttentionBlock, in "
            f"order; got {listed}"
        )
    # 2. Build its layers with the sizes of the parameters.
    biases = [name.removesuffix("weight") + "bias" in shapes for name in weights]
    first, last = (shapes[name] for name in weights)
    body: list[torch.nn.Module] = [torch.nn.ReLU()] if activation == "relu" else []
    if axes[0] == 2:
        head: torch.nn.Module = torch.nn.Linear(first[1], first[0], bias=biases[0])
        layers = [torch.nn.Flatten(), head, *body]
    else:
        kernel = (first[2], first[3])
        head = torch.nn.Conv2d(first[1], first[0], kernel, stride=stride, padding=padding, bias=biases[0])
        layers = [head, *body, *_pooling(pool), torch.nn.Flatten()]
    tail = torch.nn.Linear(last[1], last[0], bias=biases[1])
    # 3. Pair each layer's parameters with the names in the file, and refuse a file with any others.
    names = [
        new
        for layer, name in ((head, weights[0]), (tail, weights[1]))
        for new in (name, name.removesuffix("weight") + "bias")[: 1 if layer.bias is None else 2]
    ]
    targets = [parameter for layer in (head, tail) for parameter in layer.parameters()]
    if set(names) != set(shapes):
        extra = ", ".join(sorted(set(shapes) - set(names)))
        raise InputError(f"the state dict holds parameters that are none of two layers' weights and biases: {extra}")
    if any(target.shape != shapes[name] for target, name in zip(targets, names, strict=True)):
        raise InputError(f"the parameters do not fit together: {listed}")
    with torch.no_grad():
        for target, name in zip(targets, names, strict=True):
            target.data = state[name].detach().clone().double()
    return torch.nn.Sequential(*layers, tail).double()


def _filled(module: torch.nn.Module, state: State, listed: str) -> torch.nn.Module:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the parameters do not fit together: {listed}") from error
    return module.double()


def _pooling(pool: str) -> list[torch.nn.Module]:
    if pool == "none":
        return []
    if pool == "global":
        return [torch.nn.AdaptiveAvgPool2d(1)]
    if not pool.isdecimal() or int(pool) < 1:
        raise InputError(f"pool must be 'none', 'global' or the side of the AvgPool2d window, got {pool!r}")
    return [torch.nn.AvgPool2d(int(pool))]
