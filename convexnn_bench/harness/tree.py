"""A process and those it started, read from /proc: their memory, and an end to all of them."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path


def resident_mb(pid: int) -> tuple[float, float]:
    """(peak, current) resident memory of a process in MiB; zeros where it cannot be read."""
    values = {"VmHWM": 0.0, "VmRSS": 0.0}
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0, 0.0
    for line in status.splitlines():
        name, _, rest = line.partition(":")
        if name in values:
            values[name] = float(rest.split()[0]) / 1024
    return values["VmHWM"], values["VmRSS"]


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started; none where it cannot be read."""
    found: list[int] = []
    open_ones = [pid]
    while open_ones:
        with contextlib.suppress(OSError):  # a process may end at any moment
            for path in list(Path(f"/proc/{open_ones.pop()}/task").glob("*/children")):
                children = [int(child) for child in path.read_text().split()]
                found += children
                open_ones += children
    return found


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since the machine did; 0 where it cannot be read."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def kill_below(pid: int) -> None:
    """Kill what a process has started, and what those have."""
    for _ in range(2):  # a child may have started another one while the list was read
        for child in descendants(pid):
            _kill(os.kill, child)


def kill_all(alive: int | None, session: int | None, seen: dict[int, int]) -> None:
    """Kill a process and what it started: what is in its session, below it, or was seen there before.

    alive: the process, None where it has ended. seen: its children and theirs, with their start times.
    """
    if alive is not None:
        _kill(os.kill, alive, signal.SIGSTOP)  # it starts nothing more
        kill_below(alive)
    for child, start in seen.items():
        if start and start_time(child) == start:
            _kill(os.kill, child)
    if session is not None:
        _kill(os.killpg, session)
    if alive is not None:
        _kill(os.kill, alive)


def _kill(call: Callable[[int, int], None], pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        call(pid, number)
