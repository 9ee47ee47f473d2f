"""The wait of a caller, which a time limit bounds: set-up, solving, scores and the last certificate together.

A solver is asked to stop at its next callback. One that does not come to a callback in time is interrupted: Python
raises `OutOfTime` in its thread between two instructions, as it raises KeyboardInterrupt for Ctrl-C. A single call into
compiled code is not interrupted, so that solvers hand their time limit on to the programs that they call.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# `solve` returns within (1 + SHARE) time_limit + SECONDS. The allowance is spent in turn on the solver's last steps, on
# stopping it, and on the last certificate; the rest is for calls that cannot be interrupted.
SHARE, SECONDS = 0.2, 1.0
STOP, INTERRUPT, CERTIFY = 0.4, 0.5, 0.8  # parts of the allowance after which each of these has to end
AGAIN = 1.0  # seconds after which a solver that caught the interruption is interrupted again


class OutOfTime(BaseException):
    """Raised inside a solver that was not back in time. No `except Exception` of the solver catches it."""


class Wait:
    """The times at which the parts of a solve have to end, in seconds after its start; None without a limit."""

    def __init__(self, time_limit: float | None):
        self.time_limit = time_limit
        self.solver_stops = self._after(STOP)
        self.solver_is_interrupted = self._after(INTERRUPT)
        self.certificate_ends = self._after(CERTIFY)

    def _after(self, part: float) -> float | None:
        if self.time_limit is None:
            return None
        return self.time_limit + part * (SHARE * self.time_limit + SECONDS)


class Interrupter:
    """Interrupt work in the thread of the caller after some seconds; None never interrupts it."""

    def __init__(self, seconds: float | None):
        self.seconds = seconds
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._held, self._late = 0, False

    def run(self, work: Callable[[], None]) -> bool:
        """Do the work. Return False if it was interrupted."""
        if self.seconds is None or self.seconds == float("inf"):
            work()
            return True
        self._thread = threading.get_ident()
        threading.Thread(target=self._watch, name="convexnn-bench time limit", daemon=True).start()
        # The exception may come after the work has ended, on the way through `_close`, and then once at most: the next
        # one would follow AGAIN seconds later.
        try:
            try:
                work()
            finally:
                self._close()
        except OutOfTime:
            self._close()
            return False
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put the interruption off until the block has ended. Blocks of several threads may overlap."""
        with self._lock:
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1
                if self._late and not self._held:
                    self._interrupt()

    def _watch(self) -> None:
        seconds = self.seconds
        while not self._over.wait(seconds):
            with self._lock:
                if self._held:
                    self._late = True
                else:
                    self._interrupt()
            seconds = AGAIN

    def _interrupt(self) -> None:
        if not self._over.is_set():
            _raise_in(self._thread, OutOfTime)

    def _close(self) -> None:
        with self._lock:
            self._over.set()
            _raise_in(self._thread, None)  # withdraw an exception that was not delivered yet


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise an exception in a thread when it next executes Python code; None withdraws one that is still to come."""
    what = ctypes.c_void_p(None) if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)
