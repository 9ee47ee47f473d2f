"""The command `convexnn-bench`. Everything heavy is imported inside the commands, so that --help is quick."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from convexnn_bench.harness.campaign import Campaign, Source
    from convexnn_bench.harness.execute import Finished
    from convexnn_bench.harness.executors.base import BaseExecutor

app = typer.Typer(
    name="convexnn-bench",
    help="Train two-layer networks three ways - exact convex program, Burer-Monteiro, original network - and "
    "certify how far each result is from the global optimum.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> bool:
    if wanted:
        from convexnn_bench import __version__

        typer.echo(f"convexnn-bench {__version__}")
        raise typer.Exit()
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options before the command."""


def _speaks() -> bool:
    """Whether this process is the one that tells things, of those that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) <= 1 or os.environ.get("RANK", "0") == "0"


def _alone(command: str) -> None:
    """Refuse a command that torchrun would run in every process, on the same files; the first of them says so."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if _speaks():
            told = f"{command} is one process, and torchrun has started {os.environ['WORLD_SIZE']} (WORLD_SIZE)"
            typer.echo(f"error: {told}: run it alone; what processes share is cnn.solve in a script", err=True)
        raise typer.Exit(2)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What a user can act on is one line on stderr and exit code 2 (1 when a campaign could not go on)."""
    from convexnn_bench.errors import ConvexNNError, ExecutorError

    try:
        yield
    except ConvexNNError as error:
        if _speaks():
            typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1 if isinstance(error, ExecutorError) else 2) from error
    except OSError as error:
        typer.echo(f"error: {_words(error)}", err=True)
        raise typer.Exit(1) from error


def _words(error: OSError) -> str:
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """SIGTERM ends a campaign as Ctrl-C does, inside the block."""
    import signal

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command(no_args_is_help=False)
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
    solvers_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder with solver files of your own.")
    ] = None,
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
    _alone("run")
    from convexnn_bench.harness.plan import check_limits
    from convexnn_bench.harness.process import start_server
    from convexnn_bench.registry import EXECUTORS

    with _plain_errors():
        asked, source = _campaign(campaign, solver, dataset, solvers_dir, time_limit, gap, seeds)
        folder = Path(out) if out is not None else Path("results") / asked.name
        again = _statuses(rerun or [])
        check_limits(asked, source)
        place = EXECUTORS.make(executor, **({} if workers is None else {"workers": workers}))
        if dry_run:
            _foretell(asked, source, folder, again, json)
            return
        try:
            with _terminated_is_interrupted():
                start_server(asked.threads)  # it loads its modules while this process loads its own
                finished = _run(asked, source, folder, json, again, place)
        except KeyboardInterrupt:
            typer.echo(f"\ninterrupted: what has finished is kept in {folder}; run again to go on", err=True)
            raise typer.Exit(130) from None
        except OSError as error:
            kept = f"; what has finished is kept in {folder}, run again to go on" if folder.is_dir() else ""
            typer.echo(f"error: {_words(error)}{kept}", err=True)
            raise typer.Exit(1) from error
        if finished.complaint:
            typer.echo(f"warning: {finished.complaint}", err=True)
        if not json:
            _show(finished, asked.gap, folder)
    raise typer.Exit(_exit_code(finished))


def _exit_code(finished: Any) -> int:
    from convexnn_bench.harness.records import BAD_STATUSES

    return int(any(record["status"] in BAD_STATUSES for record in finished.records))


def _statuses(given: list[str]) -> set[str]:
    """The statuses that --rerun names; "failed" takes "crashed" with it."""
    from convexnn_bench.errors import InputError
    from convexnn_bench.harness.records import BAD_STATUSES, STATUSES

    for status in given:
        if status not in STATUSES:
            raise InputError(f"--rerun must be one of {', '.join(STATUSES)}, got {status!r}")
    return {*given, *(BAD_STATUSES if "failed" in given else ())}


def _foretell(asked: "Campaign", source: "Source", folder: Path, again: set[str], json: bool) -> None:
    from convexnn_bench.harness.execute import forecast
    from convexnn_bench.harness.records import to_json

    found = forecast(asked, folder, source, again)
    if json:
        for one in found:
            cell = {"problem_name": one.cell.problem_name, "solver_name": one.cell.solver_name, "seed": one.cell.seed}
            told = {"key": one.cell.key, "known": one.known, "seconds": one.seconds, "unavailable": one.unavailable}
            typer.echo(to_json({**cell, "time_limit": one.limit, **told}))
        return
    from convexnn_bench.report.forecast import print_forecast

    print_forecast(found, _console())


def _console(width: int = 110) -> "Console":
    """For stdout; at least so wide when piped."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, width)
    return console


def _campaign(
    name: str | None,
    solver: list[str] | None,
    dataset: list[str] | None,
    solvers_dir: str | None,
    time_limit: float | None,
    gap: float | None,
    seeds: int | None,
) -> "tuple[Campaign, Source]":
    """The campaign with what the command line says in its place, under a name of its own when it is another one."""
    from dataclasses import replace

    from convexnn_bench.harness.campaign import find_campaign, load_campaign

    loaded, source = load_campaign(find_campaign(name or "quickstart"))
    given = {
        "solvers": solver or None,
        "datasets": dataset or None,
        "solvers_dir": solvers_dir,
        "time_limit": time_limit,
        "gap": gap,
        "seeds": seeds,
    }
    changed: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if solver or dataset:
        changed["name"] = "custom" if name is None else f"{loaded.name}-custom"
    if time_limit is not None:
        changed["deadline"] = None  # the file's deadline was meant for its own time limit
    return replace(loaded, **changed), source.without(changed)


def _run(
    asked: "Campaign", source: "Source", folder: Path, json: bool, again: set[str], place: "BaseExecutor"
) -> "Finished":
    from convexnn_bench.harness.execute import run_campaign
    from convexnn_bench.harness.records import Record, to_json
    from convexnn_bench.report.progress import CampaignProgress

    class JsonLines(CampaignProgress):
        """Prints every record as it comes."""

        def finished(self, record: Record) -> None:
            super().finished(record)
            sys.stdout.write(to_json(record) + "\n")
            sys.stdout.flush()

    with (JsonLines if json else CampaignProgress)(quiet=json) as progress:
        return run_campaign(asked, folder, progress, source, again, place)


def _show(finished: "Finished", gap: float, folder: Path) -> None:
    """Tables on stdout, the figure beside the records; a line on stderr when the figure cannot be drawn."""
    from convexnn_bench.report.plots import save_gap_figure
    from convexnn_bench.report.tables import counted, print_results

    console = _console()
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


@app.command()
def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder that a campaign wrote its records to.")],
) -> None:
    """Make tables, figures and a page of a campaign's records: DIR/report.html and DIR/figures.

    Exit code: 0, or 2 when there are no records in the folder, 1 when it cannot be written to or a bound is wrong.
    """
    _alone("report")
    with _plain_errors():
        from convexnn_bench.report.make import make_report

        sound = make_report(Path(folder), _console())
    raise typer.Exit(0 if sound else 1)


@app.command("list")
def list_all() -> None:
    """List solvers, data sets, losses, activations, architectures: what is here, what is missing and why."""
    with _plain_errors():
        from convexnn_bench.report.listing import print_listing

        print_listing(_console())


@app.command()
def doctor(
    solvers_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder with solver files of your own.")
    ] = None,
) -> None:
    """Look at this machine: versions, threads, BLAS, GPU, and whether each solver really solves a tiny problem.

    Exit code: 0, or 1 when a solver that is here does not work; what is missing is named with what to install.
    """
    _alone("doctor")
    with _plain_errors():
        from convexnn_bench.harness.process import start_server
        from convexnn_bench.registry import SOLVERS
        from convexnn_bench.report.doctor import print_doctor

        if solvers_dir is not None:
            SOLVERS.add_folder(solvers_dir)
        start_server(1)
        sound = print_doctor(_console(), solvers_dir)
    raise typer.Exit(0 if sound else 1)


@app.command()
def merge(
    folders: Annotated[
        list[str], typer.Argument(help="Folders with records.jsonl, such as those of several machines.")
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for all records; what it has already takes part.")],
) -> None:
    """Merge the records of several folders, one record a cell.

    Of several records of one cell a definite one goes before one that crashed or failed, and then the later one.
    """
    _alone("merge")
    with _plain_errors():
        from convexnn_bench.harness.merging import merge as merge_records
        from convexnn_bench.report.tables import counted

        found, complaints = merge_records(folders, out)
        for complaint in complaints:
            typer.echo(f"warning: {complaint}", err=True)
        typer.echo(f"{counted(len(found), 'record')} in {Path(out) / 'records.jsonl'} and records.parquet")


@app.command()
def certify(
    model: Annotated[
        str, typer.Argument(metavar="MODEL.pt", help="torch.save(model.state_dict(), ...); nothing is unpickled.")
    ],
    data: Annotated[str, typer.Argument(metavar="DATA.npz", help="Arrays X and Y: np.savez(..., X=X, Y=Y).")],
    weight_decay: Annotated[
        float, typer.Option(help="Weight decay of training: lam/2 ||w||^2, as torch's SGD and Adam add it to the loss.")
    ],
    loss: Annotated[str, typer.Option(help="Loss it was trained on, such as cross_entropy or 'huber[delta=0.5]'.")] = (
        "squared"
    ),
    reduction: Annotated[
        str,
        typer.Option(
            help="How the loss added up: 'sum' (beta = lam), or torch's 'mean' over n rows and c outputs: beta = "
            "lam n c / 2 for squared, lam n for cross_entropy, lam n c for logistic, huber and squared_hinge."
        ),
    ] = "sum",
    output_bias: Annotated[
        str, typer.Option(help="Whether weight decay applied to the last layer's bias: 'penalised' or 'free'.")
    ] = "penalised",
    activation: Annotated[str, typer.Option(help="Between the layers: 'relu' or 'linear'.")] = "relu",
    stride: Annotated[int, typer.Option(help="Of a CNN's Conv2d.")] = 1,
    padding: Annotated[int, typer.Option(help="Of a CNN's Conv2d.")] = 0,
    pool: Annotated[
        str, typer.Option(help="Of a CNN: 'none', 'global', or the side of AvgPool2d. 'global' also pools tokens.")
    ] = "none",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Prove how far a trained network can be from the global optimum of its training problem.

    The objective is F + beta/2 (squared weights), F a sum over samples; with --reduction mean beta follows from the
    number of samples and outputs, and is printed. Exit code: 0, or 2 for what cannot be read or is not covered.
    """
    with _plain_errors():
        from convexnn_bench.harness.records import to_json
        from convexnn_bench.modules.files import load_arrays, load_state, module_from_state
        from convexnn_bench.modules.report import certify_module

        X, Y = load_arrays(data)
        module = module_from_state(load_state(model), activation, stride, padding, pool)
        report = certify_module(module, X, Y, loss, weight_decay, reduction=reduction, output_bias=output_bias)
        typer.echo(to_json(report.to_dict()) if json else str(report))


@app.command()
def layerwise(
    dataset: Annotated[str, typer.Option(help="A data set with images, such as 'mnist5k[pool=2]' or cifar10.")] = (
        "mnist5k[pool=2]"
    ),
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="A stage, as 'gates=64,m=1,pool=7,downsample=true'. Repeatable; three stages if not given.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of every stage.")] = 15,
    batch: Annotated[int, typer.Option(help="Samples a step.")] = 100,
    rate: Annotated[
        float, typer.Option(help="Step size at the start of a stage; it falls linearly to a hundredth.")
    ] = (0.005),
    optimizer: Annotated[str, typer.Option(help="'adam' or 'sgd' (momentum 0.9).")] = "adam",
    augment: Annotated[str, typer.Option(help="'none', 'crop' or 'crop_flip'.")] = "none",
    beta_fraction: Annotated[float, typer.Option(help="Weight decay of a stage, in parts of its beta_max.")] = 1e-3,
    seeds: Annotated[int, typer.Option(metavar="K", help="Number of seeds.")] = 1,
    certify_every: Annotated[int, typer.Option(metavar="EPOCHS", help="Epochs between certificates.")] = 5,
    precision: Annotated[
        str,
        typer.Option(help="Of training: 'float32', 'float64', or 'bfloat16' (convolutions). Certificates are float64."),
    ] = "float32",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="What to train beside: 'end_to_end', 'weight_decay' (on the blocks Z, for the nuclear norm), 'exact' "
            "(a stage on some images solved exactly), or 'none'. Repeatable; all three if not given.",
            show_default=False,
        ),
    ] = None,
    exact_images: Annotated[int, typer.Option(metavar="N", help="Images of the stage that is solved exactly.")] = 300,
    device: Annotated[str, typer.Option(help="'cpu' or 'cuda'.")] = "cpu",
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Folder for results, checkpoints and the figure, which is drawn while training."
        ),
    ] = ("results/layerwise"),
) -> None:
    """Train a convolutional network stage by stage, each stage certified, beside baselines: the same network end to
    end, plain weight decay in the place of the nuclear norm, and a stage solved exactly.

    Started again it goes on from the last epoch's checkpoint; seeds that are finished are not done again, the baselines
    'end_to_end' and 'exact' of an unfinished one are. Exit code: 0, 2 for arguments that cannot be, or 1 where the
    folder cannot be written to.
    """
    with _plain_errors():
        from convexnn_bench import parallel
        from convexnn_bench.layerwise import Training
        from convexnn_bench.layerwise.experiment import BASELINES, DEFAULT_STAGES, Plan, run_layerwise, stage_plan
        from convexnn_bench.report.layerwise import print_layerwise, save_layerwise_figure
        from convexnn_bench.runner import check_device

        plans = [stage_plan(text) for text in stage or DEFAULT_STAGES]
        how = Training(
            epochs=epochs, batch=batch, rate=rate, optimizer=optimizer, augment=augment,
            certify_every=certify_every, precision=precision,
        )  # fmt: skip
        if seeds < 1:
            raise typer.BadParameter(f"must be at least 1, got {seeds}", param_hint="--seeds")
        beside = () if baseline == ["none"] else tuple(dict.fromkeys(baseline or BASELINES))
        first = parallel.rank
        where = parallel.join(check_device(device))  # of several processes the first one speaks
        plan = Plan(dataset, plans, how, beta_fraction, where, beside, exact_images)
        tell = (lambda line: typer.echo(line, err=True)) if first() == 0 else (lambda line: None)
        picture = Path(out) / "layerwise.png"
        try:
            told = run_layerwise(plan, seeds, Path(out), tell, lambda partial: save_layerwise_figure(partial, picture))
        except KeyboardInterrupt:
            tell(f"stopped; the same command goes on from the last epoch, which is kept in {out}")
            raise
        speaks = first() == 0
        parallel.leave()
        if not speaks:
            return
        console = _console()
        print_layerwise(told, console)
        console.print(f"results  {Path(out) / 'layerwise.json'}", soft_wrap=True)
        console.print(f"figure   {save_layerwise_figure(told, picture)}", soft_wrap=True)


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
