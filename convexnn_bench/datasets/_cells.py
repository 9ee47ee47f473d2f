"""The rows, columns and cells of a table.

A cell may be a number, a missing number, or a word.
"""

import math
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MISSING = ("", "?", "na", "n/a", "nan", "null", "none", "-")  # words for a missing number, in any case
WHOLE = re.compile(r"[+-]?\d+")
WITH_COMMA = re.compile(r"[+-]?\d*(,\d+)+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Row:
    """The cells of a line, without blanks around them, and the line's number from 1 on."""

    line: int
    cells: list[str]


@dataclass(eq=False)
class Column:
    """A column without its header. position: its number, counted from 0.

    name: None if the file has no name for it.
    """

    position: int
    name: str | None
    cells: list[str]

    @cached_property
    def floats(self) -> np.ndarray | None:
        """Return all cells as float64, or None if a cell is not a finite number."""
        try:
            values = np.array([float(cell) for cell in self.cells])
        except ValueError:
            return None
        return values if np.isfinite(values).all() and "_" not in "".join(self.cells) else None

    def with_points(self) -> "Column":
        """Return the column with its decimal commas written as points."""
        cells = [cell.replace(",", ".") if WITH_COMMA.fullmatch(cell) else cell for cell in self.cells]
        return Column(self.position, self.name, cells)

    def __str__(self) -> str:
        return f"column {self.name!r}" if self.name else f"column {self.position} (counted from 0)"


def is_number(cell: str) -> bool:
    # float also accepts 1_000, inf and nan, which are not numbers of a table.
    try:
        return math.isfinite(float(cell)) and "_" not in cell
    except ValueError:
        return False


def may_be_number(cell: str) -> bool:
    return is_number(cell) or WITH_COMMA.fullmatch(cell) is not None


def is_missing(cell: str) -> bool:
    return cell.lower() in MISSING
