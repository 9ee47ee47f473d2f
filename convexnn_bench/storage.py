"""Write whole files in one step, and archives of values and arrays as .npz files.

The archives hold no pickle.

An archive is a tree of plain values: numbers, text, None, lists, tuples and dictionaries, with arrays anywhere among
them. The file has a member for every array, and a member `header` with all the rest as JSON text. A tuple is written as
{"tuple": [...]} there, and an array as {"array": the name of its member}.
"""

import json
import math
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from convexnn_bench.errors import InputError

HEADER = "header"  # the member that holds the plain values
VERSION = 1  # of the contents of all archives; a reader refuses a later one
MARKS = ({"tuple"}, {"array"})  # keys of the dictionaries that stand for something else
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, MemoryError, NotImplementedError)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a path with the same suffix to write to.

    It replaces `path` when the block ends without an error.
    """
    target = Path(path)
    # Two processes or threads that write the same file must not write into each other's part.
    writer = f"{os.getpid()}-{threading.get_ident()}"
    partial = target.with_name(f".{target.stem}.{writer}.partial{target.suffix}")
    try:
        yield partial
        # Without the flush a loss of power after the renaming could leave the new name with an empty file.
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error
    finally:
        partial.unlink(missing_ok=True)


# -- archives ---------------------------------------------------------------------------------------------


def write_archive(path: str | Path, kind: str, content: Mapping[str, Any]) -> Path:
    """Write a tree of plain values and arrays to one .npz file, in one step.

    Parameters
    ----------
    path
        The file, which is replaced if it exists.
    kind
        What the archive holds, such as "problem".
    content
        The tree. Its arrays hold numbers or truth values.

    Raises
    ------
    InputError
        The tree holds something else. The message says where.
    OSError
        The file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    head = {"format": f"convexnn-bench {kind}", "version": VERSION, **_encoded(content, "", arrays)}
    # Python's own JSON keeps every bit of a float, and writes numbers that are not finite as NaN and Infinity.
    text = np.array(json.dumps(head))
    with whole_file(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **{HEADER: text}, **arrays)
    return Path(path)


def read_archive(path: str | Path, kind: str) -> dict[str, Any]:
    """Return the tree that `write_archive` wrote. Nothing in the file is run as code.

    Raises
    ------
    InputError
        The file is none of this kind, is damaged, or is of a later version.
    OSError
        The file cannot be opened.
    """
    with open(path, "rb") as stream:
        try:
            members = _members(stream)
            head = json.loads(str(members.pop(HEADER)))
            form, version = str(head.pop("format")), int(head.pop("version"))
        except DAMAGED as error:
            raise InputError(
                f"{path} cannot be read as a saved {kind}: {_words(error)}; {kind}.save writes such files"
            ) from error
    if form != f"convexnn-bench {kind}":
        raise InputError(f"{path} holds a {form.removeprefix('convexnn-bench ')!s:.50}, and no saved {kind}")
    if version > VERSION:
        raise InputError(
            f"{path} was written by a later version of convexnn-bench (format {version}; this version reads up to "
            f"{VERSION}): upgrade the package"
        )
    try:
        return {name: _decoded(value, members) for name, value in head.items()}
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read as a saved {kind}: {_words(error)}") from error


def _words(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error) or type(error).__name__


def _members(stream: IO[bytes]) -> dict[str, np.ndarray]:
    """Return every array of an .npz file."""
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            _check_size(archive, member)
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ValueError if the header of an array states another size than its member.

    numpy would allocate what the header states, before it finds that the bytes are missing.
    """
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = read(stream)
        # A position in a member is the number of bytes that were read from it.
        if dtype.hasobject or stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError(f"{member.filename} is no array of the size that it states")


def _encoded(value: Any, where: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a value as JSON holds it, and put the arrays in it into `arrays`.

    `where` is its place in the tree.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        arrays[where] = np.asarray(value, order="C")  # as the checker of proofs reads them
        return {"array": where}
    if isinstance(value, tuple):
        return {"tuple": [_encoded(inner, f"{where}.{index}", arrays) for index, inner in enumerate(value)]}
    if isinstance(value, list):
        return [_encoded(inner, f"{where}.{index}", arrays) for index, inner in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value) and set(value) not in MARKS:
        return {key: _encoded(inner, f"{where}.{key}" if where else key, arrays) for key, inner in value.items()}
    raise InputError(
        f"{where} cannot be saved: a file holds numbers, text, None, lists, dictionaries with text as keys, and arrays "
        f"of numbers, got {value!r:.100} ({type(value).__name__})"
    )


def _decoded(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Invert `_encoded`."""
    if isinstance(value, list):
        return [_decoded(inner, arrays) for inner in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"tuple"}:
        return tuple(_decoded(inner, arrays) for inner in value["tuple"])
    if set(value) == {"array"}:
        return arrays[value["array"]]
    return {key: _decoded(inner, arrays) for key, inner in value.items()}
