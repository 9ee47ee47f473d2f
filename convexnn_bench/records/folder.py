"""The folder of a campaign.

It is checked before anything runs, made for the first record, and locked.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Any

from convexnn_bench.errors import InputError

UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)  # a file system without locks


class RecordsLock:
    """A lock on `path` (records.jsonl), held from `__enter__` on if the file exists, else from `take` on.

    Both methods raise InputError when another process holds the lock, and when the file cannot be opened for writing.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> "RecordsLock":
        # No file is made here, so that a campaign which is refused leaves no folder behind.
        with contextlib.suppress(FileNotFoundError):
            self._hold(create=False)
        return self

    def __exit__(self, *details: Any) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def take(self) -> None:
        """Make the file and lock it.

        Raises InputError also when another campaign has written records meanwhile.
        """
        if self._descriptor is None:
            self._hold(create=True)
            # Another campaign may have made and filled the file between `__enter__` and now. Its records were not read.
            if self.path.stat().st_size:
                raise InputError(f"{self.path}: another campaign has just written records here; run again to go on")

    def _hold(self, create: bool) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            # The kernel releases the lock when its process ends, by whatever signal, so that no stale lock can remain.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise InputError(
                f"another campaign is writing to {str(self.path.parent)!r} at this moment: wait for it, or give "
                "another folder with --out"
            ) from error
        except OSError as error:
            # Some network file systems have no locks. A campaign there runs without this protection.
            if error.errno not in UNSUPPORTED:
                os.close(descriptor)
                raise
        self._descriptor = descriptor


def check_folder(out: Path) -> None:
    """Raise InputError when `out` cannot be a folder to write to; make nothing."""
    try:
        # The folder itself may not exist yet. Then its nearest ancestor decides whether it can be made.
        existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    except OSError as error:
        raise _bad_folder(out, error.strerror or str(error)) from error
    if not existing.is_dir():
        raise _bad_folder(out, f"{existing} is a file" if existing.is_file() else f"{existing} is no directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _bad_folder(out, f"{existing} may not be written to")


def make_folder(out: Path) -> None:
    """Make the folder and its parents. Raise InputError when they cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _bad_folder(out, error.strerror or str(error)) from error


def _bad_folder(out: Path, why: str) -> InputError:
    return InputError(f"--out: {str(out)!r} cannot be the folder for the records: {why}")
