"""A torch module read as a two-layer network: architecture, activation, weights, biases."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from convexnn_bench.architectures import CNN, MLP, Attention, BaseArchitecture
from convexnn_bench.errors import ConvexNNError, InputError, NotFiniteError, UnsupportedError
from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.modules.chain import Step, chain_of, has_own_forward, refuse, unwrapped
from convexnn_bench.modules.checkpoints import foreign_parameters, module_from_state
from convexnn_bench.modules.gated import GatedAttention, GatedCNN, GatedMLP
from convexnn_bench.modules.memory import overlaps

REPRODUCED = 1e-6  # largest difference between the module's outputs and those of its reading, relative to the largest
# Functions at the end of a module that are part of some losses of torch, and their names in `Reading.head`.
HEADS = {
    **dict.fromkeys((torch.sigmoid, torch.special.expit, torch.nn.functional.sigmoid), "sigmoid"),
    torch.Tensor.sigmoid: "sigmoid",
    **dict.fromkeys((torch.log_softmax, torch.special.log_softmax, torch.nn.functional.log_softmax), "log_softmax"),
    torch.Tensor.log_softmax: "log_softmax",
}


@dataclass(frozen=True)
class Reading:
    """A module as a network of a problem.

    architecture, activation: those of the problem. W1 (p x M), W2 (q x M): the weights; with `first_bias` the last row
    of W1 is the biases of the first layer, which are weights of a constant feature. output_bias: that of the second
    layer (c), or None. sample: the shape that the module gives to each sample first, (-1,) where it flattens them, or
    None. words: a description for the user. head: "sigmoid" or "log_softmax" where the module ends in that function,
    which then belongs to its loss: W1 and W2 give the values before it. notes: what else a user should know.
    parameters: the names in the module of "first.weight", "first.bias", "second.weight" and "second.bias", as far as it
    has them; empty for TorchScript, whose layers are recognised by their sizes.
    """

    architecture: BaseArchitecture
    activation: str
    W1: np.ndarray
    W2: np.ndarray
    first_bias: bool
    output_bias: np.ndarray | None
    sample: tuple[int, ...] | None
    words: str
    head: str | None = None
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def samples(self, X: np.ndarray) -> np.ndarray:
        """Return X in the shape that the module gives to it first."""
        return X if self.sample is None else X.reshape(len(X), *self.sample)

    def data(self, X: np.ndarray) -> np.ndarray:
        """Return X as the problem takes it: reshaped, and with the constant feature, where the module has them."""
        X = self.samples(X)
        if self.first_bias and isinstance(self.architecture, MLP):
            X = np.hstack([X, np.ones((len(X), 1))])
        return X

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the network that was read, n_out x c."""
        return self.outputs_of(self.data(X))

    def outputs_of(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs, n_out x c, for data as the problem takes them."""
        data = torch.as_tensor(inputs)
        H = self.architecture.first_layer(torch.as_tensor(self.W1), data)
        H = H.clamp_min(0) if self.activation == "relu" else H
        bias = 0.0 if self.output_bias is None else self.output_bias
        return self.architecture.combine(H, torch.as_tensor(self.W2), data, self._c(inputs)).numpy() + bias

    def outputs(self, X: np.ndarray) -> int:
        """Return c, the number of outputs in a row of the predictions."""
        return self._c(self.data(X))

    def _c(self, inputs: np.ndarray) -> int:
        return int(self.W2.shape[0] // self.architecture.width_out(inputs, 1))


def read_module(module: Any, X: np.ndarray) -> Reading:
    """Return the module as a network on data X (float64), without changing the module.

    DataParallel, AveragedModel and the wrapper of torch.compile are removed first. Raise UnsupportedError if the module
    is not a two-layer network of the theory, or if the reading does not reproduce its outputs on X. Raise InputError if
    X does not fit the module.
    """
    if not isinstance(module, torch.nn.Module):
        raise _not_a_module(module)
    if X.ndim < 2 or len(X) == 0:
        raise InputError(f"X must hold at least one sample, one a row, got shape {X.shape}")
    module = unwrapped(module)
    # A block that stands alone in a Sequential is the block.
    while isinstance(module, torch.nn.Sequential) and len(module) == 1 and isinstance(module[0], AttentionBlock):
        module = module[0]
    # 1. Check that weight decay and training act on every parameter, once.
    notes = _check_parameters(module)
    # 2. Run the module on the data.
    run = _run(module, X)
    # 3. Read the operations and their weights.
    reading, parameters = _read(module, X)
    weights = [reading.W1, reading.W2, *([] if reading.output_bias is None else [reading.output_bias])]
    _check_count(module, sum(weight.size for weight in weights))
    if not all(np.isfinite(weight).all() for weight in weights):
        raise InputError("the module's weights are not all finite")
    # 4. Check that the reading reproduces the module.
    if run is None:
        raise refuse("cannot be called with X alone")
    if run.untrained:
        raise refuse(
            f"has the parameters {', '.join(run.untrained)}, which no gradient reaches (detach or no_grad in forward): "
            "they were not trained, where the bound is about training all layers"
        )
    _check_outputs(module, reading, X, run)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    roles = {role: names[id(parameter)] for role, parameter in parameters.items()}
    return replace(reading, notes=(*notes, *_evaluation_note(module, X, run)), parameters=roles)


def _not_a_module(value: Any) -> InputError:
    """Return the error for an object that is not a torch module, with advice for networks of other libraries."""
    library = type(value).__module__.partition(".")[0]
    why = ""
    if library in ("sklearn", "keras", "tensorflow", "tf_keras"):
        why = (
            f": the networks of {library} have biases without weight decay. Copy the weights into the same layers of "
            "torch and give bias_decay=False and output_bias='free'"
        )
    elif isinstance(value, dict):
        why = ": load a state dict into the module that it belongs to, or give its file to convexnn-bench certify"
    elif isinstance(value, (str, PathLike)):
        why = ": a file of weights is read by convexnn-bench certify MODEL DATA"
    return InputError(f"module must be a torch.nn.Module, got {type(value).__name__}{why}")


def _read(module: torch.nn.Module, X: np.ndarray) -> tuple[Reading, dict[str, torch.Tensor]]:
    """Return the reading, and the parameters of both layers if they are known."""
    if isinstance(module, torch.jit.ScriptModule):
        return _scripted(module, X), {}
    if isinstance(module, AttentionBlock) and type(module).forward is AttentionBlock.forward:
        parameters = {"first.weight": module.U, "second.weight": module.V, "second.bias": module.bias}
        return _attention(module), {role: value for role, value in parameters.items() if value is not None}
    if isinstance(module, GatedMLP | GatedCNN | GatedAttention):
        raise refuse(
            "is a gated network, whose gates are part of its problem: certify the result that it was made from, as by "
            "cnn.certify(result.problem, result)"
        )
    steps = chain_of(module, torch.as_tensor(X))
    return _chain(steps, X), _parameters([step.module for step in steps if step.kind in ("linear", "conv")])


def _parameters(layers: list[Any]) -> dict[str, torch.Tensor]:
    """Return the parameters of two layers by their roles."""
    pairs = zip(("first", "second"), layers, strict=True)
    found = {f"{role}.{kind}": getattr(layer, kind) for role, layer in pairs for kind in ("weight", "bias")}
    return {role: value for role, value in found.items() if value is not None}


def _scripted(module: Any, X: np.ndarray) -> Reading:
    """Return the reading of a scripted or traced MLP from its parameters. The caller checks its outputs on X."""
    kind = "TorchScript module"
    advice = "give the module from which it was made, or build that anew and load_state_dict(scripted.state_dict())"
    state = dict(module.state_dict())
    if not state:
        raise refuse(f"is a frozen {kind}, whose parameters have become constants: {advice}")
    # Names and sizes show the layers, and the code shows whether there is a ReLU. Strides and pooling remain unknown.
    activation = "relu" if any(word in str(module.inlined_graph) for word in ("relu", "clamp")) else "linear"
    try:
        plain = module_from_state(state, activation, width=math.prod(X.shape[1:]))
    except InputError as error:
        raise refuse(f"is a {kind} whose layers cannot be recognised by its parameters ({error}): {advice}") from error
    if not isinstance(plain, torch.nn.Sequential) or any(isinstance(layer, torch.nn.Conv2d) for layer in plain):
        raise refuse(f"is a {kind} with other layers than two Linear: {advice}")
    return _chain(chain_of(plain, torch.as_tensor(X)), X)


# -- the objective: which parameters weight decay and training act on --------------------------------------------------


def _check_parameters(module: torch.nn.Module) -> tuple[str, ...]:
    """Raise if weight decay or training does not act on each parameter by itself; return notes on assumptions."""
    named = dict(module.named_parameters())
    foreign = foreign_parameters(named)
    if foreign:
        raise refuse(f"has parameters of {foreign}")
    for name, parameter in named.items():
        if is_lazy(parameter):
            raise InputError(f"the module's parameter {name} is not initialised: apply the module to data first")
        if name.rsplit(".", 1)[-1] not in ("weight", "bias", "U", "V"):
            raise refuse(f"has the parameter {name}: only weights and biases of layers are read")
    for one, other in overlaps(named):
        raise refuse(
            f"has the parameters {one} and {other} in the same memory: weight decay acts once on shared weights, and "
            "training moves them together. Networks of layers with weights of their own are read"
        )
    frozen = [name for name, parameter in named.items() if not parameter.requires_grad]
    if frozen and len(frozen) < len(named):
        raise refuse(
            f"has the frozen parameters {', '.join(frozen)} (requires_grad is False): it was trained on fewer weights "
            "than the bound is about. If all layers were trained, call module.requires_grad_(True); that also judges a "
            "network with a fixed layer by the problem in which that layer may change"
        )
    return ("All parameters have requires_grad=False; they are taken as trained together.",) if frozen else ()


def _check_count(module: torch.nn.Module, read: int) -> None:
    """Raise UnsupportedError unless the module has as many parameters as the reading, which is `read`."""
    held = sum(parameter.numel() for parameter in module.parameters())
    if held != read:
        raise refuse(
            f"has {held} parameters where the layers that were read have {read}: shared or unused weights make weight "
            "decay another penalty"
        )


def _reached(output: torch.Tensor) -> Iterator[int]:
    """Yield the ids of the tensors that gradients of the output reach, from the graph of autograd."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        function = waiting.pop()
        if function is not None and function not in seen:
            seen.add(function)
            waiting += [following for following, _ in function.next_functions]
            if hasattr(function, "variable"):
                yield id(function.variable)


# -- the outputs ------------------------------------------------------------------------------------------------------


class _WithoutHeads(torch.overrides.TorchFunctionMode):
    """A mode in which sigmoid and log-softmax return their argument, to compare the values before a head."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in HEADS:
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


@dataclass(frozen=True)
class _Run:
    """The outputs of a module on the data, their precision, and the parameters that are not trained."""

    outputs: np.ndarray
    dtype: torch.dtype
    untrained: tuple[str, ...]


def _run(module: torch.nn.Module, X: np.ndarray) -> _Run | None:
    """Run the module on X in training mode. Return None if it cannot be called with X alone.

    Raise InputError if X does not fit.
    """
    # In float64, any difference between outputs shows that the reading is wrong. A module that casts to float32 must be
    # run in float32.
    first = None
    for dtype in (torch.float64, torch.float32):
        try:
            return _applied(module, X, dtype)
        except RuntimeError as error:
            first = first or error
        except ConvexNNError:
            raise
        except Exception:  # the forward may raise any exception; `_read` says later why it is not supported
            return None
    why = [line for line in str(first).splitlines() if line.strip()][-1:]  # TorchScript puts the reason last
    words = _misfit(module, X) or " ".join(why)
    raise InputError(f"the module cannot be applied to X of shape {X.shape}: {words}") from first


def _misfit(module: torch.nn.Module, X: np.ndarray) -> str | None:
    """Return in words which layer gets inputs of a wrong size, or None if the module fails otherwise."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    entered: list[tuple[str, torch.nn.Module, torch.Size]] = []

    def entering(name: str) -> Callable[..., None]:
        return lambda layer, inputs: entered.append((name, layer, inputs[0].shape))

    twin = copy.deepcopy(module).cpu().double()
    for name, layer in twin.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            layer.register_forward_pre_hook(entering(name))
    with torch.no_grad(), suppress(RuntimeError):
        twin(torch.as_tensor(X))
    if not entered:
        return None
    # The layer that was entered last has failed.
    name, layer, shape = entered[-1]
    if isinstance(layer, torch.nn.Linear) and shape[-1] != layer.in_features:
        columns = f"X has {X.shape[1]} columns" if X.ndim == 2 else f"X is {' x '.join(map(str, X.shape))}"
        return f"its layer {name!r} has in_features={layer.in_features} and gets {shape[-1]} ({columns})"
    if isinstance(layer, torch.nn.Conv2d) and len(shape) == 4 and shape[1] != layer.in_channels:
        return f"its layer {name!r} has in_channels={layer.in_channels} and gets {shape[1]} (X is n x channels x h x w)"
    return None


def _applied(
    module: torch.nn.Module, X: np.ndarray, dtype: torch.dtype, *, training: bool = True, without_head: bool = False
) -> _Run:
    """Run a copy of the module in this precision."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    portable = device.type not in ("cpu", "cuda")  # other devices may lack float64
    if portable:
        device = torch.device("cpu")
    scripted = isinstance(module, torch.jit.ScriptModule)  # its graph of autograd is compiled
    with torch.no_grad():
        twin = copy.deepcopy(module)
        twin = (twin.cpu() if portable else twin).to(dtype=dtype).train(training)
    if not scripted:
        twin.requires_grad_(True)
    with _WithoutHeads() if without_head else nullcontext(), torch.set_grad_enabled(not scripted):
        output = twin(torch.as_tensor(X, dtype=dtype, device=device))
    if not isinstance(output, torch.Tensor):
        raise refuse(f"returns a {type(output).__name__}, where one tensor of outputs is read")
    untrained: list[str] = []
    if not scripted:
        reached = set(_reached(output))
        untrained = [name for name, parameter in twin.named_parameters() if id(parameter) not in reached]
    return _Run(output.detach().cpu().double().numpy(), dtype, tuple(untrained))


def _check_outputs(module: torch.nn.Module, reading: Reading, X: np.ndarray, run: _Run) -> None:
    """Raise UnsupportedError where the reading does not reproduce the module's outputs on X."""
    try:
        computed = reading.predict(X)
    except RuntimeError as error:  # such as Linear layers on the last axis of sequences
        raise UnsupportedError(
            f"the module was read as {reading.words}, which does not take X of shape {X.shape}: is a Flatten missing?"
        ) from error
    # inf - inf cannot be compared.
    if not (np.isfinite(computed).all() and np.isfinite(run.outputs).all()):
        raise NotFiniteError("the module's outputs on X are not finite numbers; rescale X or the weights")
    same = _agrees(reading, X, computed, run)
    if reading.head is not None:
        # A head may map different large values to the same number, so that the values before it are compared as well.
        before = _agrees(reading, X, computed, _applied(module, X, run.dtype, without_head=True))
        values = torch.as_tensor(computed)
        after = torch.sigmoid(values) if reading.head == "sigmoid" else torch.log_softmax(values, dim=1)
        whole = computed.size == run.outputs.size
        allowed = REPRODUCED if run.dtype == torch.float64 else 1e-3
        same = before and whole and np.allclose(after.numpy().ravel(), run.outputs.ravel(), rtol=allowed, atol=allowed)
    if not same:
        raise UnsupportedError(f"the module was read as {reading.words}, but that does not reproduce its outputs on X")


def _agrees(reading: Reading, X: np.ndarray, computed: np.ndarray, run: _Run) -> bool:
    """Return True if the outputs of a run equal those of the reading, `computed`, up to the run's rounding."""
    # A squeeze or a flatten of the outputs keeps their order.
    if computed.size != run.outputs.size:
        return False
    expected = run.outputs.reshape(computed.shape)
    allowed = REPRODUCED * np.full(computed.shape, np.abs(expected).max(initial=1e-300))
    if run.dtype != torch.float64:
        # the usual bound on rounding errors of the products (Higham, section 3.5), with all entries made positive
        sizes = replace(
            reading,
            W1=np.abs(reading.W1),
            W2=np.abs(reading.W2),
            output_bias=None if reading.output_bias is None else np.abs(reading.output_bias),
        )
        terms = 10 + len(reading.W1) + reading.W2.size
        allowed = terms * float(torch.finfo(run.dtype).eps) * sizes.predict(np.abs(X))
    return bool((np.abs(computed - expected) <= allowed).all())


def _evaluation_note(module: torch.nn.Module, X: np.ndarray, run: _Run) -> tuple[str, ...]:
    """Return a note if the module has other outputs in evaluation mode than in training mode."""
    if not any(has_own_forward(part) for part in module.modules()):
        return ()
    other = _applied(module, X, run.dtype, training=False).outputs
    scale = np.abs(run.outputs).max(initial=1e-300)
    if other.size == run.outputs.size and np.allclose(other.ravel(), run.outputs.ravel(), rtol=0, atol=1e-4 * scale):
        return ()
    return ("In evaluation mode the module has other outputs; it is judged by those in training mode.",)


# -- the layers -------------------------------------------------------------------------------------------------------


def _numpy(parameter: torch.Tensor | None) -> np.ndarray | None:
    return None if parameter is None else parameter.detach().cpu().double().numpy().copy()


def _attention(block: Any) -> Reading:
    U, V = _numpy(block.U), _numpy(block.V)
    assert U is not None
    assert V is not None
    words = f"{len(U)}-head self-attention, {block.activation} activation, output per "
    words += "token" if block.output == "tokens" else "sample (mean over tokens)"
    bias = _numpy(block.bias)
    words += "" if bias is None else ", an output bias"
    # Column j of W1 is U_j row by row, index (a, b), and column j of W2 is V_j with index (l, c'), as in `Attention`.
    W1, W2 = (array.reshape(len(array), -1).T.copy() for array in (U, V))
    return Reading(Attention(output=block.output), block.activation, W1, W2, False, bias, None, words)


def _chain(steps: list[Step], X: np.ndarray) -> Reading:
    """Return the reading of [reshape] linear [relu] linear [head], or of conv [relu] [pool] reshape linear [head]."""
    head, steps = _head([step for step in steps if step.kind != "cast"])
    layers = [step.module for step in steps if step.kind in ("linear", "conv")]
    if len({id(layer.weight) for layer in layers}) < len(layers):
        raise refuse("uses the same weights twice, which are decayed once")
    # A reshape keeps the order of values in memory. Only a reshape of samples before a convolution matters here. The
    # comparison of outputs shows whether the others are harmless.
    kinds = [step.kind for step in steps if step.kind != "reshape"]
    activation = "relu" if "relu" in kinds else "linear"
    if kinds in (["linear", "relu", "linear"], ["linear", "linear"]):
        flat = X.ndim > 2 or steps[0].kind == "reshape"
        return replace(_mlp(layers, activation, (-1,) if flat else None), head=head)
    # Pooling is linear and belongs to C, so that it must come after phi. With pooling before ReLU the network would be
    # another one.
    pools = [step.module for step in steps if step.kind == "pool"]
    body = [kind for kind in kinds if kind not in ("relu", "pool")]
    relu_first = "relu" not in kinds or kinds.index("relu") == 1
    if body == ["conv", "linear"] and kinds[0] == "conv" and kinds[-1] == "linear" and relu_first and len(pools) <= 1:
        first = next(place for place, step in enumerate(steps) if step.kind == "conv")
        sizes = [step.size for step in steps[:first] if step.size is not None]
        sample = sizes[-1][1:] if sizes else None
        if kinds.count("relu") <= 1:
            return replace(_cnn(layers, activation, pools[0] if pools else None, X, sample), head=head)
    chain = " -> ".join(step.kind for step in steps) or "of no layers"
    deeper = ", whose last layers are certified by head='auto', given the features before them"
    raise refuse(f"is the chain {chain}{deeper if len(body) > 2 and body[-1] == 'linear' else ''}")


def _head(steps: list[Step]) -> tuple[str | None, list[Step]]:
    """Return the function of a loss at the end of the chain, or None, and the chain without it."""
    last = next((step for step in reversed(steps) if step.kind != "reshape"), None)
    heads = [step for step in steps if step.kind in ("sigmoid", "log_softmax", "softmax")]
    if not heads:
        return None, steps
    if len(heads) > 1 or heads[0] is not last:
        raise refuse(f"has {heads[0].name} between its layers, where ReLU alone is read")
    if last.kind == "softmax":
        raise refuse(
            f"ends in {last.name}: torch's CrossEntropyLoss contains the softmax, so that with a second one the loss "
            "is not convex in the outputs. If the loss was -log(p) of these probabilities, leave the softmax out "
            "and give loss='cross_entropy'"
        )
    return last.kind, [step for step in steps if step is not last]


def _mlp(layers: list[Any], activation: str, sample: tuple[int, ...] | None) -> Reading:
    first, last = layers
    W1, W2, bias = _numpy(first.weight), _numpy(last.weight), _numpy(first.bias)
    assert W1 is not None
    assert W2 is not None
    # The bias is the weight of a constant feature, which `Reading.data` appends to the samples.
    rows = W1.T if bias is None else np.vstack([W1.T, bias])
    words = f"{activation} MLP with {W1.shape[1]} inputs, {len(W1)} neurons, {len(W2)} outputs"
    words += _biases(first, last)
    return Reading(MLP(), activation, rows, W2, bias is not None, _numpy(last.bias), sample, words)


def _biases(first: Any, last: Any) -> str:
    has = [name for name, layer in (("first", first), ("second", last)) if layer.bias is not None]
    return f", biases in the {' and the '.join(has)} layer" if has else ", no biases"


def _cnn(layers: list[Any], activation: str, pool: Any, X: np.ndarray, sample: tuple[int, ...] | None) -> Reading:
    conv, last = layers
    side, stride, padding = conv.kernel_size, conv.stride, conv.padding
    plain = conv.groups == 1 and tuple(conv.dilation) == (1, 1)
    if isinstance(padding, str):
        plain = plain and (padding == "valid" or all(length % 2 for length in side))  # else one side gets more
        padding = (0, 0) if padding == "valid" else tuple(length // 2 for length in side)
    if not plain or conv.padding_mode != "zeros" or any(len(set(pair)) != 1 for pair in (side, stride, padding)):
        raise refuse(
            f"has {conv}: square kernels, strides and symmetric zero paddings without groups or dilation are read"
        )
    images = X.shape if sample is None else (len(X), *sample)
    if len(images) != 4 or math.prod(images) != X.size:
        raise InputError(f"X must be n x channels x height x width for a convolution, got shape {X.shape}")
    W1, W2, bias = _numpy(conv.weight), _numpy(last.weight), _numpy(conv.bias)
    assert W1 is not None
    assert W2 is not None
    height, width = ((size + 2 * padding[0] - side[0]) // stride[0] + 1 for size in images[2:])
    if min(height, width) < 1:
        raise InputError(f"X has images of {images[2]} x {images[3]}, too small for {conv}")
    # P[alpha, kappa], the weight of patch kappa in the pooled value alpha
    matrix = _pooling_matrix(pool, height, width)
    a, M, c = len(matrix), len(W1), len(W2)
    if W2.shape[1] != a * M:
        raise refuse(f"has {last} after {M} maps of {a} pooled values: not the Flatten and Linear that are read")
    # torch flattens to (map, alpha); here V[(alpha, c'), j]
    V = W2.reshape(c, M, a).transpose(2, 0, 1).reshape(a * c, M)
    # A filter's weights run over channel, row and column, as the patches of unfold do. A bias is the weight of the
    # constant that the architecture appends to each patch.
    rows = W1.reshape(M, -1).T if bias is None else np.vstack([W1.reshape(M, -1).T, bias])
    architecture = CNN(side[0], stride[0], padding[0], "identity" if pool is None else matrix, bias is not None)
    words = f"{activation} CNN with {M} filters of {side[0]} x {side[0]}, {a} pooled values a filter, {c} outputs"
    words += _biases(conv, last)
    return Reading(architecture, activation, rows, V, bias is not None, _numpy(last.bias), sample, words)


def _pooling_matrix(pool: Any, height: int, width: int) -> np.ndarray:
    """Return P (a x K) of a linear pooling, from its values at the unit images; the identity for none."""
    K = math.prod((height, width))
    if pool is None:
        return np.eye(K)
    # A linear map is known from its values at a basis: column kappa of P is its value at unit image kappa.
    units = torch.eye(K, dtype=torch.float64).reshape(K, 1, height, width)
    try:
        with torch.no_grad():
            return copy.deepcopy(pool).eval()(units).reshape(K, -1).T.numpy().copy()
    except RuntimeError as error:
        raise InputError(f"{pool} does not fit the {height} x {width} grid of patches: {error}") from error
