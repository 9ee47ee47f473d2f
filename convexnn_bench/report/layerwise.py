"""What `convexnn-bench layerwise` shows: a table of stages, and accuracy and certified gap against time."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convexnn_bench.records.records import whole_file
from convexnn_bench.report.figures.styles import COLOURS, GREY, MARKERS, plain_axis
from convexnn_bench.report.tables import format_gap, format_seconds, format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

Seed = dict[str, Any]
Epoch = dict[str, Any]


def print_layerwise(told: dict[str, Any], console: "Console") -> None:
    """A row a stage, of both forms, and one for the network trained end to end: means over seeds, with their standard
    deviations; then how far training is from an exactly solved stage."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    n, tested = told["samples"]
    seeds: list[Seed] = told["seeds"]
    console.print(
        Text(f"{told['dataset']}: {n} images for training, {tested} for the test, {len(seeds)} seeds"), soft_wrap=True
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("stage", "P x m", "objective", "bound", "gap", "train %", "test %", "ensemble %", "seconds"):
        table.add_column(title, justify="left" if title == "stage" else "right", no_wrap=True)
    for words, runs in _forms(seeds):
        for place in range(len(runs[0]["stages"])):
            own = [run["stages"][place] for run in runs]
            gaps = [stage["gap"] for stage in own]
            table.add_row(
                f"{words}{place + 1}", str(own[0]["P"]) + ("" if words else f" x {own[0]['m']}"),
                format_value(_mean(own, "objective")), format_value(_mean(own, "lower_bound")),
                format_gap(None if None in gaps else statistics.mean(gaps)),
                f"{100 * _mean(own, 'train_accuracy'):.2f}",
                *(_spread(own, name) for name in ("test_accuracy", "ensemble_accuracy")),
                format_seconds(_mean(own, "seconds")),
            )  # fmt: skip
    whole = [found["end_to_end"] for found in seeds if "end_to_end" in found]
    if whole:
        accuracies = f"{100 * _mean(whole, 'train_accuracy'):.2f}", _spread(whole, "test_accuracy")
        table.add_row("end to end", "", "-", "-", "-", *accuracies, "-", format_seconds(_mean(whole, "seconds")))
    console.print(table)
    _print_stationarity(seeds, console)
    for line in _notes(seeds):
        console.print(Text(line, style="dim"))


def _print_stationarity(seeds: Sequence[Seed], console: "Console") -> None:
    """How far stages are from stationary points, and the bound of Theorem 3.4 with its error: largest of the seeds."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("stage", "max ||G|| / beta", "bound 3.4", "its error eps / objective", "gradient"):
        table.add_column(title, justify="left" if title == "stage" else "right", no_wrap=True)
    for words, runs in _forms(seeds):
        for place in range(len(runs[0]["stages"])):
            own = [run["stages"][place] for run in runs]
            slopes = [stage["gradient_norm"] for stage in own]
            table.add_row(
                f"{words}{place + 1}", f"{max(stage['max_dual_norm'] / stage['beta'] for stage in own):.3g}",
                format_gap(max(stage["stationarity_bound"] for stage in own)),
                format_gap(max(abs(stage["stationarity_error"]) / stage["objective"] for stage in own)),
                "-" if None in slopes else format_gap(max(slopes)),
            )  # fmt: skip
    console.print(table)


def _forms(seeds: Sequence[Seed]) -> list[tuple[str, list[Seed]]]:
    """(words, runs) of the stages in factors, and of those in blocks where there are any."""
    blocks = [found["weight_decay"] for found in seeds if "weight_decay" in found]
    return [("", list(seeds)), *([("Z ", blocks)] if blocks else [])]


def _notes(seeds: Sequence[Seed]) -> list[str]:
    spread = " ±: standard deviation over seeds." if len(seeds) > 1 else ""
    found = [
        "Objectives are sums over samples, with the nuclear norm; gap: proven bound on the relative distance of a "
        f"stage to its own optimum. Seconds of training, certificates not counted.{spread}"
    ]
    found.append(
        "bound 3.4: (max ||G|| / beta - 1)+; objective - optimum <= bound x optimum + eps. gradient: of the factored "
        "objective, relative to beta times the norm of the factors. The largest of the seeds."
    )
    if len(_forms(seeds)) > 1:
        found.append("Z: blocks Z_k trained with plain weight decay in the place of the nuclear norm.")
    exact = [seed["exact"] for seed in seeds if "exact" in seed]
    above = [run["above"] for run in exact if run["above"] is not None]
    if above:
        found.append(
            f"Stage 1 on {exact[0]['n']} images, solved exactly to certified gaps of at most "
            f"{max(run['gap'] for run in exact):.0e} in {format_seconds(_mean(exact, 'seconds'))} s: minibatch "
            f"training ({format_seconds(_mean(exact, 'trained_seconds'))} s) ends {_share(above)} above the optimum; "
            f"its own certificate proves a gap of {_share([run['trained_gap'] for run in exact])}."
        )
    return found


def _share(values: Sequence[float]) -> str:
    low, high = (f"{value:.1%}" if value < 1 else f"{value:.0%}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def _spread(rows: Sequence[dict[str, Any]], name: str) -> str:
    """Mean of shares in per cent, and their standard deviation where there are several."""
    values = [100 * row[name] for row in rows]
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def save_layerwise_figure(told: dict[str, Any], path: Path) -> Path:
    """Test accuracy, and the certified gap of each stage, against seconds of training; also of a run that goes on.

    Raises ImportError without matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for found in told["seeds"]:
        first = found is told["seeds"][0]
        _curves(left, right, found["history"], "stage {}" if first else None)
        if "weight_decay" in found:
            _curves(left, right, found["weight_decay"].get("history", []), None, linestyle=":", fillstyle="none")
        whole = found.get("end_to_end", {}).get("history", [])
        label = "end to end" if first else None
        left.plot(*_points(whole, "test_accuracy"), color=GREY, linestyle="--", linewidth=1.2, label=label)
    if any("weight_decay" in found for found in told["seeds"]):
        left.plot([], [], color=GREY, linestyle=":", marker="o", fillstyle="none", label="weight decay on Z (hollow)")
    left.set_ylabel("test accuracy")
    right.set_ylabel("certified relative gap of the stage")
    for axis in (left, right):
        if np.isfinite(axis.dataLim.minposx):  # of a run that has just begun there is nothing to show
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
    """Both panels' lines of one run, a colour a stage; time goes on from stage to stage."""
    offset = 0.0
    for place, stage in enumerate(dict.fromkeys(epoch["stage"] for epoch in history)):
        own = [epoch for epoch in history if epoch["stage"] == stage]
        look: dict[str, Any] = {
            "color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % 5], "markersize": 4, "linewidth": 1.2,
            **style,
        }  # fmt: skip
        left.plot(*_points(own, "test_accuracy", offset), label=label and label.format(stage), **look)
        right.plot(*_points(own, "gap", offset), **look)
        offset += own[-1]["seconds"]


def _points(history: Sequence[Epoch], name: str, offset: float = 0.0) -> tuple[list[float], list[float]]:
    """Seconds and values of the epochs that have one; a gap that is infinite or refused is a hole."""
    own = [epoch for epoch in history if name in epoch]
    return [offset + epoch["seconds"] for epoch in own], [
        np.nan if epoch[name] is None else epoch[name] for epoch in own
    ]
