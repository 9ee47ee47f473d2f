"""Every data set of convexnn-bench."""

from benchopt import BaseDataset

from convexnn_bench.errors import InputError
from convexnn_bench.plugins import DATASETS


class Dataset(BaseDataset):
    """dataset: its name; in a configuration file also with parameters, "spiral[noise=0.2]" (benchopt's command line has
    brackets and signs of its own). n: samples, None for the data set's default.
    """

    name = "convexnn"
    parameters = {"dataset": ["spiral"], "n": [None]}
    install_cmd = "shell"  # `requirements` would have to be literal, and could not name this checkout
    install_script = "checkout.sh"
    test_config = {"n": 9}

    @classmethod
    def get_all_parameter_values(cls, name):
        return DATASETS.names() if name == "dataset" else None

    def get_data(self):
        """X, y and defaults of the problem; or `missing`, the reason why there are none."""
        try:
            data = DATASETS.make(self.dataset, **({} if self.n is None else {"n": self.n})).data()
        except InputError as error:
            return {"missing": str(error)}
        return {"X": data.X, "y": data.Y, **data.defaults}
