"""scikit-learn's breast cancer data (Wisconsin, diagnostic): 569 x 30, two classes."""

from convexnn_bench.datasets.base import BaseDataset, Data, table


class BreastCancer(BaseDataset):
    """Labels -1 (malignant) and +1 (benign) for the logistic loss.

    n: size of a random subset drawn with `seed`, None for all. standardize: columns to mean 0 and standard
    deviation 1 (over the training samples). bias: adds a column of ones.
    """

    name = "breast_cancer"
    summary = "malignant against benign tumours, of scikit-learn (569 x 30)"
    requires = ("sklearn", "pip install scikit-learn")

    def load(self, n: int | None = None, standardize: bool = True, bias: bool = False, seed: int = 0) -> Data:
        from sklearn.datasets import load_breast_cancer

        source = load_breast_cancer()
        X, kept = table(source.data, n, seed)
        Y = 2.0 * source.target[kept] - 1.0
        defaults = {"loss": "logistic", "activation": "gated_relu", "beta_fraction": 0.01, "patterns": 50}
        return Data(X, Y, defaults, standardize=standardize, bias=bias)
