"""`convexnn-bench run`: a campaign."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convexnn_bench.cli.common import SolversDir, alone, plain_errors, terminated_is_interrupted, wide_console, words

if TYPE_CHECKING:
    from convexnn_bench.harness import BaseExecutor, Campaign, CampaignOutcome, Source


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
        typer.Option(help="Solver to run instead of the campaign's, as 'bm_lbfgs[m=[1,2]]'. Repeatable."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Data set to use instead of the campaign's, with its parameters and those of the problem, "
            "as 'spiral[n=150,beta_fraction=0.01]'. Repeatable."
        ),
    ] = None,
    solvers_dir: SolversDir = None,
    time_limit: Annotated[float | None, typer.Option(metavar="SECONDS", help="Solving time of every cell.")] = None,
    gap: Annotated[float | None, typer.Option(help="Certified relative gap at which a solver is stopped.")] = None,
    seeds: Annotated[int | None, typer.Option(metavar="K", help="Number of seeds of every solver.")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for records and figures. If not given: results/CAMPAIGN, and results/custom or "
            "results/CAMPAIGN-custom with solvers or data sets of your own.",
        ),
    ] = None,
    rerun: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS",
            help="Run cells again whose record has this status: 'failed' for those that crashed or failed, or any "
            "other status, such as 'time_limit'. Repeatable.",
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            metavar="E",
            help="Where cells run: local, one at a time; dask, side by side on this machine or on the cluster at "
            "'dask[address=tcp://host:8786]'; slurm, one job a cell, as 'slurm[partition=cpu]'.",
        ),
    ] = "local",
    workers: Annotated[int | None, typer.Option(metavar="K", help="Cells that run at the same time.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the cells and how long they may take, and run nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per record, and nothing else.")] = False,
) -> None:
    """Run a campaign: every data set with every solver, each cell in a process of its own, one at a time by default.

    Cells that have a record in the output folder already are not run again. Exit code: 0 when every cell
    ended in a definite status, 1 when one crashed or failed, 2 for bad arguments.
    """
    alone("run")
    with plain_errors():
        given = {
            "solvers": solver or None, "datasets": dataset or None, "solvers_dir": solvers_dir,
            "time_limit": time_limit, "gap": gap, "seeds": seeds,
        }  # fmt: skip
        job = _job(campaign, {key: value for key, value in given.items() if value is not None}, out, rerun or [])
        place = _place(executor, workers)
        if dry_run:
            _foretell(job, json)
            return
        finished = _finished(job, place, json)
        if finished.complaint:
            typer.echo(f"warning: {finished.complaint}", err=True)
        if not json:
            _show(finished, job.campaign.gap, job.folder)
    raise typer.Exit(_exit_code(finished))


@dataclass(frozen=True)
class _Job:
    """A campaign with where it comes from, the folder of its records, and the statuses whose cells run again."""

    campaign: "Campaign"
    source: "Source"
    folder: Path
    again: set[str]


def _job(name: str | None, given: dict[str, Any], out: str | None, rerun: list[str]) -> _Job:
    """What the command line asks for, checked. given: what stands in the place of the campaign's own."""
    from convexnn_bench.harness import check_limits

    campaign, source = _campaign(name, given)
    folder = Path(out) if out is not None else Path("results") / campaign.name
    again = _statuses(rerun)
    check_limits(campaign, source)
    return _Job(campaign, source, folder, again)


def _place(executor: str, workers: int | None) -> "BaseExecutor":
    from convexnn_bench.plugins import EXECUTORS

    return EXECUTORS.make(executor, **({} if workers is None else {"workers": workers}))


def _finished(job: _Job, place: "BaseExecutor", json: bool) -> "CampaignOutcome":
    """The campaign, run; interrupted or out of disk, one line says what is kept."""
    from convexnn_bench.harness import start_server

    try:
        with terminated_is_interrupted():
            start_server(job.campaign.threads)  # it loads its modules while this process loads its own
            return _run(job, place, json)
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted: what has finished is kept in {job.folder}; run again to go on", err=True)
        raise typer.Exit(130) from None
    except OSError as error:
        kept = f"; what has finished is kept in {job.folder}, run again to go on" if job.folder.is_dir() else ""
        typer.echo(f"error: {words(error)}{kept}", err=True)
        raise typer.Exit(1) from error


def _exit_code(finished: "CampaignOutcome") -> int:
    from convexnn_bench.records import BAD_STATUSES

    return int(any(record["status"] in BAD_STATUSES for record in finished.records))


def _statuses(given: list[str]) -> set[str]:
    """The statuses that --rerun names; "failed" takes "crashed" with it."""
    from convexnn_bench.errors import InputError
    from convexnn_bench.records import BAD_STATUSES, STATUSES

    for status in given:
        if status not in STATUSES:
            raise InputError(f"--rerun must be one of {', '.join(STATUSES)}, got {status!r}")
    return {*given, *(BAD_STATUSES if "failed" in given else ())}


def _foretell(job: _Job, json: bool) -> None:
    from convexnn_bench.harness import forecast_cells
    from convexnn_bench.records import to_json

    found = forecast_cells(job.campaign, job.folder, job.source, job.again)
    if json:
        for one in found:
            cell = {"problem_name": one.cell.problem_name, "solver_name": one.cell.solver_name, "seed": one.cell.seed}
            told = {"key": one.cell.key, "known": one.known, "seconds": one.seconds, "unavailable": one.unavailable}
            typer.echo(to_json({**cell, "time_limit": one.limit, **told}))
        return
    from convexnn_bench.cli.forecast import print_forecast

    print_forecast(found, wide_console())


def _campaign(name: str | None, given: dict[str, Any]) -> "tuple[Campaign, Source]":
    """The campaign with what the command line says in its place, under a name of its own when it is another one."""
    from dataclasses import replace

    from convexnn_bench.harness import find_campaign, load_campaign

    loaded, source = load_campaign(find_campaign(name or "quickstart"))
    changed = dict(given)
    if "solvers" in given or "datasets" in given:
        changed["name"] = "custom" if name is None else f"{loaded.name}-custom"
    if "time_limit" in given:
        changed["deadline"] = None  # the file's deadline was meant for its own time limit
    return replace(loaded, **changed), source.without(changed)


def _run(job: _Job, place: "BaseExecutor", json: bool) -> "CampaignOutcome":
    from convexnn_bench.cli.progress import CampaignProgress
    from convexnn_bench.harness import run_campaign
    from convexnn_bench.records import Record, to_json

    class JsonLines(CampaignProgress):
        """Prints every record as it comes."""

        def finished(self, record: Record) -> None:
            super().finished(record)
            sys.stdout.write(to_json(record) + "\n")
            sys.stdout.flush()

    with (JsonLines if json else CampaignProgress)(quiet=json) as progress:
        return run_campaign(job.campaign, job.folder, progress, job.source, job.again, place)


def _show(finished: "CampaignOutcome", gap: float, folder: Path) -> None:
    """Tables on stdout, the figure beside the records; a line on stderr when the figure cannot be drawn."""
    from convexnn_bench.report import counted, print_results, save_gap_figure

    console = wide_console()
    console.print()
    print_results(finished.records, console)
    counts: dict[str, int] = {}
    for record in finished.records:
        counts[record["status"]] = counts.get(record["status"], 0) + 1
    told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    console.print(f"{counted(len(finished.records), 'cell')}: {told}")
    files = ["records.jsonl"] if finished.complaint else ["records.jsonl", "records.parquet"]
    console.print(f"records  {', '.join(str(folder / name) for name in files)}", soft_wrap=True)
    try:
        picture = save_gap_figure(finished.records, folder / "gap_against_time.png", gap)
    except ImportError as error:
        told = f"the figure was not drawn, matplotlib cannot be imported: pip install matplotlib ({error})"
        typer.echo(f"warning: {told}", err=True)
    else:
        console.print(f"figure   {picture}", soft_wrap=True)
        console.print(f"report   convexnn-bench report {folder}", soft_wrap=True)
