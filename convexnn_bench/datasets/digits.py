"""scikit-learn's handwritten digits: 1797 grey images of 8 x 8 pixels."""

from typing import Any

import numpy as np

from convexnn_bench.datasets._images import ImageDataset


class Digits(ImageDataset):
    __doc__ = ImageDataset.__doc__

    name = "digits"
    summary = "8x8 handwritten digits of scikit-learn (1797 images, 10 classes)"
    requires = ("sklearn", "pip install scikit-learn")
    pools = (1, 2, 4)
    parameters = {**ImageDataset.parameters, "scale": 16.0}

    def read(self, **source: Any) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.images, digits.target
