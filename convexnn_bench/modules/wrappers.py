"""Wrappers that only run a torch module, and how to take them off."""

import copy
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel


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
