"""Gaussian samples labelled by a wide ReLU network, after Prakhya, Birdal and Yurtsever (ICLR 2025)."""

import numpy as np

from convexnn_bench.datasets.base import BaseDataset, Data, generator, whole


class InfiniteWidth(BaseDataset):
    """X ~ N(0, 1), n x d; Y = max(X U, 0) V, n x c, with U (d x neurons) and V (neurons x c) of N(0, 1) entries.

    With its defaults it is the recipe of the paper's random data: 25 samples, five outputs, ReLU, squared loss and all
    patterns. The paper has beta = 0.1 and 0.01.
    """

    name = "infinite_width"
    summary = "Gaussian samples labelled by a random 100-neuron ReLU network, without noise (d=2, five outputs)"

    def load(self, n: int = 25, d: int = 2, c: int = 5, neurons: int = 100, seed: int = 0) -> Data:
        n, d, c, neurons = whole("n", n, 2), whole("d", d, 1), whole("c", c, 1), whole("neurons", neurons, 1)
        rng = generator(seed)
        U, V = rng.standard_normal((d, neurons)), rng.standard_normal((neurons, c))
        X = rng.standard_normal((n, d))
        defaults = {
            "loss": "squared",
            "activation": "relu",
            "beta_fraction": 0.01,
            "patterns": "all" if d <= 2 else 100,
        }
        return Data(X, np.maximum(X @ U, 0) @ V, defaults)
