"""The command's end of the process server: start it, ask it for processes, and replace it when it is lost.

A cell runs beside the server and with the same rights, so that it can stop or kill its server, as the machine may. A
stopped server is woken at the next look. One that has died, or does not answer, is replaced, and so are the processes
that have died with it.
"""

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import wait

import psutil

from convexnn_bench.errors import ExecutorError
from convexnn_bench.harness.child import thread_variables
from convexnn_bench.harness.server import ENDED, LENGTH, READY, STARTED
from convexnn_bench.harness.tree import ENDED_ERRORS, kill_below

MODULES = ("convexnn_bench.harness.preload", "convexnn_bench.harness.inside")  # what the server loads
ATTEMPTS = 3  # servers that are started for one process before the command gives up
POLL_SECONDS = 0.05  # between two looks at whether the server has been stopped
LOAD_SECONDS = 600.0  # wait for the imports of the server; a network file system may be slow
ANSWER_SECONDS = 30.0  # wait for a loaded server to fork
CLOSE_SECONDS = 2.0  # wait for a server to end by itself
OUTPUT_TAIL = 4000  # bytes kept of what the server prints, which is why it could not load


class LostServerError(Exception):
    """The server has died or does not answer. again: True where another one may do better."""

    def __init__(self, reason: str, again: bool = True):
        super().__init__(reason)
        self.again = again


class Forked:
    """A process that a server has forked.

    pid: its number. exit_code: None until it has ended. cpu_seconds: of the process and of what it waited for, once it
    has ended. lost: True where its server died or no longer answers, so that its end is not known.
    """

    def __init__(self, server: "Server", pid: int, state: int):
        self.server, self.pid, self.descriptor = server, pid, state
        self.exit_code: int | None = None
        self.cpu_seconds, self.lost = 0.0, False
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.Error:  # it has ended already
            self._process = None

    def alive(self) -> bool:
        """Return True if the process may still run. Its number can belong to no other process then."""
        return self.exit_code is None and self._process is not None and self._process.is_running()

    def stopped(self) -> bool:
        """Return True if a signal has stopped the process."""
        with contextlib.suppress(psutil.Error):
            return self._process is not None and self._process.status() == psutil.STATUS_STOPPED
        return False

    def wait(self, timeout: float) -> bool:
        """Wait for the end of the process; return False where it still runs."""
        until = time.monotonic() + timeout
        while self.exit_code is None and not self.lost:
            left = until - time.monotonic()
            if wait([self.descriptor], timeout=max(0.0, min(POLL_SECONDS, left))):
                self._read()
            elif left <= 0:
                return self._abandoned()
            self.server.wake()
        return True

    def _read(self) -> None:
        """Read how the process ended. The pipe ends without an answer where the server has died."""
        answer = os.read(self.descriptor, ENDED.size)
        if len(answer) == ENDED.size:
            self.exit_code, self.cpu_seconds = ENDED.unpack(answer)
        else:
            self.lost = True

    def _abandoned(self) -> bool:
        """Return True, and give up the server, if the process has ended and the server has not noticed."""
        with contextlib.suppress(psutil.Error):
            if self._process is not None and self._process.status() != psutil.STATUS_ZOMBIE:
                return False
        self.lost = True
        self.server.close()
        return True

    def close(self) -> None:
        """Give back the descriptor."""
        os.close(self.descriptor)


class Server:
    """A process server and the socket that leads to it. It loads its modules while the caller goes on."""

    def __init__(self, threads: int):
        self.owner, self.loaded = os.getpid(), False
        self.link, theirs = socket.socketpair()
        self._lock = threading.Lock()
        # The server searches where this process does, whatever options of the interpreter have led there.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from convexnn_bench.harness.server import main; "
            f"main({theirs.fileno()}, {os.getpid()}, {MODULES!r})"
        )
        # A fork of the command itself would copy the locks of its threads in any state, and a fresh interpreter would
        # have to import every library for every cell. A fork of the server, which runs nothing else, does neither. A
        # session of its own keeps Ctrl-C away from it. BLAS libraries read the number of threads when they load.
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, **thread_variables(threads)},
            )
        self._output = b""
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()
        self._psutil: psutil.Process | None = None
        with contextlib.suppress(psutil.Error):  # it has died at once
            self._psutil = psutil.Process(self.process.pid)

    def _read_output(self) -> None:
        """Take what the server prints, so that it never waits for a full pipe."""
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            while chunk := os.read(stream.fileno(), 2**16):
                self._output = (self._output + chunk)[-OUTPUT_TAIL:]

    def usable(self) -> bool:
        """Return True if the server runs and belongs to this process."""
        return self.owner == os.getpid() and self.link.fileno() >= 0 and self.process.poll() is None

    def wake(self) -> None:
        """Let the server go on if a signal has stopped it. A cell can send such a signal to its parent."""
        with contextlib.suppress(*ENDED_ERRORS):
            if self._psutil is not None and self._psutil.status() == psutil.STATUS_STOPPED:
                self.process.send_signal(signal.SIGCONT)

    def fork(self, request: bytes, descriptors: Sequence[int]) -> Forked:
        """Return a process that runs the request; the descriptors are for its messages and its output.

        Raises LostServerError where the server dies or does not answer, and OSError where the machine has no room for
        another process.
        """
        ours, theirs = os.pipe()
        try:
            try:
                with self._lock:
                    self._wait_until_loaded()
                    self._send(request, [*descriptors, theirs])
            finally:
                os.close(theirs)
            return Forked(self, self._started(ours), ours)
        except BaseException:
            os.close(ours)
            raise

    def _wait_until_loaded(self) -> None:
        until = time.monotonic() + LOAD_SECONDS
        while not self.loaded:
            if time.monotonic() > until:
                raise LostServerError(f"it did not load its modules within {LOAD_SECONDS:g} s")
            if wait([self.link], timeout=POLL_SECONDS):
                try:
                    self.loaded = self.link.recv(len(READY)) == READY
                except OSError:
                    self.loaded = False
                if not self.loaded:
                    raise self._death("while it loaded its modules")
            self.wake()

    def _send(self, request: bytes, descriptors: list[int]) -> None:
        self.wake()
        data = LENGTH.pack(len(request)) + request
        try:
            self.link.settimeout(ANSWER_SECONDS)
            sent = socket.send_fds(self.link, [data], descriptors)
            self.link.sendall(data[sent:])
        except OSError as error:
            raise self._death("while it received a request for a process") from error

    def _started(self, state: int) -> int:
        """Return the number of the new process."""
        until = time.monotonic() + ANSWER_SECONDS
        while not wait([state], timeout=POLL_SECONDS):
            if time.monotonic() > until:
                raise LostServerError(f"it did not answer within {ANSWER_SECONDS:g} s")
            self.wake()
        answer = os.read(state, STARTED.size)
        if len(answer) < STARTED.size:
            raise self._death("while it started a process")
        (pid,) = STARTED.unpack(answer)
        if pid < 0:
            raise OSError(-pid, f"no process could be started: {os.strerror(-pid)}")
        return int(pid)

    def _death(self, moment: str) -> LostServerError:
        """Return an error that says how the server has ended."""
        try:
            code = self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return LostServerError(f"it does not answer, {moment}")
        self._reader.join(CLOSE_SECONDS)
        if code < 0:
            return LostServerError(f"it was ended by {signal_name(-code)}, {moment}")
        # An exception in an import would come again.
        last = self._output.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {code}"]
        return LostServerError(f"it ended {moment}: {last[0]}", again=code == 0)

    def close(self) -> None:
        """End the server with everything that it has started."""
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)  # the server kills what is below it, and ends
        self.link.close()
        if self.loaded:
            self.wake()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(CLOSE_SECONDS)
        if self.process.poll() is None:
            kill_below(self.process.pid)
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits in the kernel for a disk or a driver
                self.process.wait(CLOSE_SECONDS)


_GUARD = threading.Lock()  # held while the server of this process is chosen
_server: Server | None = None


def running_server(threads: int) -> Server:
    """Return the server of this process. Start one where there is none, or where the last one is lost."""
    global _server
    with _GUARD:
        if _server is not None and not _server.usable():
            if _server.owner == os.getpid():
                _server.close()
            else:  # this process is a fork of the one that the server belongs to
                _server.link.close()
            _server = None
        if _server is None:
            _server = Server(threads)
        return _server


def fork(request: bytes, descriptors: Sequence[int], threads: int) -> Forked:
    """Return a new process that runs a request of `pack_request`.

    Raises ExecutorError where ATTEMPTS servers in turn are lost.
    """
    lost = None
    for _ in range(ATTEMPTS):
        server = running_server(threads)
        try:
            return server.fork(request, descriptors)
        except LostServerError as error:
            server.close()
            lost = error
            if not error.again:
                break
        except BaseException:
            # A process that was asked for may start after this, and nobody would watch it.
            server.close()
            raise
    raise ExecutorError(f"the process server, which every cell is forked from, is lost: {lost}")


@atexit.register
def _close_server() -> None:
    if _server is not None and _server.owner == os.getpid():
        _server.close()


def signal_name(number: int) -> str:
    """Return a signal in words, such as "signal 9 (SIGKILL)"; the kernel sends that one where memory is short."""
    name = signal.Signals(number).name if number in set(signal.Signals) else "unknown"
    return f"signal {number} ({name})" + (" (out of memory, perhaps)" if name == "SIGKILL" else "")
