"""The user's own data: a CSV file with a header line, or an NPZ file of arrays."""

import difflib
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from convexnn_bench.datasets.base import (
    TARGETS,
    BaseDataset,
    Data,
    class_targets,
    one_of,
    standard_columns,
    with_bias,
)
from convexnn_bench.errors import InputError


class File(BaseDataset):
    """CSV: one row a sample; `target` is a column name or number (-1: the last), all others are features.
    NPZ: `features` and `target` name its arrays (X and Y by default).

    targets="values": numbers as they stand, squared loss. "one_hot", "signs", "binary": the target holds
    class names or numbers, sorted, for cross-entropy ("one_hot") or logistic loss ("binary": +1 for the
    last class). standardize: columns to mean 0 and standard deviation 1. bias: adds a column of ones.
    """

    name = "file"
    summary = "your own CSV or NPZ file: file[path=data.csv,target=price]"

    def load(
        self,
        path: str | None = None,
        target: str | int | None = None,
        features: str = "X",
        targets: str = "values",
        standardize: bool = False,
        bias: bool = False,
    ) -> Data:
        one_of("targets", targets, ("values", *TARGETS))
        one_of("standardize", standardize, (True, False))
        one_of("bias", bias, (True, False))
        source = _existing(path)
        if source.suffix.lower() == ".npz":
            X, raw = _read_npz(source, features, "Y" if target is None else str(target))
        else:
            X, raw = _read_csv(source, -1 if target is None else target)
        Y, loss = _targets(source, raw, targets)
        X = standard_columns(X) if standardize else X
        patterns: str | int = "all" if X.shape[1] + bias <= 2 else 50
        defaults = {"loss": loss, "activation": "gated_relu", "beta_fraction": 0.01, "patterns": patterns}
        return Data(with_bias(X) if bias else X, Y, defaults)

    def fingerprint(self) -> str | None:
        # The file may change between two runs. Its hash keeps the results of both apart.
        path = Path(str(self.given.get("path")))
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _existing(path: Any) -> Path:
    if path is None:
        raise InputError("data set 'file' needs a path: file[path=data.csv] or file[path=data.npz]")
    source = Path(str(path)).expanduser()
    if not source.is_file():
        raise InputError(f"path: there is no file {str(path)!r} (looked in {Path.cwd()})")
    if source.suffix.lower() not in (".csv", ".npz"):
        raise InputError(f"path must end in .csv or .npz, got {str(path)!r}")
    return source


def _read_npz(source: Path, features: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    # np.load goes by the content, and would return a single array for an NPY file that is called .npz.
    if not zipfile.is_zipfile(source):
        raise InputError(f"{source} is not an NPZ file: numpy.savez writes such files")
    try:
        with np.load(source, allow_pickle=False) as arrays:
            for argument, key in (("features", features), ("target", target)):
                if key not in arrays:
                    raise InputError(f"{argument}={key!r}: {source} holds the arrays {', '.join(arrays) or 'none'}")
            X, Y = arrays[features], arrays[target]
    except InputError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        objects = "allow_pickle" in str(error)
        why = "it holds Python objects; save arrays of numbers or words" if objects else str(error)
        raise InputError(f"{source} is no readable NPZ file of plain arrays: {why}") from error
    if X.ndim != 2 or X.dtype.kind not in "fiub":
        raise InputError(f"{source}: {features} must be a numeric n x d array, got {X.dtype} {X.shape}")
    if Y.ndim not in (1, 2) or len(Y) != len(X):
        raise InputError(f"{source}: {target} has shape {Y.shape}, expected ({len(X)},) or ({len(X)}, c)")
    return X.astype(np.float64), Y


def _read_csv(source: Path, target: str | int) -> tuple[np.ndarray, np.ndarray]:
    import pandas as pd

    try:
        table = pd.read_csv(source, skipinitialspace=True)
        # Pandas renames double names in a header, so that its first line is read once more as text.
        first = pd.read_csv(source, skipinitialspace=True, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[
            0
        ]
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{source} is no readable CSV file: {error}") from error
    columns = [str(column) for column in table.columns]
    _check_header(source, [str(name) for name in first])
    if len(columns) < 2 or len(table) < 2:
        raise InputError(
            f"{source} has {len(table)} rows and {len(columns)} columns after its header line; "
            "at least 2 of each are needed"
        )
    position = _column(source, columns, target)
    for place, column in enumerate(columns):
        _check_column(source, column, table.iloc[:, place], numeric=place != position)
    # Every other column was found to be numeric above.
    X = table.drop(columns=table.columns[position]).to_numpy(dtype=np.float64)
    return X, table.iloc[:, position].to_numpy()


def _check_header(source: Path, columns: list[str]) -> None:
    """Raises InputError when the first line is a sample, or when columns are separated by something else."""
    if any(columns) and all(not column or _is_number(column) for column in columns):
        first = ",".join(columns)
        shown = first if len(first) <= 60 else first[:57] + "..."
        raise InputError(f"{source} has no header line: its first line is {shown!r}; add one with a name per column")
    for separator in (";", "\t"):
        if len(columns) == 1 and separator in columns[0]:
            raise InputError(
                f"{source} has a single column, {columns[0]!r}: is it separated by {separator!r}? "
                "Columns must be separated by commas"
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(source: Path, columns: list[str], target: str | int) -> int:
    if isinstance(target, int):
        if not -len(columns) <= target < len(columns):
            raise InputError(f"target={target}: {source} has {len(columns)} columns")
        return target % len(columns)
    if target not in columns:
        near = difflib.get_close_matches(target, columns, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        shown = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
        raise InputError(f"target={target!r} is no column of {source}: {hint}columns: {shown}")
    return columns.index(target)


def _check_column(source: Path, column: str, values: Any, numeric: bool) -> None:
    import pandas as pd

    empty = np.flatnonzero(values.isna().to_numpy())
    if empty.size:
        raise InputError(f"{source}: column {column!r} is empty in {empty.size} rows, first in line {empty[0] + 2}")
    if numeric:
        bad = np.flatnonzero(pd.to_numeric(values, errors="coerce").isna().to_numpy())
        if bad.size:
            raise InputError(
                f"{source}: column {column!r} is not a number in line {bad[0] + 2}: {values.iloc[bad[0]]!r}"
            )


def _targets(source: Path, raw: np.ndarray, targets: str) -> tuple[np.ndarray, str]:
    if targets == "values":
        if raw.dtype.kind not in "fiub":
            raise InputError(
                f"{source}: the target holds words such as {str(raw.flat[0])!r}; "
                "for classes give targets=one_hot, targets=signs or targets=binary"
            )
        return raw.astype(np.float64), "squared"
    if raw.ndim == 2 and raw.shape[1] != 1:
        raise InputError(f"{source}: targets={targets} needs one column of classes, got shape {raw.shape}")
    # Sorted classes give the same numbers whatever the order of the samples.
    classes, labels = np.unique(
        raw.reshape(-1).astype(str if raw.dtype.kind == "O" else raw.dtype), return_inverse=True
    )
    if len(classes) < 2 or (targets == "binary" and len(classes) != 2):
        allowed = "exactly 2" if targets == "binary" else "at least 2"
        raise InputError(f"{source}: targets={targets} needs {allowed} classes, the target has {len(classes)}")
    return class_targets(labels, targets, positive=len(classes) - 1)
