"""Read samples and targets from an NPZ file, or from the table of an NPY file."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from convexnn_bench.errors import InputError

# Usual names of the two arrays, in upper or lower case. A file with two of these pairs is ambiguous.
PAIRS = (
    ("X", "Y"),
    ("x_train", "y_train"),
    ("train_images", "train_labels"),
    ("train_x", "train_y"),
    ("train_data", "train_labels"),
    ("images", "labels"),
    ("data", "target"),
    ("data", "targets"),
    ("data", "labels"),
    ("features", "target"),
    ("features", "targets"),
    ("features", "labels"),
    ("inputs", "targets"),
    ("arr_0", "arr_1"),
)
NUMERIC = "fiub"
SAVE = 'save both in one file, np.savez("data.npz", X=X, Y=Y)'


def read_npz(
    source: Path, features: str | None = None, target: str | int | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return samples n x ..., targets n or n x c, and notes.

    features, target: the names of the arrays. By default they are those of one of `PAIRS`.

    Raises
    ------
    InputError
        The file is damaged, or does not determine which arrays are samples and targets.
    """
    # np.load decides by the content, and would return a single array for an NPY file with the suffix .npz.
    if not zipfile.is_zipfile(source):
        raise InputError(f"{source} is not an NPZ file, or is damaged: numpy.savez writes such files")
    with _readable(source), np.load(source, allow_pickle=False) as archive:
        names = list(archive.files)
        chosen = _names(source, names, features, target)
        _check_sizes(source, chosen)
        X, Y = (archive[name] for name in chosen)
    check_samples(source, chosen[0], X)
    if Y.ndim not in (1, 2, 3) or len(Y) != len(X):
        raise InputError(
            f"{source}: {chosen[1]} has shape {Y.shape}, expected ({len(X)},) or ({len(X)}, c), or with tokens"
        )
    note = f"{chosen[0]} ({described(X)}) and {chosen[1]} ({described(Y)}) were read."
    return X, Y, [note, *_unread(names, chosen)]


def read_npy(
    source: Path, target: str | int | None = None, drop: Sequence[str | int] = ()
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return features, the column of targets (the last one by default) and notes of a single table n x d.

    drop: the positions of columns that are left out.
    """
    if zipfile.is_zipfile(source):
        raise InputError(f"{source} is an NPZ file by its content: name it .npz")
    with _readable(source):
        with source.open("rb") as stream:
            _check_size(source, source.name, stream, source.stat().st_size)
        array = np.load(source, allow_pickle=False)
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in NUMERIC:
        raise InputError(
            f"{source} holds one array of {array.dtype}, shape {array.shape}. A file that stands alone must be a "
            f"numeric table n x d with the targets in one column; otherwise {SAVE}"
        )
    position = -1 if target is None else target
    if not isinstance(position, int) or not -array.shape[1] <= position < array.shape[1]:
        raise InputError(
            f"target={target!r}: {source} has {array.shape[1]} columns without names; give a position, -1 for the last"
        )
    position %= array.shape[1]
    which = "the last column" if position == array.shape[1] - 1 else f"column {position} (counted from 0)"
    notes = [f"The array ({described(array)}) was read; {which} is the target."]
    left_out = sorted({_position(source, one, array.shape[1]) for one in drop})
    if position in left_out or len(left_out) > array.shape[1] - 2:
        raise InputError(f"drop={list(drop)!r} leaves out the target, or all features, of {source}")
    if left_out:
        notes.append(f"Left out, as drop says: columns {', '.join(map(str, left_out))} (counted from 0).")
    return np.delete(array, [position, *left_out], axis=1), array[:, position], notes


def _position(source: Path, column: str | int, width: int) -> int:
    if not isinstance(column, int) or not -width <= column < width:
        raise InputError(f"drop={column!r}: {source} has {width} columns without names; give positions from 0 on")
    return column % width


def described(array: np.ndarray) -> str:
    """Return shape and type of an array, such as "50 x 28 x 28 of uint8"."""
    return f"{' x '.join(map(str, array.shape))} of {array.dtype}"


def check_samples(source: Path, name: str, X: np.ndarray) -> None:
    """Raise InputError unless the samples are numbers, n x d or with more axes."""
    if X.ndim < 2 or X.size == 0 or X.dtype.kind not in NUMERIC:
        raise InputError(f"{source}: {name} must be a numeric n x d array, or n x images, got {X.dtype} {X.shape}")


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    """Turn every exception in the block into an InputError that says what is wrong with the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged files raise any exception, such as MemoryError
        objects = "allow_pickle" in str(error) or "pickled" in str(error)
        why = str(error) or type(error).__name__
        why = "it holds Python objects; save arrays of numbers or words" if objects else why
        raise InputError(f"{source} is no readable file of plain arrays: {why}") from error


def _names(source: Path, names: Sequence[str], features: str | None, target: str | int | None) -> tuple[str, str]:
    """Return the names of the two arrays.

    Raise InputError, which lists all arrays, if they are ambiguous.
    """
    for argument, name in (("features", features), ("target", target)):
        if name is not None and str(name) not in names:
            raise InputError(f"{argument}={name!r}: {source} holds the arrays {', '.join(names) or 'none'}")
    if features is not None and target is not None:
        return features, str(target)
    pairs = [
        (X, Y) for X, Y in _pairs(names) if (features is None or features == X) and (target is None or str(target) == Y)
    ]
    if len(set(pairs)) == 1:
        return pairs[0]
    # Otherwise accept one array that may be the samples and one that may be the targets.
    usual = [{pair[side].lower() for pair in PAIRS} for side in (0, 1)]
    left = [name for name in names if (name.lower() in usual[0] if features is None else name == features)]
    right = [name for name in names if (name.lower() in usual[1] if target is None else name == str(target))]
    if not pairs and len(left) == len(right) == 1 and left != right:
        return left[0], right[0]
    listed = ", ".join(names) or "none"
    why = "several of its arrays may be meant" if pairs or (left and right) else "its arrays have no usual names"
    raise InputError(
        f"{source} holds the arrays {listed}; {why}: choose two with features=NAME,target=NAME, or name them X and Y"
    )


def _pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for first, second in PAIRS:
        for X in names:
            for Y in names:
                if X.lower() == first.lower() and Y.lower() == second.lower():
                    yield X, Y


def _check_size(source: Path, name: str, stream: IO[bytes], size: int) -> None:
    """Raise InputError if an array has `size` bytes and its header claims another number."""
    version = np.lib.format.read_magic(stream)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.kind != "O" and claimed != size - stream.tell():
        raise InputError(f"{source} is damaged: {name} claims {claimed} bytes and has {size - stream.tell()}")


def _check_sizes(source: Path, names: Sequence[str]) -> None:
    with zipfile.ZipFile(source) as archive:
        for name in names:
            inside = name if name in archive.namelist() else f"{name}.npy"
            with archive.open(inside) as stream:
                _check_size(source, name, stream, archive.getinfo(inside).file_size)


def _unread(names: Sequence[str], chosen: Sequence[str]) -> list[str]:
    rest = [name for name in names if name not in chosen]
    if not rest:
        return []
    pair = next(_test_pairs(rest), None)
    way = f" (features={pair[0]},target={pair[1]} reads these)" if pair else ""
    return [f"{', '.join(rest)} {'was' if len(rest) == 1 else 'were'} not read{way}."]


def _test_pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for first, second in PAIRS:
        for word in ("test", "val"):
            pair = (first.replace("train", word), second.replace("train", word))
            if "train" in first and set(pair) <= set(names):
                yield pair
