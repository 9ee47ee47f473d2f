"""Find tensors that share memory.

Weight decay acts only once on weights that two layers share.
"""

from collections.abc import Iterator, Mapping

import torch


def overlaps(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Yield pairs of names whose tensors share memory.

    A pair (name, name) is a tensor that repeats its own entries.
    """
    spans = []
    for name, tensor in tensors.items():
        # the number of entries from the first to the last in memory
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        reach = 1 + sum((size - 1) * step for size, step in steps) if tensor.numel() else 0
        if tensor.numel() > reach:
            yield name, name
        start = tensor.data_ptr()
        if reach and start:  # tensors without memory of their own, as on the device "meta", start at 0
            spans.append((str(tensor.device), start, start + reach * tensor.element_size(), name))
    # If spans are sorted by their starts, one that overlaps an earlier span overlaps the one that reaches furthest.
    furthest = None
    for span in sorted(spans):
        if furthest is not None and furthest[0] == span[0] and span[1] < furthest[2]:
            yield furthest[3], span[3]
        if furthest is None or furthest[0] != span[0] or span[2] > furthest[2]:
            furthest = span
