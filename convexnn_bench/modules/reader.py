"""Read a torch module as a two-layer network.

The outputs of the module are compared with those of the reading.
"""

import math
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
import torch

from convexnn_bench.errors import InputError
from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.modules.chain import chain_of
from convexnn_bench.modules.checkpoints import module_from_state
from convexnn_bench.modules.gated import GatedAttention, GatedCNN, GatedMLP
from convexnn_bench.modules.outputs import check_outputs, evaluation_note, run_on
from convexnn_bench.modules.reading import Reading
from convexnn_bench.modules.refusals import refuse
from convexnn_bench.modules.trained_parameters import check_count, check_parameters
from convexnn_bench.modules.two_layers import read_attention, read_chain
from convexnn_bench.modules.wrappers import unwrapped


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
    notes = check_parameters(module)
    # 2. Run the module on the data.
    run = run_on(module, X)
    # 3. Read the operations and their weights.
    reading, parameters = _read(module, X)
    weights = [reading.W1, reading.W2, *([] if reading.output_bias is None else [reading.output_bias])]
    check_count(module, sum(weight.size for weight in weights))
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
    check_outputs(module, reading, X, run)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    roles = {role: names[id(parameter)] for role, parameter in parameters.items()}
    return replace(reading, notes=(*notes, *evaluation_note(module, X, run)), parameters=roles)


def _not_a_module(value: Any) -> InputError:
    """Return the error for an object that is not a torch module.

    It gives advice for networks of other libraries.
    """
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
        return read_attention(module), {role: value for role, value in parameters.items() if value is not None}
    if isinstance(module, GatedMLP | GatedCNN | GatedAttention):
        raise refuse(
            "is a gated network, whose gates are part of its problem: certify the result that it was made from, as by "
            "cnn.certify(result.problem, result)"
        )
    steps = chain_of(module, torch.as_tensor(X))
    return read_chain(steps, X), _parameters([step.module for step in steps if step.kind in ("linear", "conv")])


def _parameters(layers: list[Any]) -> dict[str, torch.Tensor]:
    """Return the parameters of two layers by their roles."""
    pairs = zip(("first", "second"), layers, strict=True)
    found = {f"{role}.{kind}": getattr(layer, kind) for role, layer in pairs for kind in ("weight", "bias")}
    return {role: value for role, value in found.items() if value is not None}


def _scripted(module: Any, X: np.ndarray) -> Reading:
    """Return the reading of a scripted or traced MLP from its parameters.

    The caller checks its outputs on X.
    """
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
    return read_chain(chain_of(plain, torch.as_tensor(X)), X)
