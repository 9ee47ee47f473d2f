"""One function in a process of its own: messages as they come, a deadline, a memory limit, the peak.

Processes are forked from a server that holds the heavy modules (torch, cvxpy, ...) already, so that a start
costs tens of milliseconds and no cell sees the state another one left behind.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

PRELOAD = ["convexnn_bench.harness.preload"]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
POLL_SECONDS = 0.05
OUTPUT_TAIL = 2000  # characters kept of what a process printed
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class Outcome:
    """How a process ended.

    messages: everything it sent. exit_code: as multiprocessing gives it, negative for a signal. stopped:
    "deadline" or "memory" when it was killed from here, else None. peak_mb: largest resident memory, that of processes
    it started included as it was seen every POLL_SECONDS.
    output: tail of what it printed.
    """

    messages: list[tuple[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    stopped: str | None = None
    seconds: float = 0.0
    peak_mb: float | None = None
    output: str = ""


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """The thread variables set while the server starts: BLAS libraries read them once, when they load."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def start_server(threads: int) -> None:
    """Start the server that processes are forked from; it loads its modules while the caller goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with _environment(threads):
        forkserver.ensure_running()


def _enter(
    target: Callable[..., None], link: Connection, output: str, threads: int, arguments: tuple[Any, ...]
) -> None:
    """First thing in the new process: own session, output to a file, threads pinned."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no cell outlives the command
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    target(link, threads, *arguments)


def run_process(
    target: Callable[..., None],
    arguments: tuple[Any, ...],
    threads: int,
    deadline: float | None,
    memory_gb: float | None = None,
    on_message: Callable[[str, Any], None] | None = None,
) -> Outcome:
    """target(link, threads, *arguments) in a new process, until it ends or is killed.

    The process sends (kind, content) pairs through link. deadline: seconds on the wall clock, from the start.
    memory_gb: resident memory in GiB, of it and what it started, above which it is killed (read where /proc exists).
    The whole process group goes with it.
    """
    start_server(threads)
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="convexnn-cell-") as folder:
        output = Path(folder) / "output"
        output.touch()
        process = context.Process(target=_enter, args=(target, sender, str(output), threads, arguments))
        started = time.perf_counter()
        process.start()
        sender.close()
        try:
            _watch(process, receiver, outcome, started, deadline, memory_gb, on_message)
        finally:
            _kill_group(process)
            process.join()
            receiver.close()
        outcome.seconds = time.perf_counter() - started
        outcome.exit_code = process.exitcode
        outcome.output = output.read_bytes()[-4 * OUTPUT_TAIL :].decode(errors="replace")[-OUTPUT_TAIL:]
    process.close()
    return outcome


def _watch(
    process: Any,
    receiver: Connection,
    outcome: Outcome,
    started: float,
    deadline: float | None,
    memory_gb: float | None,
    on_message: Callable[[str, Any], None] | None,
) -> None:
    """Take messages until the process ends or breaks a limit."""
    while True:
        ready = wait([receiver, process.sentinel], timeout=POLL_SECONDS)
        open_end = _drain(receiver, outcome, on_message)
        peak, now = resident_mb(process.pid)
        now += sum(resident_mb(child)[1] for child in descendants(process.pid))
        outcome.peak_mb = max(outcome.peak_mb or 0.0, peak, now) or None
        if process.sentinel in ready or not open_end:
            _drain(receiver, outcome, on_message)
            process.join(timeout=5.0)
            return
        if memory_gb is not None and now > memory_gb * 1024:
            outcome.stopped = "memory"
            return
        if deadline is not None and time.perf_counter() - started > deadline:
            outcome.stopped = "deadline"
            return


def _drain(receiver: Connection, outcome: Outcome, on_message: Callable[[str, Any], None] | None) -> bool:
    """Take what lies in the pipe; False once the other end is closed."""
    try:
        while receiver.poll():
            kind, content = receiver.recv()
            outcome.messages.append((kind, content))
            if on_message is not None:
                on_message(kind, content)
    except (EOFError, ConnectionResetError):
        return False
    return True


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


def _kill_group(process: Any) -> None:
    """Kill the process and what it started; it leads a session of its own."""
    for kill in (lambda: os.killpg(process.pid, signal.SIGKILL), process.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill()
