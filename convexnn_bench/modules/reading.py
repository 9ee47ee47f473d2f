"""A torch module read as a two-layer network: architecture, activation, weights, biases."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from convexnn_bench.architectures import CNN, MLP, Attention, BaseArchitecture
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.modules.chain import MeanPool, Step, chain_of, refuse

REPRODUCED = 1e-6  # largest difference between the module's outputs and those of its reading, relative to the largest


@dataclass(frozen=True)
class Reading:
    """A module as a network of a problem.

    architecture, activation: those of the problem. W1 (p x M), W2 (q x M): the weights; with `first_bias` the last row
    of W1 is the biases of the first layer, which are weights of a constant feature. output_bias: that of the second
    layer (c), or None. flat: samples are flattened first. words: a description for the user.
    """

    architecture: BaseArchitecture
    activation: str
    W1: np.ndarray
    W2: np.ndarray
    first_bias: bool
    output_bias: np.ndarray | None
    flat: bool
    words: str

    def data(self, X: np.ndarray) -> np.ndarray:
        """Return X as the problem takes it: flattened, and with the constant feature, where the module has them."""
        if self.flat:
            X = X.reshape(len(X), -1)
        if self.first_bias and isinstance(self.architecture, MLP):
            X = np.hstack([X, np.ones((len(X), 1))])
        return X

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the network that was read, n_out x c."""
        data = torch.as_tensor(self.data(X))
        H = self.architecture.first_layer(torch.as_tensor(self.W1), data)
        H = H.clamp_min(0) if self.activation == "relu" else H
        bias = 0.0 if self.output_bias is None else self.output_bias
        return self.architecture.combine(H, torch.as_tensor(self.W2), data, self.outputs(X)).numpy() + bias

    def outputs(self, X: np.ndarray) -> int:
        """Return c, the number of outputs in a row of the predictions."""
        return int(self.W2.shape[0] // self.architecture.width_out(self.data(X), 1))


def read_module(module: Any, X: np.ndarray) -> Reading:
    """Return the module as a network on data X (float64), without changing the module.

    Raise UnsupportedError where it is no two-layer network of the theory, or where the reading does not reproduce its
    outputs on X, and InputError where X does not fit it.
    """
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if X.ndim < 2 or len(X) == 0:
        raise InputError(f"X must hold at least one sample, one a row, got shape {X.shape}")
    # A block that stands alone in a Sequential is the block.
    while isinstance(module, torch.nn.Sequential) and len(module) == 1 and isinstance(module[0], AttentionBlock):
        module = module[0]
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise InputError(f"the module's parameter {name} is not initialised: apply the module to data first")
    own = isinstance(module, AttentionBlock) and type(module).forward is AttentionBlock.forward
    # 1. Read the operations and their weights.
    reading = _attention(module) if own else _chain(chain_of(module, len(X)), X)
    # 2. Weight decay must act on exactly these weights.
    weights = [reading.W1, reading.W2, *([] if reading.output_bias is None else [reading.output_bias])]
    _check_parameters(module, sum(weight.size for weight in weights))
    if not all(np.isfinite(weight).all() for weight in weights):
        raise InputError("the module's weights are not all finite")
    # 3. The reading must reproduce the module.
    _check_outputs(module, reading, X)
    return reading


def _check_parameters(module: torch.nn.Module, read: int) -> None:
    """Raise UnsupportedError unless weight decay acts on each of the `read` numbers once, and on no others."""
    for name, _ in module.named_parameters():
        if name.rsplit(".", 1)[-1] not in ("weight", "bias", "U", "V"):
            raise refuse(f"has the parameter {name}: only weights and biases of layers, without weight norms, are read")
    held = sum(parameter.numel() for parameter in module.parameters())
    if held != read:
        raise refuse(
            f"has {held} parameters where the layers that were read have {read}: shared or unused weights make weight "
            "decay another penalty"
        )


def _check_outputs(module: torch.nn.Module, reading: Reading, X: np.ndarray) -> None:
    """Raise UnsupportedError where the reading does not reproduce the module's outputs on X."""
    # In float64 and eval mode neither single precision nor dropout explains a difference: the reading would be wrong.
    twin = copy.deepcopy(module).double().cpu().eval()
    try:
        with torch.no_grad():
            expected = twin(torch.as_tensor(X)).numpy()
    except RuntimeError as error:
        raise InputError(f"the module cannot be applied to X of shape {X.shape}: {error}") from error
    try:
        found = reading.predict(X)
    except RuntimeError as error:  # such as Linear layers on the last axis of sequences
        raise UnsupportedError(
            f"the module was read as {reading.words}, which does not take X of shape {X.shape}: is a Flatten missing?"
        ) from error
    expected = expected.reshape(-1, expected.shape[-1] if expected.ndim > 1 else 1)
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-300)
    if found.shape != expected.shape or not np.abs(found - expected).max(initial=0.0) <= REPRODUCED * scale:
        raise UnsupportedError(f"the module was read as {reading.words}, but that does not reproduce its outputs on X")


def _numpy(parameter: torch.Tensor | None) -> np.ndarray | None:
    return None if parameter is None else parameter.detach().cpu().double().numpy().copy()


def _attention(block: Any) -> Reading:
    U, V = _numpy(block.U), _numpy(block.V)
    assert U is not None
    assert V is not None
    words = f"{len(U)}-head self-attention, {block.activation} activation, output per "
    words += "token" if block.output == "tokens" else "sample (mean over tokens)"
    # Column j of W1 is U_j row by row, index (a, b), and column j of W2 is V_j with index (l, c'), as in `Attention`.
    W1, W2 = (array.reshape(len(array), -1).T.copy() for array in (U, V))
    return Reading(Attention(output=block.output), block.activation, W1, W2, False, None, False, words)


def _chain(steps: list[Step], X: np.ndarray) -> Reading:
    """Return the reading of [flatten] linear [relu] linear, or of conv [relu] [pool] flatten linear."""
    kinds = [step.kind for step in steps]
    plain = [kind for kind in kinds if kind not in ("relu", "pool", "flatten")]
    activation = "relu" if "relu" in kinds else "linear"
    layers = [step.module for step in steps if step.kind in ("linear", "conv")]
    if len({id(layer.weight) for layer in layers}) < len(layers):
        raise refuse("uses the same weights twice, which are decayed once")
    if plain == ["linear", "linear"]:
        body = kinds[1:] if kinds[0] == "flatten" else kinds
        if body in (["linear", "relu", "linear"], ["linear", "linear"]):
            return _mlp(layers, activation, kinds[0] == "flatten" or X.ndim > 2)
    if plain == ["conv", "linear"]:
        between = [kind for kind in kinds[1:-1] if kind != "relu"]
        pools = [step.module for step in steps if step.kind == "pool"]
        # Pooling is linear and belongs to C, so that it must come after phi. Average pooling before ReLU is another
        # network.
        relu_first = "relu" not in kinds or kinds.index("relu") == 1
        mean = between == ["pool"] and isinstance(pools[0], MeanPool)  # it drops the axes it pools
        flat = mean or between in (["flatten"], ["pool", "flatten"])
        if flat and relu_first and kinds.count("relu") <= 1:
            return _cnn(layers, activation, pools[0] if pools else None, X)
    raise refuse(f"is the chain {' -> '.join(kinds) or 'of no layers'}")


def _mlp(layers: list[Any], activation: str, flat: bool) -> Reading:
    first, last = layers
    W1, W2, bias = _numpy(first.weight), _numpy(last.weight), _numpy(first.bias)
    assert W1 is not None
    assert W2 is not None
    # The bias is the weight of a constant feature, which `Reading.data` appends to the samples.
    rows = W1.T if bias is None else np.vstack([W1.T, bias])
    words = f"{activation} MLP with {W1.shape[1]} inputs, {len(W1)} neurons, {len(W2)} outputs"
    return Reading(MLP(), activation, rows, W2, bias is not None, _numpy(last.bias), flat, words + _biases(first, last))


def _biases(first: Any, last: Any) -> str:
    has = [name for name, layer in (("first", first), ("second", last)) if layer.bias is not None]
    return f", biases in the {' and the '.join(has)} layer" if has else ", no biases"


def _cnn(layers: list[Any], activation: str, pool: Any, X: np.ndarray) -> Reading:
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
    if X.ndim != 4:
        raise InputError(f"X must be n x channels x height x width for a convolution, got shape {X.shape}")
    W1, W2, bias = _numpy(conv.weight), _numpy(last.weight), _numpy(conv.bias)
    assert W1 is not None
    assert W2 is not None
    height, width = ((size + 2 * padding[0] - side[0]) // stride[0] + 1 for size in X.shape[2:])
    if min(height, width) < 1:
        raise InputError(f"X has images of {X.shape[2]} x {X.shape[3]}, too small for {conv}")
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
    return Reading(architecture, activation, rows, V, bias is not None, _numpy(last.bias), False, words)


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
