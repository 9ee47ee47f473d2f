"""The command `convexnn-bench layerwise`: training stage by stage."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convexnn_bench.cli.common import PluginsDir, plain_errors, wide_console

if TYPE_CHECKING:
    from convexnn_bench.layerwise import Plan


def layerwise(
    dataset: Annotated[str, typer.Option(help="A data set with images, such as 'mnist5k[pool=2]' or cifar10.")] = (
        "mnist5k[pool=2]"
    ),
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="A stage, such as 'gates=64,m=1,pool=7,downsample=true'. Repeatable; three stages if not given.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of every stage.")] = 15,
    batch: Annotated[int, typer.Option(help="Samples in each step.")] = 100,
    rate: Annotated[
        float, typer.Option(help="Step size of the first epoch of a stage; it falls linearly to a hundredth of it.")
    ] = 0.005,
    optimizer: Annotated[str, typer.Option(help="'adam' or 'sgd' (momentum 0.9).")] = "adam",
    augment: Annotated[str, typer.Option(help="'none', 'crop' or 'crop_flip'.")] = "none",
    beta_fraction: Annotated[float, typer.Option(help="Weight decay of a stage as a fraction of its beta_max.")] = 1e-3,
    seeds: Annotated[int, typer.Option(metavar="K", help="Number of seeds.")] = 1,
    certify_every: Annotated[int, typer.Option(metavar="EPOCHS", help="Epochs between certificates.")] = 5,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of training: 'float32', 'float64', or 'bfloat16' (convolutions). Certificates use float64."
        ),
    ] = "float32",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="A baseline to train as well: 'end_to_end', 'weight_decay' (on the blocks Z, in place of the nuclear "
            "norm), 'exact' (a stage on some images, solved exactly), or 'none'. Repeatable; all three if not given.",
            show_default=False,
        ),
    ] = None,
    exact_images: Annotated[int, typer.Option(metavar="N", help="Images of the stage that is solved exactly.")] = 300,
    device: Annotated[str, typer.Option(help="'cpu' or 'cuda'.")] = "cpu",
    plugins_dir: PluginsDir = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Folder for results, checkpoints and the figure, which is drawn while training."
        ),
    ] = ("results/layerwise"),
) -> None:
    """Train a convolutional network stage by stage, with a certificate for each.

    The network is compared with baselines.

    The baselines are the same network trained end to end, plain weight decay in place of the nuclear norm, and a stage
    solved exactly. The same command started again goes on from the last epoch's checkpoint: finished seeds are not
    repeated, but the baselines 'end_to_end' and 'exact' of an unfinished seed are. The exit code is 0, 2 if an argument
    is not usable, or 1 if the folder cannot be written to.
    """
    with plain_errors():
        from convexnn_bench.layerwise import BASELINES, DEFAULT_STAGES, Plan, Training, stage_plan
        from convexnn_bench.plugins import add_plugins

        add_plugins(plugins_dir=plugins_dir)
        plans = [stage_plan(text) for text in stage or DEFAULT_STAGES]
        how = Training(
            epochs=epochs, batch=batch, rate=rate, optimizer=optimizer, augment=augment,
            certify_every=certify_every, precision=precision,
        )  # fmt: skip
        if seeds < 1:
            raise typer.BadParameter(f"must be at least 1, got {seeds}", param_hint="--seeds")
        beside = () if baseline == ["none"] else tuple(dict.fromkeys(baseline or BASELINES))
        _train(Plan(dataset, plans, how, beta_fraction, _joined(device), beside, exact_images), seeds, Path(out))


def _joined(device: str) -> str:
    """Join the processes that torchrun has started, and return the device of this one."""
    from convexnn_bench import parallel
    from convexnn_bench.running import check_device

    return parallel.join(check_device(device))


def _train(plan: "Plan", seeds: int, out: Path) -> None:
    """Train, and print the results; of several processes only the first prints."""
    from convexnn_bench import parallel
    from convexnn_bench.layerwise import run_layerwise
    from convexnn_bench.report import print_layerwise, save_layerwise_figure

    prints = parallel.rank() == 0
    tell = (lambda line: typer.echo(line, err=True)) if prints else (lambda line: None)
    picture = out / "layerwise.png"
    try:
        experiment = run_layerwise(plan, seeds, out, tell, lambda partial: save_layerwise_figure(partial, picture))
    except KeyboardInterrupt:
        tell(f"interrupted: the same command goes on from the last epoch, whose state is in {out}")
        raise typer.Exit(130) from None
    # The connection is closed before anything is printed, so that the other processes need not wait for the first one.
    parallel.leave()
    if not prints:
        return
    console = wide_console()
    print_layerwise(experiment, console)
    console.print(f"results  {out / 'layerwise.json'}", soft_wrap=True)
    console.print(f"figure   {save_layerwise_figure(experiment, picture)}", soft_wrap=True)
