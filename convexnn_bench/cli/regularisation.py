"""The command `convexnn-bench path`: one problem at all weight decays."""

from pathlib import Path
from typing import Annotated, Any

import typer

from convexnn_bench.cli.common import PluginsDir, SolversDir, alone, plain_errors, wide_console

RECORD = "path.json"  # what `path --out` writes and `report` reads
KINDS = {".json": "record", ".csv": "table", ".png": "figure"}


def path(
    dataset: Annotated[
        str,
        typer.Option(
            help="Data set with its parameters and those of the problem, such as 'spiral[n=60,loss=cross_entropy]'."
        ),
    ],
    solver: Annotated[
        str, typer.Option(help="Solver of every solve, such as 'bm_newton' or 'fista'; 'auto' chooses the quickest.")
    ] = "auto",
    smallest: Annotated[float, typer.Option(help="Smallest weight decay as a fraction of beta_max.")] = 1e-3,
    tolerance: Annotated[
        float, typer.Option(help="Relative gap that must hold at every weight decay of the interval.")
    ] = 1e-3,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time after which the path so far is returned.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the solves.")] = 0,
    device: Annotated[str, typer.Option(help="'cpu' or 'cuda'.")] = "cpu",
    solvers_dir: SolversDir = None,
    plugins_dir: PluginsDir = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder for path.json, path.csv and path.png.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Solve one problem at all weight decays, with a proven gap at each.

    The weight decays are those between a fraction of beta_max and beta_max.

    The table has a row for each certified network. The gap also holds at weight decays between the rows. The exit code
    is 0, 1 if the tolerance was not reached, 2 for bad arguments, and 130 after Ctrl-C, which prints the path so far.
    """
    alone("path")
    with plain_errors():
        from json import loads

        from convexnn_bench.datasets import make_problem
        from convexnn_bench.plugins import add_plugins
        from convexnn_bench.records import to_json
        from convexnn_bench.regularisation import path as solve_path

        add_plugins(solvers_dir=solvers_dir, plugins_dir=plugins_dir)
        problem = make_problem(dataset)
        found = solve_path(problem, smallest, tolerance, solver, time_limit, seed=seed, device=device)
        text = to_json({"dataset": dataset, **found.to_record()})
        record = loads(text)  # as `report` reads it, with None for numbers that are not known
        files = [] if out is None else _write(record, Path(out))
        if json:
            typer.echo(text)
        else:
            _print(record, files)
    if found.status != "gap_reached":
        raise typer.Exit(130 if found.status == "interrupted" else 1)


def report_path(folder: Path, as_csv: bool, as_latex: bool) -> None:
    """Print the table of a path that --out has written to a folder, and draw its figure again."""
    import json

    from convexnn_bench.errors import InputError
    from convexnn_bench.report import csv_text

    if as_latex:
        raise InputError(f"--latex is for the records of campaigns, and {folder} holds a path: use --csv")
    source = folder / RECORD
    try:
        record = json.loads(source.read_text(encoding="utf-8"))
        rows = record["networks"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source} is not the record of a path: run convexnn-bench path --out {folder}") from error
    if as_csv:
        typer.echo(csv_text(rows), nl=False)
    else:
        _print(record, _draw(record, folder))


def _write(record: dict[str, Any], folder: Path) -> list[Path]:
    """Write the record, the table and the figure, and return their files."""
    from convexnn_bench.records import to_json
    from convexnn_bench.report import write_csv
    from convexnn_bench.storage import whole_file

    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / RECORD) as partial:
        partial.write_text(to_json(record) + "\n", encoding="utf-8")
    return [folder / RECORD, write_csv(record["networks"], folder / "path.csv"), *_draw(record, folder)]


def _draw(record: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the figure from the numbers of the record.

    Without matplotlib print a warning and draw nothing.
    """
    from convexnn_bench.storage import whole_file

    try:
        from convexnn_bench.regularisation import record_figure

        figure = record_figure(record)
    except ImportError as error:
        why = f"matplotlib cannot be imported: pip install matplotlib ({error})"
        typer.echo(f"warning: the figure was not drawn, because {why}", err=True)
        return []
    with whole_file(folder / "path.png") as partial:
        figure.savefig(partial, dpi=150)
    return [folder / "path.png"]


def _print(record: dict[str, Any], files: list[Path]) -> None:
    from convexnn_bench.report import COLUMNS, FORMATS, plain_table

    console, rows = wide_console(140), record["networks"]
    table = plain_table()
    formats = {"beta": "{:.5g}".format, "active_neurons": _count, **FORMATS}
    shown = [name for name in rows[0] if name in formats]
    for name in shown:
        table.add_column(COLUMNS.get(name, name.replace("_", " ")), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(formats[name](row[name]) for name in shown))
    console.print(table)
    low, high = record["interval"]
    console.print(
        f"{record['dataset']}: beta from {low:.5g} to {high:.5g} by {record['solver']}, {record['solves']} solves, "
        f"{record['seconds']:.3g} s",
        soft_wrap=True,
        markup=False,
    )
    console.print(f"{record['status']}: {record['reason']} ({record['scope']} patterns)", soft_wrap=True, markup=False)
    for file in files:
        console.print(f"{KINDS[file.suffix]:<7} {file}", soft_wrap=True)


def _count(value: float | None) -> str:
    """Write a count that may be unknown."""
    return "-" if value is None else f"{value:.0f}"
