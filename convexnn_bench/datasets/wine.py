"""scikit-learn's wine data: 178 x 13, three cultivars."""

from convexnn_bench.datasets.base import BaseDataset, Data, class_targets, table


class Wine(BaseDataset):
    """Three classes under cross-entropy.

    n: size of a random subset drawn with `seed`, None for all. standardize: columns to mean 0 and standard
    deviation 1 (over the training samples). bias: adds a column of ones.
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

        source = load_wine()
        X, kept = table(source.data, n, seed)
        Y, loss = class_targets(source.target[kept], targets)
        defaults = {"loss": loss, "activation": "gated_relu", "beta_fraction": 0.01, "patterns": 50}
        return Data(X, Y, defaults, standardize=standardize, bias=bias)
