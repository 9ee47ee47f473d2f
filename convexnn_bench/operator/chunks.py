"""How many numbers a temporary array of the operator may hold.

Slices keep it so small.
"""

from collections.abc import Iterator

import torch

CHUNK_ELEMENTS = 2**24  # numbers of a temporary array: 128 MiB of float64
PART_ELEMENTS = 2**16  # numbers of hidden units that stay in a CPU's cache between two passes: 512 KiB of float64
SMALLEST_PART = 128  # rows below which the calls of a part cost more than its products


def fits(numbers: int) -> bool:
    """Return whether so many numbers may stand in a temporary array."""
    return numbers <= CHUNK_ELEMENTS


def chunks(count: int, numbers: int) -> Iterator[slice]:
    """Cut items of so many numbers each into slices that fit a temporary array.

    A slice has at least one item. count: the number of items.
    """
    step = max(1, CHUNK_ELEMENTS // numbers)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def part_size(columns: int, device: torch.device) -> int:
    """Return how many rows of so many hidden units to take at a time.

    They are few on a CPU, and many to keep a GPU busy.
    """
    # A hidden unit is written by the first product and read again by the mask and the second product: on a CPU a part
    # should stay in the cache in between, while a GPU is busy only with large products.
    most = PART_ELEMENTS if device.type == "cpu" else CHUNK_ELEMENTS
    return max(SMALLEST_PART, most // max(1, columns))
