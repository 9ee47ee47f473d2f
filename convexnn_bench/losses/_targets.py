"""Read what a user gives as targets.

The same way serves problems, certificates of modules and layerwise training.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from convexnn_bench.checks import as_numpy
from convexnn_bench.labels import Targets, category_order, column_targets, encode_labels
from convexnn_bench.losses._options import plain_loss
from convexnn_bench.losses.base import BaseLoss


def read_targets(
    loss: BaseLoss,
    Y: Any,
    target_rows: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    outputs: int | None = None,
    classes: Sequence[Any] | None = None,
) -> Targets:
    """Return the targets n_out x c as float64, as the loss takes them, with their classes and notes.

    Parameters
    ----------
    loss : BaseLoss
        Its `labels` says how it takes labels.
    Y : array or Targets
        What the user gave. `Targets` with classes hold numbers already.
    target_rows : callable, optional
        Brings the array into one row for each output, as `BaseArchitecture.target_rows` does.
    outputs, classes
        As for `encode_labels`.

    Raises
    ------
    InputError
        The targets do not fit the loss.
    """
    given = Y if isinstance(Y, Targets) else Targets(_as_given(loss, Y))
    rows = given.rows if target_rows is None else target_rows(given.rows)
    if given.classes is not None:
        encoded = column_targets(loss.labels, rows)
    else:
        encoded = encode_labels(loss.labels, plain_loss(loss).name, rows, category_order(Y), outputs, classes)
    notes = (*given.notes, *encoded.notes)
    return Targets(loss.prepare_targets(encoded.rows), given.classes or encoded.classes, notes)


def _as_given(loss: BaseLoss, Y: Any) -> np.ndarray:
    """Return what the user gave as an array, where a list of labels of several types keeps the types."""
    array = as_numpy(Y, "Y")
    # numpy makes text of everything in a list with a word in it, and two axes of a list of tuples
    is_text = loss.labels is not None and isinstance(Y, list | tuple) and array.dtype.kind == "U"
    if is_text and not all(isinstance(label, str) for label in Y) and all(isinstance(label, Hashable) for label in Y):
        array = np.empty(len(Y), dtype=object)
        array[:] = Y
    return array
