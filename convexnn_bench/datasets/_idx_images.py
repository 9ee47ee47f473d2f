"""What MNIST and Fashion-MNIST share: 28 x 28 grey images in four IDX files."""

import numpy as np

from convexnn_bench.datasets import _image_files as files
from convexnn_bench.datasets.base import (
    BaseDataset,
    Data,
    arranged,
    average_pool,
    class_targets,
    number,
    one_of,
    subset,
    whole,
)
from convexnn_bench.errors import InputError

SPLITS = {"train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
          "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")}  # fmt: skip


class IdxImages(BaseDataset):
    """Classes 0..classes-1, pixels divided by `scale` (255: the range becomes [0, 1]).

    split: "train" (60000) or "test" (10000). n: size of a random subset drawn with `seed`, None for all. pool=2, 4, 7,
    14: averages over squares of that side. layout: "flat" (n x pixels), "image" (n x 1 x side x side, for the CNN) or
    "tokens" (n x side x side, the rows of an image as its tokens). bias: adds a column of ones to the flat layout.
    verify: whether the files must be those that were published (unpacked ones are taken as they are).
    """

    folder: str
    checksums: dict[str, str]
    title: str

    @classmethod
    def unavailable(cls) -> str | None:
        return files.missing(cls.folder, list(cls.checksums), cls.title)

    def fingerprint(self) -> str | None:
        return files.stamp(self.folder, list(self.checksums))

    def load(
        self,
        n: int | None = None,
        split: str = "train",
        classes: int = 10,
        pool: int = 1,
        scale: float = 255.0,
        bias: bool = False,
        layout: str = "flat",
        targets: str = "one_hot",
        seed: int = 0,
        verify: bool = True,
    ) -> Data:
        classes, scale = whole("classes", classes, 2, 10), number("scale", scale, 1e-12)
        one_of("pool", pool, (1, 2, 4, 7, 14))
        one_of("split", split, tuple(SPLITS))
        one_of("verify", verify, (True, False))
        wanted = {name: self.checksums[name] for name in SPLITS[split]}
        paths = files.located(self.folder, wanted, self.title, verify)
        images, labels = (files.read_idx(paths[name]) for name in SPLITS[split])
        if images.shape != (len(labels), 28, 28):
            raise InputError(f"{self.title}: images of shape {images.shape} do not go with {labels.shape} labels")
        kept = np.flatnonzero(labels < classes)
        kept = kept[subset(n, kept.size, seed)]
        X = average_pool(images[kept].astype(np.float64), pool) / scale
        Y, loss = class_targets(labels[kept], targets)
        defaults = {"loss": loss, "activation": "gated_relu", "beta_fraction": 0.01, "patterns": 20}
        return Data(arranged(X, layout, bias), Y, defaults)
