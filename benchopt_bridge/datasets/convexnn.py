"""Every data set of convexnn-bench.

problem: its name; in a configuration file also with parameters, "spiral[n=150,noise=0.2]" (benchopt's command line has
brackets and signs of its own). n, patterns: samples and activation patterns, None for the data set's default.
"""

from benchopt import BaseDataset

from convexnn_bench.registry import DATASETS


class Dataset(BaseDataset):
    name = "convexnn"
    parameters = {"problem": ["spiral"], "n": [150], "patterns": [None]}
    test_config = {"n": 9}

    @classmethod
    def get_all_parameter_values(cls, name):
        return DATASETS.names() if name == "problem" else None

    def get_data(self):
        chosen = {"n": self.n, "patterns": self.patterns}
        return {"problem": self.problem, **{key: value for key, value in chosen.items() if value is not None}}
