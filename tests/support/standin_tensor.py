"""A tensor that says it is on cuda:0 and computes on the CPU, with CUDA's rules about devices; transfers are counted.

torch sees a tensor of the CPU with a Python class; what the class adds is the device that it names, that operations of
device and host tensors raise wherever CUDA's do, and notes of every transfer. Aliasing and autograd are torch's own.
"""

import sys
from collections import Counter
from functools import cache
from pathlib import Path

import torch

import convexnn_bench

CUDA = torch.device("cuda:0")
PACKAGE = Path(convexnn_bench.__file__).resolve().parent
FOLDERS = (str(PACKAGE), str(PACKAGE.parent / "solvers"))
aten = torch.ops.aten

# the host waits for a number, or for the shape of the result
WAITING = {
    "_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "repeat_interleave.Tensor", "_linalg_eigh", "_linalg_svd", "_linalg_check_errors",
    "linalg_lstsq",
}  # fmt: skip
# no host tensor, not even of one number, may be among the arguments
ALL_ON_ONE = {"cat", "stack", "mm", "bmm", "addmm", "baddbmm", "mv", "dot", "convolution", "scatter", "index_add"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
NO_INTEGERS = {"mm", "bmm", "addmm", "baddbmm", "mv", "dot"}  # not implemented on CUDA
ANY_ORDER = {"index_add", "scatter_add", "scatter_reduce", "cumsum"}
MIXED = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"


class Traffic:
    """Transfers between host and device, by kind and line of the package.

    Kinds: "wait" (a number, or a shape, that the host waits for), "to_host", "to_device", "synchronize"; "any_order" is
    no transfer but a sum that CUDA adds up in any order.
    """

    def __init__(self):
        self.notes: list[tuple[str, str, str]] = []

    def note(self, kind: str, what: str) -> None:
        self.notes.append((kind, what, _line()))

    def count(self, *kinds: str, within: str = "") -> int:
        return sum(kind in kinds and within in line for kind, _, line in self.notes)

    def lines(self, *kinds: str) -> Counter:
        return Counter(f"{line} {what}" for kind, what, line in self.notes if kind in kinds)


traffic = Traffic()


def _line() -> str:
    """The innermost line of the package on the stack."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(FOLDERS):
            return f"{Path(name).relative_to(PACKAGE.parent)}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside the package"


class StandIn(torch.Tensor):
    """`host` holds the numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls, host.shape, strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype,
            layout=host.layout, device=host.device,
        )  # fmt: skip

    def __init__(self, host: torch.Tensor):
        assert type(host) is torch.Tensor, type(host)
        self.host = host

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self, *, tensor_contents=None) -> str:
        return f"StandIn({self.host})"

    def __deepcopy__(self, memo):
        copied = StandIn(self.host.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol):
        """Kept as a host tensor, as `map_location` gives it back."""
        return self.host.clone().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name == "copy_":
            return _copy(func, *args, **kwargs)
        _check(func, name, args, kwargs)
        _note(func, name, args)
        values, named = [_host(value) for value in args], {key: _host(value) for key, value in kwargs.items()}
        if "device" in named:  # an explicit other device is seen to in `standin_cuda`
            named["device"] = torch.device("cpu")
        found = func(*values, **named)
        written = _written(func)
        if written is None:
            return _wrapped(found)
        given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)}
        given |= kwargs
        for own in (given[key] for key in written):
            if own.shape != own.host.shape or own.stride() != own.host.stride():
                raise NotImplementedError(f"{func} changes the shape of its argument")
        return given[written[0]] if len(written) == 1 else tuple(given[key] for key in written)


def _host(value):
    """What holds the numbers, also of lists of tensors."""
    if isinstance(value, StandIn):
        return value.host
    return [_host(each) for each in value] if isinstance(value, list | tuple) else value


def _wrapped(value):
    if isinstance(value, torch.Tensor):
        return StandIn(value)
    return type(value)(map(_wrapped, value)) if isinstance(value, list | tuple) else value


def _tensors(values):
    """All tensors among some arguments."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@cache
def _written(func) -> tuple[str, ...] | None:
    """The arguments that are returned, where they are written to."""
    marks = [result.alias_info for result in func._schema.returns]
    if not marks or not all(mark is not None and mark.is_write for mark in marks):
        return None
    names = {
        frozenset(argument.alias_info.before_set): argument.name
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    return tuple(names[frozenset(mark.before_set)] for mark in marks)


def _copy(func, own, source, *rest, **named):
    """Tensor.copy_, which crosses between devices."""
    kind = "to_device" if isinstance(own, StandIn) else "to_host"
    if isinstance(own, StandIn) != isinstance(source, StandIn) and not (kind == "to_device" and source.dim() == 0):
        traffic.note(kind, "copy_")
    hosts = [tensor.host if isinstance(tensor, StandIn) else tensor for tensor in (own, source)]
    func(*hosts, *rest, **named)
    return own


def _check(func, name: str, args, kwargs) -> None:
    """Raise what CUDA raises."""
    given = list(_tensors((*args, *kwargs.values())))
    host = [tensor for tensor in given if not isinstance(tensor, StandIn)]
    if name in INDEXING and isinstance(args[0], StandIn):
        for index in args[1]:
            if index is not None and not isinstance(index, StandIn):
                traffic.note("to_device", "index")
        host = [tensor for tensor in _tensors(args[2:3]) if not isinstance(tensor, StandIn)]
    single = name.rstrip("_") not in ALL_ON_ONE and not (name.endswith("_") and not isinstance(args[0], StandIn))
    if host and not (single and all(tensor.dim() == 0 for tensor in host)):
        raise RuntimeError(f"{MIXED} ({func})")
    if kwargs.get("generator") is not None:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    if name in NO_INTEGERS and not given[0].dtype.is_floating_point:
        raise RuntimeError(f'"{name}_cuda" not implemented for {given[0].dtype}')
    if name == "linalg_lstsq" and kwargs.get("driver") not in (None, "gels"):
        raise RuntimeError("torch.linalg.lstsq: parameter `driver` should be one of (gels) on CUDA")


def _note(func, name: str, args) -> None:
    if name.rstrip("_") in ANY_ORDER and args[0].dtype.is_floating_point:
        traffic.note("any_order", name)
    if name in WAITING or f"{name}.{func._overloadname}" in WAITING:
        traffic.note("wait", name)
    if name in INDEXING and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
        traffic.note("wait", "mask as index")
