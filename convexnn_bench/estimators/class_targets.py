"""Class labels as the targets of a training problem, and the factors of the classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils import compute_class_weight

from convexnn_bench.errors import InputError
from convexnn_bench.labels import Targets
from convexnn_bench.losses import BaseLoss
from convexnn_bench.plugins import LOSSES


def targets_of_classes(loss: str | BaseLoss, classes: np.ndarray, index: np.ndarray) -> Targets:
    """Return what the loss takes for samples of the classes `index`."""
    one_hot = np.eye(len(classes))[index]
    if LOSSES.make(loss).labels == "one_hot":
        return Targets(one_hot, tuple(classes.tolist()))
    # Signs: one column for two classes, and otherwise one column for each class against the rest.
    return Targets(2.0 * (one_hot[:, 1:] if len(classes) == 2 else one_hot) - 1.0, tuple(classes.tolist()))


def class_factors(
    class_weight: str | Mapping[Any, float], classes: np.ndarray, index: np.ndarray, weights: np.ndarray | None
) -> np.ndarray:
    """Return the factor of each class for samples of the classes `index` with weights."""
    if isinstance(class_weight, str) and class_weight == "balanced":
        # scikit-learn counts samples. With the sums of weights, a sample of weight two counts as two samples.
        totals = np.bincount(index, weights=weights)
        shares: np.ndarray = totals.sum() / (len(totals) * totals)
        return shares
    factors: np.ndarray = compute_class_weight(class_weight, classes=classes, y=classes[index])
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise InputError(f"class_weight must be positive for every class, got {class_weight!r}")
    return factors
