"""The commands `convexnn-bench report` and `merge`, about records."""

from pathlib import Path
from typing import Annotated

import typer

from convexnn_bench.cli.common import alone, plain_errors, wide_console
from convexnn_bench.cli.regularisation import RECORD, report_path


def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a campaign, or of `path --out`.")],
    csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV, and make nothing else.")] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Print the table for LaTeX (booktabs), and make nothing else.")
    ] = False,
) -> None:
    """Make tables, figures and a page from a campaign's records: DIR/report.html and DIR/figures.

    In a folder of `convexnn-bench path --out DIR` it prints the table of the path and draws DIR/path.png.

    With --csv or --latex only the table is written, to standard output: report DIR --csv > table.csv. The exit code is
    0, 2 if the folder holds no records, or 1 if it cannot be written to or a bound is wrong.
    """
    alone("report")
    with plain_errors():
        from convexnn_bench.errors import InputError
        from convexnn_bench.report import make_report

        if csv and latex:
            raise InputError("--csv and --latex both write to standard output: give one of them")
        if (Path(folder) / RECORD).is_file() and not (Path(folder) / "records.jsonl").is_file():
            report_path(Path(folder), csv, latex)
            return
        if csv or latex:
            _print_table(Path(folder), "csv" if csv else "latex")
            return
        sound = make_report(Path(folder), wide_console())
    raise typer.Exit(0 if sound else 1)


def _print_table(folder: Path, form: str) -> None:
    from convexnn_bench.report import read_folder, table_text

    records, complaints = read_folder(folder)
    for complaint in complaints:
        typer.echo(f"warning: {complaint}", err=True)
    typer.echo(table_text(records, form), nl=False)


def merge(
    folders: Annotated[
        list[str], typer.Argument(help="Folders with records.jsonl, such as those of several machines.")
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the result; records in it are merged too.")],
) -> None:
    """Merge the records of several folders into one record for each cell.

    Of several records of one cell, one that neither crashed nor failed is preferred, and then the latest.
    """
    alone("merge")
    with plain_errors():
        from convexnn_bench.records import merge as merge_records
        from convexnn_bench.report import counted

        records, complaints = merge_records(folders, out)
        for complaint in complaints:
            typer.echo(f"warning: {complaint}", err=True)
        typer.echo(f"{counted(len(records), 'record')} in {Path(out) / 'records.jsonl'} and records.parquet")
