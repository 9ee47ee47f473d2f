"""Read the weights of two layers.

They are those of a chain of operations, or of an attention block.
"""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from convexnn_bench.architectures import CNN, MLP, Attention
from convexnn_bench.errors import InputError
from convexnn_bench.modules.reading import Reading
from convexnn_bench.modules.refusals import refuse
from convexnn_bench.modules.steps import Step


def _numpy(parameter: torch.Tensor | None) -> np.ndarray | None:
    return None if parameter is None else parameter.detach().cpu().double().numpy().copy()


def read_attention(block: Any) -> Reading:
    """Return the reading of an `AttentionBlock`."""
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


def read_chain(steps: list[Step], X: np.ndarray) -> Reading:
    """Return the reading of a chain of two layers.

    It is [reshape] linear [relu] linear [head], or conv [relu] [pool] reshape linear [head].
    """
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
