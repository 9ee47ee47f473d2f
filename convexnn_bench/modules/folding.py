"""Fold batch normalisation in evaluation mode into the layers that it follows."""

import copy
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from convexnn_bench.errors import UnsupportedError
from convexnn_bench.modules.wrappers import unwrapped

REPRODUCED = 1e-9  # difference between the outputs before and after, relative to the largest output


def folded(module: torch.nn.Module, X: np.ndarray) -> tuple[torch.nn.Module, str]:
    """Return a float64 copy without batch normalisation, and a note on it.

    Its outputs in evaluation mode are the same.

    BN(W x + b) = gamma (W x + b - mean) / sigma + beta is the layer with the weights diag(gamma / sigma) W. Raise
    UnsupportedError if a batch normalisation does not follow a Linear or Conv2d, or has no running statistics.
    """
    module = unwrapped(module)
    plain = copy.deepcopy(module).cpu().double().eval()
    twin = copy.deepcopy(plain)
    inputs = torch.as_tensor(X, dtype=torch.float64)
    # 1. Find the layer whose output each batch normalisation takes, by the identity of the tensor.
    made: dict[int, tuple[str, torch.Tensor]] = {}
    pairs: list[tuple[str, str]] = []

    def hear(name: str, layer: torch.nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> None:
        if not isinstance(layer, _BatchNorm):
            made[id(output)] = name, output  # the tensor is kept, so that no other one gets its id
        elif id(given[0]) not in made:
            raise UnsupportedError(
                f"fold_batch_norm: {name!r} follows no Linear or Conv2d, into which it can be folded"
            )
        elif layer.running_mean is None:
            raise UnsupportedError(f"fold_batch_norm: {name!r} has no running statistics (track_running_stats=False)")
        else:
            pairs.append((made[id(given[0])][0], name))

    for name, layer in plain.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d | _BatchNorm):
            layer.register_forward_hook(lambda layer, given, output, name=name: hear(name, layer, given, output))
    with torch.no_grad():
        expected = plain(inputs)
    if not pairs:
        return twin, ""
    # 2. Replace each pair by one layer.
    for into, name in pairs:
        layer, norm = twin.get_submodule(into), twin.get_submodule(name)
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, torch.nn.Linear) else fuse_conv_bn_eval
        twin.set_submodule(into, fuse(layer, norm))
        twin.set_submodule(name, torch.nn.Identity())
    # 3. Check the outputs.
    with torch.no_grad():
        found = twin(inputs)
    if not torch.allclose(found, expected, rtol=0.0, atol=REPRODUCED * (float(expected.abs().max()) or 1.0)):
        raise UnsupportedError(
            "fold_batch_norm: the module has other outputs after folding: a layer before a batch normalisation is used "
            "elsewhere too"
        )
    names = ", ".join(f"{name!r} into {into!r}" for into, name in pairs)
    return twin.requires_grad_(True), (
        f"Batch normalisation with its running statistics is folded: {names}. Weight decay is on the folded weights "
        "here, and training decayed other ones: the gap is about the objective stated here, which training did not "
        "minimise."
    )
