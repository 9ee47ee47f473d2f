"""Check the arguments of an instance together: weight decay, targets and masks."""

from typing import Any

import numpy as np
import torch

from convexnn_bench.architectures import BaseArchitecture
from convexnn_bench.cones import unattained
from convexnn_bench.errors import InputError
from convexnn_bench.operator import DataArray, data_matrix
from convexnn_bench.plugins import Number


def check_one_beta(beta: Any, fraction: Any, name_of_fraction: str = "beta_fraction") -> None:
    """Raise InputError unless one of beta and its fraction is given and positive."""
    if (beta is None) == (fraction is None):
        raise InputError(
            f"give exactly one of beta and {name_of_fraction} (a fraction of beta_max), got beta={beta!r}, "
            f"{name_of_fraction}={fraction!r}"
        )
    name, value = ("beta", beta) if beta is not None else (name_of_fraction, fraction)
    Number().check(name, value)


def check_fraction_has_meaning(beta_max: float) -> None:
    """Raise InputError if beta_max is zero, so that it has no fractions."""
    if not beta_max > 0:
        raise InputError(
            "beta_fraction cannot be used: beta_max is 0, since the gradient of the loss at the zero network "
            "vanishes (are the targets, or the active rows of X, all zero, or the targets constant under a free "
            "output bias?); give beta itself"
        )


def check_target_rows(X: DataArray, Y: np.ndarray, architecture: BaseArchitecture, N: int, q: int) -> None:
    """Raise InputError unless the targets Y have as many rows as the predictions."""
    # The outputs of a sample depend on that sample alone, so that one sample shows how many there are.
    samples = X.shape[0]
    M = torch.zeros(N // samples, q, dtype=torch.float64)
    rows = samples * architecture.second_layer(M, data_matrix(X[:1]), Y.shape[1]).shape[0]
    if len(Y) != rows:
        outputs = "" if rows == samples else f", {rows} outputs of the {architecture.name}"
        raise InputError(f"X has {samples} samples{outputs} but Y has {len(Y)} rows")


def check_attained(Phi: np.ndarray, masks: np.ndarray) -> None:
    """Raise InputError for a mask that is the pattern of no vector."""
    # The vectors in the cone of such a block are zero, or belong to the cone of another pattern.
    k = unattained(Phi, masks)
    if k is not None:
        raise InputError(
            f"patterns: block {k} is the pattern 1{{Phi u >= 0}} of no vector u, so that no ReLU neuron belongs to "
            'it; take masks from cnn.sample_patterns or cnn.enumerate_patterns, or activation="gated_relu"'
        )
