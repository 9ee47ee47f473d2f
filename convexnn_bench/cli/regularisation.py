"""The command `convexnn-bench path`: one problem at all weight decays."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convexnn_bench.cli.common import PluginsDir, SolversDir, alone, plain_errors, wide_console

if TYPE_CHECKING:
    from convexnn_bench.regularisation import RegularisationPath


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
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder for path.csv and path.png.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Solve one problem at all weight decays between a fraction of beta_max and beta_max, with a proven gap at each.

    The table has a row for each certified network. The gap also holds at weight decays between the rows. The exit code
    is 0, 1 if the tolerance was not reached, 2 for bad arguments, and 130 after Ctrl-C, which prints the path so far.
    """
    alone("path")
    with plain_errors():
        from convexnn_bench.datasets import make_problem
        from convexnn_bench.plugins import add_plugins
        from convexnn_bench.records import to_json
        from convexnn_bench.regularisation import path as solve_path

        add_plugins(solvers_dir=solvers_dir, plugins_dir=plugins_dir)
        problem = make_problem(dataset)
        found = solve_path(problem, smallest, tolerance, solver, time_limit, seed=seed, device=device)
        rows = found.to_frame().to_dict("records")
        files = [] if out is None else _write(found, rows, Path(out))
        if json:
            about = ("solver", "status", "reason", "gap", "tolerance", "scope", "interval", "seconds")
            typer.echo(to_json({**{name: getattr(found, name) for name in about}, "networks": rows}))
        else:
            _print(found, rows, files)
    if found.status != "gap_reached":
        raise typer.Exit(130 if found.status == "interrupted" else 1)


def _write(found: "RegularisationPath", rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write the table and the figure, and return their files."""
    from convexnn_bench.report import write_csv
    from convexnn_bench.storage import whole_file

    folder.mkdir(parents=True, exist_ok=True)
    table = write_csv(rows, folder / "path.csv")
    try:
        # The command succeeds without matplotlib, and then draws no figure.
        figure = found.plot()
    except ImportError as error:
        why = f"matplotlib cannot be imported: pip install matplotlib ({error})"
        typer.echo(f"warning: the figure was not drawn, because {why}", err=True)
        return [table]
    with whole_file(folder / "path.png") as partial:
        figure.savefig(partial, dpi=150)
    return [table, folder / "path.png"]


def _print(found: "RegularisationPath", rows: list[dict[str, Any]], files: list[Path]) -> None:
    from convexnn_bench.report import COLUMNS, FORMATS, plain_table

    console = wide_console(140)
    table = plain_table()
    formats = {"beta": "{:.5g}".format, "active_neurons": "{:.0f}".format, **FORMATS}
    shown = [name for name in rows[0] if name in formats]
    for name in shown:
        table.add_column(COLUMNS.get(name, name.replace("_", " ")), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(formats[name](row[name]) for name in shown))
    console.print(table)
    console.print(f"{found.status}: {found.reason} ({found.scope} patterns, {found.seconds:.3g} s)", soft_wrap=True)
    for file in files:
        console.print(f"{'figure' if file.suffix == '.png' else 'table'}   {file}", soft_wrap=True)
