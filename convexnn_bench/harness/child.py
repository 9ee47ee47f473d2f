"""What runs first in a new process.

The process becomes a session of its own, redirects its output and calls its function.
"""

import contextlib
import os
import pickle
import pkgutil
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from convexnn_bench.harness.tree import adopt_orphans, signal_when_parent_dies

Target = Callable[..., None] | str

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PIPE_CLOSED = 76  # exit code of a process that finds its end of the pipe closed; any code that no library uses
END = "end"  # kind of the last message of every process that comes to its end


class Link:
    """The new process's end of the pipe.

    If the solver forked, the child exits here: only the original may report.
    """

    def __init__(self, connection: Connection):
        self._connection, self._pid, self._lock = connection, os.getpid(), threading.Lock()

    def send(self, message: tuple[str, Any]) -> None:
        """Send a pair (kind, content).

        Exit where the pipe is closed, since nothing can be reported any more.
        """
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


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment variables from which libraries read their number of threads when they load."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def pack_request(target: Target, threads: int, arguments: tuple[Any, ...]) -> bytes:
    """Return what `run_request` needs to call target(link, threads, *arguments) as the caller would."""
    try:
        folder: str | None = os.getcwd()
    except OSError:  # the folder has been removed
        folder = None
    # The call is pickled by itself: the new process can read it only after it has taken over the search path.
    return pickle.dumps((threads, list(sys.path), folder, pickle.dumps((target, arguments))))


def run_request(request: bytes, server: int, results: int, output: int) -> None:
    """Prepare the new process, run its function, and say that it has come to its end.

    server: number of the process that has forked this one. results, output: the pipes for messages and for text.
    """
    # 1. The process leads a session of its own, dies with the server, and adopts what it started.
    # The session lets `kill_all` reach the cell and its processes with one signal. It also keeps Ctrl-C in the terminal
    # away from the cell: the command alone receives it, and then kills the cell.
    os.setsid()
    signal_when_parent_dies(signal.SIGKILL)
    if os.getppid() != server:  # it died before the call above
        os._exit(1)
    adopt_orphans()  # a daemon that leaves the session stays a descendant
    # 2. What it prints goes to the pipe for it. It is one process, also where torchrun started its worker.
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    threads, path, folder, call = pickle.loads(request)
    sys.path[:] = path
    if folder is not None:
        with contextlib.suppress(OSError):  # the folder has been removed since
            os.chdir(folder)
    # Libraries that load only now read these variables, and so do programs that the solver starts. Libraries that the
    # server has loaded are limited by `inside`.
    os.environ.update(thread_variables(threads))
    os.environ.pop("WORLD_SIZE", None)
    # 3. Run the function.
    link = Link(Connection(results, readable=False))
    target, arguments = pickle.loads(call)
    function = pkgutil.resolve_name(target) if isinstance(target, str) else target
    function(link, threads, *arguments)
    # The parent kills this process as soon as the last message has come: output must be in its pipe before that.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # the function may have closed or replaced them
            stream.flush()
    link.send((END, None))
