"""What `convexnn-bench layerwise` shows: a table of stages, and accuracy and certified gap against time."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convexnn_bench.harness.records import whole_file
from convexnn_bench.report.tables import format_gap, format_seconds, format_value

if TYPE_CHECKING:
    from rich.console import Console


def print_layerwise(told: dict[str, Any], console: "Console") -> None:
    """A row a stage, and one for the network trained end to end: means over seeds, with their standard deviations."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    n, tested = told["samples"]
    seeds = told["seeds"]
    console.print(
        Text(f"{told['dataset']}: {n} images for training, {tested} for the test, {len(seeds)} seeds"), soft_wrap=True
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("stage", "P", "m", "objective", "lower bound", "gap", "train %", "test %", "ensemble %", "seconds"):
        table.add_column(title, justify="left" if title == "stage" else "right", no_wrap=True)
    for place in range(len(seeds[0]["stages"])):
        own = [found["stages"][place] for found in seeds]
        gaps = [stage["gap"] for stage in own]
        table.add_row(
            str(place + 1), str(own[0]["P"]), str(own[0]["m"]),
            format_value(_mean(own, "objective")), format_value(_mean(own, "lower_bound")),
            format_gap(None if None in gaps else statistics.mean(gaps)),
            *(_spread(own, name) for name in ("train_accuracy", "test_accuracy", "ensemble_accuracy")),
            format_seconds(_mean(own, "seconds")),
        )  # fmt: skip
    whole = [found["end_to_end"] for found in seeds]
    accuracies = _spread(whole, "train_accuracy"), _spread(whole, "test_accuracy")
    table.add_row("end to end", "", "", "-", "-", "-", *accuracies, "-", format_seconds(_mean(whole, "seconds")))
    console.print(table)
    words = (
        "Objectives are sums over samples; gap: proven bound on the relative distance of a stage to its own optimum."
    )
    spread = " ±: standard deviation over seeds." if len(seeds) > 1 else ""
    console.print(Text(f"{words} Seconds of training, certificates not counted.{spread}", style="dim"))


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def _spread(rows: Sequence[dict[str, Any]], name: str) -> str:
    """Mean of shares in per cent, and their standard deviation where there are several."""
    values = [100 * row[name] for row in rows]
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def save_layerwise_figure(told: dict[str, Any], path: Path) -> Path:
    """Test accuracy, and the certified gap of each stage, against seconds of training. Raises ImportError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
    for found in told["seeds"]:
        offset = 0.0
        for place, last in enumerate(found["stages"]):
            own = [epoch for epoch in found["history"] if epoch["stage"] == last["stage"] and "gap" in epoch]
            x = [offset + epoch["seconds"] for epoch in own]
            look = {
                "color": colours[place % len(colours)],
                "marker": "os^Dv"[place % 5],
                "markersize": 4,
                "linewidth": 1.2,
            }
            label = f"stage {last['stage']}" if found is told["seeds"][0] else None
            left.plot(x, [epoch["test_accuracy"] for epoch in own], label=label, **look)
            right.plot(x, [np.nan if epoch["gap"] is None else epoch["gap"] for epoch in own], **look)
            offset += last["seconds"]
    whole = [found["end_to_end"]["test_accuracy"] for found in told["seeds"]]
    left.axhline(statistics.mean(whole), linestyle="--", color="#555555", linewidth=1, label="end to end, at its end")
    left.set_ylabel("test accuracy")
    right.set_ylabel("certified relative gap of the stage")
    right.set_yscale("log")
    for axis in (left, right):
        axis.set_xlabel("seconds of training")
        axis.grid(color="#e3e3e3")
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=9)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150)
    return path
