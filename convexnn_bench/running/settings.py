"""Restore the settings of numpy and torch that a solver may change for itself."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import torch


@contextmanager
def usual_numbers() -> Iterator[None]:
    """Use float64 where no dtype is named, and numpy's default handling of errors, inside the block."""
    # A solver may work in float32 for its own products. Its score must not depend on that.
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def _working_directory() -> str | None:
    with suppress(OSError):  # it may have been removed
        return os.getcwd()
    return None


def _go_to(folder: str | None) -> None:
    if folder is not None and folder != _working_directory():
        os.chdir(folder)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Restore default dtype, threads, gradient mode, numpy's errors and the working directory after the block."""
    with ExitStack() as after:
        # Each callback holds the present value and runs at the end, also when the solver raises.
        after.callback(torch.set_default_dtype, torch.get_default_dtype())
        after.callback(torch.set_num_threads, torch.get_num_threads())
        after.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        after.callback(_go_to, _working_directory())
        after.enter_context(np.errstate())
        yield
