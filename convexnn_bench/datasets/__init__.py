"""Data sets, one class per file, and `make_problem`.

`make_problem` turns a data set into a training problem.

Planning a campaign reads data sets without torch, which a problem needs: `make_problem` is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from convexnn_bench.datasets._parameters import PROBLEM_PARAMETERS, split_parameters
from convexnn_bench.datasets._split import SHARE
from convexnn_bench.datasets.base import BaseDataset, Data, generator, number, one_of, whole

if TYPE_CHECKING:
    from convexnn_bench.datasets._make import make_problem


def __getattr__(name: str) -> Any:
    if name == "make_problem":
        return importlib.import_module(f"{__name__}._make").make_problem
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
