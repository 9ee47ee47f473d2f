"""A torch module as a chain of plain operations, or the reason why it is none."""

import builtins
import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.fx
from torch.nn import functional

from convexnn_bench.errors import UnsupportedError

SUPPORTED = (
    "supported are [Flatten,] Linear, [ReLU,] Linear; Conv2d, [ReLU,] [a linear pooling,] Flatten, Linear; and "
    "convexnn_bench.AttentionBlock"
)


@dataclass(frozen=True)
class Step:
    """One operation of a chain.

    kind: "linear", "conv", "pool" (with the layer as `module`), "relu", "flatten" or "identity".
    """

    kind: str
    module: Any = None


class MeanPool(torch.nn.Module):
    """The mean over the last two axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


RELU, FLAT, PASS = Step("relu"), Step("flatten"), Step("identity")


def refuse(what: str) -> UnsupportedError:
    """Return the error that says what the module is or has, and which modules are read."""
    return UnsupportedError(f"the module {what}; {SUPPORTED}")


def chain_of(module: torch.nn.Module, samples: int) -> list[Step]:
    """Return the operations in order, without identities. Raise UnsupportedError for anything that is no chain.

    samples: the number of samples, which is what len() of the data returns in a module's forward.
    """
    return [step for step in _layers(module, samples) if step is not PASS]


def _own_forward(module: torch.nn.Module) -> bool:
    """Return True where forward is the user's, in a class of theirs or in a subclass of a layer of torch."""
    return not type(module).forward.__module__.startswith("torch.nn") and not isinstance(module, MeanPool)


def _layers(module: torch.nn.Module, samples: int) -> list[Step]:
    """Return the steps of a layer of torch.nn, of a Sequential, or, by tracing, of a module of the user's own."""
    if _own_forward(module):
        return _traced(module, samples)
    if isinstance(module, torch.nn.Sequential):
        return [step for layer in module for step in _layers(layer, samples)]
    # A subclass that keeps the forward of a layer of torch computes what that layer computes.
    read = next((LAYERS[kind] for kind in type(module).__mro__ if kind in LAYERS), None)
    if read is None:
        raise refuse(f"has {type(module).__name__}, which is not among the layers of the theory")
    return [read(module)]


def _graph(module: torch.nn.Module, samples: int) -> tuple[dict[str, torch.nn.Module], Any]:
    """Return a copy's layers by name and the symbolic trace of its forward, in which len() is the number of samples."""

    # Python demands an integer of len(), where other operations of a trace may stay symbolic.
    class Value(torch.fx.Proxy):
        def __len__(self) -> int:
            return samples

    class Tracer(torch.fx.Tracer):
        def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
            return Value(node, self)

        def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
            # Layers of torch stay single nodes. Sequential and the user's own modules are traced through.
            return not _own_forward(m) and not isinstance(m, torch.nn.Sequential)

    try:
        # A forward may change the module while it is traced, and the user's must stay as it is.
        module = copy.deepcopy(module)
        return dict(module.named_modules()), Tracer().trace(module)
    except Exception as error:  # the user's forward may raise anything when it is traced
        first = (str(error).splitlines() or [""])[0]
        raise refuse(f"{type(module).__name__} cannot be traced ({type(error).__name__}: {first})") from error


def _traced(module: torch.nn.Module, samples: int) -> list[Step]:
    """Return the steps of a module of the user's own, read off its symbolic trace."""
    name = type(module).__name__
    # Follow the data from the input to the output. Each node must take the value of the one before and no other data,
    # apart from sizes.
    layers, graph = _graph(module, samples)
    steps: list[Step] = []
    current = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if current is not None:
                raise refuse(f"{name} takes more than one input")
            current = node
        elif node.op == "output":
            if node.args[0] is not current:
                raise refuse(f"{name} does not return the end of one chain of layers")
        elif not _is_size(node, current):
            inputs = [value for value in node.all_input_nodes if not _is_size(value, None)]
            if inputs != [current]:
                raise refuse(f"{name} is no chain: {node.name} takes {', '.join(map(str, inputs)) or 'nothing'}")
            called = node.op == "call_module"
            steps += _layers(layers[node.target], samples) if called else [_operation(node, name)]
            current = node
    return steps


def _is_size(node: Any, current: Any) -> bool:
    """Return True where a node only asks for the size of the data, as x.view(x.size(0), -1) does."""
    # Sizes carry no data, so that a graph which asks for them is still a chain.
    if node.op == "call_method" and node.target == "size":
        return True
    if node.op == "call_function" and node.target in (builtins.getattr, operator.getitem, builtins.len):
        return node.target is not builtins.getattr or node.args[1] == "shape"
    return False


def _operation(node: Any, name: str) -> Step:
    """Return the step of a function or a method on the data, as OPERATIONS reads it."""
    read = OPERATIONS.get(node.target)
    step = None if read is None else read(node.args[1:], node.kwargs)
    if step is None:
        what = getattr(node.target, "__name__", node.target)
        raise refuse(f"{name} uses {what}, which is not among the operations of the theory")
    return step


# -- layers of torch.nn, one function for each kind that needs a look at its settings ---------------------------------


def _flatten_layer(module: Any) -> Step:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise refuse(f"has Flatten({module.start_dim}, {module.end_dim}), where Flatten() is expected")
    return FLAT


def _dropout_layer(module: Any) -> Step:
    if module.p != 0:
        raise refuse(f"has {module}: it was trained on another, random objective")
    return PASS


def _softmax_layer(module: Any) -> Step:
    raise refuse(f"has {type(module).__name__}: softmax attention has no convex program of this kind")


LAYERS: dict[type, Callable[[Any], Step]] = {
    torch.nn.Linear: partial(Step, "linear"),
    torch.nn.Conv2d: partial(Step, "conv"),
    torch.nn.ReLU: lambda module: RELU,
    torch.nn.Flatten: _flatten_layer,
    torch.nn.Identity: lambda module: PASS,
    **dict.fromkeys((torch.nn.AvgPool2d, torch.nn.AdaptiveAvgPool2d, MeanPool), partial(Step, "pool")),
    **dict.fromkeys((torch.nn.Dropout, torch.nn.Dropout1d, torch.nn.Dropout2d), _dropout_layer),
    **dict.fromkeys((torch.nn.MultiheadAttention, torch.nn.Softmax), _softmax_layer),
}


# -- functions and methods, from their arguments after the data; None for arguments that no layer has -----------------

Arguments = tuple[Any, ...]
Named = dict[str, Any]


def _clamp(arguments: Arguments, named: Named) -> Step | None:
    """A clamp is a ReLU where its lower bound is zero and it has no upper bound."""
    limits: Named = dict(zip(("min", "max"), arguments, strict=False)) | named
    return RELU if limits.get("min") == 0 and limits.get("max") is None else None


def _flatten(arguments: Arguments, named: Named) -> Step | None:
    return FLAT if arguments == (1,) or named == {"start_dim": 1} else None


def _view(arguments: Arguments, named: Named) -> Step | None:
    """A view of two axes flattens; that every sample stays one row shows in the outputs."""
    shape = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], tuple | list) else arguments
    flat = len(shape) == 2 and (shape[1] == -1 or (shape[0] == -1 and isinstance(shape[1], int)))
    return FLAT if flat else None


def _squeeze(arguments: Arguments, named: Named) -> Step | None:
    """Squeezing the last axis changes nothing but the shape of a single output."""
    return PASS if (arguments or tuple(named.values())) in ((-1,), (1,)) else None


def _mean(arguments: Arguments, named: Named) -> Step | None:
    axes = arguments[0] if arguments else named.get("dim")
    over_pixels = isinstance(axes, tuple | list) and sorted(axis % 4 for axis in axes) == [2, 3]
    return Step("pool", MeanPool()) if over_pixels else None


def _pool(layer: type[torch.nn.Module], arguments: Arguments, named: Named) -> Step:
    return Step("pool", layer(*arguments, **named))


OPERATIONS: dict[Any, Callable[[Arguments, Named], Step | None]] = {
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, "relu", "relu_"), lambda arguments, named: RELU),
    **dict.fromkeys((torch.clamp, torch.clamp_min, "clamp", "clamp_", "clamp_min", "clamp_min_"), _clamp),
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys(("view", "reshape"), _view),
    **dict.fromkeys((torch.squeeze, "squeeze"), _squeeze),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    functional.avg_pool2d: partial(_pool, torch.nn.AvgPool2d),
    functional.adaptive_avg_pool2d: partial(_pool, torch.nn.AdaptiveAvgPool2d),
}
