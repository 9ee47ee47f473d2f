"""The command `convexnn-bench run`: a campaign."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convexnn_bench.cli.common import (
    PluginsDir,
    SolversDir,
    alone,
    plain_errors,
    signals_interrupt,
    wide_console,
    words,
)
from convexnn_bench.cli.job import Job, job_of

if TYPE_CHECKING:
    from convexnn_bench.harness import BaseExecutor, CampaignOutcome


def run(
    campaign: Annotated[
        str | None,
        typer.Argument(
            help="A campaign file (.toml), or the name of one that ships with the package; quickstart if not given.",
            show_default=False,
        ),
    ] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(help="Solver to run instead of the campaign's, such as 'bm_lbfgs[m=[1,2]]'. Repeatable."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Data set to use instead of the campaign's, with its parameters and those of the problem, "
            "as 'spiral[n=150,beta_fraction=0.01]'. Repeatable."
        ),
    ] = None,
    solvers_dir: SolversDir = None,
    plugins_dir: PluginsDir = None,
    time_limit: Annotated[float | None, typer.Option(metavar="SECONDS", help="Solving time of every cell.")] = None,
    gap: Annotated[float | None, typer.Option(help="Certified relative gap at which a solver is stopped.")] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Steps after which an iterative solver is stopped. With a time limit that is never reached a cell "
            "gives the same numbers on every run.",
        ),
    ] = None,
    verified: Annotated[
        bool, typer.Option("--verified", help="Verify the rounding of every bound, as cnn.certify(verified=True) does.")
    ] = False,
    seeds: Annotated[int | None, typer.Option(metavar="K", help="Number of seeds of every solver.")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for records and figures. By default results/CAMPAIGN; with --solver or --dataset a folder "
            "that is named after them, which the same command finds again.",
        ),
    ] = None,
    rerun: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS",
            help="Run cells again if their record has this status, such as 'time_limit'; 'failed' includes those that "
            "crashed. Repeatable.",
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            metavar="E",
            help="Where cells run: local, one at a time; dask, side by side on this machine or on the cluster at "
            "'dask[address=tcp://host:8786]'; slurm, one job per cell, as 'slurm[partition=cpu]'.",
        ),
    ] = "local",
    workers: Annotated[int | None, typer.Option(metavar="K", help="Cells that run at the same time.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the cells and how long they may take, and run nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per record, and nothing else.")] = False,
) -> None:
    """Run a campaign: every data set with every solver.

    Each cell has a process of its own, and runs one at a time by default.

    Cells that have a record in the output folder already are not run again. The exit code is 0 if every cell ended in a
    definite status, 1 if one crashed or failed, and 2 for bad arguments.
    """
    alone("run")
    with plain_errors():
        changes = {
            "solvers": solver or None, "datasets": dataset or None,
            "solvers_dir": solvers_dir, "plugins_dir": plugins_dir,
            "time_limit": time_limit, "gap": gap, "iterations": iterations, "seeds": seeds,
            "verified": verified or None,
        }  # fmt: skip
        wanted = {key: value for key, value in changes.items() if value is not None}
        job = job_of(campaign, wanted, out, rerun or [], dry_run)
        # An executor that cannot run here is refused before the campaign is planned.
        place = _place(executor, workers)
        if dry_run:
            _print_forecast(job, json)
            return
        with _resumable(job.folder):
            finished = _run(job, place, json)
            if finished.complaint:
                typer.echo(f"warning: {finished.complaint}", err=True)
            if not json:
                _show(finished, job.campaign.gap, job.folder)
    raise typer.Exit(_exit_code(finished))


def _place(executor: str, workers: int | None) -> "BaseExecutor":
    from convexnn_bench.plugins import EXECUTORS

    return EXECUTORS.make(executor, **({} if workers is None else {"workers": workers}))


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Run a campaign in the block. If it cannot be finished, one line says why, what is kept and how to go on."""
    from convexnn_bench.errors import ExecutorError

    try:
        with signals_interrupt():
            yield
    except KeyboardInterrupt:
        kept = f"finished cells are kept in {folder}" if folder.is_dir() else "no cell has ended yet"
        # A terminal shows ^C on the line where the cursor is.
        typer.echo("\n" * sys.stderr.isatty() + f"interrupted: {kept}; the same command goes on", err=True)
        raise typer.Exit(130) from None
    except (ExecutorError, OSError) as error:
        why = words(error) if isinstance(error, OSError) else str(error)
        kept = f"; finished cells are kept in {folder}, and the same command goes on" if folder.is_dir() else ""
        typer.echo(f"error: {why}{kept}", err=True)
        raise typer.Exit(1) from error


def _exit_code(finished: "CampaignOutcome") -> int:
    from convexnn_bench.records import BAD_STATUSES

    return int(any(record["status"] in BAD_STATUSES for record in finished.records))


def _print_forecast(job: Job, json: bool) -> None:
    from convexnn_bench.harness import forecast_cells
    from convexnn_bench.records import to_json

    forecasts = forecast_cells(job.campaign, job.folder, job.source, job.again)
    if json:
        for one in forecasts:
            cell = {"problem_name": one.cell.problem_name, "solver_name": one.cell.solver_name, "seed": one.cell.seed}
            expected = {"key": one.cell.key, "known": one.known, "seconds": one.seconds, "unavailable": one.unavailable}
            typer.echo(to_json({**cell, "time_limit": one.limit, **expected}))
        return
    from convexnn_bench.cli.forecast import print_forecast

    print_forecast(forecasts, wide_console())


def _run(job: Job, place: "BaseExecutor", json: bool) -> "CampaignOutcome":
    from convexnn_bench.cli.progress import CampaignProgress
    from convexnn_bench.harness import run_campaign
    from convexnn_bench.records import Record, to_json

    class JsonLines(CampaignProgress):
        """Prints every record as it comes."""

        def finished(self, record: Record) -> None:
            super().finished(record)
            # Each line is flushed, so that a program that reads the pipe sees a record as soon as it exists.
            sys.stdout.write(to_json(record) + "\n")
            sys.stdout.flush()

    with (JsonLines if json else CampaignProgress)(quiet=json) as progress:
        return run_campaign(job.campaign, job.folder, progress, job.source, job.again, place)


def _show(finished: "CampaignOutcome", gap: float, folder: Path) -> None:
    """Print tables, and draw the figure beside the records; a line on stderr says why it was not drawn.

    If nothing was run, print one line with the command that shows the tables instead, and draw the figure only if it
    is missing.
    """
    from convexnn_bench.report import count_statuses, counted, print_failures, print_results, save_gap_figure

    console = wide_console()
    counts = ", ".join(f"{number} {status}" for status, number in count_statuses(finished.records).items())
    total = counted(len(finished.records), "cell")
    figure = folder / "gap_against_time.png"
    if finished.known == len(finished.records):
        print_failures(finished.records, folder, console)
        shown = f"convexnn-bench report {shlex.quote(str(folder))}"
        console.print(f"{total}: {counts}; all have records, and nothing was run. Tables: {shown}", soft_wrap=True)
        if figure.exists():
            return
    else:
        console.print()
        print_results(finished.records, console)
        print_failures(finished.records, folder, console)
        console.print(f"{total}: {counts}")
        files = ["records.jsonl"] if finished.complaint else ["records.jsonl", "records.parquet"]
        console.print(f"records  {', '.join(str(folder / name) for name in files)}", soft_wrap=True)
    try:
        # The figure is an extra: the records are on the disk, and a machine without matplotlib is no failure.
        picture = save_gap_figure(finished.records, figure, gap)
    except ImportError as error:
        why = f"matplotlib cannot be imported: pip install matplotlib ({error})"
        typer.echo(f"warning: the figure was not drawn, because {why}", err=True)
    else:
        console.print(f"figure   {picture}", soft_wrap=True)
        console.print(f"report   convexnn-bench report {shlex.quote(str(folder))}", soft_wrap=True)
