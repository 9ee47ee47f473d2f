"""What `convexnn-bench report` does.

It prints tables in the terminal, and writes figures and the page into the campaign's folder.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convexnn_bench.errors import InputError
from convexnn_bench.records import Record, RecordFile
from convexnn_bench.report.drawing_cache import Described, checksum, read_cache, write_cache
from convexnn_bench.report.failures import print_failures
from convexnn_bench.report.figures import FIGURES, Drawn, save_all
from convexnn_bench.report.formats import counted
from convexnn_bench.report.ladder import csv_rows, print_ladder, time_head, time_rows
from convexnn_bench.report.numbers import gaps_of, rung_name, solver_times, violations
from convexnn_bench.report.page import summary, write_page
from convexnn_bench.report.tables import cell_rows, cell_texts, group_by_problem, print_results
from convexnn_bench.report.writers import csv_text, latex_table
from convexnn_bench.terminal import progress

if TYPE_CHECKING:
    from rich.console import Console

FEW = 40  # cells up to which the terminal shows every cell in a row of its own


def read_folder(folder: Path) -> tuple[list[Record], list[str]]:
    """Return the whole records of a folder, and complaints about the others.

    Raise InputError if there are none.
    """
    path = folder / "records.jsonl"
    if not path.is_file():
        why = "it holds no records.jsonl" if folder.is_dir() else "it is not a folder"
        raise InputError(f"there are no records in {str(folder)!r}, {why}: run a campaign with --out {folder} first")
    records, complaints = RecordFile(path).read()
    if not records:
        raise InputError(f"{path} holds no whole record: run the campaign again with --out {folder}")
    return list(records.values()), complaints


def make_report(folder: Path, console: "Console") -> bool:
    """Print the tables, and write `folder`/figures and `folder`/report.html.

    Files that show these records already are left as they are.

    Returns
    -------
    bool
        False if a lower bound is above an objective of the same program, so that a certificate is wrong.

    Raises
    ------
    InputError
        If there are no records, or a package is missing.
    OSError
        If the folder cannot be written to.
    """
    records, complaints = read_folder(folder)
    key = checksum(records, complaints)
    figures = read_cache(folder, key)
    # 1. Print the tables. Missing packages are reported before, and not after minutes of drawing.
    if figures is None:
        _check_packages()
    _print_tables(records, console)
    print_failures(records, folder, console)
    for line in complaints:
        console.print(f"warning: {line}", soft_wrap=True)
    # 2. Compare the records with each other. A bound above an objective of the same program is a contradiction,
    # whatever solvers these come from.
    wrong = violations(records)
    for line in wrong:
        console.print(f"ERROR: a certificate is wrong: {line}", style="bold red", soft_wrap=True)
    # 3. Draw the figures and write the page, which says why a figure was not drawn.
    page = folder / "report.html"
    unchanged = figures is not None
    if figures is None:
        figures = _draw(records, folder, page, complaints)
        write_cache(folder, key, figures, page)
    for title, why_not, paths in figures:
        console.print(f"{title}: {_where(why_not, paths)}", soft_wrap=True)
    console.print(f"page: {page}{' (the records have not changed since it was made)' * unchanged}", soft_wrap=True)
    return not wrong


def _draw(records: Sequence[Record], folder: Path, page: Path, complaints: Sequence[str]) -> list[Described]:
    """Draw all figures and write the page; return what was drawn."""
    drawn: list[tuple[Drawn, list[Path]]] = []
    with progress("drawing", total=len(FIGURES) + 1) as update:
        for one, paths in save_all(records, folder / "figures"):
            drawn.append((one, paths))
            update(len(drawn), one.title)
        write_page(records, page, [one for one, _ in drawn], complaints)
    return [(one.title, one.missing, paths) for one, paths in drawn]


def table_text(records: Sequence[Record], form: str) -> str:
    """Return the table that a report prints as "csv" or "latex": cell by cell, or medians over draws."""
    if _is_ladder(records):
        gaps = gaps_of(records)
        times = solver_times(records, gaps)
        if form == "csv":
            return csv_text(csv_rows(times, gaps))
        return latex_table(time_head(times, gaps), time_rows(times, gaps))
    return csv_text(cell_rows(records)) if form == "csv" else latex_table(*cell_texts(records), words=2)


def _is_ladder(records: Sequence[Record]) -> bool:
    """Return whether the report shows medians.

    It does for several draws of problems, several seeds, or many cells.
    """
    # Problems that differ in their seeds alone are draws of one rung, and their cells belong in one row.
    draws = len(group_by_problem(records)) > len({rung_name(record) for record in records})
    return draws or len({record["seed"] for record in records}) > 1 or len(records) > FEW


def _check_packages() -> None:
    """Raise InputError if a package for figures and page cannot be imported.

    This is before anything is drawn.
    """
    for module in ("matplotlib", "jinja2", "vl_convert"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            needed = "matplotlib jinja2 vl-convert-python"
            raise InputError(
                f"a report needs {module}, which cannot be imported: pip install {needed} ({error})"
            ) from error


def _print_tables(records: Sequence[Record], console: "Console") -> None:
    """Print the summary, and tables.

    They show medians for several draws of problems or many cells, else cell by cell.
    """
    from rich.text import Text

    head = summary(records)
    counts = ", ".join(f"{number} {status}" for status, number in head["counts"].items())
    console.print(Text(f"{head['title']}: {counted(head['total'], 'cell')}, {counts}", style="bold"))
    for line in head["sentences"]:
        console.print(Text(line))
    console.print()
    if _is_ladder(records):
        print_ladder(records, console, gaps_of(records))
    else:
        print_results(records, console)


def _where(why_not: str | None, paths: Sequence[Path]) -> str:
    """Name the files of a figure in one line, or say why there are none."""
    if not paths:
        return f"not drawn: {why_not}"
    images = [path for path in paths if path.suffix == ".png"]
    further = f" and {len(images) - 1} more" if len(images) > 1 else ""
    return f"{images[0]}{further}, and .svg"
