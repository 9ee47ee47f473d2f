"""Describe the machine that numbers are measured on, and the code that they are measured with."""

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
NOT_IN_HASH = ("report", "cli", "campaigns")  # packages that show results and do not make them


def installed(package: str) -> str | None:
    """Return the version of an installed package without importing it, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def code_version() -> str:
    """Return the package's version and a hash of the source files that results depend on."""
    digest = hashlib.sha256()
    # The order of files differs between file systems. Names enter the hash too, since they decide what is imported.
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        if parts[0] not in NOT_IN_HASH:
            digest.update("/".join(parts).encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


@cache
def git_commit() -> str | None:
    """Return the commit of the checkout that the package runs from, or None.

    It ends in "-dirty" if the checkout has changes.
    """
    if not (PACKAGE.parent / ".git").exists():
        return None
    # No tag matches, so that the answer is always the commit itself and never a version number.
    options = ("--always", "--dirty", "--abbrev=12", "--exclude=*")
    command = ["git", "-C", str(PACKAGE.parent), "describe", *options]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def processor() -> str:
    """Return the model name of the processor."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def blas() -> str | None:
    """Return name and version of the BLAS that numpy was built with."""
    import numpy as np

    shown: Any = np.show_config(mode="dicts")
    library = (shown or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{library.get('name')} {library.get('version')}" if library else None


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    # A container or a batch system may grant the process fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    """Return the memory of the machine in GiB."""
    return round(psutil.virtual_memory().total / 2**30, 1)


@cache
def describe_machine() -> dict[str, Any]:
    """Return the members of the field `machine` of a record."""
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
