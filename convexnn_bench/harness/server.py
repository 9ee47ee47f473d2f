"""The process server, from which the processes of cells are forked.

It loads what every cell needs, and then forks one process for each request of the command.

The command and the server share a socket that has no name, so that no file has to exist for it. A request is its length
and its bytes, and three descriptors come with it: the pipes for messages, for output and for the state of the new
process. The server writes the number of the process into the last one (`STARTED`) and, once it has ended, its exit code
and the CPU seconds of it and of all processes that it waited for (`ENDED`). Where the server itself dies, the pipe
ends without `ENDED`.

The server ends when the command does, by whatever signal, and kills everything that it has started.
"""

import contextlib
import importlib
import os
import select
import signal
import socket
import struct
import sys
import traceback
from typing import Any, NoReturn

from convexnn_bench.harness.child import run_request
from convexnn_bench.harness.tree import adopt_orphans, children, kill, kill_below, signal_when_parent_dies

READY = b"r"  # sent to the command when the modules are loaded
LENGTH = struct.Struct("!Q")  # of a request, in bytes
STARTED = struct.Struct("!q")  # number of the process, or the negative error number for which it could not be forked
ENDED = struct.Struct("!qd")  # exit code, negative for a signal; CPU seconds


def main(descriptor: int, command: int, modules: tuple[str, ...]) -> NoReturn:
    """Load the modules and serve the command, whose process has the number `command`, until it is gone.

    descriptor: this end of the socket.
    """
    # 1. Follow the command into its end. The signal also wakes a server that was stopped.
    signal.signal(signal.SIGCONT, lambda *_: None if os.getppid() == command else _end())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which then ends this process
    signal_when_parent_dies(signal.SIGCONT)
    if os.getppid() != command:
        _end()
    adopt_orphans()  # what a cell has left behind when it dies becomes a child of this process
    # 2. Load the modules. Every process that is forked shares their pages.
    for name in modules:
        importlib.import_module(name)
    # 3. Serve.
    with contextlib.suppress(OSError):  # the command is gone
        _Server(socket.socket(fileno=descriptor)).serve()
    _end()


def _end() -> NoReturn:
    kill_below(os.getpid())
    os._exit(0)


class _Server:
    """The server once its modules are loaded.

    running: pipe for the state of each process, by its number.
    """

    def __init__(self, link: socket.socket):
        self.link, self.running = link, dict[int, int]()
        self.woken, waker = os.pipe()
        for end in (self.woken, waker):
            os.set_blocking(end, False)
        self.own = (self.woken, waker, link.fileno())
        self.helpers = set(children(os.getpid()))  # processes that libraries have started when they were loaded
        # The end of a child writes a byte into this pipe, which `select` waits for.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Serve requests until the command closes its end of the socket."""
        self.link.sendall(READY)
        while True:
            ready, _, _ = select.select([self.link.fileno(), self.woken], [], [])
            if self.woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.woken, 4096)
                self._reap()
            if self.link.fileno() in ready:
                request, descriptors = self._receive()
                if len(descriptors) != 3:  # the command is gone
                    return
                self._fork(request, *descriptors)

    def _receive(self) -> tuple[bytes, list[int]]:
        """Return the next request with its descriptors.

        There are no descriptors if the command is gone.
        """
        data, descriptors, _, _ = socket.recv_fds(self.link, 2**16, 3)
        if len(data) < LENGTH.size:
            return b"", []
        received, size = bytearray(data), LENGTH.size + LENGTH.unpack_from(data)[0]
        while len(received) < size:
            # Not a byte more is read: the next request comes with descriptors of its own.
            more = self.link.recv(size - len(received))
            if not more:
                return b"", []
            received += more
        return bytes(received[LENGTH.size :]), descriptors

    def _fork(self, request: bytes, results: int, output: int, state: int) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            self._become_child(request, server, results, output, state)
        os.close(results)
        os.close(output)
        try:
            os.write(state, STARTED.pack(pid))
        except OSError:  # the command no longer waits for it
            if pid > 0:
                kill(pid)
        if pid > 0:
            self.running[pid] = state
        else:
            os.close(state)

    def _become_child(self, request: bytes, server: int, results: int, output: int, state: int) -> NoReturn:
        """Run the request in the forked process.

        Nothing returns to the loop of the server, whatever happens.
        """
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGCONT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for descriptor in (*self.own, *self.running.values(), state):
                os.close(descriptor)
            self.link.detach()
            run_request(request, server, results, output)
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        """Tell the command of processes that have ended, after what they left behind has been killed."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            state = self.running.pop(pid, None)
            if state is None:  # what a cell had left behind
                continue
            for orphan in children(os.getpid()):
                if orphan not in self.running and orphan not in self.helpers:
                    kill_below(orphan)
                    kill(orphan)
            self._tell(state, os.waitstatus_to_exitcode(status), usage)

    @staticmethod
    def _tell(state: int, code: int, usage: Any) -> None:
        with contextlib.suppress(OSError):  # the command no longer waits for it
            os.write(state, ENDED.pack(code, usage.ru_utime + usage.ru_stime))
        os.close(state)
