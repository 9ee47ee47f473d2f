"""Load the heavy modules and all plug-ins in the process server.

They are loaded once, so that every cell starts with them.
"""

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
    # The solver or data set that needs a missing package reports it.
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
for plugins in (registry.LOSSES, registry.ARCHITECTURES, registry.ACTIVATIONS, registry.DATASETS, registry.SOLVERS):
    # The command scans the same folders, and reports a file that does not load.
    with contextlib.suppress(RegistryError):
        plugins.classes  # noqa: B018
BLAS = ThreadpoolController()  # made once, because its search for libraries takes as long as a fork
