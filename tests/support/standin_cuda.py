"""CUDA as far as the package uses it, on `StandIn` tensors: what makes them, moves them and asks for their device."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from standin_tensor import CUDA, StandIn, traffic
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

CONVERSIONS = (torch.tensor, torch.as_tensor, torch.asarray)
NO_NUMPY = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."


def unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor that torch.func has wrapped, if it has."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def on_device(tensor: torch.Tensor) -> bool:
    return isinstance(unwrapped(tensor), StandIn)


def is_cuda(device) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class _ToHost(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor):
        return tensor.host.clone()

    @staticmethod
    def backward(ctx, slope):
        return StandIn(slope.clone())


class _ToDevice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor):
        return StandIn(tensor.detach().clone())

    @staticmethod
    def backward(ctx, slope):
        return slope.host.clone()


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    traffic.note("to_host", "copy")
    return _ToHost.apply(tensor)


def to_device(tensor: torch.Tensor) -> torch.Tensor:
    traffic.note("to_device", "copy")
    needs_grad = tensor.requires_grad and torch.is_grad_enabled()
    return _ToDevice.apply(tensor) if needs_grad else StandIn(unwrapped(tensor.detach().clone()))


def _to(tensor, *args, device=None, dtype=None, non_blocking=False, copy=False, memory_format=None):
    """Tensor.to."""
    flags = [argument for argument in args if isinstance(argument, bool)]
    copy = flags[1] if len(flags) > 1 else copy
    for argument in args:
        if isinstance(argument, torch.Tensor):
            device, dtype = CUDA if on_device(argument) else torch.device("cpu"), argument.dtype
        elif isinstance(argument, torch.dtype):
            dtype = argument
        elif isinstance(argument, str | torch.device):
            device = argument
    if device is not None and is_cuda(device) != on_device(tensor):
        tensor, copy = (to_device if is_cuda(device) else to_host)(tensor), False
    return tensor.to(tensor.dtype if dtype is None else dtype, copy=copy)


def _no_numpy(tensor, *args, **kwargs):
    raise TypeError(NO_NUMPY)


def _tolist(tensor):
    traffic.note("wait", "tolist")
    return tensor.host.tolist()


ON_DEVICE = {
    torch.Tensor.cpu: lambda tensor, **kwargs: to_host(tensor),
    torch.Tensor.cuda: lambda tensor, *args, **kwargs: tensor,
    torch.Tensor.numpy: _no_numpy,
    torch.Tensor.__array__: _no_numpy,
    torch.Tensor.tolist: _tolist,
    torch.Tensor.device.__get__: lambda tensor: CUDA,
    torch.Tensor.is_cuda.__get__: lambda tensor: True,
    torch.Tensor.is_cpu.__get__: lambda tensor: False,
}
SPECIAL = {*ON_DEVICE, torch.Tensor.to}


class StandInMode(TorchFunctionMode):
    """Sees every call of torch's interface while it is on."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in SPECIAL:
            return self._special(func, args, kwargs)
        if kwargs.get("device") is None:
            return func(*args, **kwargs)
        kwargs = dict(kwargs)
        asked = is_cuda(kwargs.pop("device"))
        inputs = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        if asked == any(map(on_device, inputs)):
            return func(*args, **kwargs)
        if asked:
            return _made(func, args, kwargs)
        if func in CONVERSIONS:
            return to_host(func(*args, **kwargs))
        return func(*tree_map_only(StandIn, lambda tensor: tensor.host, args), **kwargs)

    def _special(self, func, args, kwargs):
        if func is torch.Tensor.to:
            return _to(*args, **kwargs)
        if on_device(args[0]):
            return ON_DEVICE[func](*args, **kwargs)
        return to_device(args[0]) if func is torch.Tensor.cuda else func(*args, **kwargs)


def _made(func, args, kwargs):
    """A new tensor on the device."""
    if kwargs.get("generator") is not None:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    needs_grad = kwargs.pop("requires_grad", False)
    found = func(*args, **kwargs)
    if func in CONVERSIONS:
        found = found.clone()  # not the memory of the host
        traffic.note("to_device", func.__name__)
    made = StandIn(unwrapped(found))
    return made.requires_grad_() if needs_grad else made


@contextmanager
def standing_in(patch: pytest.MonkeyPatch):
    """torch.cuda as with one GPU; traffic counted from here on."""
    autocast = torch.autocast

    def host_autocast(device_type, *args, **kwargs):
        return autocast("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    answers = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_name": "stand-in", "set_device": None,
        "is_bf16_supported": True, "is_current_stream_capturing": False, "mem_get_info": (2**34, 2**34),
        "max_memory_allocated": 0, "reset_peak_memory_stats": None, "empty_cache": None,
        "get_device_properties": SimpleNamespace(name="stand-in", total_memory=2**34, major=9, minor=0),
    }  # fmt: skip
    for name, answer in answers.items():
        patch.setattr(torch.cuda, name, lambda *args, answer=answer, **kwargs: answer)
    patch.setattr(torch.cuda, "synchronize", lambda device=None: traffic.note("synchronize", "synchronize"))
    patch.setattr(torch, "autocast", host_autocast)
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # module.to() then makes new parameters
    traffic.notes.clear()
    try:
        with StandInMode():
            yield traffic
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
