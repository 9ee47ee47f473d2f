"""Gaussian samples labelled by a small random network."""

import numpy as np

from convexnn_bench.datasets.base import BaseDataset, Data, generator, number, one_of, whole


class Teacher(BaseDataset):
    """X ~ N(0, 1), n x d; Y = phi(X U) V / sqrt(neurons) + noise N(0, 1), n x c.

    U (d x neurons) has N(0, 1/d) entries, V (neurons x c) N(0, 1). teacher="relu": phi(h) = max(h, 0);
    teacher="gated_relu": neuron j passes h where x g_j >= 0, with Gaussian gates g_j of its own.
    """

    name = "teacher"
    summary = "Gaussian samples labelled by a random 10-neuron ReLU or gated ReLU network"

    def load(
        self,
        n: int = 500,
        d: int = 20,
        c: int = 1,
        neurons: int = 10,
        noise: float = 0.1,
        teacher: str = "relu",
        seed: int = 0,
    ) -> Data:
        n, d, c = whole("n", n, 2), whole("d", d, 1), whole("c", c, 1)
        neurons, noise = whole("neurons", neurons, 1), number("noise", noise, 0.0)
        one_of("teacher", teacher, ("relu", "gated_relu"))
        # Gates are drawn last, so that both teachers have the same samples, weights and noise for a seed.
        rng = generator(seed)
        X = rng.standard_normal((n, d))
        U = rng.standard_normal((d, neurons)) / np.sqrt(d)
        V = rng.standard_normal((neurons, c))
        residual = noise * rng.standard_normal((n, c))
        hidden = X @ U
        gate = hidden if teacher == "relu" else X @ rng.standard_normal((d, neurons))
        Y = (hidden * (gate >= 0)) @ V / np.sqrt(neurons) + residual
        patterns: str | int = "all" if d <= 2 else 100
        defaults = {
            "loss": "squared",
            "activation": "gated_relu",
            "beta_fraction": 0.01,
            "patterns": patterns,
        }
        return Data(X, Y, defaults)
