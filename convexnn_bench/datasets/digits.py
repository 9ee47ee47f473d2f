"""scikit-learn's handwritten digits: 1797 grey images of 8 x 8 pixels."""

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


class Digits(BaseDataset):
    """Digits 0..classes-1, pixels divided by `scale` (16: the range becomes [0, 1]).

    n: size of a random subset drawn with `seed`, None for all. pool=2: 2 x 2 averages, 16 features instead
    of 64. layout: "flat" (n x pixels), "image" (n x 1 x side x side, for the CNN) or "tokens" (n x side x side, the
    rows of an image as its tokens, for attention). bias: adds a column of ones to the flat layout.
    """

    name = "digits"
    summary = "8x8 handwritten digits of scikit-learn (1797 images, 10 classes)"
    requires = ("sklearn", "pip install scikit-learn")

    def load(
        self,
        n: int | None = None,
        classes: int = 10,
        pool: int = 1,
        scale: float = 16.0,
        bias: bool = False,
        layout: str = "flat",
        targets: str = "one_hot",
        seed: int = 0,
    ) -> Data:
        from sklearn.datasets import load_digits

        classes, scale = whole("classes", classes, 2, 10), number("scale", scale, 1e-12)
        one_of("pool", pool, (1, 2, 4))
        source = load_digits()
        kept = np.flatnonzero(source.target < classes)
        kept = kept[subset(n, kept.size, seed)]
        X = average_pool(source.images[kept].astype(np.float64), pool) / scale
        Y, loss = class_targets(source.target[kept], targets)
        defaults = {"loss": loss, "activation": "gated_relu", "beta_fraction": 0.01, "patterns": 20}
        return Data(arranged(X, layout, bias), Y, defaults)
