"""A deadline for the work of a `with` block, at which searches end early.

A bound that is improved step by step holds after every step. Its loop therefore asks `time_is_up` between two steps,
and returns the best bound so far once that is true: a weaker bound, and never a false one. The deadline belongs to the
context of the caller (contextvars), so that no function between the caller and the loop has to hand it down. Where
deadlines are nested, the earliest one counts.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Clock = Callable[[], float]

_ENDS: ContextVar[tuple[tuple[float, Clock], ...]] = ContextVar("convexnn_bench_deadlines", default=())
_CUTS: ContextVar[list[float] | None] = ContextVar("convexnn_bench_cuts", default=None)
_NOTE: ContextVar[Callable[[str], None] | None] = ContextVar("convexnn_bench_note", default=None)


class OutOfTime(BaseException):
    """The end of a computation that cannot be finished in time.

    No `except Exception` catches it. A solver raises it, with the reason, before a call that would take longer than the
    time that is left. `solve` raises it inside a solver that has not returned in time.
    """


@contextmanager
def deadline(seconds: float | None, clock: Clock = time.perf_counter) -> Iterator[None]:
    """Give the block this many seconds, or fewer if a deadline around it is earlier.

    None sets no further deadline.
    """
    own = () if seconds is None or math.isinf(seconds) else ((clock() + seconds, clock),)
    token = _ENDS.set(_ENDS.get() + own)
    try:
        yield
    finally:
        _ENDS.reset(token)


@contextmanager
def part_of_deadline(part: float) -> Iterator[None]:
    """Give the block this part of the seconds until the earliest deadline.

    The new deadline is on the clock of that one.
    """
    ends = _ENDS.get()
    if not ends:
        yield
        return
    end, clock = min(ends, key=lambda pair: pair[0] - pair[1]())
    with deadline(part * (end - clock()), clock):
        yield


@contextmanager
def no_deadline() -> Iterator[None]:
    """Ignore all deadlines in the block, for a value that must not depend on them."""
    token = _ENDS.set(())
    try:
        yield
    finally:
        _ENDS.reset(token)


def seconds_left() -> float:
    """Return the seconds until the earliest deadline, negative afterwards.

    Return infinity without a deadline.
    """
    return min((end - clock() for end, clock in _ENDS.get()), default=math.inf)


def time_is_up() -> bool:
    """Return True from the earliest deadline on."""
    if seconds_left() > 0.0:
        return False
    cut_short()
    return True


def cut_short() -> None:
    """Note that the deadline leaves no time for a search, or for the rest of it."""
    cuts = _CUTS.get()
    if cuts is not None:
        cuts.append(seconds_left())


@contextmanager
def cuts_counted() -> Iterator[list[float]]:
    """Yield a list that is empty until the deadline cuts short a search of the block."""
    cuts: list[float] = []
    token = _CUTS.set(cuts)
    try:
        yield cuts
    finally:
        _CUTS.reset(token)


@contextmanager
def noted_by(note: Callable[[str], None]) -> Iterator[None]:
    """Hand every `working_on` of the block to `note`."""
    token = _NOTE.set(note)
    try:
        yield
    finally:
        _NOTE.reset(token)


def working_on(text: str) -> None:
    """Say in a few words what a long computation is doing, for a progress bar."""
    note = _NOTE.get()
    if note is not None:
        note(text)
