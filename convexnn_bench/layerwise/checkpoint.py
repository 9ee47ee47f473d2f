"""The file in which a layerwise run keeps its state."""

import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.errors import InputError

NAME = "checkpoint.pt"  # in the folder of the run


def checkpoint_in(folder: Any) -> Path:
    """Make the folder and return the file's path.

    Raise InputError if it is no folder that all processes share.
    """
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"checkpoint must be a folder, got {folder!r}")
    parallel.barrier()  # another process may still be writing
    path = Path(folder) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    if not parallel.same_number(zlib.crc32(path.read_bytes()) if path.is_file() else -1):
        raise InputError(
            f"checkpoint: the processes do not all find the same file {path}: give a folder that they share"
        )
    return path


def read_checkpoint(path: Path, asked: str) -> dict[str, Any]:
    """Return the saved state, with tensors on the CPU.

    With Adam's count of steps on a GPU every step would wait.

    Raises InputError if the file is no checkpoint, is cut short, or belongs to a run with other arguments.
    """
    try:
        # The state consists of tensors, numbers and text. With `weights_only` the file cannot run code when it is
        # loaded.
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"checkpoint: {path} cannot be read ({type(error).__name__}): delete it") from error
    if not isinstance(state, dict) or "asked" not in state:
        raise InputError(f"checkpoint: {path} is no checkpoint of layerwise training: give another folder")
    if state["asked"] != asked:
        raise InputError(f"checkpoint: {path} is of a run with other data, stages or settings: give another folder")
    return dict(state)
