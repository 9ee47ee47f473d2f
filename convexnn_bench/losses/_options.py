"""Wrap a loss for the user's `sample_weight` and `output_bias`."""

from typing import Any

import numpy as np

from convexnn_bench.checks import LARGEST, SMALLEST, check_array
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.losses._output_bias import OutputBias
from convexnn_bench.losses._weights import WeightedLoss
from convexnn_bench.losses.base import BaseLoss
from convexnn_bench.plugins import Choice

OUTPUT_BIASES = ("free", "penalised")


def with_sample_weight(loss: BaseLoss, sample_weight: Any, samples: int, rows: int) -> BaseLoss:
    """Return the loss with a weight for each sample.

    sample_weight: None for no weights.

    All rows of predictions of a sample have its weight. Raise InputError for weights that are not allowed, and
    UnsupportedError for a loss that is no sum over rows.
    """
    if sample_weight is None:
        below = weighted_part(loss)
        if isinstance(below, WeightedLoss):
            _check_length(below.weights, rows, "rows of predictions")
        return loss
    if not loss.separable or isinstance(loss, WeightedLoss):
        raise UnsupportedError(f"sample_weight multiplies the terms of a sum over rows, which the {loss.name} is not")
    weights = check_array("sample_weight", sample_weight)
    _check_length(weights, samples, "samples")
    negative = np.flatnonzero(weights < 0)
    if negative.size:
        raise InputError(
            f"sample_weight must not be negative; {negative.size} entries are, the first is entry {negative[0]}, "
            f"{weights[negative[0]]:g}"
        )
    positive = weights[weights > 0]
    if not positive.size:
        raise InputError("sample_weight must have a positive entry; all of them are zero")
    if positive.min() < SMALLEST or positive.max() > LARGEST:
        raise InputError(
            f"sample_weight: entries must be 0 or from {SMALLEST:g} to {LARGEST:g}, so that products stay in the range "
            f"of float64; they are from {positive.min():.3g} to {positive.max():.3g}"
        )
    return WeightedLoss(loss, np.repeat(weights, rows // samples))


def with_output_bias(loss: BaseLoss, output_bias: str | None, beta: float | None) -> BaseLoss:
    """Return the loss minimised over an output bias; output_bias: None for no bias.

    beta: the weight decay of a penalised bias. Raise InputError for an unknown kind, and for a penalised bias without
    beta.
    """
    Choice((None, *OUTPUT_BIASES)).check("output_bias", output_bias)
    if output_bias is None:
        return loss
    if isinstance(loss, OutputBias):
        raise InputError(f"output_bias={output_bias!r}: the loss, {loss.name}, has an output bias already")
    if output_bias == "free":
        return OutputBias(loss, None)
    if beta is None:
        raise InputError(
            'beta_fraction: with output_bias="penalised" beta_max depends on beta, of which beta_fraction would be a '
            'fraction; give beta itself, or output_bias="free"'
        )
    return OutputBias(loss, beta)


def weighted_part(loss: BaseLoss) -> BaseLoss:
    """Return the loss below an output bias."""
    return loss.loss if isinstance(loss, OutputBias) else loss


def plain_loss(loss: BaseLoss) -> BaseLoss:
    """Return the loss without weights and output bias, for predictions that include the bias."""
    below = weighted_part(loss)
    return below.loss if isinstance(below, WeightedLoss) else below


def _check_length(weights: np.ndarray, length: int, of: str) -> None:
    if weights.shape != (length,):
        raise InputError(f"sample_weight must be {length} numbers, one for each of the {of}, got shape {weights.shape}")
