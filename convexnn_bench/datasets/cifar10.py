"""CIFAR-10: 60000 colour photographs of 32 x 32 pixels in ten classes.

The files are those of its authors.
"""

from pathlib import Path

import numpy as np

from convexnn_bench.datasets._image_files import read_batch
from convexnn_bench.datasets._images import FileImages


class Cifar10(FileImages):
    """Colour photographs of the classes 0..classes-1, 50000 for training and 10000 for testing.

    The parameters are those of the other image data sets but for `bias`; the layouts are "flat" and "image". `split`
    is "train" or "test", and `verify` says whether the files must be those that were published.
    """

    name = "cifar10"
    summary = "CIFAR-10, 32x32 colour photographs, from files that you have (cifar-10-batches-py)"
    title = "CIFAR-10"
    folder = "cifar-10-batches-py"
    files = {
        "train": {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
    }
    pools = (1, 2, 4, 8, 16)
    layouts = ("flat", "image")
    parameters = {key: value for key, value in FileImages.parameters.items() if key != "bias"}

    def read_files(self, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
        images, labels = zip(*map(read_batch, paths), strict=True)
        return np.concatenate(images), np.concatenate(labels)
