"""Read a table from a text file: separator, header, index column, numbers and the column of targets.

Every line must have the same number of fields. A file that can be read in one way only is read, and a note says how. A
file that can be read in several ways is refused, and the error names the parameter that decides.
"""

import csv
import difflib
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convexnn_bench.errors import InputError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " "}
INDEX_ROWS = 20  # number of rows from which a column of different whole numbers gets a note that it may be an index
SAMPLE_LINES = 200  # number of lines from which separator and header are recognised
MISSING = ("", "?", "na", "n/a", "nan", "null", "none", "-")  # words for a missing number, in any case
UNNAMED = "Unnamed: "  # prefix of the name that pandas gives to a column without a name
YEARS = range(1800, 2201)  # whole numbers that may be names of columns as well as values
WHOLE = re.compile(r"[+-]?\d+")
WITH_COMMA = re.compile(r"[+-]?\d*(,\d+)+([eE][+-]?\d+)?")
SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?[ \t]*(?=[\r\n])', re.IGNORECASE)  # up to the end of the line
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


@dataclass(frozen=True)
class Row:
    """The cells of a line, without blanks around them, and the line's number from 1 on."""

    line: int
    cells: list[str]


@dataclass(eq=False)
class Column:
    """A column without its header. position: its number, counted from 0. name: None if the file has no name for it."""

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
    text, named = _without_separator_line(_text(source))
    chosen = SEPARATORS.get(separator) or named or _separator(source, text)
    rows, notes = _rows(source, text, chosen)
    if named:
        notes.append(f"The first line, sep={named}, names the separator.")
    if chosen == " " and separator == "auto":
        notes.append("Columns are separated by any number of blanks or tabs.")
    _check_lengths(source, rows, chosen)
    # 2. Separate the header, the target, an index and the features.
    columns, lines, said = _columns(source, rows, header, target)
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


# -- text, lines and cells -----------------------------------------------------------------------------------


def _text(source: Path) -> str:
    content = source.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{source} is not text in UTF-8, because of the byte {content[error.start]:#04x} in line {line}: save it "
            "as UTF-8"
        ) from error
    if "\0" in text:
        raise InputError(f"{source} is no text file: it holds zero bytes")
    if not text.strip():
        raise InputError(f"{source} is empty: no readable CSV file")
    return text


def _without_separator_line(text: str) -> tuple[str, str | None]:
    """Return the text without Excel's first line "sep=;", and the separator that the line names."""
    found = SEPARATOR_LINE.match(text)
    return (text, None) if found is None else (text[found.end() :], found[1])


def _split(text: str, separator: str) -> Iterator[Row]:
    """Yield the lines that are not blank, cut into cells."""
    lines = io.StringIO(text.replace("\r\n", "\n").replace("\r", "\n"), newline="")
    if separator == " ":
        # Any number of blanks and tabs separates two cells. Those at the ends of a line do not count.
        reader = csv.reader(
            (line.strip().replace("\t", " ") for line in lines), delimiter=" ", skipinitialspace=True, strict=True
        )
    else:
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    for cells in reader:
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield Row(reader.line_num, [cell.strip() for cell in cells])


def _rows(source: Path, text: str, separator: str) -> tuple[list[Row], list[str]]:
    """Return the rows without the comments at the top, and notes."""
    rows: list[Row] = []
    try:
        rows.extend(_split(text, separator))
    except csv.Error as error:
        last = rows[-1].line + 1 if rows else 1
        raise InputError(f"{source} is no readable CSV file, from line {last} on: {error}") from error
    first = next((index for index, row in enumerate(rows) if not row.cells[0].startswith("#")), len(rows))
    if first == len(rows):
        raise InputError(f"{source} holds comments alone: no readable CSV file")
    notes = [f"{first} line{'s' * (first > 1)} at the top beginning with # left out as comments."] if first else []
    return rows[first:], notes


def _separator(source: Path, text: str) -> str:
    """Return the separator that gives all of the first lines the same number of cells, at least two.

    Tabs and semicolons are preferred, since commas and blanks between them belong to the cells. Raise InputError if
    commas and blanks fit equally well.
    """
    start = "".join(text.splitlines(keepends=True)[:SAMPLE_LINES])
    first_lines, shares = {}, {}
    for separator in SEPARATORS.values():
        try:
            rows = [row for row in _split(start, separator) if not row.cells[0].startswith("#")]
        except csv.Error:  # `_rows` raises this error, with its line, if no other separator fits
            first_lines[separator] = len(start.splitlines()[0].split(separator))
            continue
        first_lines[separator] = len(rows[0].cells) if rows else 0
        if len({len(row.cells) for row in rows}) == 1 and first_lines[separator] > 1:
            cells = [cell for row in rows for cell in row.cells]
            shares[separator] = sum(map(_may_be_number, cells)) / len(cells)
    for separator in ("\t", ";"):
        if separator in shares:
            return separator
    if "," in shares and shares.get(" ") == shares[","]:
        raise InputError(
            f"{source}: columns may be separated by commas or by blanks: {_short(start.splitlines()[0])}; give "
            "separator=comma or separator=space"
        )
    if shares:
        return max(shares, key=lambda separator: shares[separator])
    # If no separator fits all lines, return that of the first line, so that the error names the line that differs.
    return max(first_lines, key=lambda separator: first_lines[separator])


def _check_lengths(source: Path, rows: Sequence[Row], separator: str) -> None:
    expected = len(rows[0].cells)
    for row in rows:
        if len(row.cells) == expected:
            continue
        hint = ""
        if len(row.cells) == expected + 1 and not row.cells[-1]:
            hint = "; it ends in a separator, which the first one does not"
        elif separator == "," and len(row.cells) > expected:
            hint = (
                "; if commas belong to its numbers, write 250000 for 250,000, and 1.5 for 1,5 or separate the columns "
                "by semicolons"
            )
        raise InputError(
            f"{source}: line {row.line} has {len(row.cells)} fields where line {rows[0].line} has {expected}: "
            f"{_shown(row, separator)}{hint}"
        )


def _shown(row: Row, separator: str) -> str:
    return _short(separator.join(row.cells))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


# -- header, target and index --------------------------------------------------------------------------------


def _columns(
    source: Path, rows: Sequence[Row], header: str, target: str | int
) -> tuple[list[Column], list[int], list[str]]:
    """Return the columns, the line numbers of their cells, and a note on the header if `header` is "auto"."""
    first, notes = rows[0], []
    has_header = header == "yes"
    if header == "auto":
        has_header = _has_header(source, rows, target)
        notes = [
            f"Line {first.line} was read as the header: {_shown(first, ',')}."
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


def _is_number(cell: str) -> bool:
    # float also accepts 1_000, inf and nan, which are not numbers of a table.
    try:
        return math.isfinite(float(cell)) and "_" not in cell
    except ValueError:
        return False


def _may_be_number(cell: str) -> bool:
    return _is_number(cell) or WITH_COMMA.fullmatch(cell) is not None


def _is_missing(cell: str) -> bool:
    return cell.lower() in MISSING


def _has_header(source: Path, rows: Sequence[Row], target: str | int) -> bool:
    """Return whether the first line holds names. Raise InputError if it may also be a sample."""
    first = ["" if cell.startswith(UNNAMED) else cell for cell in rows[0].cells]
    rest = rows[1 : SAMPLE_LINES + 1]
    columns = list(zip(*(row.cells for row in rest), strict=True)) or [()] * len(first)
    numbers = [index for index, cell in enumerate(first) if _may_be_number(cell)]
    numeric = [index for index, cells in enumerate(columns) if _is_numeric(cells)]
    if not numbers:
        # A line of words for missing numbers is a sample. Beside another name, such a word is a name: Na is sodium.
        named = any(first[index] and not _is_missing(first[index]) for index in numeric)
        return named or not any(first[index] for index in numeric)
    if str(target) in first and not (isinstance(target, int) and -len(first) <= target < len(first)):
        return True  # the target is named by the first line
    names = [index for index, cell in enumerate(first) if not _may_be_number(cell) and not _is_missing(cell)]
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
    return any(map(_may_be_number, cells)) and all(_may_be_number(cell) or _is_missing(cell) for cell in cells)


def _has_years(cells: Sequence[str]) -> bool:
    return any(WHOLE.fullmatch(cell) and int(cell) in YEARS for cell in cells)


def _counts_columns(source: Path, row: Row, columns: Sequence[Sequence[str]]) -> bool:
    """Return True: a first line 0, 1, 2, ... is a header. Raise InputError if the cells below are such numbers too."""
    below = [cell for cells in columns for cell in cells]
    whole = all(WHOLE.fullmatch(cell) for cell in below)
    if whole and (len(row.cells) == 2 or all(0 <= int(cell) < len(row.cells) for cell in below)):
        raise _undecided(source, row)
    return True


def _undecided(source: Path, row: Row) -> InputError:
    return InputError(
        f"{source}: line {row.line} may be a header or a sample: {_shown(row, ',')}; give header=yes or header=no"
    )


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
    """Raise InputError unless a column without a name can be an index, with different words or whole numbers."""
    values = [cell for cell in column.cells if WHOLE.fullmatch(cell) or not _is_number(cell)]
    if len(set(values)) < len(column.cells):
        raise InputError(
            f"{source}: the first column has no name, and its values are no index, such as {column.cells[0]!r}: name it"
        )


# -- numbers -------------------------------------------------------------------------------------------------


def _has_decimal_commas(source: Path, columns: Sequence[Column]) -> bool:
    """Return whether commas in cells are decimal signs. Raise InputError if they may separate thousands."""
    found: list[tuple[Column, str]] = []
    for column in columns:
        if column.floats is not None:
            continue
        odd = [cell for cell in column.cells if not _is_number(cell) and not _is_missing(cell)]
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
        if _may_be_number(cell) and (cell.count(",") > 1 or "." in cell):
            raise InputError(
                f"{source}: {column} has {cell!r} in line {lines[index]}, where commas are decimal signs: write all "
                "numbers of the file alike"
            )


def _feature(source: Path, column: Column, lines: Sequence[int]) -> np.ndarray:
    values = column.floats
    if values is not None:
        return values
    odd = [index for index, cell in enumerate(column.cells) if not _is_number(cell)]
    empty = [index for index in odd if _is_missing(column.cells[index])]
    if not empty and not any(map(_may_be_number, column.cells)):
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
    missing = [index for index, cell in enumerate(column.cells) if _is_missing(cell)]
    numbers = sum(map(_is_number, column.cells))
    # Among numbers, NA is a missing number. Among words, it is a word.
    if empty or (missing and 0 < numbers == len(column.cells) - len(missing)):
        raise InputError(_empty_words(source, column, empty or missing, lines))
    return np.array(column.cells)


def _fit(values: np.ndarray) -> bool:
    return bool(np.abs(values).max(initial=0.0) < 2.0**53)


def _target_notes(column: Column, y: np.ndarray) -> list[str]:
    words = sorted({cell for cell in column.cells if _is_missing(cell)}) if y.dtype.kind == "U" else []
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
    numbers = [cell for cell in y.tolist() if _is_number(cell)]
    words = [cell for cell in y.tolist() if not _is_number(cell)]
    return (numbers[0], words[0]) if numbers and words else None
