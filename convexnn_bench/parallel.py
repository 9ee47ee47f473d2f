"""Let several processes, as torchrun starts them, share the samples.

With one process every function does nothing.

Every rank holds the data, the same factors and the same random generator. It works on its share of the samples, and
the ranks add up their sums, by gloo on CPUs and NCCL on GPUs. A sum is sent to all ranks from one place and so is the
same in every bit; so is what every rank computes by itself, on equal machines with equal numbers of threads. All ranks
therefore take the same steps, and these are the steps of one process except for the order of summation.
"""

import atexit
import os
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


def processes_started() -> int:
    """Return how many processes torchrun has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return True in the one process that prints, of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0" or processes_started() <= 1


def rank_device(device: str) -> str:
    """Return the device of this process: with several processes on a machine, each takes a GPU of its own."""
    on_gpu = processes_started() > 1 and torch.device(device).type == "cuda"
    return f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else device


def join(device: str) -> str:
    """Connect to the other processes that torchrun has started, until this one ends.

    Return its device.
    """
    if processes_started() <= 1:
        return device
    device, nccl = rank_device(device), torch.cuda.is_available() and distributed.is_nccl_available()
    # NCCL uses the current device of each process. Without this call all of them would share the first GPU.
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
    # A user's script may have connected the processes itself. Its group is then used as it is.
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo")
        atexit.register(leave)
    return device


def leave() -> None:
    """Close the connection that `join` has opened."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    """Return the index of this process."""
    return distributed.get_rank() if _several() else 0


def size() -> int:
    """Return the number of connected processes."""
    return distributed.get_world_size() if _several() else 1


def rank_items(items: Iterable[T]) -> Iterator[T]:
    """Return the items of this rank, every `size()`-th one."""
    # Ranks take items in turn rather than in blocks, so that an iterator of unknown length can be shared as well.
    return islice(items, rank(), None, size())


def rank_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of a batch that belong to this rank."""
    # Every row belongs to exactly one rank, so that the ranks' sums add up to the sum over the batch.
    return rows[rank() :: size()]


def rank_slices(total: int) -> list[slice]:
    """Return one slice of range(total) for each rank, in order and as equal in length as possible."""
    ranks = size()
    return [slice(total * index // ranks, total * (index + 1) // ranks) for index in range(ranks)]


def gather_rows(part: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Return the rows of all ranks in the order of the ranks.

    counts: number of rows of each rank.
    """
    if not _several():
        return part
    most = max(counts)  # all ranks must send the same number of rows
    sent = part if len(part) == most else torch.cat([part, part.new_zeros(most - len(part), *part.shape[1:])])
    gathered = part.new_empty(len(counts), most, *part.shape[1:])
    distributed.all_gather(list(gathered), sent.contiguous())
    if min(counts) == most:
        return gathered.flatten(0, 1)
    return torch.cat([rows[:count] for rows, count in zip(gathered, counts, strict=True)])


def from_first(number: float) -> float:
    """Return the number of the first rank, such as its clock, so that all ranks decide alike."""
    if not _several():
        return number
    # Clocks differ between processes. If each rank obeyed its own, one could stop while others wait for its sum.
    sent = torch.tensor(number, dtype=torch.float64, device=_messages())
    distributed.broadcast(sent, src=0)
    return float(sent)


def same_number(number: int) -> bool:
    """Return True if all ranks hold the same whole number, which must be below 2^63."""
    if not _several():
        return True
    # One reduction gives the largest number and, as the largest of the negatives, minus the smallest one.
    ends = torch.tensor([number, -number], device=_messages())
    distributed.all_reduce(ends, distributed.ReduceOp.MAX)
    return int(ends[0]) == -int(ends[1])


def same_tensors(*tensors: torch.Tensor) -> bool:
    """Return True if all ranks hold the same numbers."""
    if not _several():
        return True
    # Sending a checksum in place of the tensors makes the comparison cheap enough for every epoch.
    checksum = 0
    for tensor in tensors:
        checksum = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), checksum)
    return same_number(checksum)


def _messages() -> str:
    """Return where a number must lie to be sent: a user's own process group may accept GPU tensors only."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def sum_over_ranks(*tensors: torch.Tensor) -> None:
    """Replace each tensor by its sum over the ranks, in place."""
    if _several():
        for tensor in tensors:
            distributed.all_reduce(tensor)


def barrier() -> None:
    """Wait until all ranks have come here."""
    if _several():
        distributed.barrier()
