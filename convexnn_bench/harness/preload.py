"""Imported once by the process server, so that every cell starts with the heavy modules in memory."""

import contextlib
import importlib

MODULES = (
    "torch",
    "torch._dynamo",  # torch's optimisers load it on first use, which takes seconds
    "scipy.optimize",
    "scipy.sparse",
    "sklearn.datasets",
    "cvxpy",
    "clarabel",
    "scs",
    "convexnn_bench.datasets",
    "convexnn_bench.runner",
)
for name in MODULES:
    # what is missing here is reported by the solver or data set that needs it
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
