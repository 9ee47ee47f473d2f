"""Let one campaign at a time write to a folder, by a lock that the kernel releases when the process ends."""

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

    Both raise InputError when another process holds the lock, and when the file cannot be opened for writing.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> "RecordsLock":
        with contextlib.suppress(FileNotFoundError):
            self._hold(create=False)
        return self

    def __exit__(self, *details: Any) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def take(self) -> None:
        """Make the file and lock it. Raises InputError also when another campaign has written records meanwhile."""
        if self._descriptor is None:
            self._hold(create=True)
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
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise InputError(
                f"another campaign is writing to {str(self.path.parent)!r} at this moment: wait for it, or give "
                "another folder with --out"
            ) from error
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
