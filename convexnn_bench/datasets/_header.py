"""Decide whether the first line of a table is its header, and make the columns."""

from collections.abc import Sequence
from pathlib import Path

from convexnn_bench.datasets._cells import WHOLE, Column, Row, is_missing, may_be_number
from convexnn_bench.datasets._rows import SAMPLE_LINES, shown
from convexnn_bench.errors import InputError

UNNAMED = "Unnamed: "  # prefix of the name that pandas gives to a column without a name
YEARS = range(1800, 2201)  # whole numbers that may be names of columns as well as values


def columns_of(
    source: Path, rows: Sequence[Row], header: str, target: str | int
) -> tuple[list[Column], list[int], list[str]]:
    """Return the columns, the line numbers of their cells, and a note on the header if `header` is "auto"."""
    first, notes = rows[0], []
    has_header = header == "yes"
    if header == "auto":
        has_header = _has_header(source, rows, target)
        notes = [
            f"Line {first.line} was read as the header: {shown(first, ',')}."
            if has_header
            else f"No header was found, so that line {first.line} is a sample (header=yes makes it the header)."
        ]
    names = first.cells if has_header else [""] * len(first.cells)
    rows = rows[has_header:]
    if len(names) < 2 or len(rows) < 2:
        raise InputError(
            f"{source} has {len(rows)} rows and {len(names)} columns{' after its header line' if has_header else ''}; "
            "at least 2 of each are needed"
        )
    columns = [Column(index, name or None, [row.cells[index] for row in rows]) for index, name in enumerate(names)]
    return columns, [row.line for row in rows], notes


def _has_header(source: Path, rows: Sequence[Row], target: str | int) -> bool:
    """Return whether the first line holds names.

    Raise InputError if it may also be a sample.
    """
    first = ["" if cell.startswith(UNNAMED) else cell for cell in rows[0].cells]
    rest = rows[1 : SAMPLE_LINES + 1]
    columns = list(zip(*(row.cells for row in rest), strict=True)) or [()] * len(first)
    numbers = [index for index, cell in enumerate(first) if may_be_number(cell)]
    numeric = [index for index, cells in enumerate(columns) if _is_numeric(cells)]
    if not numbers:
        # A line of words for missing numbers is a sample. Beside another name, such a word is a name: Na is sodium.
        named = any(first[index] and not is_missing(first[index]) for index in numeric)
        return named or not any(first[index] for index in numeric)
    if str(target) in first and not (isinstance(target, int) and -len(first) <= target < len(first)):
        return True  # the target is named by the first line
    names = [index for index, cell in enumerate(first) if not may_be_number(cell) and not is_missing(cell)]
    whole = all(WHOLE.fullmatch(first[index]) for index in numbers)
    # 1. A word above numbers is a name. Different whole numbers in the same line, such as years, are then names too.
    if set(names) & set(numeric):
        if whole and len({first[index] for index in numbers}) == len(numbers):
            return True
        raise _undecided(source, rows[0])
    # 2. Without such a word the line may still consist of years, or of the column numbers of pandas.
    if whole and all(int(first[index]) in YEARS and not _has_years(columns[index]) for index in numbers):
        raise _undecided(source, rows[0])
    counted = [str(index) for index in range(len(numbers))]
    if len(numbers) > 1 and counted == [first[index] for index in numbers] and set(first) <= {"", *counted}:
        return first[0] == "" or _counts_columns(source, rows[0], columns)
    return False


def _is_numeric(cells: Sequence[str]) -> bool:
    return any(map(may_be_number, cells)) and all(may_be_number(cell) or is_missing(cell) for cell in cells)


def _has_years(cells: Sequence[str]) -> bool:
    return any(WHOLE.fullmatch(cell) and int(cell) in YEARS for cell in cells)


def _counts_columns(source: Path, row: Row, columns: Sequence[Sequence[str]]) -> bool:
    """Return True: a first line 0, 1, 2, ... is a header.

    Raise InputError if the cells below are such numbers too.
    """
    below = [cell for cells in columns for cell in cells]
    whole = all(WHOLE.fullmatch(cell) for cell in below)
    if whole and (len(row.cells) == 2 or all(0 <= int(cell) < len(row.cells) for cell in below)):
        raise _undecided(source, row)
    return True


def _undecided(source: Path, row: Row) -> InputError:
    return InputError(
        f"{source}: line {row.line} may be a header or a sample: {shown(row, ',')}; give header=yes or header=no"
    )
