"""One function in a process of its own: messages as they come, a deadline, a memory limit, the peak.

Processes are forked from a server that holds the heavy modules (torch, cvxpy, ...) already, so that a start
costs tens of milliseconds and no cell sees the state another one left behind. What goes on in here is made of pipes and
/proc alone: no temporary file is needed.
"""

import contextlib
import ctypes
import multiprocessing
import os
import pkgutil
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from convexnn_bench.harness.streams import Messages, Tail
from convexnn_bench.harness.tree import descendants, kill_all, resident_mb, start_time

PRELOAD = ["convexnn_bench.harness.server"]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
POLL_SECONDS = 0.05
KILL_SECONDS = 30.0  # a process that waits for a disk or a driver dies when that answers
OUTPUT_TAIL = 2000  # characters kept of what a process printed
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
LINK_GONE = 76  # exit code of a process that finds its end of the pipe closed
END = "end"  # the last message of every process that came to its end
_START = threading.Lock()


@dataclass
class Outcome:
    """How a process ended.

    messages: everything it sent. exit_code: as multiprocessing gives it, negative for a signal; it says nothing of a
    process that was done, which is not waited for. stopped: "deadline", "memory", "closed" (its end of the pipe) or
    "garbled" (what it sent cannot be read) when it was killed from here, else None. peak_mb: largest resident memory,
    that of processes it started included as it was seen every POLL_SECONDS. output: tail of what it printed.
    """

    messages: list[tuple[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    stopped: str | None = None
    seconds: float = 0.0
    peak_mb: float | None = None
    output: str = ""


class Link:
    """The process's own end of the pipe. A forked child that comes here, on a way back that is not its own, ends."""

    def __init__(self, connection: Connection):
        self._connection, self._pid, self._lock = connection, os.getpid(), threading.Lock()

    def send(self, message: tuple[str, Any]) -> None:
        if os.getpid() != self._pid:
            os._exit(0)
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:  # closed from inside: there is no other way to tell
                os._exit(LINK_GONE)


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
    target: Callable[..., None] | str, link: Connection, output: Connection, threads: int, arguments: tuple[Any, ...]
) -> None:
    """First thing in the new process: own session, output to the pipe for it, threads pinned."""
    os.setsid()
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no cell outlives the command
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # a daemon that leaves the session stays a child of ours
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():  # it was gone before the call above
            os._exit(1)
    # the server ends when nobody holds this any more: a cell that did would keep it, and itself, alive
    server: Any = forkserver._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    os.environ.pop("WORLD_SIZE", None)  # a cell is one process, whatever has started its worker
    own = Link(link)
    function = pkgutil.resolve_name(target) if isinstance(target, str) else target
    function(own, threads, *arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # the target may have closed or replaced them
            stream.flush()
    own.send((END, None))


def run_process(
    target: Callable[..., None] | str,
    arguments: tuple[Any, ...],
    threads: int,
    deadline: float | None,
    memory_gb: float | None = None,
    on_message: Callable[[str, Any], None] | None = None,
) -> Outcome:
    """Run target(link, threads, *arguments) in a new process until it ends or is killed.

    target: a function, or its name as "package.module:function", which is then imported in the new process only. The
    process sends (kind, content) pairs through link. deadline: seconds on the wall clock since the process began.
    memory_gb: resident memory in GiB, of it and what it started, above which it is killed (read where /proc exists).
    What it started goes with it: its session, and on Linux also what has left the session.
    """
    start_server(threads)
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    printed, output = context.Pipe(duplex=False)
    run = _Watch(Outcome(), Messages(receiver.fileno()), Tail(printed.fileno(), 4 * OUTPUT_TAIL), on_message)
    process = context.Process(target=_enter, args=(target, sender, output, threads, arguments))
    try:
        with _own_main(target):
            process.start()  # returns when the server has loaded its modules and has forked the process
        started = time.perf_counter()
        sender.close()
        output.close()
        try:
            run.until_end(process, started, deadline, memory_gb)
        finally:
            kill_all(process.pid if process.is_alive() else None, process.pid, run.seen)
            process.join(timeout=KILL_SECONDS)
        run.outcome.seconds = time.perf_counter() - started
        run.outcome.exit_code = process.exitcode
        run.printed.read()
        run.outcome.output = run.printed.text()[-OUTPUT_TAIL:]
        if process.exitcode is not None:
            process.close()
    finally:
        for end in (receiver, sender, printed, output):
            end.close()
    return run.outcome


@contextlib.contextmanager
def _own_main(target: Callable[..., None] | str) -> Iterator[None]:
    """multiprocessing runs the caller's main module anew in every process, for what is defined there; unless `target`
    is, that costs time and asks every script for its `if __name__ == "__main__"`."""
    with _START:
        main = sys.modules["__main__"]
        if isinstance(target, str) or target.__module__ != "__main__":
            sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@dataclass
class _Watch:
    """A process that is watched. seen: the processes it started, with their start times (which tell a pid's owners)."""

    outcome: Outcome
    link: Messages
    printed: Tail
    on_message: Callable[[str, Any], None] | None
    seen: dict[int, int] = field(default_factory=dict)
    ended: bool = False

    def until_end(self, process: Any, started: float, deadline: float | None, memory_gb: float | None) -> None:
        """Take messages until the process ends or breaks a limit."""
        outcome = self.outcome
        while True:
            ends = [stream.descriptor for stream in (self.link, self.printed) if stream.open]
            ready = wait([*ends, process.sentinel], timeout=POLL_SECONDS)
            self.printed.read()
            if not self._take():
                outcome.stopped = "garbled"
                return
            now = self._measure(process.pid)
            if self.ended:
                return
            if process.sentinel in ready or not self.link.open:
                process.join(timeout=1.0)
                self._take()
                outcome.stopped = None if process.exitcode is not None or self.ended else "closed"
                return
            if memory_gb is not None and now > memory_gb * 1024:
                outcome.stopped = "memory"
                return
            if deadline is not None and time.perf_counter() - started > deadline:
                outcome.stopped = "deadline"
                return

    def _take(self) -> bool:
        """Take what lies in the pipe; False when it cannot be read."""
        for kind, content in self.link.read():
            if kind == END:
                self.ended = True
                continue
            self.outcome.messages.append((kind, content))
            if self.on_message is not None:
                self.on_message(kind, content)
        return not self.link.garbled

    def _measure(self, pid: int) -> float:
        """MiB in memory now, and a look at what was started."""
        peak, now = resident_mb(pid)
        for child in descendants(pid):
            now += resident_mb(child)[1]
            self.seen.setdefault(child, start_time(child))
        self.outcome.peak_mb = max(self.outcome.peak_mb or 0.0, peak, now) or None
        return now
