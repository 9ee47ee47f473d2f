"""Turn the weights of a constant feature into biases of the hidden layer.

The weights of the constant feature are the biases: (x, 1)^T (u, a) = x^T u + a, for neurons and for gates.
"""

import torch

from convexnn_bench.errors import UnsupportedError
from convexnn_bench.modules import GatedMLP


def with_hidden_biases(module: torch.nn.Module) -> torch.nn.Module:
    """Return the network with the last feature, a constant of one, as hidden biases.

    Raise UnsupportedError for a module of another kind than `Result.to_torch` returns for the MLP.
    """
    if isinstance(module, GatedMLP):
        module.first = _with_bias(module.first)
        module.gates, module.gate_biases = module.gates[:, :-1].clone(), module.gates[:, -1].clone()
        return module
    if isinstance(module, torch.nn.Linear):
        return _with_bias(module)
    if isinstance(module, torch.nn.Sequential) and isinstance(module[0], torch.nn.Linear):
        module[0] = _with_bias(module[0])
        return module
    raise UnsupportedError(
        f"to_torch() cannot give {type(module).__name__} biases in the hidden layer: fit with fit_intercept=False, or "
        "use result_.to_torch() on samples with a last feature of one"
    )


def _with_bias(layer: torch.nn.Linear) -> torch.nn.Linear:
    """Return the layer without its last input, whose weights are added to the bias."""
    inputs, weight = layer.in_features - 1, layer.weight.detach()
    bias = weight[:, -1] if layer.bias is None else weight[:, -1] + layer.bias.detach()
    made = torch.nn.Linear(inputs, layer.out_features, device="meta")
    made.load_state_dict({"weight": weight[:, :-1].clone(), "bias": bias.clone()}, assign=True)
    return made
