"""The folder of a campaign: checked before anything runs, made only when the first record may come."""

import os
from pathlib import Path

from convexnn_bench.errors import InputError


def check_folder(out: Path) -> None:
    """Raise InputError when `out` cannot be a folder to write to; make nothing."""
    try:
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
