"""CIFAR-10: 60000 colour photographs of 32 x 32 pixels in ten classes, from the files of its authors."""

import numpy as np

from convexnn_bench.datasets import _image_files as files
from convexnn_bench.datasets.base import BaseDataset, Data, class_targets, number, one_of, subset, whole

FOLDER = "cifar-10-batches-py"
BATCHES = {
    "train": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
}
NAMES = [name for split in BATCHES.values() for name in split]


class Cifar10(BaseDataset):
    """Classes 0..classes-1, pixels divided by `scale` (255: the range becomes [0, 1]).

    split: "train" (50000) or "test" (10000). n: size of a random subset drawn with `seed`, None for all. pool=2, 4, 8,
    16: averages over squares of that side. layout: "image" (n x 3 x side x side, for the CNN) or "flat". verify:
    whether the files must be those that were published.
    """

    name = "cifar10"
    summary = "CIFAR-10, 32x32 colour photographs, from files that you have (cifar-10-batches-py)"

    @classmethod
    def unavailable(cls) -> str | None:
        return files.missing(FOLDER, NAMES, "CIFAR-10")

    def fingerprint(self) -> str | None:
        return files.stamp(FOLDER, NAMES)

    def load(
        self,
        n: int | None = None,
        split: str = "train",
        classes: int = 10,
        pool: int = 1,
        scale: float = 255.0,
        layout: str = "flat",
        targets: str = "one_hot",
        seed: int = 0,
        verify: bool = True,
    ) -> Data:
        classes, scale = whole("classes", classes, 2, 10), number("scale", scale, 1e-12)
        one_of("pool", pool, (1, 2, 4, 8, 16))
        one_of("split", split, tuple(BATCHES))
        one_of("verify", verify, (True, False))
        paths = files.located(FOLDER, BATCHES[split], "CIFAR-10", verify)
        pieces = [files.read_batch(path) for path in paths.values()]
        images, labels = (np.concatenate(part) for part in zip(*pieces, strict=True))
        kept = np.flatnonzero(labels < classes)
        kept = kept[subset(n, kept.size, seed)]
        Y, loss = class_targets(labels[kept], targets)
        defaults = {"loss": loss, "activation": "gated_relu", "beta_fraction": 0.01, "patterns": 20}
        return Data(files.arranged_images(images[kept], layout, pool) / scale, Y, defaults)
