"""Read a table from a text file as numbers.

This takes its separator, header, index column, numbers and the column of targets.

Every line must have the same number of fields. A file that can be read in one way only is read, and a note says how. A
file that can be read in several ways is refused, and the error names the parameter that decides.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convexnn_bench.datasets._cells import WHOLE, WITH_COMMA, Column, is_missing, is_number, may_be_number
from convexnn_bench.datasets._header import UNNAMED, columns_of
from convexnn_bench.datasets._rows import (
    SEPARATORS,
    check_lengths,
    rows_of,
    separator_of,
    text_of,
    without_separator_line,
)
from convexnn_bench.errors import InputError

INDEX_ROWS = 20  # number of rows from which a column of different whole numbers gets a note that it may be an index
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


def read_table(
    source: Path,
    target: str | int = -1,
    header: str = "auto",
    separator: str = "auto",
    decimal: str = "auto",
    drop: Sequence[str | int] = (),
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return features n x d, targets n (numbers if all cells are numbers, else words), and notes.

    Parameters
    ----------
    source : Path
        A text file in UTF-8.
    target : str or int
        Name of the column of targets, or its position from 0 on; -1 is the last.
    header : {"auto", "yes", "no"}
        Whether the first line holds the names of the columns.
    separator : {"auto", "comma", "semicolon", "tab", "space"}
        What separates the columns. "space" is any number of blanks and tabs.
    decimal : {"auto", "point", "comma"}
        The decimal sign.
    drop : sequence of str or int
        Names or positions of the columns that are left out. A name may be several, separated by commas.

    Raises
    ------
    InputError
        The file is not such a table. The message names the line.
    """
    # 1. Split the text into rows of equally many cells.
    text, named = without_separator_line(text_of(source))
    chosen = SEPARATORS.get(separator) or named or separator_of(source, text)
    rows, notes = rows_of(source, text, chosen)
    if named:
        notes.append(f"The first line, sep={named}, names the separator.")
    if chosen == " " and separator == "auto":
        notes.append("Columns are separated by any number of blanks or tabs.")
    check_lengths(source, rows, chosen)
    # 2. Separate the header, the target, an index and the features.
    columns, lines, said = columns_of(source, rows, header, target)
    wanted, features, left_out = _roles(source, columns, target, drop)
    # 3. Convert the cells to numbers.
    commas = decimal == "comma" or (decimal == "auto" and _has_decimal_commas(source, [*features, wanted]))
    if commas:
        for column in (*features, wanted):
            _check_commas(source, column, lines)
        features, wanted = [column.with_points() for column in features], wanted.with_points()
    X = np.column_stack([_feature(source, column, lines) for column in features])
    y = _target(source, wanted, lines)
    points = ["Decimal commas were read as decimal points."] if commas and decimal == "auto" else []
    return X, y, [*notes, *said, *left_out, *points, *_target_notes(wanted, y), *_index_notes(features, X)]


# -- header, target and index --------------------------------------------------------------------------------


def _roles(
    source: Path, columns: list[Column], target: str | int, drop: Sequence[str | int]
) -> tuple[Column, list[Column], list[str]]:
    """Return the column of targets, the features, and notes on the columns that are neither."""
    notes = []
    has_header = any(column.name for column in columns)
    if not columns[-1].name and not any(columns[-1].cells):
        notes.append("The empty column after the last separator was left out.")
        columns = columns[:-1]
    wanted = _column(source, columns, "target", target)
    dropped = _dropped(source, columns, drop)
    if wanted in dropped:
        raise InputError(f"drop leaves out {wanted} of {source}, which is the target: name another one with target")
    if dropped:
        notes.append(f"Left out, as drop says: {', '.join(map(str, dropped))}.")
    features = [column for column in columns if column is not wanted and column not in dropped]
    if has_header and _is_unnamed(columns[0]) and columns[0] in features:
        _check_index(source, columns[0])
        notes.append("The first column has no name and was left out as an index.")
        features.remove(columns[0])
    if not features:
        raise InputError(f"{source} has no feature beside {wanted}: at least 2 columns are needed")
    return wanted, features, notes


def _dropped(source: Path, columns: Sequence[Column], drop: Sequence[str | int]) -> list[Column]:
    """Return the columns that are left out, in the order of the file."""
    names = {column.name for column in columns}
    wanted: list[str | int] = []
    for one in drop:
        # If the whole string is a name, its commas do not separate names.
        several = isinstance(one, str) and one not in names
        wanted.extend([part.strip() for part in str(one).split(",")] if several else [one])
    found = [_column(source, columns, "drop", one) for one in wanted]
    return [column for column in columns if column in found]


def _column(source: Path, columns: Sequence[Column], argument: str, value: str | int) -> Column:
    """Return the column whose name or position is the value of an argument."""
    names = [column.name for column in columns]
    by_number = {column.position: column for column in columns}
    named = names.count(str(value))
    if named > 1:
        raise InputError(f"{argument}={value!r} is the name of {named} columns of {source}: give a position from 0 on")
    by_name = columns[names.index(str(value))] if named else None
    if isinstance(value, int):
        position = value if value >= 0 else len(columns) + value
        by_position = by_number.get(position) if value >= 0 else dict(enumerate(columns)).get(position)
        if by_name is not None and by_position is not None and by_name is not by_position:
            raise InputError(
                f"{argument}={value} is the position of {by_position} and the name of another one of {source}: give "
                f"the name in quotes, {argument}='{value}', or the position {by_name.position}"
            )
        column = by_position or by_name
        if column is None:
            raise InputError(f"{argument}={value}: {source} has {len(columns)} columns")
        return column
    if by_name is not None:
        return by_name
    known = [name for name in names if name]
    if not known:
        raise InputError(f"{argument}={value!r}: {source} has no header; give a position, -1 for the last column")
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    raise InputError(f"{argument}={value!r} is no column of {source}: {hint}columns: {shown}")


def _is_unnamed(column: Column) -> bool:
    return column.name is None or column.name.startswith(UNNAMED)


def _check_index(source: Path, column: Column) -> None:
    """Raise InputError unless a column without a name can be an index.

    An index has different words or different whole numbers.
    """
    values = [cell for cell in column.cells if WHOLE.fullmatch(cell) or not is_number(cell)]
    if len(set(values)) < len(column.cells):
        raise InputError(
            f"{source}: the first column has no name, and its values are no index, such as {column.cells[0]!r}: name it"
        )


# -- numbers -------------------------------------------------------------------------------------------------


def _has_decimal_commas(source: Path, columns: Sequence[Column]) -> bool:
    """Return whether commas in cells are decimal signs.

    Raise InputError if they may separate thousands.
    """
    found: list[tuple[Column, str]] = []
    for column in columns:
        if column.floats is not None:
            continue
        odd = [cell for cell in column.cells if not is_number(cell) and not is_missing(cell)]
        if odd and all(WITH_COMMA.fullmatch(cell) for cell in odd):
            found.extend((column, cell) for cell in odd)
    if found and all(THOUSANDS.fullmatch(cell) for _, cell in found):
        column, cell = found[0]
        raise InputError(
            f"{source}: {column} holds {cell!r}, whose comma may be a decimal sign or separate thousands: give "
            "decimal=comma, or remove the commas"
        )
    return bool(found)


def _check_commas(source: Path, column: Column, lines: Sequence[int]) -> None:
    """Raise InputError for a number with several commas, or with a point."""
    for index, cell in enumerate(column.cells):
        # If commas are decimal signs, a point may separate thousands.
        if may_be_number(cell) and (cell.count(",") > 1 or "." in cell):
            raise InputError(
                f"{source}: {column} has {cell!r} in line {lines[index]}, where commas are decimal signs: write all "
                "numbers of the file alike"
            )


def _feature(source: Path, column: Column, lines: Sequence[int]) -> np.ndarray:
    values = column.floats
    if values is not None:
        return values
    odd = [index for index, cell in enumerate(column.cells) if not is_number(cell)]
    empty = [index for index in odd if is_missing(column.cells[index])]
    if not empty and not any(map(may_be_number, column.cells)):
        raise InputError(
            f"{source}: {column} holds words, such as {column.cells[odd[0]]!r} in line {lines[odd[0]]}, and features "
            "must be numbers. Encode them:\n    import pandas as pd\n"
            f"    table = pd.get_dummies(pd.read_csv(...), columns=[{column.name or column.position!r}], dtype=float)\n"
            f"or leave the column out, drop={column.name or column.position!r}"
        )
    first = next((index for index in odd if index not in set(empty)), None)
    if first is not None:
        raise InputError(f"{source}: {column} is not a number in line {lines[first]}: {column.cells[first]!r}")
    raise InputError(_empty_words(source, column, empty, lines))


def _empty_words(source: Path, column: Column, empty: Sequence[int], lines: Sequence[int]) -> str:
    word = column.cells[empty[0]]
    what = f"is missing ({word!r})" if word else "is empty"
    return (
        f"{source}: {column} {what} in {len(empty)} rows, first in line {lines[empty[0]]}; fill them or leave the rows "
        "out"
    )


def _target(source: Path, column: Column, lines: Sequence[int]) -> np.ndarray:
    """Return the targets as numbers if all cells are numbers, and as words otherwise."""
    values = column.floats
    if values is not None:
        return values.astype(np.int64) if all(map(WHOLE.fullmatch, column.cells)) and _fit(values) else values
    empty = [index for index, cell in enumerate(column.cells) if not cell]
    missing = [index for index, cell in enumerate(column.cells) if is_missing(cell)]
    numbers = sum(map(is_number, column.cells))
    # Among numbers, NA is a missing number. Among words, it is a word.
    if empty or (missing and 0 < numbers == len(column.cells) - len(missing)):
        raise InputError(_empty_words(source, column, empty or missing, lines))
    return np.array(column.cells)


def _fit(values: np.ndarray) -> bool:
    return bool(np.abs(values).max(initial=0.0) < 2.0**53)


def _target_notes(column: Column, y: np.ndarray) -> list[str]:
    words = sorted({cell for cell in column.cells if is_missing(cell)}) if y.dtype.kind == "U" else []
    listed = ", ".join(map(repr, words))
    return [f"The target's words {listed} were taken as classes, not as missing."] if words else []


def _index_notes(features: Sequence[Column], X: np.ndarray) -> list[str]:
    """Return a note on each feature that may be an index: whole numbers that are all different."""
    n, notes = len(X), []
    for column, values in zip(features, X.T, strict=True):
        different = len(np.unique(values)) == n and (values == np.round(values)).all()
        counts = n > 2 and values.max() - values.min() == n - 1
        if different and (counts or n >= INDEX_ROWS):
            way = f"drop={column.name or column.position!r} leaves it out."
            notes.append(f"The feature {column} has another whole number in each row; is it an index? {way}")
    return notes


def has_words_and_numbers(y: np.ndarray) -> tuple[Any, Any] | None:
    """Return a number and a word of the targets if they contain both, else None."""
    if y.dtype.kind != "U":
        return None
    numbers = [cell for cell in y.tolist() if is_number(cell)]
    words = [cell for cell in y.tolist() if not is_number(cell)]
    return (numbers[0], words[0]) if numbers and words else None
