"""Cut a text file into the rows of a table.

This takes its encoding, its separator, and the comments at its top.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from convexnn_bench.datasets._cells import Row, may_be_number
from convexnn_bench.errors import InputError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " "}
SAMPLE_LINES = 200  # number of lines from which separator and header are recognised
SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?[ \t]*(?=[\r\n])', re.IGNORECASE)  # up to the end of the line


def text_of(source: Path) -> str:
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


def without_separator_line(text: str) -> tuple[str, str | None]:
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


def rows_of(source: Path, text: str, separator: str) -> tuple[list[Row], list[str]]:
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


def separator_of(source: Path, text: str) -> str:
    """Return the separator that gives all of the first lines the same number of cells, at least two.

    Tabs and semicolons are preferred, since commas and blanks between them belong to the cells. Raise InputError if
    commas and blanks fit equally well.
    """
    start = "".join(text.splitlines(keepends=True)[:SAMPLE_LINES])
    first_lines, shares = {}, {}
    for separator in SEPARATORS.values():
        try:
            rows = [row for row in _split(start, separator) if not row.cells[0].startswith("#")]
        except csv.Error:  # `rows_of` raises this error, with its line, if no other separator fits
            first_lines[separator] = len(start.splitlines()[0].split(separator))
            continue
        first_lines[separator] = len(rows[0].cells) if rows else 0
        if len({len(row.cells) for row in rows}) == 1 and first_lines[separator] > 1:
            cells = [cell for row in rows for cell in row.cells]
            shares[separator] = sum(map(may_be_number, cells)) / len(cells)
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


def check_lengths(source: Path, rows: Sequence[Row], separator: str) -> None:
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
            f"{shown(row, separator)}{hint}"
        )


def shown(row: Row, separator: str) -> str:
    return _short(separator.join(row.cells))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
