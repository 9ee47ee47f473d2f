"""Restore the settings of numpy and torch that a solver may change for itself.

torch's default dtype and the working directory belong to the whole process, in which several threads may solve at once.
Nothing here sets one of them that has not changed. The first solve to begin remembers them, and the last one to end
restores those that differ: a solve that ended earlier could not know whether the change was made for another one.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch


@contextmanager
def usual_errors() -> Iterator[None]:
    """Handle numpy's floating-point errors in its default way inside the block."""
    with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
        yield


class _ProcessSettings:
    """The default dtype and the working directory before the solves that run now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._dtype, self._folder = torch.get_default_dtype(), _working_directory()

    def enter(self) -> None:
        with self._lock:
            if not self._running:
                self._dtype, self._folder = torch.get_default_dtype(), _working_directory()
            self._running += 1

    def leave(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running:
                return
            if torch.get_default_dtype() != self._dtype:
                torch.set_default_dtype(self._dtype)
            if self._folder is not None and self._folder != _working_directory():
                os.chdir(self._folder)


def _working_directory() -> str | None:
    with suppress(OSError):  # it may have been removed
        return os.getcwd()
    return None


_PROCESS = _ProcessSettings()


@contextmanager
def settings_kept() -> Iterator[None]:
    """Restore the settings of torch, numpy and the process after the block.

    They are default dtype, threads, gradient mode, numpy's errors and the working directory.
    """
    # Threads, gradient mode and numpy's errors are those of this thread alone.
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    _PROCESS.enter()
    try:
        with np.errstate():
            yield
    finally:
        _PROCESS.leave()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.is_grad_enabled() != gradients:
            torch.set_grad_enabled(gradients)
