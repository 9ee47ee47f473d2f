"""Checks of arrays that a user supplies.

Every error names the array, what is allowed and what the array holds.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from convexnn_bench.errors import InputError
from convexnn_bench.plugins import is_whole

Array = ArrayLike | torch.Tensor  # what a user may give where an array is expected
SMALLEST, LARGEST = 1e-40, 1e40  # magnitudes whose fourth powers, as they occur in step lengths, stay in float64

SMALLEST_BETA = 1e-290  # below, products may be subnormal, whose relative error no bound covers


def as_numpy(value: Any, name: str = "the array", *, widen: bool = True) -> np.ndarray:
    """Return an array-like or a torch tensor on any device as a numpy array.

    Raise InputError for anything else.

    widen: floating-point tensors become float64.
    """
    # np.asarray would drop the mask and take the values below it for data.
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{name} has {np.ma.count_masked(value)} masked entries: fill or drop them")
    # np.asarray turns a sparse matrix of SciPy into one Python object.
    if hasattr(value, "toarray") or (isinstance(value, torch.Tensor) and value.layout != torch.strided):
        raise InputError(f"{name} must be a dense array, got a sparse {type(value).__name__}")
    try:
        if isinstance(value, torch.Tensor):
            # Numpy has no bfloat16, so that floating-point tensors are widened first.
            value = value.detach().cpu()
            return (value.double() if widen and value.is_floating_point() else value).numpy()
        array = np.asarray(value)
        # Columns of several numeric types, some of pandas' own, become Python objects together.
        return _frame(name, value) if array.dtype == object and _is_numeric_frame(value) else array
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{name} cannot be read as an array: {error}") from error


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """Return a copy in C order at a multiple of 64 bytes.

    Equal processes then round products with it alike.
    """
    # torch aligns its memory at 64 bytes. Numpy need not, and the order of vectorised sums may depend on it.
    return torch.tensor(np.asarray(array, order="C")).numpy()


def plain_number(value: Any) -> Any:
    """Return the Python number in a numpy or torch scalar; anything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 0):
        return value.item()
    return value


def check_array(name: str, value: Any) -> np.ndarray:
    """Return a float64 array of finite numbers in C order.

    Raise InputError, `name` in front, for anything else.
    """
    array = _frame(name, value) if _is_frame(value) else as_numpy(value, name)
    if array.ndim == 0 and array.dtype == object:
        raise InputError(f"{name} must be a numeric array, got {type(value).__name__}")
    if array.dtype.kind not in "fiub":
        hint = "; convert columns of mixed kinds with .astype(float)" if array.dtype == object else ""
        raise InputError(f"{name} must be a numeric array, got dtype {array.dtype}{hint}")
    # All later arithmetic, and with it every bound on rounding, assumes float64.
    array = np.asarray(array, dtype=np.float64, order="C")
    check_finite(name, array)
    return array


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise InputError for entries that are not finite."""
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        first = tuple(int(index) for index in bad[0])
        raise InputError(f"{name} has {len(bad)} NaN or infinite entries, the first at index {first}")


def _is_frame(value: Any) -> bool:
    """Return whether this is a pandas DataFrame, without importing pandas."""
    return hasattr(value, "iloc") and getattr(value, "ndim", 0) == 2


def _is_numeric_frame(value: Any) -> bool:
    return _is_frame(value) and all(getattr(dtype, "kind", "O") in "fiub" for dtype in value.dtypes)


def _frame(name: str, frame: Any) -> np.ndarray:
    """Return the numbers of a DataFrame.

    Raise InputError with the names of columns that hold others.
    """
    kinds = {column: dtype for column, dtype in zip(frame.columns, frame.dtypes, strict=True)}
    odd = [column for column, dtype in kinds.items() if getattr(dtype, "kind", "O") not in "fiub"]
    if odd:
        listed = ", ".join(f"{column!r} ({kinds[column]})" for column in odd)
        raise InputError(
            f"{name} has columns that hold no numbers: {listed}. Encode them:\n"
            f"    import pandas as pd\n    {name} = pd.get_dummies({name}, columns={odd!r}, dtype=float)"
        )
    for place, column in enumerate(frame.columns):
        empty = np.flatnonzero(frame.iloc[:, place].isna().to_numpy())
        if empty.size:
            raise InputError(
                f"{name}: column {str(column)!r} is NaN or missing in {empty.size} rows, the first is row {empty[0]}"
            )
    # Column by column: nullable integers and booleans of one frame would become Python objects together.
    columns = [frame.iloc[:, place].to_numpy(dtype=np.float64) for place in range(frame.shape[1])]
    return np.column_stack(columns) if columns else np.empty((len(frame), 0))


def pairing_notes(X: Any, Y: Any) -> tuple[str, ...]:
    """Return a note if two pandas objects have different indices.

    Their rows are paired by position.
    """
    both = hasattr(X, "iloc") and hasattr(Y, "iloc")
    if not both or len(X) != len(Y) or X.index.equals(Y.index):
        return ()
    return ("X and Y have different pandas indices; their rows were paired by position.",)


def check_patterns(patterns: Any, N: int) -> Any:
    """Return "all", a positive int, or an array, whose shape and content are checked with the masks."""
    allowed = f'patterns must be "all", a whole number of gates to sample, or an N x P bool array with N = {N} rows'
    if isinstance(patterns, str) and patterns == "all":
        return patterns
    if is_whole(patterns):
        if patterns < 1:
            raise InputError(f"{allowed}; the number must be at least 1, got {patterns}")
        return int(patterns)
    array = as_numpy(patterns, "patterns")
    if array.ndim == 0:
        raise InputError(f"{allowed}, got {patterns!r}")
    return array


def check_scale(name: str, array: np.ndarray) -> None:
    """Raise InputError for magnitudes whose products leave float64; an array of zeros passes."""
    size = max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))  # |X| would be a copy
    if size > 0 and not SMALLEST <= size <= LARGEST:
        raise InputError(
            f"{name}: the largest magnitude is {size:.3g}, allowed are {SMALLEST:g} to {LARGEST:g}, so that products "
            f"stay in the range of float64; rescale {name}"
        )


def check_beta(beta: float) -> float:
    """Return beta; raise InputError if it is too small for certificates in float64."""
    if not beta >= SMALLEST_BETA:
        raise InputError(
            f"beta must be at least {SMALLEST_BETA:g}, got {beta:g}: multipliers scaled to it would leave the normal "
            "numbers of float64; rescale X, Y and beta (X / a, Y / b and beta / (a b) is the same problem for the "
            "squared loss)"
        )
    return beta
