"""Find, verify and read image files in the folders that torchvision uses.

Nothing is downloaded. The folders are that of the environment variable CONVEXNN_DATA, then the user's cache.
"""

import gzip
import hashlib
import io
import os
import pickle
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from convexnn_bench.errors import InputError

Images = UInt8[np.ndarray, "n channels side side"]
Labels = UInt8[np.ndarray, " n"]
Files = Mapping[str, str]  # {name of a file: its md5}
FROM_NUMPY = ("_reconstruct", "ndarray", "dtype")  # all that a pickled array needs


def roots() -> list[Path]:
    """Return the folders that may have data, in the order of search."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convexnn-bench"
    folder = os.environ.get("CONVEXNN_DATA")
    return [Path(folder), cache] if folder else [cache]


def find(folder: str, names: list[str]) -> Path | None:
    """Return the first `folder` below a root that has all the files, packed or not.

    Return None if none has.
    """
    for root in roots():
        if all(_existing(root / folder, name) for name in names):
            return root / folder
    return None


def missing(folder: str, names: list[str], what: str) -> str | None:
    """Return which files to put where, in words; None when all files are there."""
    if find(folder, names) is not None:
        return None
    # A folder with some of the files is most likely where the user wants the rest.
    for root in roots():
        lacking = [name for name in names if _existing(root / folder, name) is None]
        if len(lacking) < len(names):
            return f"needs {', '.join(lacking)} of {what} beside the files that are in {root / folder} already"
    looked = " or ".join(str(root / folder) for root in roots())
    return (
        f"needs the files of {what}, which ship with no package: put {', '.join(names)} into {looked} "
        "(the environment variable CONVEXNN_DATA names another folder for data)"
    )


def _existing(folder: Path, name: str) -> Path | None:
    for candidate in (folder / name, folder / name.removesuffix(".gz")):
        if candidate.is_file():
            return candidate
    return None


def located(folder: str, files: Files, what: str, verify: bool) -> dict[str, Path]:
    """Return {name: path}.

    Raise InputError for missing files and, with `verify`, for changed ones.

    Checksums were published for the packed files, so that an unpacked file is taken as it is.
    """
    lacking = missing(folder, list(files), what)
    if lacking is not None:
        raise InputError(f"{what}: {lacking}")
    found = find(folder, list(files))
    assert found is not None
    paths = {}
    for name, expected in files.items():
        path = _existing(found, name)
        assert path is not None
        paths[name] = path
        if verify and path.name == name and (actual := _md5(path)) != expected:
            raise InputError(
                f"{path} is not the file that was published: its md5 is {actual}, expected {expected}; fetch it again, "
                "or take it as it is with verify=false"
            )
    return paths


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def stamp(folder: str, names: list[str]) -> str | None:
    """Return sizes and times of the files, which change when the files do.

    Return None if the files are missing.
    """
    found = find(folder, names)
    if found is None:
        return None
    stats = [path.stat() for name in names if (path := _existing(found, name))]
    return " ".join(f"{stat.st_size}@{stat.st_mtime_ns}" for stat in stats)


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Return the array in an IDX file of unsigned bytes, packed or not.

    Raise InputError for anything else.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        # The header is two zero bytes, the type (8 for unsigned bytes), the number of axes, and their lengths as
        # big-endian integers.
        zero, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise InputError(f"{path} is not an IDX file: {error}") from error
    data = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
    if zero or kind != 8 or data.size != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path} is not an IDX file of bytes: kind {kind}, shape {shape}, {data.size} bytes")
    return data.reshape(shape)


class _Arrays(pickle._Unpickler):  # the version in C allocates as much memory as a damaged index asks for
    """Unpickle numpy arrays and plain Python values, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in FROM_NUMPY:
            # Numpy 2 renamed the module of _reconstruct, so that it is taken from numpy itself and not by its old path.
            return np.empty(0).__reduce__()[0] if name == "_reconstruct" else getattr(np, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, and only numpy arrays are read")


def read_batch(path: Path) -> tuple[Images, Labels]:
    """Return images and labels of one CIFAR-10 batch.

    Raise InputError for anything else; run nothing in the file.
    """
    try:
        # The authors' pickles were written by Python 2, whose strings are read as bytes. A stream in memory has no more
        # bytes than the file, whatever length is asked for.
        content = _Arrays(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels, labels = np.asarray(content[b"data"]), np.asarray(content[b"labels"])
    except Exception as error:  # damaged pickles raise any exception, such as MemoryError or IndexError
        raise InputError(f"{path} is not a CIFAR-10 batch: {str(error) or type(error).__name__}") from error
    # A row holds the red, the green and the blue pixels, 1024 each, row by row.
    if pixels.dtype != np.uint8 or labels.ndim != 1 or pixels.shape != (len(labels), 3 * 32 * 32):
        raise InputError(
            f"{path} is not a CIFAR-10 batch: pixels must be n x 3072 bytes with n labels, got {pixels.dtype} "
            f"{pixels.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "iu" or not np.isin(labels, np.arange(10)).all():
        raise InputError(f"{path} is not a CIFAR-10 batch: its labels must be whole numbers from 0 to 9")
    return pixels.reshape(len(labels), 3, 32, 32), labels.astype(np.uint8)
