"""scikit-learn's diabetes data: 442 x 10, progression of the disease after one year."""

import numpy as np

from convexnn_bench.datasets.base import BaseDataset, Data, table


class Diabetes(BaseDataset):
    """Regression from the raw columns (age, sex, body mass, ...).

    n: size of a random subset drawn with `seed`, None for all. standardize: columns to mean 0 and standard
    deviation 1 (over the training samples). standardize_targets: the same for the target, raw values 25 to 346
    otherwise. bias: adds a column of ones.
    """

    name = "diabetes"
    summary = "progression of diabetes, of scikit-learn (442 x 10, regression)"
    requires = ("sklearn", "pip install scikit-learn")

    def load(
        self,
        n: int | None = None,
        standardize: bool = True,
        standardize_targets: bool = True,
        bias: bool = False,
        seed: int = 0,
    ) -> Data:
        from sklearn.datasets import load_diabetes

        source = load_diabetes(scaled=False)
        X, kept = table(source.data, n, seed)
        Y = np.asarray(source.target[kept], dtype=np.float64)[:, None]
        defaults = {"loss": "squared", "activation": "gated_relu", "beta_fraction": 0.01, "patterns": 50}
        return Data(X, Y, defaults, standardize=standardize, standardize_targets=standardize_targets, bias=bias)
