"""What an argument may be: a whole number, a number, or one of a few values.

Every check of a plain argument goes through these three classes, so that all messages have one form: the name of the
argument, what is allowed, and the value that was given.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from convexnn_bench.errors import InputError


def is_whole(value: Any) -> bool:
    """Return True for an integer of Python or numpy; a bool is none."""
    # Python counts True and False among the integers, where a caller who writes them means something else.
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return True for a real number of Python or numpy, NaN and infinity among them.

    A bool is none.
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def check_names(owner: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise InputError where `owner` has no parameter of a given name.

    The message lists those that it has.
    """
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise InputError(f"{owner} has no parameter {unknown[0]!r}; it has: {', '.join(allowed) or 'none'}")


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, both included, or None if `optional`.

    There is no upper end if `high` is None.
    """

    low: int = 1
    optional: bool = False
    high: int | None = None

    def __str__(self) -> str:
        above = ""
        if self.high is not None:  # the largest number of 63 bits reads better as a power of two
            above = f" and at most {self.high}" if self.high < 2**53 else f" and below 2^{self.high.bit_length()}"
        return f"a whole number, at least {self.low}{above}{', or None' if self.optional else ''}"

    def check(self, name: str, value: Any) -> Any:
        """Return the value as int, or None where `optional`.

        Raise InputError, with `name` in front, otherwise.
        """
        if value is None and self.optional:
            return None
        if not is_whole(value) or value < self.low or (self.high is not None and value > self.high):
            raise InputError(f"{name} must be {self}, got {value!r}")
        return int(value)


SEED = Whole(low=0, high=2**63 - 1)  # what torch's generators take


@dataclass(frozen=True)
class Number:
    """A number in the open interval (low, high), or None if `optional`.

    It may be `low` itself if `closed`.

    An infinite value is refused unless `infinite` is True.
    """

    low: float = 0.0
    high: float = float("inf")
    closed: bool = False
    optional: bool = False
    infinite: bool = False

    def __str__(self) -> str:
        finite, nothing = "" if self.infinite else " finite", ", or None" if self.optional else ""
        if self.high < float("inf"):
            return f"a number {'at least' if self.closed else 'above'} {self.low:g} and below {self.high:g}{nothing}"
        if self.low == 0.0 and not self.closed:
            return f"a positive{finite} number{nothing}"
        above = "" if self.low == -float("inf") else f" {'at least' if self.closed else 'above'} {self.low:g}"
        return f"a{finite} number{above}{nothing}"

    def check(self, name: str, value: Any) -> Any:
        """Return the value as float, or None where `optional`.

        Raise InputError, with `name` in front, otherwise.
        """
        if value is None and self.optional:
            return None
        largest = float("inf") if self.infinite else sys.float_info.max  # a Python integer may be too long for a float
        if not (
            is_number(value)  # NaN fails the comparisons
            and (value > self.low or (self.closed and value == self.low))
            and (value < self.high if self.high < float("inf") else value <= largest)
        ):
            raise InputError(f"{name} must be {self}, got {value!r}")
        return float(value)


LIMIT = Number(optional=True, infinite=True)  # of seconds, or of a gap; None for no limit


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.values))}"

    def check(self, name: str, value: Any) -> Any:
        """Return the value.

        Raise InputError, with `name` in front, unless it is one of `values`, of the same type.
        """
        # 1 == 1.0 == True in Python, so that equality alone would let True pass for the number 1.
        if not any(type(value) is type(choice) and value == choice for choice in self.values):
            raise InputError(f"{name} must be {self}, got {value!r}")
        return value


YES_OR_NO = Choice((True, False))
