"""Several processes that share the samples, as torchrun starts them; with one process every function here does nothing.

Every rank holds the data, the same factors and the same random generator, works on its share of every batch, and adds
its sums to those of the others: gloo on CPUs, NCCL on GPUs. So all ranks take the same steps, those of one process but
for the order of summation.
"""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


def join(device: str) -> str:
    """Meet the other processes where torchrun has started several; the device of this one: its own GPU on "cuda"."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return device
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpu else "gloo")
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


def add_up(*tensors: torch.Tensor) -> None:
    """Each tensor becomes its sum over the ranks, in place."""
    if _several():
        for tensor in tensors:
            distributed.all_reduce(tensor)


def wait() -> None:
    """Until all ranks are here."""
    if _several():
        distributed.barrier()
