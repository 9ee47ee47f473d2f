"""convexnn_bench: two-layer network training three ways - convex, Burer-Monteiro, network - with certified gaps.

Names are imported on first use, so that `import convexnn_bench` and the command line's --help stay fast.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Problem": "problem",
    "Point": "formulations.point",
    "Result": "running.result",
    "Certificate": "certificates",
    "certify": "certificates",
    "solve": "running.runner",
    "compare": "comparison",
    "make_problem": "datasets._make",
    "count_patterns": "patterns.enumeration",
    "enumeration_cost": "patterns.enumeration",
    "enumerate_patterns": "patterns.enumeration",
    "sample_patterns": "patterns.sampling",
    "MLP": "architectures.mlp",
    "CNN": "architectures.cnn",
    "Attention": "architectures.attention",
    "certify_module": "certificates.module_report",
    "ModuleReport": "certificates.module_report",
    "AttentionBlock": "modules.attention_block",
    "smallest_curvature": "theorems.curvature",
    "Curvature": "theorems.curvature",
    "check_rank_deficient": "theorems.checks",
    "check_full_rank": "theorems.checks",
    "TheoremCheck": "theorems.checks",
    "staircase": "theorems.rank_staircase",
    "Staircase": "theorems.rank_staircase",
    "spurious_minima": "theorems.random_starts",
    "SpuriousMinima": "theorems.random_starts",
    "Linear": "activations.linear",
    "GatedReLU": "activations.gated_relu",
    "ReLU": "activations.relu",
    "Squared": "losses.squared",
    "CrossEntropy": "losses.cross_entropy",
    "Logistic": "losses.logistic",
    "SquaredHinge": "losses.squared_hinge",
    "Huber": "losses.huber",
    "BaseSolver": "solver",
    "BaseLoss": "losses.base",
    "BaseArchitecture": "architectures.base",
    "BaseActivation": "activations.base",
    "BaseDataset": "datasets.base",
    "LOSSES": "plugins.registry",
    "ARCHITECTURES": "plugins.registry",
    "ACTIVATIONS": "plugins.registry",
    "DATASETS": "plugins.registry",
    "SOLVERS": "plugins.registry",
    "ConvexNNError": "errors",
    "InputError": "errors",
    "UnknownNameError": "errors",
    "UnsupportedError": "errors",
    "PatternBudgetError": "errors",
    "RegistryError": "errors",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
