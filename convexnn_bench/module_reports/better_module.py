"""Write the weights of another network into a copy of a user's module."""

import copy
from typing import Any

import numpy as np
import torch

from convexnn_bench.errors import UnsupportedError
from convexnn_bench.modules import AttentionBlock, Reading, chain_of, read_module, unwrapped


def with_weights(module: torch.nn.Module, X: np.ndarray, reading: Reading) -> torch.nn.Module:
    """Return a copy of the module in float64 with the weights of a reading.

    The reading may have another width.

    The layers keep their classes. A network with fewer neurons than the module gets zero neurons, so that its state
    dict still fits. The copy is read again, which compares its outputs on X with those of the reading. Raise
    UnsupportedError if the module cannot be rewritten, as TorchScript cannot.
    """
    original = unwrapped(module)
    if isinstance(original, torch.jit.ScriptModule):
        raise UnsupportedError("a TorchScript module has compiled layers, whose width cannot change")
    twin = copy.deepcopy(original).cpu().double()
    blocks = [part for part in twin.modules() if isinstance(part, AttentionBlock)]
    if blocks:
        _rewrite_attention(blocks[0], reading)
    else:
        kinds = [step for step in chain_of(twin, torch.as_tensor(X)) if step.kind in ("linear", "conv")]
        _rewrite_layers([step.module for step in kinds], reading)
    read_module(twin, X)
    return twin


def _parameter(values: np.ndarray) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.as_tensor(np.ascontiguousarray(values)))


def _padded(W: np.ndarray, width: int) -> np.ndarray:
    """Return the columns of W, and zero columns up to the width."""
    return np.pad(W, ((0, 0), (0, max(0, width - W.shape[1]))))


def _rewrite_attention(block: Any, reading: Reading) -> None:
    heads, d, c = len(block.U), block.U.shape[1], block.V.shape[2]
    W1, W2 = (_padded(W, heads) for W in (reading.W1, reading.W2))
    block.U, block.V = _parameter(W1.T.reshape(-1, d, d)), _parameter(W2.T.reshape(-1, d, c))
    if block.bias is not None:
        assert reading.output_bias is not None
        block.bias = _parameter(reading.output_bias)


def _rewrite_layers(layers: list[Any], reading: Reading) -> None:
    """Give two layers, the first a Linear or Conv2d, the weights of the reading.

    The last row of its W1 may be biases.
    """
    first, last = layers
    convolution = isinstance(first, torch.nn.Conv2d)
    width = first.out_channels if convolution else first.out_features
    W1, W2 = (_padded(W, width) for W in (reading.W1, reading.W2))
    M, c = W1.shape[1], last.out_features
    weights = W1[:-1] if reading.first_bias else W1
    first.weight = _parameter(weights.T.reshape(M, *first.weight.shape[1:]))
    if reading.first_bias:
        first.bias = _parameter(W1[-1])
    # Row (alpha, c') of W2 is the weight of the pooled value (neuron, alpha), in the order of torch after Flatten.
    pooled = len(W2) // c
    last.weight = _parameter(W2.reshape(pooled, c, M).transpose(1, 2, 0).reshape(c, M * pooled))
    if reading.output_bias is not None:
        last.bias = _parameter(reading.output_bias)
    last.in_features = M * pooled
    if convolution:
        first.out_channels = M
    else:
        first.out_features = M
