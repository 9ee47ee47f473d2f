"""What `convexnn-bench layerwise` shows.

It shows tables of stages, and accuracy and certified gap against time.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convexnn_bench.house_style import COLOURS, GREY, MARKERS
from convexnn_bench.report.figures import plain_axis
from convexnn_bench.report.formats import counted, format_gap, format_seconds, format_value
from convexnn_bench.report.tables import plain_table
from convexnn_bench.storage import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console
    from rich.table import Table

Experiment = dict[str, Any]  # the file of an experiment, of layerwise.experiment
Seed = dict[str, Any]  # what it holds of one seed
Epoch = dict[str, Any]  # one epoch of a training history


def print_layerwise(experiment: Experiment, console: "Console") -> None:
    """Print a row for each stage, in factors and in blocks, and one for the network trained end to end.

    Numbers are means over seeds with their standard deviations. Notes below say how far minibatch training is from an
    exactly solved stage.
    """
    from rich.text import Text

    n, tested = experiment["samples"]
    seeds: list[Seed] = experiment["seeds"]
    console.print(
        Text(f"{experiment['dataset']}: {n} images for training, {tested} for the test, {counted(len(seeds), 'seed')}"),
        soft_wrap=True,
    )
    table = _table("stage", "P x m", "objective", "bound", "gap", "train %", "test %", "ensemble %", "seconds")
    for name, stages in _stages(seeds):
        gaps = [stage["gap"] for stage in stages]
        table.add_row(
            name, str(stages[0]["P"]) + ("" if name.startswith("Z") else f" x {stages[0]['m']}"),
            format_value(_mean(stages, "objective")), format_value(_mean(stages, "lower_bound")),
            format_gap(None if None in gaps else statistics.mean(gaps)),
            f"{100 * _mean(stages, 'train_accuracy'):.2f}",
            *(_spread(stages, accuracy) for accuracy in ("test_accuracy", "ensemble_accuracy")),
            format_seconds(_mean(stages, "seconds")),
        )  # fmt: skip
    baseline = [seed["end_to_end"] for seed in seeds if "end_to_end" in seed]
    if baseline:
        accuracies = f"{100 * _mean(baseline, 'train_accuracy'):.2f}", _spread(baseline, "test_accuracy")
        table.add_row("end to end", "", "-", "-", "-", *accuracies, "-", format_seconds(_mean(baseline, "seconds")))
    console.print(table)
    _print_stationarity(seeds, console)
    for line in _notes(seeds):
        console.print(Text(line, style="dim"))


def _print_stationarity(seeds: Sequence[Seed], console: "Console") -> None:
    """Print how far stages are from stationary points, and Theorem 3.4's bound.

    The bound has its error. The largest of the seeds is printed.
    """
    table = _table("stage", "max ||G|| / beta", "bound 3.4", "its error eps / objective", "gradient")
    for name, stages in _stages(seeds):
        slopes = [stage["gradient_norm"] for stage in stages]
        table.add_row(
            name, f"{max(stage['max_dual_norm'] / stage['beta'] for stage in stages):.3g}",
            format_gap(max(stage["stationarity_bound"] for stage in stages)),
            format_gap(max(abs(stage["stationarity_error"]) / stage["objective"] for stage in stages)),
            "-" if None in slopes else format_gap(max(slopes)),
        )  # fmt: skip
    console.print(table)


def _table(*titles: str) -> "Table":
    """Return an empty table, its first column aligned to the left and the others to the right."""
    table = plain_table(1)
    for title in titles:
        table.add_column(title, justify="left" if title == titles[0] else "right", no_wrap=True)
    return table


def _stages(seeds: Sequence[Seed]) -> Iterator[tuple[str, list[Seed]]]:
    """Yield (name, its records of all seeds) of every stage: "1", "2", ... in factors, "Z 1", ... in blocks."""
    blocks = [seed["weight_decay"] for seed in seeds if "weight_decay" in seed]
    # Blocks follow the factors, so that both forms of a stage are compared with the same columns.
    for prefix, runs in (("", seeds), ("Z ", blocks)):
        for index in range(len(runs[0]["stages"]) if runs else 0):
            yield f"{prefix}{index + 1}", [run["stages"][index] for run in runs]


def _notes(seeds: Sequence[Seed]) -> list[str]:
    spread = " ±: standard deviation over seeds." if len(seeds) > 1 else ""
    notes = [
        "Objectives are sums over samples, with the nuclear norm. gap: proven bound on the relative distance of a "
        f"stage to its own optimum. seconds: of training, without certificates.{spread}",
        "bound 3.4: (max ||G|| / beta - 1)+; objective - optimum <= bound x optimum + eps. gradient: of the factored "
        "objective, relative to beta times the norm of the factors. Each number is the largest of the seeds.",
    ]
    if any("weight_decay" in seed for seed in seeds):
        notes.append("Z: blocks Z_k trained with plain weight decay in the place of the nuclear norm.")
    exact = [seed["exact"] for seed in seeds if "exact" in seed]
    above = [run["above"] for run in exact if run["above"] is not None]
    if above:
        notes.append(
            f"Stage 1 on {exact[0]['n']} images, solved exactly to certified gaps of at most "
            f"{max(run['gap'] for run in exact):.0e} in {format_seconds(_mean(exact, 'seconds'))} s: minibatch "
            f"training ({format_seconds(_mean(exact, 'trained_seconds'))} s) ends {_share(above)} above the optimum; "
            f"its own certificate proves a gap of {_share([run['trained_gap'] for run in exact])}."
        )
    return notes


def _share(values: Sequence[float]) -> str:
    low, high = (f"{value:.1%}" if value < 1 else f"{value:.0%}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def _spread(rows: Sequence[dict[str, Any]], name: str) -> str:
    """Return the mean of shares in per cent, and their standard deviation if there are several."""
    values = [100 * row[name] for row in rows]
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def save_layerwise_figure(experiment: Experiment, path: Path) -> Path:
    """Draw test accuracy, and the certified gap of each stage, against seconds of training.

    The experiment may still be running. Raises ImportError without matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.3), layout="constrained")
    # Training may run on a machine without a display, and pyplot would look for one.
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for seed in experiment["seeds"]:
        first = seed is experiment["seeds"][0]
        _curves(left, right, seed["history"], "stage {}" if first else None)
        if "weight_decay" in seed:
            _curves(left, right, seed["weight_decay"].get("history", []), None, linestyle=":", fillstyle="none")
        baseline = seed.get("end_to_end", {}).get("history", [])
        label = "end to end" if first else None
        left.plot(*_points(baseline, "test_accuracy"), color=GREY, linestyle="--", linewidth=1.2, label=label)
    if any("weight_decay" in seed for seed in experiment["seeds"]):
        left.plot([], [], color=GREY, linestyle=":", marker="o", fillstyle="none", label="weight decay on Z (hollow)")
    left.set_ylabel("test accuracy")
    right.set_ylabel("certified relative gap of the stage")
    for axis in (left, right):
        if np.isfinite(axis.dataLim.minposx):  # a run that has just begun has no points
            axis.set_xscale("log")
        axis.set_xlabel("seconds of training")
        plain_axis(axis)
    if np.isfinite(right.dataLim.minposy):
        right.set_yscale("log")
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=5)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150)
    return path


def _curves(left: "Axes", right: "Axes", history: Sequence[Epoch], label: str | None, **style: Any) -> None:
    """Draw one run in both panels, a colour for each stage; time goes on from stage to stage."""
    offset = 0.0
    for index, stage in enumerate(dict.fromkeys(epoch["stage"] for epoch in history)):
        epochs = [epoch for epoch in history if epoch["stage"] == stage]
        look: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "markersize": 4,
            "linewidth": 1.2, **style,
        }  # fmt: skip
        left.plot(*_points(epochs, "test_accuracy", offset), label=label and label.format(stage), **look)
        right.plot(*_points(epochs, "gap", offset), **look)
        # A stage starts when the one before it has ended: its clock counts from zero.
        offset += epochs[-1]["seconds"]


def _points(history: Sequence[Epoch], name: str, offset: float = 0.0) -> tuple[list[float], list[float]]:
    """Return seconds and values of the epochs that have one; an infinite or refused gap is a hole."""
    epochs = [epoch for epoch in history if name in epoch]
    values = [np.nan if epoch[name] is None else epoch[name] for epoch in epochs]
    return [offset + epoch["seconds"] for epoch in epochs], values
