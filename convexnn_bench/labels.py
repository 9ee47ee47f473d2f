"""Labels of any kind as targets: their classes, the order of these, and numbers.

`Problem`, `certify_module`, data sets and layerwise training all read labels here, so that one array of labels has one
meaning everywhere.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convexnn_bench.errors import InputError

MOST_CLASSES = 10_000  # identifiers and measured values would ask for an enormous one-hot matrix
ALL_DIFFERENT = 10  # rows up to which every row may be a class of its own
SHOWN = 12  # classes that a message or a note lists
NUMERIC = "fiub"  # kinds of dtypes


@dataclass(frozen=True)
class Targets:
    """Targets of a problem.

    Attributes
    ----------
    rows : array
        Numbers n x c, or what the user gave, before a loss has read it.
    classes : tuple or None
        The labels in the order of the outputs (with one output: that of -1, then that of +1). None where the targets
        are numbers.
    notes : tuple of str
        What was decided when the targets were read, one sentence each.
    """

    rows: np.ndarray
    classes: tuple[Any, ...] | None = None
    notes: tuple[str, ...] = ()


def category_order(Y: Any) -> list[Any] | None:
    """Return the categories of a pandas object in their order, or None.

    It may be a Categorical, a Series or a DataFrame of one column.
    """
    if hasattr(Y, "iloc") and getattr(Y, "ndim", 1) == 2 and Y.shape[1] == 1:
        Y = Y.iloc[:, 0]
    categories = getattr(getattr(Y, "dtype", None), "categories", None)
    return None if categories is None else list(categories)


def shown(values: Sequence[Any]) -> str:
    """Return the first values for a message."""
    return ", ".join(map(repr, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")


def index_labels(labels: np.ndarray, order: Sequence[Any] | None = None) -> tuple[tuple[Any, ...], np.ndarray]:
    """Return the distinct labels, sorted or in `order`, and each label's position among them.

    Raises
    ------
    InputError
        A label is missing or is not hashable.
    """
    if labels.dtype.kind in NUMERIC + "US" and order is None:
        if labels.dtype.kind == "f":
            _refuse(~np.isfinite(labels), "NaN or infinite entries")
        distinct, index = np.unique(labels, return_inverse=True)
        return tuple(distinct.tolist()), index.reshape(-1)
    values = labels.tolist()
    _refuse(np.array([_is_missing(value) for value in values], dtype=bool), "missing labels")
    if not all(isinstance(value, Hashable) for value in values):
        raise InputError(f"Y must hold labels such as words or whole numbers, got {values[0]!r}")
    position = {label: place for place, label in enumerate(_sorted(set(values), order))}
    return tuple(position), np.array([position[value] for value in values], dtype=np.int64)


def _sorted(labels: set[Any], order: Sequence[Any] | None) -> list[Any]:
    if order is not None:
        return [label for label in order if label in labels]
    try:
        return sorted(labels)
    except TypeError:  # numbers and words do not compare
        return sorted(labels, key=lambda label: (type(label).__name__, str(label)))


def _is_missing(value: Any) -> bool:
    # NaN and NaT differ from themselves; pandas.NA refuses to be compared.
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True


def _refuse(bad: np.ndarray, what: str) -> None:
    where = np.flatnonzero(bad)
    if where.size:
        raise InputError(f"Y has {what} in {where.size} rows, the first is row {where[0]}")


def class_numbers(rows: np.ndarray) -> np.ndarray | None:
    """Return the class of each row of targets, or None if rows do not state one class each.

    One column of -1 and 1 states class 0 and class 1. Several columns state the class of their only 1, where all other
    entries are 0, or all of them are -1.
    """
    if rows.dtype.kind not in NUMERIC or rows.size == 0:
        return None
    if rows.shape[1] == 1:
        return (rows[:, 0] == 1).astype(np.int64) if np.isin(rows, (-1, 1)).all() else None
    ones = rows == 1
    others = rows[~ones]
    one_each = bool((ones.sum(axis=1) == 1).all())
    return ones.argmax(axis=1) if one_each and ((others == 0).all() or (others == -1).all()) else None


def encode_labels(
    kind: str | None,
    loss: str,
    Y: np.ndarray,
    order: Sequence[Any] | None = None,
    outputs: int | None = None,
    classes: Sequence[Any] | None = None,
) -> Targets:
    """Return numeric targets for labels of any kind; targets that are numbers already stay as they are.

    Parameters
    ----------
    kind : {"one_hot", "signs"} or None
        How the loss takes a column of labels: as 0/1 columns, one for each class, as one column of -1/1, or not at all.
    loss : str
        Name of the loss, for messages.
    Y : array, n, n x 1 or n x c
        One column holds labels. Several columns hold numbers, which "signs" also takes as 0/1.
    order : sequence, optional
        The classes in their order, where that is known; sorted by default. Classes that do not occur get no output.
    outputs : int, optional
        Number of outputs of a network. Whole numbers 0..outputs-1 are then class numbers, as they are in torch, and
        classes that do not occur keep their output.
    classes : sequence, optional
        The classes of all outputs, where other data have set them.

    Raises
    ------
    InputError
        The labels are missing, of one class only, or of more classes than the loss takes.
    """
    is_column = Y.ndim == 1 or (Y.ndim == 2 and Y.shape[1] == 1)
    if kind is None:
        return _numbers(loss, Y)
    if not is_column:
        return column_targets(kind, Y)
    labels = Y.reshape(-1)
    if labels.dtype.kind not in NUMERIC + "USO":
        raise InputError(f"Y must hold labels such as words or whole numbers, got dtype {labels.dtype}")
    if labels.size == 0:
        return Targets(Y)
    if classes is not None:
        return _known(kind, labels, tuple(classes))
    return _signs(loss, labels, order) if kind == "signs" else _one_hot(loss, labels, order, outputs)


def class_index(scores: np.ndarray) -> np.ndarray:
    """Return the index of the class of every output n x c (also n x s x c), see `decode_labels`."""
    index: np.ndarray = scores.argmax(axis=-1) if scores.shape[-1] > 1 else (scores[..., 0] > 0).astype(np.int64)
    return index


def decode_labels(scores: np.ndarray, classes: Sequence[Any]) -> np.ndarray:
    """Return the label of every output n x c, an array n; also n x s for scores n x s x c.

    The label is that of the largest score, the first of equal ones. With one output, a positive score gives the second
    class and any other score the first, as in scikit-learn. Labels of one type give an array of that type.
    """
    names = np.empty(len(classes), dtype=object)
    names[:] = classes  # labels may be tuples, which are no second axis
    if len({type(name) for name in classes}) == 1 and isinstance(classes[0], str | bool | int | float):
        names = np.array(classes)
    return names[class_index(scores)]


def _known(kind: str, labels: np.ndarray, classes: tuple[Any, ...]) -> Targets:
    """Return targets for labels of classes that are known."""
    found, index = index_labels(labels)
    unknown = [label for label in found if label not in classes]
    if unknown:
        raise InputError(f"Y has the labels {shown(unknown)}, which are none of the classes {shown(classes)}")
    place = np.array([classes.index(label) for label in found])[index]
    rows = np.where(place == 1, 1.0, -1.0)[:, None] if kind == "signs" else np.eye(len(classes))[place]
    return Targets(rows, classes)


def _numbers(loss: str, Y: np.ndarray) -> Targets:
    """Return the targets of a loss that takes numbers alone."""
    if Y.dtype.kind == "b":
        return Targets(Y, None, (f"Y holds booleans, which the {loss} loss takes as the numbers 0 and 1.",))
    words = [str(value) for value in Y.flat if isinstance(value, str)][:1] if Y.dtype.kind in "UO" else []
    if words:
        raise InputError(
            f"Y must be numeric for the {loss} loss, and holds words such as {words[0]!r}: for classes use "
            'loss="cross_entropy", or "logistic" for two classes, which take labels of any kind; or give one column of '
            "0/1 for each class, such as pandas.get_dummies(Y, dtype=float)"
        )
    return Targets(Y)


def column_targets(kind: str | None, Y: np.ndarray) -> Targets:
    """Return targets of several columns, with 0/1 as -1/1 where a loss of signs would refuse them."""
    zero_one = Y.dtype.kind in NUMERIC and Y.size > 0 and np.isin(Y, (0, 1)).all() and (Y == 0).any()
    if kind == "signs" and zero_one:
        # Computed in float64: 2 Y - 1 of unsigned bytes would wrap to 255.
        return Targets(2.0 * Y.astype(np.float64) - 1.0, None, ("Entries 0/1 of Y are -1/+1.",))
    return Targets(Y)


def _signs(loss: str, labels: np.ndarray, order: Sequence[Any] | None) -> Targets:
    """Return one column of -1 and +1."""
    # The targets themselves need no second class: a batch may hold one sign only.
    if labels.dtype.kind in "fi" and np.isin(labels, (-1, 1)).all():
        one = labels.dtype.type(1).item()
        return Targets(labels.astype(np.float64)[:, None], (-one, one))
    classes, index = index_labels(labels, order)
    if len(classes) != 2:
        only = "one class only, " if len(classes) == 1 else ""
        ways = (
            "" if len(classes) == 1 else '; for more classes use loss="cross_entropy", or one column of -1/1 for each'
        )
        raise InputError(
            f"Y must hold labels -1 and 1, or any two labels, for the {loss} loss, found {only}{shown(classes)}{ways}"
        )
    note = f"Labels {classes[0]!r}/{classes[1]!r} are -1/+1."
    return Targets(np.where(index == 1, 1.0, -1.0)[:, None], classes, (note,))


def _one_hot(loss: str, labels: np.ndarray, order: Sequence[Any] | None, outputs: int | None) -> Targets:
    """Return 0/1 columns, one for each class."""
    if labels.dtype.kind == "f":
        odd = labels[np.isfinite(labels) & (labels != np.round(labels))]
        if odd.size:
            raise InputError(
                f"Y must hold labels (words or whole numbers), or n x c rows that sum to one, for the {loss} loss; "
                f"found numbers that are not whole, such as {float(odd[0]):.6g}"
            )
    if outputs is not None and labels.dtype.kind in NUMERIC and np.isin(labels, np.arange(outputs)).all():
        return _class_numbers(labels.astype(np.int64), outputs)
    classes, index = index_labels(labels, order)
    if outputs is not None and len(classes) != outputs:
        one = "; two classes with one output need the logistic loss" if (outputs, len(classes)) == (1, 2) else ""
        raise InputError(
            f"Y must have as many columns or classes as the module has outputs, {outputs}, got {len(classes)} "
            f"classes: {shown(classes)}{one}"
        )
    if len(classes) == 1:
        raise InputError(
            f"Y holds one class only (all labels {classes[0]!r}): {loss} needs at least two classes; "
            "give n x c one-hot rows to name classes that do not occur"
        )
    if len(classes) > MOST_CLASSES or len(classes) == len(labels) > ALL_DIFFERENT:
        raise InputError(
            f"Y has {len(classes)} classes for {len(labels)} rows (at most {MOST_CLASSES} are allowed, and some label "
            f"must repeat): {shown(classes)}; does it hold measured values?"
        )
    note = f"{len(classes)} classes in the order of the outputs: {shown(classes)}."
    return Targets(np.eye(len(classes))[index], classes, (note,))


def _class_numbers(numbers: np.ndarray, outputs: int) -> Targets:
    """Return 0/1 columns for the class numbers that torch takes."""
    absent = np.setdiff1d(np.arange(outputs), numbers).tolist()
    missing = f"; without samples: {shown(absent)}" if absent else ""
    notes = (f"Labels are the class numbers 0 to {outputs - 1} of the outputs{missing}.",)
    return Targets(np.eye(outputs)[numbers], tuple(range(outputs)), notes)
