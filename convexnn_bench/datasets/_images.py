"""What the image data sets share: classes, pooling, layout, targets and files."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from convexnn_bench.datasets import _image_files as image_files
from convexnn_bench.datasets.base import (
    BaseDataset,
    Data,
    average_pool,
    class_targets,
    number,
    one_of,
    subset,
    whole,
    with_bias,
)
from convexnn_bench.errors import InputError

LAYOUTS = ("flat", "image", "tokens")


class ImageDataset(BaseDataset):
    """Square images of the classes 0..classes-1.

    A subclass defines `pools` (the sides of the squares that it can be averaged over) and `read`.

    Parameters
    ----------
    n : int, optional
        Size of a random subset drawn with `seed`; all images by default.
    classes : int
        Number of classes that are kept, 2 to 10.
    pool : int
        Side of the squares that pixels are averaged over.
    scale : float
        Divisor of the pixels: the largest pixel value by default, so that the range becomes [0, 1].
    bias : bool
        Add a column of ones to the flat layout.
    layout : {"flat", "image", "tokens"}
        n x pixels; n x channels x side x side, for the CNN; or n x side x side, the rows of a grey image as its
        tokens, for attention.
    targets : {"one_hot", "signs", "binary"}
        0/1 columns for cross-entropy, -1/1 columns for the logistic loss, or class 0 against the rest.
    seed : int
        Seed of the random subset.
    """

    pools: tuple[int, ...]
    layouts: tuple[str, ...] = LAYOUTS

    def read(self, **source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return all images, n x side x side or n x channels x side x side, and their class numbers."""
        raise TypeError(f"{type(self).__name__} must define read")

    def load(
        self,
        n: int | None = None,
        classes: int = 10,
        pool: int = 1,
        scale: float = 255.0,
        bias: bool = False,
        layout: str = "flat",
        targets: str = "one_hot",
        seed: int = 0,
        **source: Any,
    ) -> Data:
        classes, scale = whole("classes", classes, 2, 10), number("scale", scale, 1e-12)
        one_of("pool", pool, self.pools)
        one_of("layout", layout, self.layouts)
        # 1. All images, then a random subset of the classes that are kept.
        images, labels = self.read(**source)
        kept = np.flatnonzero(labels < classes)
        kept = kept[subset(n, kept.size, seed)]
        # 2. Averages over squares, channel by channel, divided by `scale`.
        side, channels = images.shape[-1], math.prod(images.shape[1:-2])
        small = average_pool(images[kept].reshape(-1, side, side).astype(np.float64), pool) / scale
        # 3. Layout and targets.
        X = arranged(small.reshape(len(kept), -1), layout, bias, channels)
        Y, loss = class_targets(labels[kept], targets)
        return Data(X, Y, {"loss": loss, "activation": "gated_relu", "beta_fraction": 0.01, "patterns": 20})


def arranged(pixels: np.ndarray, layout: str, bias: bool, channels: int) -> np.ndarray:
    """Return square images, one a row, in a layout, with a last column of ones where `bias` is True."""
    one_of("bias", bias, (True, False))
    if layout == "flat":
        return with_bias(pixels) if bias else pixels
    if bias:
        raise InputError(f'bias=True needs layout="flat", got layout={layout!r}; a CNN has biases with cnn[bias=true]')
    # A flat row is channel by channel, each channel row by row, so that a reshape is enough.
    side = math.isqrt(pixels.shape[1] // channels)
    return pixels.reshape(-1, channels, side, side) if layout == "image" else pixels.reshape(-1, side, side)


class FileImages(ImageDataset):
    """Images in the files that their authors published, which the user supplies.

    Further parameters are `split`, "train" or "test", and `verify`: whether the files must be those that were published
    (unpacked ones are taken as they are).
    """

    title: str
    folder: str
    files: dict[str, dict[str, str]]  # {split: {name: md5}}
    parameters = {**ImageDataset.parameters, "split": "train", "verify": True}

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all files, of both splits."""
        return [name for split in cls.files.values() for name in split]

    @classmethod
    def unavailable(cls) -> str | None:
        return image_files.missing(cls.folder, cls.names(), cls.title)

    def fingerprint(self) -> str | None:
        return image_files.stamp(self.folder, self.names())

    def read(self, *, split: str = "train", verify: bool = True, **source: Any) -> tuple[np.ndarray, np.ndarray]:
        one_of("split", split, tuple(self.files))
        one_of("verify", verify, (True, False))
        paths = image_files.located(self.folder, self.files[split], self.title, verify)
        return self.read_files([*paths.values()])

    def read_files(self, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
        """Return the images and class numbers in the files of one split."""
        raise TypeError(f"{type(self).__name__} must define read_files")


class IdxImages(FileImages):
    """28 x 28 grey images in IDX files, one of images and one of labels for each split."""

    pools = (1, 2, 4, 7, 14)

    def read_files(self, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
        images, labels = map(image_files.read_idx, paths)
        # The two files may come from different splits, whose images and labels do not belong together.
        if images.shape != (len(labels), 28, 28):
            raise InputError(f"{self.title}: images of shape {images.shape} do not go with {labels.shape} labels")
        return images, labels
