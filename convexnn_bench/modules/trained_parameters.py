"""Check that weight decay and training act on every parameter of a torch module, once."""

import torch
from torch.nn.parameter import is_lazy

from convexnn_bench.errors import InputError
from convexnn_bench.modules.checkpoints import foreign_parameters
from convexnn_bench.modules.memory import overlaps
from convexnn_bench.modules.refusals import refuse


def check_parameters(module: torch.nn.Module) -> tuple[str, ...]:
    """Raise if weight decay or training does not act on each parameter by itself.

    Return notes on assumptions.
    """
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


def check_count(module: torch.nn.Module, read: int) -> None:
    """Raise UnsupportedError unless the module has as many parameters as the reading, which is `read`."""
    held = sum(parameter.numel() for parameter in module.parameters())
    if held != read:
        raise refuse(
            f"has {held} parameters where the layers that were read have {read}: shared or unused weights make weight "
            "decay another penalty"
        )
