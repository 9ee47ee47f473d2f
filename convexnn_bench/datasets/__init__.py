"""Data sets, one a file, and `make_problem`, which turns one into a training problem.

`make_problem` imports torch and is imported from `convexnn_bench.datasets._make`; what is here does not.
"""

from convexnn_bench.datasets._parameters import PROBLEM_PARAMETERS, split_parameters

__all__ = ["PROBLEM_PARAMETERS", "split_parameters"]
