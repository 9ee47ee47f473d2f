"""Run one function in a process of its own, with a deadline and a memory limit, and collect what it sends and prints.

Processes are forked from a server that has loaded the heavy modules (torch, cvxpy, ...) already, so that a start costs
tens of milliseconds and no cell sees the state that another one left behind. Everything goes through pipes, which need
no temporary files.
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
from typing import Any, Literal

import psutil

from convexnn_bench.harness.streams import Messages, Tail
from convexnn_bench.harness.tree import descendants, kill_all, resident_mb

# The server imports this module before its first fork. Every process that it forks shares these pages with it.
PRELOAD = ["convexnn_bench.harness.server"]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
POLL_SECONDS = 0.05  # between two looks at the limits; what a process starts and loses in between may be missed
KILL_SECONDS = 30.0  # wait for a killed process; one that waits for a disk or a driver dies when that answers
OUTPUT_TAIL = 2000  # characters kept of what a process printed
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
PIPE_CLOSED = 76  # exit code of a process that finds its end of the pipe closed; any code that no library uses
END = "end"  # kind of the last message of every process that comes to its end
_MAIN_LOCK = threading.Lock()  # held while `__main__` is replaced

Target = Callable[..., None] | str


@dataclass
class ProcessOutcome:
    """How a process ended.

    messages: every (kind, content) that it sent. exit_code: negative for a signal; it means nothing after the last
    message, since the process is killed then. stopped: the reason for which the process was killed, None where it
    ended by itself. "closed": it closed its pipe; "garbled": what it sent cannot be read. seconds: wall clock from its
    start to its end. peak_mb: its largest resident memory, with that of the processes it started, which is looked at
    every POLL_SECONDS. output: the end of what it printed.
    """

    messages: list[tuple[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    stopped: Literal["deadline", "memory", "closed", "garbled"] | None = None
    seconds: float = 0.0
    peak_mb: float | None = None
    output: str = ""


class Link:
    """The new process's end of the pipe. If the solver forked, the child exits here: only the original may report."""

    def __init__(self, connection: Connection):
        self._connection, self._pid, self._lock = connection, os.getpid(), threading.Lock()

    def send(self, message: tuple[str, Any]) -> None:
        """Send a pair (kind, content). Exit where the pipe is closed, since nothing can be reported any more."""
        # A child that the solver forked inherits this object and its descriptor. Two writers would mix their messages,
        # and the record could show the result of the wrong process.
        if os.getpid() != self._pid:
            os._exit(0)
        # A solver may call its callback from several threads, and each message must reach the pipe in one piece.
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(PIPE_CLOSED)


@contextlib.contextmanager
def _thread_variables(threads: int) -> Iterator[None]:
    """Set the thread variables while the server starts: BLAS libraries read them once, when they load."""
    # The command itself keeps its own settings: the variables are put back as soon as the server runs.
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
    # A fork of the command itself would copy the locks of its threads in any state, and a fresh interpreter would have
    # to import every library for every cell. A fork of the server, which runs nothing else, does neither.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with _thread_variables(threads):
        # This does nothing while a server is alive, and starts another one where a cell has killed it.
        forkserver.ensure_running()


def _enter(target: Target, link: Connection, output: Connection, threads: int, arguments: tuple[Any, ...]) -> None:
    """Prepare the new process, run its function, and say that it has come to its end."""
    # 1. The process leads a session of its own, dies with the command, and adopts what it started.
    # The session lets `kill_all` reach the cell and its processes with one signal. It also keeps Ctrl-C in the terminal
    # away from the cell: the command alone receives it, and then kills the cell.
    os.setsid()
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        # The parent is the server, which ends when the command does. So the cell dies with the command, even where the
        # command was killed by signal 9 and could do nothing about it.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # a daemon that leaves the session stays a descendant
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():  # it died before the first call above
            os._exit(1)
    # 2. The server ends when nobody holds this descriptor any more. A cell that held it would keep both alive.
    server: Any = forkserver._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None
    # 3. What it prints goes to the pipe for it. It is one process, also where torchrun started its worker.
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    # Libraries that load only now read these variables, and so do programs that the solver starts. Libraries that the
    # server has loaded are limited by `inside`.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    os.environ.pop("WORLD_SIZE", None)
    # 4. Run the function.
    reporting = Link(link)
    function = pkgutil.resolve_name(target) if isinstance(target, str) else target
    function(reporting, threads, *arguments)
    # The parent kills this process as soon as the last message has come: output must be in its pipe before that.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # the function may have closed or replaced them
            stream.flush()
    reporting.send((END, None))


def run_process(
    target: Target,
    arguments: tuple[Any, ...],
    threads: int,
    deadline: float | None,
    memory_gb: float | None = None,
    on_message: Callable[[str, Any], None] | None = None,
) -> ProcessOutcome:
    """Run target(link, threads, *arguments) in a new process until it ends or is killed.

    Everything that the process has started is killed with it: its session, and on Linux also what has left the session.

    Parameters
    ----------
    target
        A function, or its name "package.module:function", which is then imported in the new process only. It sends
        (kind, content) pairs with `link.send`.
    deadline
        Seconds on the wall clock since the process began, after which it is killed; None for no deadline.
    memory_gb
        Resident memory in GiB, of the process and what it started, above which it is killed. Read where /proc exists.
    on_message
        Called with every (kind, content) as it comes.
    """
    start_server(threads)
    context = multiprocessing.get_context("forkserver")
    # Results and output have a pipe each, because printed text between two messages would garble them.
    receiver, sender = context.Pipe(duplex=False)
    printed, output = context.Pipe(duplex=False)
    # A character takes at most four bytes in UTF-8.
    watch = _Watch(Messages(receiver.fileno()), Tail(printed.fileno(), 4 * OUTPUT_TAIL), on_message)
    process = context.Process(target=_enter, args=(target, sender, output, threads, arguments))
    outcome = watch.outcome
    try:
        with _without_main(target):
            process.start()  # returns when the server has loaded its modules and has forked the process
        # The clock starts after the fork, so that the first cell is not charged with the imports of the server.
        started = time.perf_counter()
        # A pipe reports its end only when every copy of the writing end is closed, the parent's copy included.
        sender.close()
        output.close()
        try:
            outcome.stopped = watch.until_end(process, started, deadline, memory_gb)
        finally:
            # This runs after an interrupt as well: neither the process nor what it started outlives this call. The
            # number of a process that has ended may belong to another one by now, so it is passed for a living process
            # only.
            kill_all(process.pid if process.is_alive() else None, process.pid, watch.seen.values())
            process.join(timeout=KILL_SECONDS)
        outcome.seconds = time.perf_counter() - started
        outcome.exit_code = process.exitcode
        # The last lines may still be in the pipe.
        watch.printed.read()
        outcome.output = watch.printed.text()[-OUTPUT_TAIL:]
        # `close` raises an error for a process that is still there, because it waits in the kernel for a disk or
        # driver.
        if process.exitcode is not None:
            process.close()
    finally:
        for end in (receiver, sender, printed, output):
            end.close()
    return outcome


@contextlib.contextmanager
def _without_main(target: Target) -> Iterator[None]:
    """Hide the caller's main module from the new process, unless the function is defined there.

    multiprocessing would run the main module again in every process. That costs time, and every script would need its
    `if __name__ == "__main__"`.
    """
    with _MAIN_LOCK:
        main = sys.modules["__main__"]
        if isinstance(target, str) or target.__module__ != "__main__":
            sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@dataclass
class _Watch:
    """A running process as its parent sees it. seen: every descendant that was seen so far, by its number."""

    link: Messages
    printed: Tail
    on_message: Callable[[str, Any], None] | None
    outcome: ProcessOutcome = field(default_factory=ProcessOutcome)
    seen: dict[int, psutil.Process] = field(default_factory=dict)
    ended: bool = False  # the last message has come

    def until_end(
        self, process: Any, started: float, deadline: float | None, memory_gb: float | None
    ) -> Literal["deadline", "memory", "closed", "garbled"] | None:
        """Take messages until the process ends or must be killed; return the reason to kill it, if any."""
        while True:
            # 1. Wait for a message, for output, for the end, or for the next look at the limits.
            ends = [stream.descriptor for stream in (self.link, self.printed) if stream.open]
            ready = wait([*ends, process.sentinel], timeout=POLL_SECONDS)
            # 2. Take what has come.
            # Output is taken even though only its end is kept: a process stands still in `print` when the pipe is full.
            self.printed.read()
            if not self._take():
                return "garbled"
            memory_mb = self._measure(process.pid)
            # 3. Has it ended? A process that has only closed its pipe is given a second to end.
            if self.ended:
                return None
            if process.sentinel in ready or not self.link.open:
                process.join(timeout=1.0)
                # The last message may have come after the reading above.
                self._take()
                return None if process.exitcode is not None or self.ended else "closed"
            # 4. Does it keep its limits?
            if memory_gb is not None and memory_mb > memory_gb * 1024:
                return "memory"
            if deadline is not None and time.perf_counter() - started > deadline:
                return "deadline"

    def _take(self) -> bool:
        """Take the messages in the pipe; False where they cannot be read."""
        for kind, content in self.link.read():
            if kind == END:
                self.ended = True
                continue
            self.outcome.messages.append((kind, content))
            if self.on_message is not None:
                self.on_message(kind, content)
        return not self.link.garbled

    def _measure(self, pid: int) -> float:
        """Return the memory of the process and its descendants in MiB, and remember the descendants."""
        peak, current = resident_mb(pid)
        # The kernel keeps the peak of the process itself. That of all descendants together is only seen at each look.
        for child in descendants(pid):
            current += resident_mb(child)[1]
            if child not in self.seen:
                # psutil stores the start time with the number, so that it never kills a later process with the same
                # number.
                with contextlib.suppress(psutil.Error):  # it has ended since
                    self.seen[child] = psutil.Process(child)
        # All numbers are zero where /proc is missing, and the peak is then unknown.
        self.outcome.peak_mb = max(self.outcome.peak_mb or 0.0, peak, current) or None
        return current
