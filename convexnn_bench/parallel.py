"""Several processes that share the samples, as torchrun starts them; with one process every function here does nothing.

Every rank holds the data, the same factors and the same random generator, works on its share of the samples, and adds
its sums to those of the others: gloo on CPUs, NCCL on GPUs. So all ranks take the same steps, those of one process but
for the order of summation. What all ranks compute for themselves is the same in every bit on equal machines with as
many threads each, and so are sums over the ranks, which every rank is sent from one place.
"""

import atexit
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


def started() -> int:
    """How many processes torchrun has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this process is the one that speaks, of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0" or started() <= 1


def own_device(device: str) -> str:
    """The device of this process: one GPU for each process of a machine where torchrun has started several."""
    on_gpu = started() > 1 and torch.device(device).type == "cuda"
    return f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else device


def join(device: str) -> str:
    """Meet the other processes where torchrun has started several, until this one ends; returns its own device."""
    if started() <= 1:
        return device
    device, nccl = own_device(device), torch.cuda.is_available() and distributed.is_nccl_available()
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo")
        atexit.register(leave)
    return device


def leave() -> None:
    """End what `join` began."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    return distributed.get_rank() if _several() else 0


def size() -> int:
    return distributed.get_world_size() if _several() else 1


def share(items: Iterable[T]) -> Iterator[T]:
    """Those of the items that are this rank's: every `size`-th."""
    own, of = rank(), size()
    return (item for place, item in enumerate(items) if place % of == own)


def own(rows: torch.Tensor) -> torch.Tensor:
    """This rank's share of the rows of a batch."""
    return rows[rank() :: size()]


def shares(total: int) -> list[slice]:
    """`total` things dealt out to the ranks, neighbours together and as evenly as can be."""
    of = size()
    return [slice(total * place // of, total * (place + 1) // of) for place in range(of)]


def put_together(part: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """The rows of all ranks' parts, in the order of the ranks. counts: how many rows each rank has."""
    if not _several():
        return part
    most = max(counts)  # what is sent must have one size
    sent = part if len(part) == most else torch.cat([part, part.new_zeros(most - len(part), *part.shape[1:])])
    found = part.new_empty(len(counts), most, *part.shape[1:])
    distributed.all_gather(list(found), sent.contiguous())
    if min(counts) == most:
        return found.flatten(0, 1)
    return torch.cat([rows[:count] for rows, count in zip(found, counts, strict=True)])


def agreed(number: float) -> float:
    """The first rank's number: a clock, say, so that all ranks decide alike."""
    if not _several():
        return number
    sent = torch.tensor(number, dtype=torch.float64, device=_messages())
    distributed.broadcast(sent, src=0)
    return float(sent)


def alike(number: int) -> bool:
    """Whether all ranks hold the same whole number, below 2^63."""
    if not _several():
        return True
    ends = torch.tensor([number, -number], device=_messages())
    distributed.all_reduce(ends, distributed.ReduceOp.MAX)
    return int(ends[0]) == -int(ends[1])


def alike_in(*tensors: torch.Tensor) -> bool:
    """Whether all ranks hold the same numbers."""
    if not _several():
        return True
    found = 0
    for tensor in tensors:
        found = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), found)
    return alike(found)


def _messages() -> str:
    """Where a number must lie to be sent: a user's own process group may know of GPUs only."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def add_up(*tensors: torch.Tensor) -> None:
    """Each tensor becomes its sum over the ranks, in place."""
    if _several():
        for tensor in tensors:
            distributed.all_reduce(tensor)


def wait() -> None:
    """Until all ranks are here."""
    if _several():
        distributed.barrier()
