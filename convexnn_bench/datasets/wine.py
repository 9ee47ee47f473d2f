"""scikit-learn's wine data: 178 x 13, three cultivars."""

import numpy as np

from convexnn_bench.datasets.base import (
    BaseDataset,
    Data,
    class_targets,
    one_of,
    standard_columns,
    subset,
    with_bias,
)


class Wine(BaseDataset):
    """Three classes under cross-entropy.

    n: size of a random subset drawn with `seed`, None for all. standardize: columns to mean 0 and standard
    deviation 1 (over the samples kept). bias: adds a column of ones.
    """

    name = "wine"
    summary = "chemical analysis of three wines, of scikit-learn (178 x 13)"
    requires = ("sklearn", "pip install scikit-learn")

    def load(
        self,
        n: int | None = None,
        standardize: bool = True,
        bias: bool = False,
        targets: str = "one_hot",
        seed: int = 0,
    ) -> Data:
        from sklearn.datasets import load_wine

        one_of("standardize", standardize, (True, False))
        one_of("bias", bias, (True, False))
        source = load_wine()
        kept = subset(n, source.target.size, seed)
        X = np.asarray(source.data[kept], dtype=np.float64)
        X = standard_columns(X) if standardize else X
        Y, loss = class_targets(source.target[kept], targets)
        defaults = {"loss": loss, "activation": "gated_relu", "beta_fraction": 0.01, "patterns": 50}
        return Data(with_bias(X) if bias else X, Y, defaults)
