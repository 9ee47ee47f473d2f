"""The file in which a layerwise run keeps its state."""

import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.errors import InputError

NAME = "checkpoint.pt"


def checkpoint_in(folder: Any) -> Path:
    """The file's path; the folder is made. Raises InputError for what is no folder, or not one for all processes."""
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"checkpoint must be a folder, got {folder!r}")
    parallel.barrier()  # for what another process may still be writing
    path = Path(folder) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    if not parallel.same_number(zlib.crc32(path.read_bytes()) if path.is_file() else -1):
        raise InputError(
            f"checkpoint: the processes do not all find the same file {path}: give a folder that they share"
        )
    return path


def read_checkpoint(path: Path, asked: str) -> dict[str, Any]:
    """What `path` holds, with tensors on the CPU: Adam's count of steps belongs there, or every step waits for a GPU.

    Raises InputError for a file that is none, is cut, or of a run that asked for other things.
    """
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu")
    except (EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"checkpoint: {path} cannot be read ({type(error).__name__}): delete it") from error
    if not isinstance(kept, dict) or "asked" not in kept:
        raise InputError(f"checkpoint: {path} is no checkpoint of layerwise training: give another folder")
    if kept["asked"] != asked:
        raise InputError(f"checkpoint: {path} is of a run with other data, stages or settings: give another folder")
    return dict(kept)
