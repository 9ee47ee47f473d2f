"""Run one function in a process of its own, with a deadline and a memory limit.

What the function sends and prints is collected.

Processes are forked from a server that has loaded the heavy modules (torch, cvxpy, ...) already, so that a start costs
tens of milliseconds and no cell sees the state that another one left behind. Everything goes through pipes, which need
no temporary files.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any, Literal

from convexnn_bench.errors import InputError
from convexnn_bench.harness.child import END, Target, pack_request
from convexnn_bench.harness.forking import Forked, fork, running_server
from convexnn_bench.harness.streams import Messages, Tail
from convexnn_bench.harness.tree import kill_all
from convexnn_bench.harness.usage import Usage

POLL_SECONDS = 0.05  # between two looks at the limits; what a process starts and loses in between may be missed
KILL_SECONDS = 8.0  # wait for a killed process; one that waits for a disk or a driver dies when that answers
LATE_SECONDS = 1.0  # a look that comes so much too late shows that this process was stopped
OUTPUT_TAIL = 2000  # characters kept of what a process printed
RUNS = 3  # number of times that a process is run if its server dies, since the process may be the cause

Stopped = Literal["deadline", "memory", "closed", "garbled", "lost"]


@dataclass
class ProcessOutcome:
    """How a process ended.

    messages: every (kind, content) that it sent. exit_code: negative for a signal; it means nothing after the last
    message, since the process is killed then. stopped: the reason for which the process was killed, None where it
    ended by itself. "closed": it closed its pipe; "garbled": what it sent cannot be read; "lost": its server died, as
    often as it was run. suspended: True if a signal had stopped the process when it was killed at its deadline.
    seconds: wall clock from its start to its end. peak_mb: its largest memory, with that of the processes it started.
    cpu_seconds: of all of these processes. output: the end of what it printed.
    """

    messages: list[tuple[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    stopped: Stopped | None = None
    suspended: bool = False
    seconds: float = 0.0
    peak_mb: float | None = None
    cpu_seconds: float = 0.0
    output: str = ""


def start_server(threads: int) -> None:
    """Start the server that processes are forked from.

    It loads its modules while the caller goes on.
    """
    running_server(threads)


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
    If the server dies under the process, the process is run again from a new server, RUNS times in all.

    Parameters
    ----------
    target
        A function of a module, or its name "package.module:function", which is then imported in the new process only.
        It sends (kind, content) pairs with `link.send`.
    deadline
        Seconds on the wall clock since the process began, after which it is killed; None for no deadline. Time during
        which this process was stopped, and watched nobody, does not count.
    memory_gb
        Memory in GiB, of the process and what it started, above which it is killed (`Usage`). Read where /proc exists.
    on_message
        Called with every (kind, content) as it comes.

    Raises
    ------
    ExecutorError
        No process can be started, because the server dies again and again.
    """
    if not isinstance(target, str) and target.__module__ == "__main__":
        raise InputError(
            f"target must be found by its name in another process: write 'SCRIPT:{target.__name__}' with the name of "
            "your script"
        )
    request = pack_request(target, threads, arguments)
    outcome = ProcessOutcome()
    for _ in range(RUNS):
        outcome = _run_once(request, threads, deadline, memory_gb, on_message)
        if outcome.stopped != "lost":
            break
    return outcome


def _run_once(
    request: bytes,
    threads: int,
    deadline: float | None,
    memory_gb: float | None,
    on_message: Callable[[str, Any], None] | None,
) -> ProcessOutcome:
    """Run a request in one process."""
    # Results and output have a pipe each, because printed text between two messages would garble them.
    receiver, sender = Pipe(duplex=False)
    printed, output = Pipe(duplex=False)
    # A character takes at most four bytes in UTF-8.
    with receiver, printed:
        with sender, output:
            # This returns when the server has loaded its modules and has forked the process. The clock starts after it,
            # so that no cell is charged with the imports of a server.
            process = fork(request, (sender.fileno(), output.fileno()), threads)
            started = time.perf_counter()
        # A pipe reports its end only when every copy of the writing end is closed, the parent's copy included.
        watch = _Watch(process, Messages(receiver.fileno()), Tail(printed.fileno(), 4 * OUTPUT_TAIL), on_message)
        outcome = watch.outcome
        try:
            outcome.stopped = watch.until_end(started, deadline, memory_gb)
        finally:
            # This runs after an interrupt as well: neither the process nor what it started outlives this call. The
            # number of a process that has ended may belong to another one by now, so it is passed for a living process
            # only.
            kill_all(process.pid if process.alive() else None, process.pid, watch.usage.seen.values())
            process.wait(KILL_SECONDS)
            process.close()
        outcome.seconds = time.perf_counter() - started
        outcome.exit_code = process.exit_code
        outcome.peak_mb = watch.usage.peak_mb
        # The server knows more where the process ended by itself; it does not know children that nobody waited for.
        outcome.cpu_seconds = max(process.cpu_seconds, watch.usage.cpu_seconds)
        # The last lines may still be in the pipe.
        watch.printed.read()
        outcome.output = watch.printed.text()[-OUTPUT_TAIL:]
    return outcome


class _Watch:
    """A running process as its parent sees it.

    ended: True once the last message has come.
    """

    def __init__(self, process: Forked, link: Messages, printed: Tail, on_message: Callable[[str, Any], None] | None):
        self.process, self.link, self.printed, self.on_message = process, link, printed, on_message
        self.outcome, self.usage, self.ended = ProcessOutcome(), Usage(process.pid), False

    def until_end(self, started: float, deadline: float | None, memory_gb: float | None) -> Stopped | None:
        """Take messages until the process ends or must be killed.

        Return the reason to kill it, if any.
        """
        limit_mb = None if memory_gb is None else memory_gb * 1024
        looked, unwatched = started, 0.0
        while True:
            # 1. Wait for a message, for output, for the end, or for the next look at the limits.
            ends = [stream.descriptor for stream in (self.link, self.printed) if stream.open]
            ready = wait([*ends, self.process.descriptor], timeout=POLL_SECONDS)
            self.process.server.wake()
            # 2. Take what has come.
            # Output is taken even though only its end is kept: a process stands still in `print` when the pipe is full.
            self.printed.read()
            if not self._take():
                return "garbled"
            too_much = self.usage.look(limit_mb)
            # 3. Has it ended? A process that has only closed its pipe is given a second to end.
            if self.ended:
                return None
            if self.process.descriptor in ready or not self.link.open:
                return self._end()
            # 4. Does it keep its limits?
            if too_much:
                return "memory"
            now = time.perf_counter()
            # A process whose output nobody takes stands still, so that time without a look is not its own.
            late = now - looked - POLL_SECONDS
            unwatched += late if late > LATE_SECONDS else 0.0
            looked = now
            if deadline is not None and now - started - unwatched > deadline:
                self.outcome.suspended = self.process.stopped()
                return "deadline"

    def _end(self) -> Stopped | None:
        """Return why a process that has ended, or has closed its pipe, is not left alone."""
        ended = self.process.wait(1.0)
        # The last message may have come after the last reading.
        self._take()
        if self.ended:
            return None
        if self.process.lost:
            return "lost"
        return None if ended else "closed"

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
