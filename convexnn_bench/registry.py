"""The registries under their former address, for one release.

Import them from `convexnn_bench.plugins`.
"""

import warnings

from convexnn_bench.plugins import ACTIVATIONS, ARCHITECTURES, DATASETS, LOSSES, SOLVERS, Registry

__all__ = ["ACTIVATIONS", "ARCHITECTURES", "DATASETS", "LOSSES", "SOLVERS", "Registry"]

warnings.warn(
    "convexnn_bench.registry is deprecated: import from convexnn_bench.plugins", DeprecationWarning, stacklevel=2
)
