"""convexnn_bench: two-layer network training three ways - convex, Burer-Monteiro, network - with certified gaps.

Names are imported on first use, so that `import convexnn_bench` and the command line's --help stay fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and mypy see; a test holds it to _EXPORTS
    from convexnn_bench.activations.base import BaseActivation as BaseActivation
    from convexnn_bench.activations.gated_relu import GatedReLU as GatedReLU
    from convexnn_bench.activations.linear import Linear as Linear
    from convexnn_bench.activations.relu import ReLU as ReLU
    from convexnn_bench.architectures.attention import Attention as Attention
    from convexnn_bench.architectures.base import BaseArchitecture as BaseArchitecture
    from convexnn_bench.architectures.cnn import CNN as CNN
    from convexnn_bench.architectures.mlp import MLP as MLP
    from convexnn_bench.certificates import Certificate as Certificate
    from convexnn_bench.certificates import certify as certify
    from convexnn_bench.certificates.module_report import ModuleReport as ModuleReport
    from convexnn_bench.certificates.module_report import certify_module as certify_module
    from convexnn_bench.comparison import compare as compare
    from convexnn_bench.datasets._make import make_problem as make_problem
    from convexnn_bench.datasets.base import BaseDataset as BaseDataset
    from convexnn_bench.errors import ConvexNNError as ConvexNNError
    from convexnn_bench.errors import InputError as InputError
    from convexnn_bench.errors import PatternBudgetError as PatternBudgetError
    from convexnn_bench.errors import RegistryError as RegistryError
    from convexnn_bench.errors import UnknownNameError as UnknownNameError
    from convexnn_bench.errors import UnsupportedError as UnsupportedError
    from convexnn_bench.formulations.point import Point as Point
    from convexnn_bench.losses.base import BaseLoss as BaseLoss
    from convexnn_bench.losses.cross_entropy import CrossEntropy as CrossEntropy
    from convexnn_bench.losses.huber import Huber as Huber
    from convexnn_bench.losses.logistic import Logistic as Logistic
    from convexnn_bench.losses.squared import Squared as Squared
    from convexnn_bench.losses.squared_hinge import SquaredHinge as SquaredHinge
    from convexnn_bench.modules.attention_block import AttentionBlock as AttentionBlock
    from convexnn_bench.patterns.enumeration import count_patterns as count_patterns
    from convexnn_bench.patterns.enumeration import enumerate_patterns as enumerate_patterns
    from convexnn_bench.patterns.enumeration import enumeration_cost as enumeration_cost
    from convexnn_bench.patterns.sampling import sample_patterns as sample_patterns
    from convexnn_bench.plugins.registry import ACTIVATIONS as ACTIVATIONS
    from convexnn_bench.plugins.registry import ARCHITECTURES as ARCHITECTURES
    from convexnn_bench.plugins.registry import DATASETS as DATASETS
    from convexnn_bench.plugins.registry import LOSSES as LOSSES
    from convexnn_bench.plugins.registry import SOLVERS as SOLVERS
    from convexnn_bench.problem import Problem as Problem
    from convexnn_bench.running.result import Result as Result
    from convexnn_bench.running.runner import solve as solve
    from convexnn_bench.solver import BaseSolver as BaseSolver
    from convexnn_bench.theorems.checks import TheoremCheck as TheoremCheck
    from convexnn_bench.theorems.checks import check_full_rank as check_full_rank
    from convexnn_bench.theorems.checks import check_rank_deficient as check_rank_deficient
    from convexnn_bench.theorems.curvature import Curvature as Curvature
    from convexnn_bench.theorems.curvature import smallest_curvature as smallest_curvature
    from convexnn_bench.theorems.random_starts import SpuriousMinima as SpuriousMinima
    from convexnn_bench.theorems.random_starts import spurious_minima as spurious_minima
    from convexnn_bench.theorems.rank_staircase import Staircase as Staircase
    from convexnn_bench.theorems.rank_staircase import staircase as staircase

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
