"""Check the arguments of `solve`, before any work is done."""

from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.errors import InputError
from convexnn_bench.plugins import LIMIT, SEED, Whole
from convexnn_bench.problem import Problem


def check_device(device: Any) -> str:
    """Return the device's name, under torchrun that of this process.

    Raise InputError if torch does not see the device.
    """
    try:
        chosen = torch.device(parallel.rank_device(str(device))) if isinstance(device, str | torch.device) else None
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:0', got {device!r}")
    if chosen.type == "cuda":
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not seen:
            raise InputError(f"device {str(device)!r}: torch sees no CUDA device here; use 'cpu'")
        if (chosen.index or 0) >= seen:
            raise InputError(f"device {str(device)!r}: the last CUDA device here is 'cuda:{seen - 1}'")
    return str(chosen)


def check_arguments(problem: Any, time_limit: Any, gap: Any, seed: Any, device: Any, iterations: Any) -> str:
    """Return the device's name; raise InputError for an argument that is not usable."""
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a Problem, got {type(problem).__name__}")
    for name, value in (("time_limit", time_limit), ("gap", gap)):
        LIMIT.check(name, value)
    SEED.check("seed", seed)
    Whole(optional=True).check("iterations", iterations)
    name = check_device(device)
    if problem.is_sparse and torch.device(name).type != "cpu":
        raise InputError(f"device={name!r}: sparse X is multiplied on the CPU only; use device='cpu', or X.toarray()")
    return name


def check_callbacks(on_score: Any, on_setup: Any) -> None:
    """Raise InputError for a callback that is no function."""
    for name, called, given in (("on_score", on_score, "(seconds, certificate)"), ("on_setup", on_setup, "seconds")):
        if called is not None and not callable(called):
            raise InputError(f"{name} must be a function of {given}, got {called!r}")
