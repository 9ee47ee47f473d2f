"""Load state dicts from files without running code in them, alone or inside a checkpoint."""

import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexnn_bench.errors import InputError
from convexnn_bench.modules.heads import AUTO
from convexnn_bench.modules.memory import overlaps

SAVE = "save it with torch.save(model.state_dict(), path)"
LOADING = threading.Lock()
DEEPEST = 10  # nested levels of a checkpoint that are searched; a damaged checkpoint may contain itself
State = dict[str, torch.Tensor]


def load_state(path: Any, key: str | None = None, head: str | None = None) -> State:
    """Return the state dict in a file, or in the checkpoint in a file.

    key: where a file holds several networks, the name of one of them, such as "model" or "ema.module". head: if the
    network is deeper, the layers that end it: the beginning of their names, such as "classifier", or "auto" for the
    last two matrices in the file. Raise InputError if the file has no state dict, several without a key, or any other
    content.
    """
    state = _chosen(path, key)
    return _network_alone(path, state if head is None else _head(path, state, head))


def _chosen(path: Any, key: str | None) -> State:
    """Return the state dict with this key, or the only one."""
    loaded = _load(path)
    found = dict(_states(loaded))
    listed = ", ".join(sorted(name or "the whole file" for name in found))
    if not found:
        raise InputError(f"{path} must hold a state dict with the weights of layers, {_content(loaded)}: {SAVE}")
    if key is None:
        if len(found) > 1:
            raise InputError(f"{path} holds the weights of several networks: {listed}; name one of them with --key")
        return _plain(path, next(iter(found.values())))
    chosen = [found[key]] if key in found else _below(found, key)
    if len(chosen) != 1:
        parts = (f"{name}.{part}".lstrip(".") for name, state in found.items() for part in _networks_in(state))
        have = ", ".join(sorted({*found, *parts} - {""})) or "one state dict, without a key"
        what = "names several networks" if chosen else "names no network"
        raise InputError(f"--key {key} {what} in {path}; it holds {have}")
    return _plain(path, chosen[0])


def _head(path: Any, state: State, head: str) -> State:
    """Return the parameters of the layers that end a deeper network. Raise InputError if there are none."""
    weights = _weights(state)
    if head != AUTO:
        inside = _under(state, head)
        if not inside:
            parts = sorted({name.rsplit(".", depth)[0] for name in weights for depth in (1, 2) if name.count(".") > 1})
            listed = ", ".join(parts) or "no layers below a name"
            raise InputError(f"--head {head}: {path} has no layers below this name; it has {listed}, or give {AUTO}")
        return inside
    last = weights[-2:]
    shapes = [tuple(state[name].shape) for name in last]
    # PyTorch writes parameters in the order in which the layers were defined; layers that follow each other fit.
    if len(last) < 2 or any(len(shape) != 2 for shape in shapes) or shapes[0][0] != shapes[1][1]:
        sizes = " and ".join(f"{name} {'x'.join(map(str, state[name].shape))}" for name in last)
        raise InputError(
            f"--head {AUTO} takes the last two matrices in the file, if the second one fits the outputs of the first "
            f"one; {path} ends in {sizes}: give the beginning of the names of the head's layers"
        )
    layers = [name.rpartition(".")[0] for name in last]
    return {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] in layers}


def _below(found: Mapping[str, State], key: str) -> list[State]:
    """Return the networks below a key.

    They are state dicts nested below it, and parameters whose names begin with it.
    """
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
    """Return the parameters without those of wrappers and losses.

    Raise InputError for weights of a loss.
    """
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
    """Return the tensors.

    Raise InputError unless they are dense and real, with memory of their own.
    """
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
