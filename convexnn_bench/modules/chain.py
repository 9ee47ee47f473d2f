"""Read a torch module as a chain of plain operations, or say why it is not such a chain.

The module's forward is traced symbolically (torch.fx) in training mode, since a certificate is about the training
problem. Every value of the trace has its size on the user's data, so that a forward may use, assert or branch on sizes.
"""

import copy
from functools import partial
from typing import Any

import torch
import torch.fx
from torch.nn import functional

from convexnn_bench.errors import ConvexNNError
from convexnn_bench.modules.function_steps import CASTS, OPERATIONS
from convexnn_bench.modules.layer_steps import LAYERS, layer_reader, layer_step
from convexnn_bench.modules.refusals import ACTIVATIONS, WHY_NOT, batch_normalised, normalised, refuse
from convexnn_bench.modules.steps import Call, Step
from convexnn_bench.modules.wrappers import has_own_forward


def chain_of(module: torch.nn.Module, X: torch.Tensor) -> list[Step]:
    """Return the operations on data X in order, without identities.

    Raise UnsupportedError if the module is not a chain.
    """
    name = type(module).__name__
    scripted = [part for part, layer in module.named_modules() if isinstance(layer, torch.jit.ScriptModule)]
    if scripted:
        raise refuse(f"has the TorchScript part {scripted[0]!r}: give the module with the part from which it was made")
    layers, graph = _trace(module, X)
    steps = []
    # Follow the data from the input to the output. Each node must take the value of the previous node only.
    current = None
    for node in graph.nodes:
        if node.op == "placeholder":
            current = node
        elif node.op == "output":
            if node.args[0] is not current:
                raise refuse(f"{name} does not return the end of one chain of layers, which alone is read")
        elif node.op != "get_attr":  # parameters are read with the operations that use them
            steps.append(_step(node, current, layers, name))
            current = node
    return [step for step in steps if step.kind != "identity"]


class _Value(torch.fx.Proxy):
    """A value of a trace whose sizes are plain integers, those on the data."""

    example: torch.Tensor | None = None  # on the device "meta", which has sizes and no entries

    def _example(self) -> torch.Tensor:
        if self.example is None:
            raise refuse(f"asks for the size of {self.node.name}, which is not known")
        return self.example

    @property
    def shape(self) -> torch.Size:
        return self._example().shape

    @property
    def ndim(self) -> int:
        return self._example().ndim

    @property
    def dtype(self) -> torch.dtype:
        return self._example().dtype

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def size(self, dim: int | None = None) -> Any:
        return self._example().size() if dim is None else self._example().size(dim)

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return self._example().numel()

    def __len__(self) -> int:
        return len(self._example())


class _DataOnly(torch.nn.Module):
    """A module that is called with the data alone.

    A trace then uses the defaults of optional arguments.
    """

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x)


class _Tracer(torch.fx.Tracer):
    """A tracer whose values know their sizes. Layers of torch stay single nodes."""

    trace_asserts = True

    def __init__(self, example: torch.Tensor):
        super().__init__()
        self.example = example
        self.evaluating = False

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: torch.fx.Proxy) -> bool:
        raise refuse(
            "decides by the values of its data (an if, or an assert, on more than sizes), so that it cannot be read as "
            "one function: give a module without that line"
        )

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        # Sequential and the user's own modules are traced through.
        return type(m) in LAYERS or (not has_own_forward(m) and not isinstance(m, torch.nn.Sequential))

    def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
        return _Value(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> Any:
        value: Any = super().create_proxy(kind, target, args, kwargs, *more, **named)
        result = self._evaluate(kind, target, args, kwargs)
        if isinstance(result, torch.Tensor):
            value.example = result
            value.node.meta["size"] = tuple(result.shape)
        return value

    def _evaluate(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        """Return the value of the node on the example, or None if it cannot be computed."""
        if kind == "placeholder":
            return self.example
        args, kwargs = torch.fx.node.map_aggregate(
            (args, kwargs), lambda value: value.example if isinstance(value, _Value) else value
        )
        if kind == "call_method" and target in CASTS:
            return args[0]
        run = {
            "call_module": lambda: self.root.get_submodule(target).forward,
            "call_method": lambda: partial(getattr(torch.Tensor, target)),
            "call_function": lambda: target,
        }.get(kind)
        if run is None or (kind == "call_module" and layer_reader(self.root.get_submodule(target)) is None):
            return None
        self.evaluating = True  # attributes are then the parameters themselves, not values of the trace
        try:
            return run()(*args, **kwargs)
        except Exception:  # `_step` refuses the function later, by its name
            return None
        finally:
            self.evaluating = False


def _trace(module: torch.nn.Module, X: torch.Tensor) -> tuple[dict[str, torch.nn.Module], Any]:
    """Return the layers by name and the trace of the module's forward.

    The trace has no assertions and no unused values.
    """
    try:
        # A forward may change the module while it is traced, and the user's must stay as it is.
        wrapped = _DataOnly(copy.deepcopy(module)).double().to("meta").train()
        graph = _Tracer(X.double().to("meta")).trace(wrapped)
    except ConvexNNError:
        raise
    except Exception as error:  # the user's forward may raise anything when it is traced
        first = (str(error).splitlines() or [""])[0]
        raise refuse(f"{type(module).__name__} cannot be traced ({type(error).__name__}: {first})") from error
    for node in [node for node in graph.nodes if getattr(node.target, "__name__", "") in ("_assert", "assert_fn")]:
        graph.erase_node(node)
    # Remove values that are only printed or asserted. Operations in place stay, since they change the outputs.
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or _named(node).endswith("_"))
    return {f"inner.{name}".rstrip("."): layer for name, layer in module.named_modules()}, graph


def _step(node: Any, current: Any, layers: dict[str, torch.nn.Module], owner: str) -> Step:
    """Return the step of a node that takes the value of the node `current`.

    Raise UnsupportedError for any other node.
    """
    name = _named(node)
    if node.target is functional.batch_norm:
        raise batch_normalised(name)
    if node.target in (functional.layer_norm, functional.group_norm, functional.instance_norm, functional.rms_norm):
        raise normalised(name)
    # A value with two sources, such as a residual connection, does not belong to a chain.
    sources = node.all_input_nodes
    if node.target in CASTS:  # x.type_as(weight) uses no entries of the weight
        sources = [source for source in sources if source.op != "get_attr"]
    if sources != [current]:
        raise refuse(f"{owner} is no chain: {node.name} takes {', '.join(map(str, sources)) or 'nothing'}")
    sizes = current.meta.get("size"), node.meta.get("size")
    if node.op == "call_module":
        return layer_step(layers[node.target], Call((), {}, *sizes, _layer_name(node.target, layers[node.target])))
    arguments, named = node.args, dict(node.kwargs)
    data = arguments[0] if arguments else named.pop("input", None)
    operation = OPERATIONS.get(node.target)
    call = Call(arguments[1:], named, *sizes, name)
    step = operation(call) if operation is not None and data is current else None
    if step is None:
        why = WHY_NOT["activation"] if name in ACTIVATIONS else "which is not among the operations of the theory"
        raise refuse(f"{owner} uses {name}, {why}")
    return step


def _named(node: Any) -> str:
    if node.target is getattr:  # such as x.T
        return str(node.args[1])
    return str(getattr(node.target, "__name__", node.target))


def _layer_name(target: str, layer: Any) -> str:
    """Return the name of a layer for messages: its path in the module, and its class with its settings."""
    path, shown = target.removeprefix("inner").removeprefix("."), f"{type(layer).__name__}({layer.extra_repr()})"
    return f"the layer {path!r} = {shown}" if path else shown
