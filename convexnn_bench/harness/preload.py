"""Imported once by the process server, so that every cell starts with the heavy modules and all plug-ins in memory."""

import contextlib
import importlib

from threadpoolctl import ThreadpoolController

from convexnn_bench.errors import RegistryError
from convexnn_bench.plugins import registry

MODULES = (
    "torch",
    "torch._dynamo",  # torch's optimisers load it on first use, which takes seconds
    "scipy.optimize",
    "scipy.sparse",
    "sklearn.datasets",
    "cvxpy",
    "clarabel",
    "scs",
    "convexnn_bench.datasets._make",
    "convexnn_bench.running.runner",
)
for name in MODULES:
    # what is missing here is reported by the solver or data set that needs it
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
for plugins in (registry.LOSSES, registry.ARCHITECTURES, registry.ACTIVATIONS, registry.DATASETS, registry.SOLVERS):
    # a file that does not load is reported by the command, which scans the same folders
    with contextlib.suppress(RegistryError):
        plugins.classes  # noqa: B018
BLAS = ThreadpoolController()  # looking for the libraries takes as long as starting a process
