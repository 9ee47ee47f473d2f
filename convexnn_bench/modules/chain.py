"""Read a torch module as a chain of plain operations, or say why it is not such a chain.

The module's forward is traced symbolically (torch.fx) in training mode, since a certificate is about the training
problem. Every value of the trace has its size on the user's data, so that a forward may use, assert or branch on sizes.
"""

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.fx
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel

from convexnn_bench.errors import ConvexNNError, UnsupportedError
from convexnn_bench.modules.pooling import MatrixPool

SUPPORTED = (
    "supported are [Flatten,] Linear, [ReLU,] Linear; Conv2d, [ReLU,] [a linear pooling,] Flatten, Linear; and "
    "convexnn_bench.AttentionBlock"
)
ACTIVATIONS = ("tanh", "gelu", "elu", "selu", "silu", "mish", "leaky_relu", "softplus", "hardtanh", "relu6", "celu")
# Reasons by the file of torch.nn.modules that a layer comes from.
WHY_NOT = {
    "activation": "an activation with which the network has no convex program of this kind; ReLU or none has",
    "pooling": "a pooling that is not linear, or not over two axes; AvgPool2d and AdaptiveAvgPool2d are read",
    "rnn": "a recurrent layer, whose weights act more than once",
    "sparse": "an embedding; give one-hot rows to a Linear layer without bias instead",
}
# methods that change the type, the device or the memory layout of a value, and the value itself by rounding only
CASTS = ("float", "double", "to", "type", "type_as", "cpu", "cuda", "contiguous", "clone")
RESHAPES = ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "squeeze_", "unsqueeze_", "view_as")


@dataclass(frozen=True)
class Step:
    """One operation of a chain.

    kind: "linear", "conv", "pool" (with the layer as `module`), "relu", "reshape", "cast", "identity", or one of the
    functions that a training loss may contain: "sigmoid", "log_softmax", "softmax". size: the size of the result on
    the data, where it is known. name: how a message refers to the operation.
    """

    kind: str
    module: Any = None
    size: tuple[int, ...] | None = None
    name: str = ""


@dataclass(frozen=True)
class Call:
    """One node of the trace: the arguments after the data, and the sizes of the data before and after."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]
    before: tuple[int, ...] | None
    after: tuple[int, ...] | None
    name: str

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        """Return the argument with this name, or at this index after the data."""
        return self.named.get(name, self.arguments[index] if len(self.arguments) > index else default)


class MeanPool(torch.nn.Module):
    """The mean over the last two axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def refuse(what: str) -> UnsupportedError:
    """Return the error that says what the module is or has, and which modules are read."""
    return UnsupportedError(f"the module {what}; {SUPPORTED}")


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return the network inside wrappers that only run it: DataParallel, torch.compile's, AveragedModel.

    A wrapper of the whole module is removed without a copy. If parts of the module are wrapped, the result is a copy
    without those wrappers.
    """
    while (inner := _wrapped(module)) is not None:
        module = inner
    if all(_wrapped(part) is None for part in module.modules()):
        return module
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _wrapped(child) is not None:
                setattr(parent, name, unwrapped(child))
    return module


def _wrapped(module: Any) -> torch.nn.Module | None:
    """Return the module inside a wrapper. Return None for any other module, and for a wrapper with hooks."""
    if vars(module).get("_forward_hooks") or vars(module).get("_forward_pre_hooks"):
        return None
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel | AveragedModel):
        return module.module
    # The class of torch.compile is private, and importing it would take a second.
    if type(module).__name__ == "OptimizedModule" and type(module).__module__.startswith("torch."):
        inner: torch.nn.Module = module._orig_mod
        return inner
    return None


def has_own_forward(module: torch.nn.Module) -> bool:
    """Return True if a class of the user defines the forward."""
    scripted = isinstance(module, torch.jit.ScriptModule)  # its forward is compiled
    return not scripted and not str(type(module).forward.__module__).startswith("torch.nn")


def chain_of(module: torch.nn.Module, X: torch.Tensor) -> list[Step]:
    """Return the operations on data X in order, without identities. Raise UnsupportedError if it is not a chain."""
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
    """A module that is called with the data alone, so that a trace uses the defaults of optional arguments."""

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
        if run is None or (kind == "call_module" and _layer_reader(self.root.get_submodule(target)) is None):
            return None
        self.evaluating = True  # attributes are then the parameters themselves, not values of the trace
        try:
            return run()(*args, **kwargs)
        except Exception:  # `_step` refuses the function later, by its name
            return None
        finally:
            self.evaluating = False


def _trace(module: torch.nn.Module, X: torch.Tensor) -> tuple[dict[str, torch.nn.Module], Any]:
    """Return the layers by name and the trace of the module's forward, without assertions and unused values."""
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
    """Return the step of a node that takes the value of the node `current`. Raise UnsupportedError for any other."""
    name = _named(node)
    if node.target is functional.batch_norm:
        raise _batch_normalised(name)
    if node.target in (functional.layer_norm, functional.group_norm, functional.instance_norm, functional.rms_norm):
        raise _normalised(name)
    # A value with two sources, such as a residual connection, does not belong to a chain.
    sources = node.all_input_nodes
    if node.target in CASTS:  # x.type_as(weight) uses no entries of the weight
        sources = [source for source in sources if source.op != "get_attr"]
    if sources != [current]:
        raise refuse(f"{owner} is no chain: {node.name} takes {', '.join(map(str, sources)) or 'nothing'}")
    sizes = current.meta.get("size"), node.meta.get("size")
    if node.op == "call_module":
        return _layer_step(layers[node.target], Call((), {}, *sizes, _layer_name(node.target, layers[node.target])))
    arguments, named = node.args, dict(node.kwargs)
    data = arguments[0] if arguments else named.pop("input", None)
    operation = OPERATIONS.get(node.target)
    call = Call(arguments[1:], named, *sizes, name)
    step = operation(call) if operation is not None and data is current else None
    if step is None:
        why = WHY_NOT["activation"] if name in ACTIVATIONS else "which is not among the operations of the theory"
        raise refuse(f"{owner} uses {name}, {why}")
    return step


def _layer_step(layer: torch.nn.Module, call: Call) -> Step:
    read = _layer_reader(layer)
    if read is None:
        kind = type(layer).__module__.removeprefix("torch.nn.modules.")
        why = WHY_NOT.get(kind, "which is not among the layers of the theory")
        raise refuse(f"has {call.name}, {why}")
    return read(layer, call)


def _named(node: Any) -> str:
    if node.target is getattr:  # such as x.T
        return str(node.args[1])
    return str(getattr(node.target, "__name__", node.target))


def _layer_name(target: str, layer: Any) -> str:
    """Return the name of a layer for messages: its path in the module, and its class with its settings."""
    path, shown = target.removeprefix("inner").removeprefix("."), f"{type(layer).__name__}({layer.extra_repr()})"
    return f"the layer {path!r} = {shown}" if path else shown


def _layer_reader(layer: Any) -> Callable[[Any, Call], Step] | None:
    # A subclass with the forward of a layer of torch computes the same function.
    return next((LAYERS[kind] for kind in type(layer).__mro__ if kind in LAYERS), None)


# -- layers of torch.nn, one function for each kind that needs a look at its settings ---------------------------------


def _normalised(where: str) -> UnsupportedError:
    return refuse(
        f"has {where}, a normalisation of each sample (such as LayerNorm), with which the outputs of the hidden "
        "neurons are no function of this kind"
    )


def _batch_normalised(where: str) -> UnsupportedError:
    return refuse(
        f"has {where}, a batch normalisation (BatchNorm): it rescales while the network is trained, so that "
        "weight decay acts on other weights than those that predict, which is no problem of this kind. Folded into its "
        "Linear layer (fold_batch_norm=True, or torch.nn.utils.fusion.fuse_linear_bn_eval) the network can be "
        "certified, but by the objective with decay on the folded weights, on which it was not trained"
    )


def _normalisation_layer(module: Any, call: Call) -> Step:
    raise _batch_normalised(call.name) if isinstance(module, _NormBase) else _normalised(call.name)


def _dropout_layer(module: Any, call: Call) -> Step:
    if module.p != 0:
        raise _random(call.name)
    return Step("identity")


def _random(where: str) -> UnsupportedError:
    return refuse(
        f"has {where}: with dropout it was trained on another, random objective. To judge its "
        "weights by the objective without dropout all the same, set p = 0"
    )


def _attention_layer(module: Any, call: Call) -> Step:
    raise refuse(f"has {call.name}: softmax attention has no convex program of this kind")


def _same(kind: str, module: Any, call: Call) -> Step:
    return Step(kind, module, call.after, call.name)


def _class_axis(module: Any, call: Call) -> Step:
    return _over_classes("log_softmax" if isinstance(module, torch.nn.LogSoftmax) else "softmax", module.dim, call)


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


# -- functions and methods; None for arguments that no layer has ------------------------------------------------------

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
        raise _random(f"the function {call.name}")
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
    return _over_classes(call.name, call.argument(0, "dim"), call)


def _over_classes(kind: str, dim: Any, call: Call) -> Step:
    """Return the step of a (log-)softmax over the last of two axes, which is that of the classes."""
    # torch takes the last of two axes where none is given.
    if call.before is None or len(call.before) != 2 or (dim is not None and dim % 2 != 1):
        raise refuse(f"has {call.name} over axis {dim}, where dim=1 of n x c outputs is expected")
    return Step(kind, None, call.after, call.name)


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
