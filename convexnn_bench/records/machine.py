"""What the numbers were measured on, and with which code."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from convexnn_bench import __version__

PACKAGE = Path(__file__).resolve().parent.parent
LIBRARIES = ("numpy", "scipy", "torch", "cvxpy", "clarabel", "scs", "mosek", "scikit-learn")
NOT_IN_HASH = ("report", "cli", "campaigns")  # these show results; they do not make them


def installed(package: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def code_version() -> str:
    """Package version + hash of the source files that results depend on: no record outlives its code."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        if parts[0] not in NOT_IN_HASH:
            digest.update("/".join(parts).encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


@cache
def git_commit() -> str | None:
    """Commit of the checkout the package runs from ("-dirty" with changes); None when it is none."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(PACKAGE.parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def processor() -> str:
    """Model name of the processor."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def blas() -> str | None:
    """BLAS that numpy was built with."""
    import numpy as np

    shown: Any = np.show_config(mode="dicts")
    found = (shown or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name')} {found.get('version')}" if found else None


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    """Return the memory of the machine in GiB."""
    return round(psutil.virtual_memory().total / 2**30, 1)


@cache
def describe_machine() -> dict[str, Any]:
    """Versions, processor, memory, BLAS and commit."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": cores(),
        "memory_gb": memory_gb(),
        "blas": blas(),
        "commit": git_commit(),
        **{library.replace("-", "_"): installed(library) for library in LIBRARIES},
    }
