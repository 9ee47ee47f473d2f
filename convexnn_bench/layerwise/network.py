"""A network of stages: the masked maps of each stage are the images of the next."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float

from convexnn_bench import parallel
from convexnn_bench.layerwise.stage import Maps, Stage

BYTES = {"cpu": 2**25, "cuda": 2**28}  # of the largest maps of a batch that is only evaluated
CACHE_BYTES = 2**30  # size of a stage's input up to which it is computed once and cached


class LayerwiseNetwork:
    """Trained stages, each of which predicts from the maps of the one before it.

    Parameters
    ----------
    stages : sequence of Stage
        The stages in their order.

    Notes
    -----
    The ensemble of the first s stages predicts sum_s 2^s z_s, with the doubling weights of Belilovsky, Eickenberg and
    Oyallon (ICML 2019).
    """

    def __init__(self, stages: Sequence[Stage] = ()):
        self.stages = list(stages)

    def features(self, X: Maps) -> Maps:
        """Return the input of the stage that follows these, before that stage's `prepared`."""
        for stage in self.stages:
            X = stage.hidden(stage.prepared(X))
        return X

    def batches(
        self, X: Maps, dtype: torch.dtype, following: Stage | None = None, shared: bool = False
    ) -> Iterator[tuple[slice, Maps]]:
        """Yield rows of X and their features, as many at a time as memory allows.

        following: a stage whose maps must fit as well. shared: if several processes run, yield only this one's batches.
        """
        stages = [*self.stages, *([following] if following is not None else [])]
        step = batch_size(stages, X, dtype)
        if shared:  # so that every process has a batch
            step = min(step, -(-len(X) // parallel.size()))
        starts = range(0, len(X), step)
        for first in parallel.rank_items(starts) if shared else starts:
            rows = slice(first, min(first + step, len(X)))
            with torch.no_grad():
                yield rows, self.features(X[rows].to(dtype))

    def predict(self, X: Maps) -> list[Float[torch.Tensor, "n c"]]:
        """Return the predictions of every stage in float32, and last those of the ensemble of all stages."""
        batches: list[list[torch.Tensor]] = []
        # Nothing is trained here: the batch is as large as memory allows, whatever the batch of training.
        step = batch_size(self.stages, X, torch.float32)
        with torch.no_grad():
            for first in range(0, len(X), step):
                maps, predictions = X[first : first + step].float(), []
                for stage in self.stages:
                    prepared = stage.prepared(maps)
                    maps = stage.hidden(prepared)
                    predictions.append(stage.outputs(prepared, maps))
                ensemble = sum((2.0**index * z for index, z in enumerate(predictions)), torch.zeros(()))
                batches.append([*predictions, ensemble])
        return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def cached(batches: Callable[[], Iterator[tuple[slice, Maps]]], n: int) -> list[tuple[slice, Maps]] | None:
    """Return all batches, or None if the n samples take more than CACHE_BYTES."""
    parts = []
    for rows, maps in batches():
        # The first batch already tells the size of all of them, so that little is computed in vain.
        if n * maps[0].numel() * maps.element_size() > CACHE_BYTES:
            return None
        parts.append((rows, maps))
    return parts


def batch_size(stages: Sequence[Stage], X: Maps, dtype: torch.dtype) -> int:
    """Return how many samples fit into BYTES with the maps, patches and masked maps of the largest stage."""
    pixels, largest = math.prod(X.shape[2:]), math.prod(X.shape[1:])
    for stage in stages:
        pixels //= 4 if stage.plan.downsample else 1
        largest = max(largest, pixels * (2 * stage.width + stage.P + 2 * stage.p))
    return max(1, BYTES[X.device.type] // (largest * dtype.itemsize))
