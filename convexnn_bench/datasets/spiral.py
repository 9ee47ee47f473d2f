"""Three interleaved spirals in the plane."""

import numpy as np

from convexnn_bench.datasets.base import BaseDataset, Data, class_targets, generator, number, whole


class Spiral(BaseDataset):
    """Class k, radius t in linspace(0.1, 1, n/3), angle 4 t + 2 pi k / 3 + noise N(0, 1).

    Where n is no multiple of 3, the first classes get one sample more.

    With its defaults (n = 150, seed 0, noise 0.1, one-hot targets under squared loss, all patterns, beta =
    0.01 beta_max) the gated optimum is 29.9153860. targets="binary" makes it a scalar problem: class 0
    against the rest.
    """

    name = "spiral"
    summary = "three spirals in the plane (d=2, three outputs or one)"

    def load(self, n: int = 150, noise: float = 0.1, targets: str = "one_hot", seed: int = 0) -> Data:
        n, noise, rng = whole("n", n, 3), number("noise", noise, 0.0), generator(seed)
        # The classes differ by one sample at most.
        sizes = [n // 3 + (k < n % 3) for k in range(3)]
        arms = []
        for k, size in enumerate(sizes):
            radius = np.linspace(0.1, 1.0, size)
            angle = 4 * radius + 2 * np.pi * k / 3 + noise * rng.standard_normal(size)
            arms.append(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]))
        X = np.vstack(arms)
        Y, _ = class_targets(np.repeat(np.arange(3), sizes), targets)
        defaults = {"loss": "squared", "activation": "gated_relu", "beta_fraction": 0.01, "patterns": "all"}
        return Data(X, Y, defaults)
