"""Load networks from files without running code in them: state dicts, alone or inside a checkpoint.

The layers are recognised by the names and the sizes of their weights. The order in the file does not matter.
"""

import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexnn_bench.errors import InputError
from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.modules.memory import overlaps
from convexnn_bench.plugins import Choice

SAVE = "save it with torch.save(model.state_dict(), path)"
LOADING = threading.Lock()
DEEPEST = 10  # nested levels of a checkpoint that are searched; a damaged checkpoint may contain itself
State = dict[str, torch.Tensor]

# Names of layers that show which of two comes first, without a number.
FIRST = ("first", "input", "in", "hidden", "encoder", "enc", "features", "backbone", "body", "embed", "lower", "bottom")
LAST = ("last", "second", "output", "out", "decoder", "dec", "classifier", "head", "readout", "final", "upper", "top")
# Patterns for the last part of names of parameters that no supported network has, and the layers that have them.
FOREIGN = (
    (r"running_mean|running_var|num_batches_tracked", "a batch normalisation (BatchNorm)"),
    (r"parametrizations\..*|weight_g|weight_v|weight_orig|weight_u", "a weight norm, spectral norm or pruning"),
    (
        r"in_proj_weight|in_proj_bias|out_proj\.(weight|bias)",
        "softmax attention, which has no convex program of this kind",
    ),
    (r"(weight|bias)_[ih]h_l\d+(_reverse)?", "a recurrent layer"),
    (r"pos_weight|class_weights?", "a weighted loss"),
)


def load_state(path: Any, key: str | None = None) -> State:
    """Return the state dict in a file, or in the checkpoint in a file.

    key: where a file holds several networks, the name of one of them, such as "model" or "ema.module".
    Raise InputError if the file has no state dict, several without a key, or any other content.
    """
    loaded = _load(path)
    found = dict(_states(loaded))
    listed = ", ".join(sorted(name or "the whole file" for name in found))
    if not found:
        raise InputError(f"{path} must hold a state dict with the weights of layers, {_content(loaded)}: {SAVE}")
    if key is None:
        if len(found) > 1:
            raise InputError(f"{path} holds the weights of several networks: {listed}; name one of them with --key")
        state = next(iter(found.values()))
        return _network_alone(path, _plain(path, state))
    chosen = [found[key]] if key in found else _below(found, key)
    if len(chosen) != 1:
        parts = (f"{name}.{part}".lstrip(".") for name, state in found.items() for part in _networks_in(state))
        have = ", ".join(sorted({*found, *parts} - {""})) or "one state dict, without a key"
        what = "names several networks" if chosen else "names no network"
        raise InputError(f"--key {key} {what} in {path}; it holds {have}")
    return _network_alone(path, _plain(path, chosen[0]))


def _below(found: Mapping[str, State], key: str) -> list[State]:
    """Return the networks below a key: state dicts nested below it, and parameters whose names begin with it."""
    states = [state for name, state in found.items() if name.startswith(f"{key}.")]
    for name, state in found.items():
        # --key ema.module for {"ema": {"module.0.weight": ...}}, and --key ema for {"ema.0.weight": ...}
        if not name or key.startswith(f"{name}."):
            part = _under(state, key.removeprefix(f"{name}.") if name else key)
            states += [part] if part else []
    return states


def _load(path: Any) -> Any:
    """Return the tensors and plain containers of a file."""
    if not Path(path).is_file():
        raise InputError(f"MODEL: there is no file {str(path)!r} (looked in {Path.cwd()})")
    try:
        # Filters of warnings and safe globals belong to the whole process, so that threads load files one at a time.
        with LOADING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the errors below say the same
            # A pickle may run any code when it is loaded. weights_only admits tensors and plain containers. Numbers of
            # numpy are added, since a best accuracy in a checkpoint often is one.
            with torch.serialization.safe_globals(_numbers()):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise any exception
        found = re.search(r"Unsupported (?:global|class|operand)[:\s]+(?:GLOBAL\s+)?([\w.]+)", str(error))
        what = f" (it holds {found[1]})" if found else ""
        raise InputError(
            f"{path} does not hold plain tensors alone{what}, or is damaged; nothing else is loaded, since that may "
            f"run code: {SAVE}"
        ) from error


def _numbers() -> list[Any]:
    """Return the classes and functions in the pickle of a number of numpy."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "u1", "?")]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _content(loaded: Any) -> str:
    if isinstance(loaded, Mapping):
        names = ", ".join(str(name) for name in list(loaded)[:8])
        return f"got a dict with {names}" if names else "got an empty dict"
    return f"got {type(loaded).__name__}"


def _states(value: Any, at: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Yield (path, dict) for each dict in a checkpoint that holds weights of layers."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping) or depth > DEEPEST:
        return
    state = {name: tensor for name, tensor in value.items() if isinstance(tensor, torch.Tensor)}
    if _weights(state):
        yield at, {str(name): tensor for name, tensor in state.items()}
    for name, inner in value.items():
        # the state of an optimiser has moments of the weights, with the same names
        if not str(name).lower().startswith(("optim", "scheduler", "lr_")):
            yield from _states(inner, f"{at}.{name}" if at else str(name), depth + 1)


def _weights(state: Mapping[Any, torch.Tensor]) -> list[str]:
    """Return the names of weights of layers: matrices, kernels, and U and V of an AttentionBlock."""
    return [
        name
        for name, tensor in state.items()
        if isinstance(name, str) and tensor.ndim >= 2 and re.search(r"(^|[._])(weight\w*|[UV]|original\d?)$", name)
    ]


def _under(state: State, prefix: str) -> State:
    inside = {
        name.removeprefix(f"{prefix}."): tensor for name, tensor in state.items() if name.startswith(f"{prefix}.")
    }
    return inside if _weights(inside) else {}


def _networks_in(state: State) -> list[str]:
    """Return the prefixes of several networks in one state dict, or an empty list."""
    parts = sorted({name.partition(".")[0] for name in _weights(state) if name.count(".") > 1})
    alone = len(parts) > 1 and all(len(_weights(_under(state, part))) == 2 for part in parts)
    return parts if alone else []


def _network_alone(path: Any, state: State) -> State:
    """Return the parameters without those of wrappers and losses. Raise InputError for weights of a loss."""
    kept = {}
    for name, tensor in state.items():
        last = name.rsplit(".", 1)[-1]
        in_loss = re.match(r"(.*\.)?(criterion|loss|loss_fn|loss_function|objective)\.", name) is not None
        if last == "n_averaged" and tensor.numel() == 1:  # AveragedModel counts its updates
            continue
        if in_loss and bool((tensor == 1).all()):  # class weights of one
            continue
        if in_loss:
            raise InputError(
                f"{path}: {name} are weights of the loss, {tensor.flatten()[:5].tolist()}, and weighted losses are not "
                "covered; if the network was trained without them, save its own state dict alone"
            )
        kept[name] = tensor
    parts = _networks_in(kept)
    if parts:
        raise InputError(
            f"{path} holds the weights of several networks: {', '.join(parts)}; name one of them with --key"
        )
    return kept


def _plain(path: Any, state: State) -> State:
    """Return the tensors. Raise InputError unless they are dense and real, with memory of their own."""
    for name, value in state.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not plain or value.is_complex() or value.numel() == 0:
            raise InputError(f"{path}: {name} must be a dense real tensor with entries, got {_kind(value)}")
    # A file of a few bytes can claim a tensor of any size that repeats its entries.
    for one, other in overlaps(state):
        if one == other:
            value = state[one]
            raise InputError(
                f"{path}: {one} claims {value.numel()} entries of shape {tuple(value.shape)}, of which the file stores "
                f"{value.untyped_storage().nbytes() // value.element_size()}"
            )
        raise InputError(
            f"{path}: {one} and {other} are one piece of memory (tied layers), on which weight decay acts once; only "
            "layers with weights of their own are read"
        )
    return state


def _kind(value: torch.Tensor) -> str:
    return f"shape {tuple(value.shape)}, {value.dtype}, {value.layout}, on {value.device}"


# -- the network with these parameters --------------------------------------------------------------------------------


def module_from_state(
    state: State,
    activation: str = "relu",
    stride: int = 1,
    padding: int = 0,
    pool: str = "none",
    *,
    width: int | None = None,
    first_layer: str | None = None,
) -> torch.nn.Module:
    """Return the network with these parameters: weights of 2 and 2 axes, of 4 and 2 axes, or U and V of 3 axes.

    activation: "relu" or "linear". stride, padding and pool ("none", "global", or the side of the AvgPool2d window) are
    those of a CNN, which do not follow from its parameters. width: the number of features of a sample, where it is
    known. first_layer: the name of the first layer, such as "fc_a", if neither names nor sizes show it. Raise
    InputError if the parameters do not belong to such a network.
    """
    # 1. Recognise the kind of network by the axes of its weights.
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    listed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    Choice(("relu", "linear")).check("activation", activation)
    last_names = {name.rsplit(".", 1)[-1]: len(shape) for name, shape in shapes.items()}
    if last_names in ({"U": 3, "V": 3}, {"U": 3, "V": 3, "bias": 1}):
        return _attention({name.rsplit(".", 1)[-1]: value for name, value in state.items()}, activation, pool, listed)
    if stride < 1 or padding < 0:
        raise InputError(f"stride must be at least 1 and padding at least 0, got {stride} and {padding}")
    weights = _layer_weights(shapes, listed)
    # 2. Find the first layer and the last.
    head, tail = _in_order(weights, shapes, width, first_layer)
    # 3. Build the layers with the sizes of the parameters.
    first, last = shapes[head], shapes[tail]
    has_bias = [_bias_of(name) in shapes for name in (head, tail)]
    body: list[torch.nn.Module] = [torch.nn.ReLU()] if activation == "relu" else []
    if len(first) == 2:
        start: torch.nn.Module = torch.nn.Linear(first[1], first[0], bias=has_bias[0])
        layers = [torch.nn.Flatten(), start, *body]
    else:
        kernel = (first[2], first[3])
        start = torch.nn.Conv2d(first[1], first[0], kernel, stride=stride, padding=padding, bias=has_bias[0])
        layers = [start, *body, *_pooling(pool), torch.nn.Flatten()]
    end = torch.nn.Linear(last[1], last[0], bias=has_bias[1])
    # 4. Copy the parameters into the layers, and refuse sizes that do not fit.
    with torch.no_grad():
        for layer, name in ((start, head), (end, tail)):
            for target, source in ((layer.weight, name), (layer.bias, _bias_of(name))):
                if target is None:
                    continue
                if target.shape != shapes[source]:
                    raise InputError(f"the parameters do not fit together: {listed}")
                target.data = state[source].detach().clone().double()
    return torch.nn.Sequential(*layers, end).double()


def foreign_parameters(names: Iterable[str]) -> str | None:
    """Return the kind of unsupported layer that the names of parameters show, with the names, or None."""
    for pattern, what in FOREIGN:
        found = [name for name in names if re.search(rf"(^|\.)({pattern})$", name)]
        if found:
            return f"{what}: {', '.join(found)}"
    return None


def _bias_of(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _layer_weights(shapes: dict[str, tuple[int, ...]], listed: str) -> list[str]:
    """Return the names of two weights. Raise InputError unless all other parameters are their biases."""
    weights = [name for name, shape in shapes.items() if len(shape) >= 2]
    foreign = foreign_parameters(shapes)
    if foreign:
        raise InputError(f"the state dict holds parameters of {foreign}")
    named = all(name.rsplit(".", 1)[-1] == "weight" for name in weights)
    if sorted(len(shapes[name]) for name in weights) not in ([2, 2], [2, 4]) or not named:
        raise InputError(
            "the parameters must be those of Linear, Linear, of Conv2d, Linear, or U and V of an AttentionBlock, by "
            f"torch's names NAME.weight and NAME.bias; got {listed}"
        )
    extra = sorted(set(shapes) - {*weights, *map(_bias_of, weights)})
    if extra:
        raise InputError(
            f"the state dict holds parameters that are none of two layers' weights and biases: {', '.join(extra)}"
        )
    return weights


def _in_order(
    weights: list[str], shapes: dict[str, tuple[int, ...]], width: int | None, first_layer: str | None
) -> tuple[str, str]:
    """Return the names of the first and the last weight."""
    pairs = [(one, other) for one, other in (weights, weights[::-1])]
    if first_layer is not None:
        chosen = [pair for pair in pairs if first_layer in (pair[0], pair[0].removesuffix(".weight"))]
        if not chosen:
            have = " and ".join(name.removesuffix(".weight") for name in sorted(weights))
            raise InputError(f"first_layer must be one of the layers {have}, got {first_layer!r}")
        return chosen[0]
    # 1. A convolution comes first.
    if len({len(shapes[name]) for name in weights}) > 1:
        return max(pairs, key=lambda pair: len(shapes[pair[0]]))
    # 2. Names that show an order decide, and the sizes must agree with them.
    ordered = [pair for pair in pairs if _precedes(*pair)]
    fits = [(one, other) for one, other in pairs if shapes[other][1] == shapes[one][0]]
    layers = " and ".join(name.removesuffix(".weight") for name in sorted(weights))
    if ordered:
        if fits and ordered[0] not in fits:
            raise InputError(
                f"by their names the layer {ordered[0][0].removesuffix('.weight')} comes before the other of {layers}, "
                "by their sizes it comes last: name the first layer with --first-layer"
            )
        return ordered[0]
    # 3. Otherwise the sizes decide: the first layer takes the data, and the last takes the outputs of the first.
    if len(fits) > 1 and width is not None:
        fits = [pair for pair in fits if shapes[pair[0]][1] == width]
    if len(fits) != 1:
        raise InputError(
            f"neither the names nor the sizes of the layers {layers} tell which comes first: name it with --first-layer"
        )
    return fits[0]


def _precedes(one: str, other: str) -> bool:
    """Return True if the names of two weights show that the first comes before the second."""
    # fc1 and fc2, 0 and 2, layers.9 and layers.10: equal words, and numbers that grow
    first, second = (re.split(r"(\d+)", name) for name in (one, other))
    if first[::2] == second[::2] and len(first) == len(second):
        return [int(number) for number in first[1::2]] < [int(number) for number in second[1::2]]
    # encoder and decoder, hidden and out: the first word in which they differ
    parts = zip(re.split(r"[._]|(?<=\D)(?=\d)", one), re.split(r"[._]|(?<=\D)(?=\d)", other), strict=False)
    words = next(((a, b) for a, b in parts if a != b), ("", ""))
    return words[0].lower() in FIRST and words[1].lower() in LAST


def _attention(state: State, activation: str, pool: str, listed: str) -> torch.nn.Module:
    heads, d, _ = state["U"].shape
    output, bias = "mean" if pool == "global" else "tokens", "bias" in state
    block = AttentionBlock(d, state["V"].shape[2], heads, activation, output, bias).double()  # or loading would round
    try:
        block.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the parameters do not fit together: {listed}") from error
    return block


def _pooling(pool: str) -> list[torch.nn.Module]:
    if pool == "none":
        return []
    if pool == "global":
        return [torch.nn.AdaptiveAvgPool2d(1)]
    if not pool.isdecimal() or int(pool) < 1:
        raise InputError(f"pool must be 'none', 'global' or the side of the AvgPool2d window, got {pool!r}")
    return [torch.nn.AvgPool2d(int(pool))]
