"""`convexnn-bench report`: tables in the terminal, figures and the page in the campaign's folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from convexnn_bench.errors import InputError
from convexnn_bench.harness.records import Record, RecordFile
from convexnn_bench.report.derived import gaps_of, violations
from convexnn_bench.report.figures import FIGURES, save_all
from convexnn_bench.report.ladder import print_ladder
from convexnn_bench.report.page import write_page
from convexnn_bench.report.tables import group_by_problem, print_results
from convexnn_bench.report.time_to_gap import rung_name
from convexnn_bench.terminal import progress

if TYPE_CHECKING:
    from rich.console import Console

FEW = 40  # cells that are told one by one


def read_folder(folder: Path) -> tuple[list[Record], list[str]]:
    """(records, complaints about lines that are none). Raises InputError where there are no records."""
    path = folder / "records.jsonl"
    if not path.is_file():
        where = "there is no records.jsonl in it" if folder.is_dir() else "it is no folder"
        raise InputError(f"{str(folder)!r} cannot be reported on, {where}: run a campaign with --out {folder} first")
    found, complaints = RecordFile(path).read()
    if not found:
        raise InputError(f"{path} holds no whole record: run the campaign again with --out {folder}")
    return list(found.values()), complaints


def make_report(folder: Path, console: "Console") -> Path:
    """Print the tables, write `folder`/figures and `folder`/report.html, and return the latter.

    A campaign with several draws of its problems, or many cells, is told by medians; another one cell by cell. Raises
    InputError where there are no records, OSError where the folder cannot be written to.
    """
    records, complaints = read_folder(folder)
    draws = len(group_by_problem(records)) > len({rung_name(record) for record in records})
    if draws or len({record["seed"] for record in records}) > 1 or len(records) > FEW:
        print_ladder(records, console, gaps_of(records))
    else:
        print_results(records, console)
    for line in complaints:
        console.print(f"warning: {line}", soft_wrap=True)
    for line in violations(records):
        console.print(f"ERROR: a certificate is wrong: {line}", style="bold red", soft_wrap=True)
    drawn = []
    with progress("drawing", total=len(FIGURES) + 1) as update:
        for one, paths in save_all(records, folder / "figures"):
            drawn.append(one)
            update(len(drawn), one.title)
            where = ", ".join(str(path) for path in paths if path.suffix == ".png")
            told = f"{where} and .svg" if paths else f"not drawn: {one.missing}"
            console.print(f"{one.title}: {told}", soft_wrap=True)
        page = write_page(records, folder / "report.html", drawn, complaints)
    console.print(f"page: {page}", soft_wrap=True)
    return page
