"""The user's own data: a table in a text file, or arrays in an NPZ or NPY file."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from convexnn_bench.datasets._arrays import read_npy, read_npz
from convexnn_bench.datasets._images import LAYOUTS
from convexnn_bench.datasets._rows import SEPARATORS
from convexnn_bench.datasets._tables import has_words_and_numbers, read_table
from convexnn_bench.datasets.base import (
    TARGETS,
    BaseDataset,
    Data,
    Samples,
    class_targets,
    number,
    one_of,
)
from convexnn_bench.errors import InputError
from convexnn_bench.labels import index_labels, shown

TEXT = (".csv", ".data", ".txt", ".tsv")
SUFFIXES = (*TEXT, ".npz", ".npy")
MOST_CLASSES = 10  # number of different whole numbers up to which targets may be meant as classes
CHANNELS = (1, 3, 4)  # usual numbers of channels of an image


class File(BaseDataset):
    """Tables (.csv, .data, .txt, .tsv): a row is a sample, one column the target, and all others are features.
    Arrays: an .npz file of samples and targets, or an .npy file of one table.

    `problem.notes` says how the file was read.

    Parameters
    ----------
    path : str
    target : str or int
        Name of a column, or its position from 0 on; -1, the last, by default. For an .npz file, the name of an array.
    features : str
        Name of the array of samples in an .npz file. By default both arrays are recognised by usual names.
    header : {"auto", "yes", "no"}
        Whether the first line of a table holds names.
    separator : {"auto", "comma", "semicolon", "tab", "space"}
        What separates the columns of a table.
    decimal : {"auto", "point", "comma"}
        The decimal sign of a table.
    drop : str, int or list of these, optional
        Columns that are left out, by name or by position from 0 on: "id", or ["id", "date"]. On the command line, where
        a list is a sweep, names are separated by commas: ``file[path=data.csv,drop='id,date']``.
    targets : {"auto", "values", "one_hot", "signs", "binary"}
        "values" keeps numbers, for the squared loss. The others read words or numbers as sorted classes. "one_hot"
        makes 0/1 columns for cross-entropy, "signs" makes -1/1 columns for the logistic loss, and "binary" makes one
        column with +1 for the second of two classes. By default words are classes ("binary" for two, else "one_hot")
        and numbers are values.
    scale : float
        Divisor of all features, such as 255 for pixels.
    standardize : bool
        Give each column mean 0 and standard deviation 1 (over the training samples).
    bias : bool
        Add a column of ones.
    layout : {"flat", "image", "tokens"}
        Shape of samples with several axes: "flat" is n x d, "image" is n x channels x height x width, for the CNN, and
        "tokens" is n x tokens x d, for attention.
    """

    name = "file"
    summary = "your own .csv, .data, .txt, .tsv, .npz or .npy file: file[path=data.csv,target=price]"

    def load(
        self,
        path: str | None = None,
        target: str | int | None = None,
        features: str | None = None,
        header: str | bool = "auto",
        separator: str = "auto",
        decimal: str = "auto",
        drop: str | int | list[str | int] | None = None,
        targets: str = "auto",
        scale: float = 1.0,
        standardize: bool = False,
        bias: bool = False,
        layout: str = "flat",
    ) -> Data:
        one_of("targets", targets, ("auto", "values", *TARGETS))
        samples = self._read_samples()
        X = samples.X
        Y, classes, loss, notes = _targets(str(path), samples.y, targets)
        patterns: str | int = "all" if X.ndim == 2 and X.shape[1] <= 1 else 50
        defaults = {"loss": loss, "activation": "gated_relu", "beta_fraction": 0.01, "patterns": patterns}
        return Data(X, Y, defaults, classes, (*samples.notes, *notes), standardize=standardize, bias=bias)

    def samples(self) -> Samples:
        """Return the features, changed as the parameters say, and the targets as the file has them."""
        read, given = self._read_samples(), {**self.parameters, **self.given}
        X = self._prepared(Data(read.X, read.y, standardize=given["standardize"], bias=given["bias"])).X
        return Samples(X, read.y, read.notes)

    def _read_samples(self) -> Samples:
        """Return the features in their layout, before standardisation, and the targets of the file."""
        given = {**self.parameters, **self.given}
        for name in ("standardize", "bias"):
            one_of(name, given[name], (True, False))
        one_of("layout", given["layout"], LAYOUTS)
        scale = number("scale", given["scale"], 1e-300)
        # 1. Read the file.
        X, y, notes = _read(given)
        mixed = has_words_and_numbers(y.reshape(-1))
        if mixed and given["targets"] in ("auto", "values"):
            raise InputError(
                f"{given['path']}: the target holds numbers such as {mixed[0]!r} and words such as {mixed[1]!r}; give "
                "targets=one_hot if all of them are classes"
            )
        # 2. Convert the features to float64, in their layout.
        if X.dtype != np.float64:
            how = "as they are (scale=255 would divide them)" if scale == 1 else f"and divided by {scale:g}"
            notes.append(f"The features ({X.dtype}, {X.min()} to {X.max()}) were converted to float64 {how}.")
        X, said = _arranged(X.astype(np.float64) / scale, given["layout"])
        if X.ndim > 2 and (given["standardize"] or given["bias"]):
            raise InputError(f'standardize and bias need layout="flat", got layout={given["layout"]!r}')
        return Samples(X, y, (*notes, *said))

    def fingerprint(self) -> str | None:
        # The file may change between two runs. Its hash keeps the results of both apart.
        path = Path(str(self.given.get("path")))
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _read(given: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return samples, targets and notes of the file, whose suffix says its format."""
    source, target, features = _existing(given["path"]), given["target"], given["features"]
    suffix = source.suffix.lower()
    if isinstance(target, bool) or not isinstance(target, str | int | None):
        raise InputError(f"target must be a name or a position from 0 on, got {target!r}")
    header = given["header"]
    header = ("yes" if header else "no") if isinstance(header, bool) else header
    one_of("header", header, ("auto", "yes", "no"))
    one_of("separator", given["separator"], ("auto", *SEPARATORS))
    one_of("decimal", given["decimal"], ("auto", "point", "comma"))
    drop = _listed(given["drop"])
    if suffix == ".npz":
        if drop:
            raise InputError(f"drop={given['drop']!r} names columns of a table; {source} holds arrays")
        return read_npz(source, features, target)
    if features is not None:
        raise InputError(f"features={features!r} names an array of an .npz file; {source} is none")
    if suffix == ".npy":
        return read_npy(source, target, drop)
    last = -1 if target is None else target
    return read_table(source, last, header, given["separator"], given["decimal"], drop)


def _listed(drop: Any) -> list[str | int]:
    """Return the columns of `drop` as a list; raise InputError unless they are names or positions."""
    columns = [] if drop is None else list(drop) if isinstance(drop, list | tuple) else [drop]
    if not all(isinstance(column, str | int) and not isinstance(column, bool) for column in columns):
        raise InputError(f"drop must be a name, a position from 0 on, or a list of these, got {drop!r}")
    return columns


def _existing(path: Any) -> Path:
    if path is None:
        raise InputError("data set 'file' needs a path: file[path=data.csv] or file[path=data.npz]")
    source = Path(str(path)).expanduser()
    if not source.is_file():
        raise InputError(f"path: there is no file {str(path)!r} (looked in {Path.cwd()})")
    if source.suffix.lower() not in SUFFIXES:
        raise InputError(f"path must end in {', '.join(SUFFIXES)}, got {str(path)!r}")
    return source


def _arranged(X: np.ndarray, layout: str) -> tuple[np.ndarray, list[str]]:
    """Return the samples in a layout, see `File`, and notes. Raise InputError if their axes do not fit the layout."""
    sizes = " x ".join(map(str, X.shape[1:]))
    if layout == "flat":
        notes = [f"A sample of {sizes} is a row of {X[0].size} features."] if X.ndim > 2 else []
        return X.reshape(len(X), -1), notes
    if layout == "tokens" and X.ndim == 3:
        return X, []
    if layout == "image" and X.ndim == 3:
        return X[:, None], ["The images have one channel."]
    if layout == "image" and X.ndim == 4:
        first, height, last = X.shape[1:]
        if last in CHANNELS and (first not in CHANNELS or first == height != last):
            moved = f"The channels of the images, {sizes}, were moved to the front."
            return np.ascontiguousarray(X.transpose(0, 3, 1, 2)), [moved]
        return X, []
    axes = "n x channels x height x width, or n x height x width," if layout == "image" else "n x tokens x d"
    raise InputError(f"layout={layout} needs samples of the shape {axes}, got {X.shape}")


def _targets(path: str, y: np.ndarray, targets: str) -> tuple[np.ndarray, tuple[Any, ...] | None, str, list[str]]:
    """Return targets, their classes, the loss that fits, and notes."""
    words = y.dtype.kind not in "fiu"
    if targets == "values" or (targets == "auto" and not words):
        return _values(path, y), None, "squared", _values_notes(y) if targets == "auto" else []
    if y.ndim == 2 and y.shape[1] != 1:
        raise InputError(f"{path}: targets={targets} needs one column of classes, got shape {y.shape}")
    # Sorted classes give the same numbers whatever the order of the samples.
    classes, index = index_labels(y.reshape(-1))
    if len(classes) < 2 or (targets == "binary" and len(classes) != 2):
        allowed = "exactly 2" if targets == "binary" else "at least 2"
        raise InputError(
            f"{path}: targets={targets} needs {allowed} classes, the target has {len(classes)}: {shown(classes)}"
        )
    if len(classes) == len(index) > MOST_CLASSES:
        raise InputError(
            f"{path}: every row has a class of its own, such as {classes[0]!r}; is the target another one?"
        )
    kind = ("binary" if len(classes) == 2 else "one_hot") if targets == "auto" else targets
    Y, loss = class_targets(index, kind, positive=len(classes) - 1)
    one = "; with one output the second is +1" if kind == "binary" else ""
    return (
        Y,
        classes,
        loss,
        [f"The target has {len(classes)} classes, in the order of the outputs: {shown(classes)}{one}."],
    )


def _values(path: str, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "fiub":
        raise InputError(
            f"{path}: the target holds words such as {str(y.flat[0])!r}; "
            "for classes give targets=one_hot, targets=signs or targets=binary"
        )
    return y


def _values_notes(y: np.ndarray) -> list[str]:
    """Return a note on numbers that may be meant as classes."""
    distinct = np.unique(y)
    if len(distinct) > MOST_CLASSES or not (distinct == np.round(distinct)).all() or len(distinct) == y.size:
        return []
    ways = "targets=binary or targets=one_hot reads" if len(distinct) == 2 else "targets=one_hot reads"
    return [f"The target holds {len(distinct)} different whole numbers; {ways} them as classes."]
