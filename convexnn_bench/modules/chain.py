"""A torch module as a chain of plain operations, or the reason why it is none."""

import copy
from dataclasses import dataclass
from typing import Any

import torch

from convexnn_bench.errors import UnsupportedError

SUPPORTED = (
    "supported are [Flatten,] Linear, [ReLU,] Linear; Conv2d, [ReLU,] [a linear pooling,] Flatten, Linear; and "
    "convexnn_bench.AttentionBlock"
)
FLAT, PASS = "flatten", "identity"
CLAMPS = (torch.clamp, torch.clamp_min, "clamp", "clamp_", "clamp_min", "clamp_min_")


@dataclass(frozen=True)
class Step:
    """kind: "linear", "conv", "pool" (with the layer as `module`), "relu", "flatten" or "identity"."""

    kind: str
    module: Any = None


class MeanPool(torch.nn.Module):
    """The mean over the last two axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def refuse(what: str) -> UnsupportedError:
    return UnsupportedError(f"the module {what}; {SUPPORTED}")


def chain_of(module: torch.nn.Module, samples: int) -> list[Step]:
    """The operations in order, identities left out. Raises UnsupportedError for anything that is no such chain.

    samples: the number of samples, what len() of the data gives in a module's forward.
    """
    return [step for step in _layers(module, samples) if step.kind != PASS]


def _of_torch(module: torch.nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn")


def _own_forward(module: torch.nn.Module) -> bool:
    """Whether forward is the user's, in a class of theirs or in a subclass of a layer of torch."""
    return not type(module).forward.__module__.startswith("torch.nn") and not isinstance(module, MeanPool)


def _layers(module: torch.nn.Module, samples: int) -> list[Step]:
    """Steps of a layer of torch.nn, or of a Sequential of them; a module of another kind inside is traced."""
    nn = torch.nn
    if _own_forward(module):
        return _traced(module, samples)
    if isinstance(module, nn.Sequential):
        return [step for layer in module for step in _layers(layer, samples)]
    if isinstance(module, nn.Linear):
        return [Step("linear", module)]
    if isinstance(module, nn.Conv2d):
        return [Step("conv", module)]
    if isinstance(module, nn.ReLU):
        return [Step("relu")]
    if isinstance(module, nn.Flatten):
        if (module.start_dim, module.end_dim) != (1, -1):
            raise refuse(f"has Flatten({module.start_dim}, {module.end_dim}), where Flatten() is expected")
        return [Step(FLAT)]
    if isinstance(module, nn.Identity):
        return [Step(PASS)]
    if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d | MeanPool):
        return [Step("pool", module)]
    if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d):
        if module.p == 0:
            return [Step(PASS)]
        raise refuse(f"has {module}: it was trained on another, random objective")
    if isinstance(module, nn.MultiheadAttention | nn.Softmax):
        raise refuse(f"has {type(module).__name__}: softmax attention has no convex program of this kind")
    if _of_torch(module):
        raise refuse(f"has {type(module).__name__}, which is not among the layers of the theory")
    return _traced(module, samples)


def _graph(module: torch.nn.Module, samples: int) -> tuple[dict[str, torch.nn.Module], Any]:
    """A copy's layers by name and the symbolic trace of its forward, in which len() gives the number of samples."""
    import torch.fx

    class Value(torch.fx.Proxy):
        def __len__(self) -> int:
            return samples

    class Tracer(torch.fx.Tracer):
        def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
            return Value(node, self)

        def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
            return not _own_forward(m) and not isinstance(m, torch.nn.Sequential)

    try:
        module = copy.deepcopy(module)
        return dict(module.named_modules()), Tracer().trace(module)
    except Exception as error:  # the user's forward may raise anything when it is traced
        first = (str(error).splitlines() or [""])[0]
        raise refuse(f"{type(module).__name__} cannot be traced ({type(error).__name__}: {first})") from error


def _traced(module: torch.nn.Module, samples: int) -> list[Step]:
    """Steps of a module of the user's own, read off its symbolic trace."""
    name = type(module).__name__
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
    """Whether a node only asks for the size of the data, as x.view(x.size(0), -1) does."""
    import builtins
    import operator

    if node.op == "call_method" and node.target == "size":
        return True
    if node.op == "call_function" and node.target in (builtins.getattr, operator.getitem, builtins.len):
        return node.target is not builtins.getattr or node.args[1] == "shape"
    return False


def _operation(node: Any, name: str) -> Step:
    """A function or a method on the data."""
    nn, arguments = torch.nn.functional, node.args[1:]
    if node.op == "call_function" and node.target in (torch.relu, nn.relu, torch.relu_):
        return Step("relu")
    if node.op == "call_method" and node.target in ("relu", "relu_"):
        return Step("relu")
    if node.target in CLAMPS and _only_below(arguments, node.kwargs):
        return Step("relu")
    flatten = (node.op == "call_function" and node.target is torch.flatten) or (
        node.op == "call_method" and node.target == "flatten"
    )
    if flatten and (arguments == (1,) or node.kwargs == {"start_dim": 1}):
        return Step(FLAT)
    if node.op == "call_method" and node.target in ("view", "reshape"):
        shape = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], tuple | list) else arguments
        if len(shape) == 2 and (shape[1] == -1 or (shape[0] == -1 and isinstance(shape[1], int))):
            return Step(FLAT)  # that every sample stays one row shows in the outputs
    if node.target in ("squeeze", torch.squeeze) and (arguments or tuple(node.kwargs.values())) in ((-1,), (1,)):
        return Step(PASS)  # of a single output
    mean = (node.op == "call_method" and node.target == "mean") or (
        node.op == "call_function" and node.target is torch.mean
    )
    if mean:
        axes = arguments[0] if arguments else node.kwargs.get("dim")
        if isinstance(axes, tuple | list) and sorted(axis % 4 for axis in axes) == [2, 3]:
            return Step("pool", MeanPool())
    if node.op == "call_function" and node.target in (nn.avg_pool2d, nn.adaptive_avg_pool2d):
        kind = torch.nn.AvgPool2d if node.target is nn.avg_pool2d else torch.nn.AdaptiveAvgPool2d
        return Step("pool", kind(*arguments, **node.kwargs))
    what = getattr(node.target, "__name__", node.target)
    raise refuse(f"{name} uses {what}, which is not among the operations of the theory")


def _only_below(arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether a clamp has the lower bound zero and no upper bound."""
    given = dict(zip(("min", "max"), arguments, strict=False)) | named
    return given.get("min") == 0 and given.get("max") is None
