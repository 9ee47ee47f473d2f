"""The wait of a caller, which a time limit bounds.

It is set-up, solving, scores and the last certificate together.

A solver is asked to stop at its next callback. One that does not come to a callback in time is interrupted: Python
raises `OutOfTime` in its thread between two instructions, as it raises KeyboardInterrupt for Ctrl-C. A single call into
compiled code is not interrupted, so that solvers hand their time limit on to the programs that they call.
"""

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from convexnn_bench.deadline import OutOfTime, seconds_left

# `solve` returns within (1 + SHARE) time_limit + SECONDS. The allowance is spent in turn on the solver's last steps, on
# stopping it, and on the last certificate; the rest is for calls that cannot be interrupted.
SHARE, SECONDS = 0.2, 1.0
STOP, INTERRUPT, CERTIFY = 0.4, 0.5, 0.65  # fractions of the allowance at which each of these must be over
AGAIN = 1.0  # seconds after which a solver that caught the interruption is interrupted again
IMPORTING = 0.02  # seconds between two checks of a thread that imports a module


class Wait:
    """The times at which the parts of a solve must end.

    They are seconds from the start of set-up, or None without a limit.

    imports: the seconds that loading packages has taken. At most half of the limit is charged for them. A deadline of
    the caller that is earlier than these times replaces them.
    """

    def __init__(self, time_limit: float | None, imports: float = 0.0):
        self.time_limit, self.imports = time_limit, imports
        self._outside = seconds_left()
        self.solver_stops = self._after(STOP)
        self.solver_is_interrupted = self._after(INTERRUPT)
        self.certificate_ends = self._after(CERTIFY)

    def _after(self, part: float) -> float | None:
        if self.time_limit is None:
            return None
        counted = min(self.imports, 0.5 * self.time_limit)
        own = self.time_limit + part * (SHARE * self.time_limit + SECONDS) - counted
        return min(own, self._outside)

    @staticmethod
    def until(end: float | None, waited: float | None) -> float | None:
        """Return the seconds from `waited` to `end`, at least zero, or None if one of them is None."""
        return None if end is None or waited is None else max(end - waited, 0.0)


class Interrupter:
    """Interrupt work in the thread of the caller after some seconds; None never interrupts it.

    The exception may also be raised in the code of this class. It therefore uses plain locks, whose `with` blocks
    always release them. `threading.Event` is written in Python, and an exception in it may leave its lock acquired.
    """

    def __init__(self, seconds: float | None):
        self.seconds = seconds
        self.reason = ""  # the reason if the work raised OutOfTime itself
        self._lock, self._alarm = threading.Lock(), threading.Lock()
        self._held, self._late, self._sent, self._over = 0, False, False, False

    def run(self, work: Callable[[], None]) -> bool:
        """Do the work. Return False if it was interrupted."""
        if self.seconds is None or self.seconds == float("inf"):
            work()  # raises no OutOfTime, since there is no deadline
            return True
        self._thread = threading.get_ident()
        self._alarm.acquire()  # until the work is over
        # The exception may come after the work has ended, on the way through `_close`, and then once at most: the next
        # one would follow AGAIN seconds later.
        try:
            threading.Thread(target=self._watch, name="convexnn-bench time limit", daemon=True).start()
            try:
                work()
            finally:
                self._close()
        except OutOfTime as error:
            self._close()
            self.reason = str(error)
            return False
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put the interruption off until the block has ended.

        Blocks of several threads may overlap.
        """
        try:
            with self._lock:
                self._held += 1
            yield
        finally:
            with self._lock:
                self._held = max(self._held - 1, 0)
                if self._late and not self._held:
                    self._interrupt()

    def _watch(self) -> None:
        seconds = self.seconds or 0.0
        while not self._alarm.acquire(timeout=seconds):
            # After an interrupted import, a module may fail to load for the rest of the process.
            if _imports(self._thread):
                seconds = IMPORTING
                continue
            with self._lock:
                if self._held:
                    self._late = True
                else:
                    self._interrupt()
            seconds = AGAIN

    def _interrupt(self) -> None:
        if not self._over:
            self._sent = True
            _raise_in(self._thread, OutOfTime)

    def _close(self) -> None:
        with self._lock:
            self._over = True
            if self._alarm.locked():
                self._alarm.release()
        # Let an exception that was sent be raised here: Python checks for it in every iteration of a loop. Withdrawing
        # it, by NULL, would make CPython 3.11 check before every instruction from then on.
        for _ in range(100 if self._sent else 0):
            pass


def _imports(thread: int) -> bool:
    """Return True if a thread imports, or is in a module of Python that handles locks."""
    frame = sys._current_frames().get(thread)
    if frame is not None and frame.f_globals.get("__name__") in ("threading", "logging", "queue"):
        return True
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    """Raise an exception in a thread when it next executes Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
