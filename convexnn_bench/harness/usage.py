"""Measure memory and CPU seconds of a process and of all that it has started.

The measurement runs beside a solver that is timed.

The memory is the proportional set size (PSS): a page that k processes map counts 1/k in each, so that the pages which
forks share count once. The kernel walks all pages of a process for it, and files in memory (/dev/shm, memfd) that
nobody maps need a look at every open file. Both are therefore done only where a bound that costs little, the sum of the
resident memories and the growth of the machine's shared memory, leaves room for a new peak or for more than the limit,
and at most for a share of the time (`EXACT_SHARE`).
"""

import contextlib
import os
import time
from dataclasses import dataclass, field

import psutil

from convexnn_bench.harness.tree import descendants, read_file, resident_mb

EXACT_SHARE = 0.02  # largest share of the time that goes into exact looks
URGENT_SHARE = 0.2  # the same while the bound is above the limit
NEW_PEAK = 1.02  # an exact look is worth it where the bound is above the known peak by this factor
SHARED_MB = 4.0  # growth of the machine's shared memory, in MiB, from which on files in memory are looked for
TICKS = os.sysconf("SC_CLK_TCK")  # per CPU second, in /proc/PID/stat


@dataclass
class Usage:
    """Memory in MiB and CPU seconds of a process and of all that it has started.

    pid: the process. peak_mb: largest memory so far; None where /proc is missing. cpu_seconds: of all processes, as
    far as they were seen. seen: every descendant that was seen so far, by its number.
    """

    pid: int
    peak_mb: float | None = None
    cpu_seconds: float = 0.0
    seen: dict[int, psutil.Process] = field(default_factory=dict)
    _next_exact: float = 0.0  # on the monotonic clock
    _shared_before: float = field(default_factory=lambda: machine_shared_mb())
    _files: dict[tuple[int, int], str] = field(default_factory=dict)  # paths of files in memory, by device and inode

    def look(self, limit_mb: float | None = None) -> bool:
        """Look at all processes; return True if they take more than `limit_mb`."""
        # 1. The cheap numbers. The kernel keeps the peak of the process itself.
        below = descendants(self.pid)
        peak, bound = resident_mb(self.pid)
        for child in below:
            bound += resident_mb(child)[1]
            if child not in self.seen:
                # psutil stores the start time with the number, so that it never kills a later process with the same
                # number.
                with contextlib.suppress(psutil.Error):  # it has ended since
                    self.seen[child] = psutil.Process(child)
        self.cpu_seconds = max(self.cpu_seconds, sum(map(cpu_seconds, (self.pid, *below))))
        # All numbers are zero where /proc is missing, and the peak is then unknown.
        self.peak_mb = max(self.peak_mb or 0.0, peak) or None
        # 2. Is an exact look worth its cost?
        shared = max(0.0, machine_shared_mb() - self._shared_before)
        bound += shared
        above = limit_mb is not None and bound > limit_mb
        more = (below or shared > SHARED_MB) and bound > NEW_PEAK * (self.peak_mb or 0.0)
        now = time.monotonic()
        if not (above or more) or now < self._next_exact:
            return False
        # 3. The exact numbers.
        exact = self._exact_mb([self.pid, *below], files=shared > SHARED_MB)
        spent = time.monotonic() - now
        self._next_exact = time.monotonic() + spent / (URGENT_SHARE if above else EXACT_SHARE)
        self.peak_mb = max(self.peak_mb or 0.0, exact) or None
        return limit_mb is not None and exact > limit_mb

    def _exact_mb(self, pids: list[int], files: bool) -> float:
        """Return the memory of processes without what they share with others, with their files in memory."""
        private = mapped = 0.0
        for pid in pids:
            total, of_files = proportional_mb(pid)
            private += total - of_files
            mapped += of_files
        # A file in memory may be mapped or not. Where it is, its pages are in both numbers.
        return private + max(mapped, self._files_mb(pids) if files else 0.0)

    def _files_mb(self, pids: list[int]) -> float:
        """Return the size of the files in memory that the processes have open, or had open at an earlier look."""
        sizes: dict[tuple[int, int], int] = {}
        for pid in pids:
            for status, path in open_files_in_memory(pid):
                name = status.st_dev, status.st_ino
                sizes[name], self._files[name] = status.st_blocks, path
        for name, path in self._files.items():
            if name not in sizes:
                with contextlib.suppress(OSError):  # it has been removed
                    status = os.stat(path)
                    if (status.st_dev, status.st_ino) == name:
                        sizes[name] = status.st_blocks
        return sum(sizes.values()) * 512 / 2**20


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of the children that it has waited for."""
    try:
        # The name in parentheses may hold anything. utime, stime, cutime and cstime are fields 14 to 17.
        fields = read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:  # it has ended, or /proc is missing
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def proportional_mb(pid: int) -> tuple[float, float]:
    """Return the proportional set size of a process in MiB, and the part of it that is shared memory."""
    values = {b"Pss": 0.0, b"Pss_Shmem": 0.0}
    try:
        rollup = read_file(f"/proc/{pid}/smaps_rollup")
    except OSError:  # it has ended, or it belongs to another user, or the kernel is older than 4.14
        return resident_mb(pid)[1], 0.0
    for line in rollup.splitlines():
        name, _, rest = line.partition(b":")
        if name in values:
            values[name] = float(rest.split()[0]) / 1024
    return values[b"Pss"], values[b"Pss_Shmem"]


def open_files_in_memory(pid: int) -> list[tuple[os.stat_result, str]]:
    """Return status and path of every file in /dev/shm, and of every memfd, that a process has open."""
    found: list[tuple[os.stat_result, str]] = []
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # it was closed since
                path = os.readlink(entry.path)
                if path.startswith(("/dev/shm/", "/memfd:")):
                    found.append((os.stat(entry.path), path))
    return found


def machine_shared_mb() -> float:
    """Return the shared memory of the machine in MiB, files in memory included.

    Return 0 if /proc does not say it.
    """
    try:
        _, found, rest = read_file("/proc/meminfo").partition(b"\nShmem:")
    except OSError:
        return 0.0
    return float(rest.split(maxsplit=1)[0]) / 1024 if found else 0.0
