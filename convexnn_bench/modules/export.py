"""Turn a point into a torch module in float64, with plain layers if the network has them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from convexnn_bench.activations import GatedReLU, Linear, ReLU
from convexnn_bench.architectures import CNN, MLP, Attention
from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.modules.gated import GatedAttention, GatedCNN, GatedMLP
from convexnn_bench.modules.lifted import ArchitectureNetwork
from convexnn_bench.modules.pooling import pooling_layer
from convexnn_bench.prediction import Predictor

State = dict[str, torch.Tensor]


def to_torch(predictor: Predictor) -> torch.nn.Module:
    """Return a float64 module with the predictions of a predictor.

    `Result.to_torch` describes it. Raise UnsupportedError if the predictor's neurons are not known.
    """
    architecture, activation = type(predictor.problem.architecture), type(predictor.problem.activation)
    # A subclass may define other maps, so that only these exact classes have layers of torch.
    if architecture not in (MLP, CNN, Attention) or activation not in (Linear, GatedReLU, ReLU):
        return _by_architecture(predictor)
    if architecture is MLP:
        return _linear_mlp(predictor) if activation is Linear else _mlp(predictor)
    if architecture is CNN:
        return _linear_cnn(predictor) if activation is Linear else _cnn(predictor)
    return _attention(predictor)


def _linear_mlp(predictor: Predictor) -> torch.nn.Module:
    (Z,) = predictor.point.to_blocks(predictor.problem)
    p, q = Z.shape
    has_bias = predictor.output_bias is not None
    return _loaded(lambda: torch.nn.Linear(p, q, has_bias), {"weight": Z.T, **_bias(predictor)})


def _linear_cnn(predictor: Predictor) -> torch.nn.Module:
    """Return the affine map of an image as Flatten and one Linear layer."""
    problem = predictor.problem
    (Z,) = predictor.point.to_blocks(problem)

    def outputs(X: torch.Tensor) -> torch.Tensor:
        return problem.architecture.second_layer(problem.architecture.phi_rows(X) @ Z, X, problem.c)[0]

    # An affine map is known from its value at zero and its derivative, which is the same everywhere.
    zero = torch.zeros(1, *problem.X.shape[1:], dtype=torch.float64)
    bias, weight = outputs(zero), torch.func.jacrev(outputs)(zero).reshape(problem.c, -1)
    has_bias = predictor.output_bias is not None or bool(bias.any())
    if predictor.output_bias is not None:
        bias = bias + torch.as_tensor(predictor.output_bias)
    state = {"1.weight": weight, **({"1.bias": bias} if has_bias else {})}
    return _loaded(
        lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(zero.numel(), problem.c, has_bias)), state
    )


def _mlp(predictor: Predictor) -> torch.nn.Module:
    neurons, has_bias = predictor.neurons(), predictor.output_bias is not None
    d, M, c = *neurons.W1.shape, predictor.problem.c
    first, second = {"weight": neurons.W1.T}, {"weight": neurons.W2, **_bias(predictor)}
    if neurons.gates is not None:
        state = {**_named("first", first), **_named("second", second), "gates": neurons.gates.T}
        return _loaded(lambda: GatedMLP(d, M, c, has_bias), state)

    def layers() -> torch.nn.Module:
        last = torch.nn.Linear(M, c, has_bias)
        return torch.nn.Sequential(torch.nn.Linear(d, M, bias=False), torch.nn.ReLU(), last)

    return _loaded(layers, {**_named("0", first), **_named("2", second)})


def _cnn(predictor: Predictor) -> torch.nn.Module:
    architecture, neurons = predictor.problem.architecture, predictor.neurons()
    assert isinstance(architecture, CNN)
    M, c, has_bias = neurons.W1.shape[1], predictor.problem.c, predictor.output_bias is not None
    channels, patch, stride, padding = (
        predictor.problem.X.shape[1], architecture.patch, architecture.stride, architecture.padding,
    )  # fmt: skip
    pooled = predictor.problem.q // c

    def filters(W: torch.Tensor) -> State:
        # A column of W1 runs over channel, row and column of the patch, and ends in the bias.
        kernels = (W[:-1] if architecture.bias else W).T.reshape(M, channels, patch, patch)
        return {"weight": kernels, **({"bias": W[-1]} if architecture.bias else {})}

    # V[(alpha, c'), j] is the weight of the pooled value (j, alpha), which is torch's order after Flatten.
    weight = neurons.W2.reshape(pooled, c, M).permute(1, 2, 0).reshape(c, M * pooled)
    first, second = filters(neurons.W1), {"weight": weight, **_bias(predictor)}
    matrix = {"P": torch.as_tensor(architecture.pool)} if isinstance(architecture.pool, np.ndarray) else {}
    if neurons.gates is not None:
        gates = dict(zip(("gates", "gate_biases"), filters(neurons.gates).values(), strict=False))
        state = {**_named("first", first), **_named("second", second), **_named("pool", matrix), **gates}
        return _loaded(
            lambda: GatedCNN(
                channels, M, c, patch, stride, padding, architecture.pool, pooled, architecture.bias, has_bias
            ),
            state,
        )

    def layers() -> torch.nn.Module:
        conv = torch.nn.Conv2d(channels, M, patch, stride, padding, bias=architecture.bias)
        linear = torch.nn.Linear(M * pooled, c, has_bias)
        pool = pooling_layer(architecture.pool)
        return torch.nn.Sequential(conv, torch.nn.ReLU(), pool, torch.nn.Flatten(), linear)

    return _loaded(layers, {**_named("0", first), **_named("2", matrix), **_named("4", second)})


def _attention(predictor: Predictor) -> torch.nn.Module:
    architecture, neurons = predictor.problem.architecture, predictor.neurons()
    assert isinstance(architecture, Attention)
    d, c, M = predictor.problem.X.shape[2], predictor.problem.c, neurons.W1.shape[1]
    has_bias, output = predictor.output_bias is not None, architecture.output
    state = {"U": neurons.W1.T.reshape(M, d, d), "V": neurons.W2.T.reshape(M, d, c), **_bias(predictor)}
    if neurons.gates is not None:
        gates = {"gates": neurons.gates.T.reshape(M, d, d)}
        return _loaded(lambda: GatedAttention(d, c, M, output, has_bias), {**state, **gates})
    name = predictor.problem.activation.name
    return _loaded(lambda: AttentionBlock(d, c, M, name, output, has_bias), state)


def _by_architecture(predictor: Predictor) -> torch.nn.Module:
    problem, neurons = predictor.problem, predictor.neurons()
    state = {"W1": neurons.W1, "W2": neurons.W2, **_bias(predictor)}
    if neurons.gates is not None:
        state["gates"] = neurons.gates
    return _loaded(
        lambda: ArchitectureNetwork(
            problem.architecture, problem.activation, problem.p, problem.q, neurons.W1.shape[1],
            predictor.sample_shape, predictor.output_bias is not None,
        ),
        state,
    )  # fmt: skip


def _bias(predictor: Predictor) -> State:
    return {} if predictor.output_bias is None else {"bias": torch.as_tensor(predictor.output_bias)}


def _named(layer: str, state: State) -> State:
    return {f"{layer}.{name}": value for name, value in state.items()}


def _loaded(make: Callable[[], torch.nn.Module], state: State) -> torch.nn.Module:
    """Return the module with copies of the arrays of a state dict, in their dtype."""
    # On the device "meta" no weights are drawn, so that torch's random numbers stay as they are.
    with torch.device("meta"):
        module = make()
    copies: dict[str, Any] = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    module.load_state_dict(copies, assign=True)
    return module.eval()
