"""The figure of `run` and of notebooks: certified relative gap against time, one panel a problem."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convexnn_bench.house_style import GREY, Style
from convexnn_bench.records import Record
from convexnn_bench.report.figures.styles import mark_target, plain_axis, styles_by_solver
from convexnn_bench.report.formats import finite
from convexnn_bench.report.numbers import curve_name
from convexnn_bench.report.tables import group_by_problem, sizes
from convexnn_bench.storage import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP_FLOOR, GAP_CEILING = 1e-12, 10.0  # relative; gaps beyond are drawn at these edges
LABEL_SPACING = 0.07  # least distance of two solver names, in heights of a panel


def on_axis(value: float) -> float:
    """Return a gap or a distance, brought to the edge of the axis if it is beyond."""
    # A logarithmic axis has no place for zero.
    return min(max(value, GAP_FLOOR), GAP_CEILING)


def gap_figure(records: Sequence[Record], target: float | None = None) -> "Figure":
    """Draw the relative gap (log) against set-up plus solve time in seconds (log), a panel a problem.

    A solver has the same colour in every panel, and each line carries its solver's name at its end. target: the
    target gap, a dotted line. Points outside 1e-12..10 are drawn at the edge.
    """
    from matplotlib.figure import Figure

    groups = group_by_problem(records)
    across = min(2, max(1, len(groups)))
    down = max(1, math.ceil(len(groups) / across))
    figure = Figure(figsize=(6.4 * across, 3.7 * down + 0.3), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    looks = styles_by_solver(records)
    for axis, (name, group) in zip(axes.flat, groups.items(), strict=False):
        _panel(axis, name, group, looks, target)
    for axis in axes.flat[len(groups) :]:
        axis.set_axis_off()
    for row in axes:
        row[0].set_ylabel("certified relative gap")
    for axis in axes[-1]:
        axis.set_xlabel("set-up + solve time (s)")
    return figure


def save_gap_figure(records: Sequence[Record], path: str | Path, target: float | None = None) -> Path:
    """Write `gap_figure` to an image file, in the format of the suffix."""
    figure = gap_figure(records, target)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150)
    return Path(path)


def _points(record: Record) -> tuple[list[float], list[float]]:
    """Return times from the start of set-up, and gaps cut off at the limits of the axis."""
    setup = finite(record["setup_seconds"])
    offset = setup if math.isfinite(setup) else 0.0
    seconds, gaps = [], []
    for moment, _, gap in record["curve"]:
        if not math.isnan(finite(gap)):
            # Set-up counts: a solver that prepares for long and then converges at once must not look the quickest.
            seconds.append(max(offset + moment, 1e-4))
            gaps.append(on_axis(gap))
    return seconds, gaps


def _panel(axis: "Axes", name: str, group: list[Record], looks: dict[str, Style], target: float | None) -> None:
    ends: dict[str, tuple[float, float, str]] = {}
    for record in group:
        seconds, gaps = _points(record)
        if not seconds:
            continue
        look = looks[curve_name(record)]
        axis.plot(seconds, gaps, linestyle=look.dashes, color=look.colour, linewidth=1.6)
        axis.plot(seconds[-1:], gaps[-1:], look.marker, color=look.colour, markersize=6)
        ends[record["solver_name"]] = (seconds[-1], gaps[-1], look.colour)
    axis.set_xscale("log")
    # First-order solvers and Newton's method differ in the slope of log gap against log time.
    axis.set_yscale("log")
    axis.set_title(_title(name, group), loc="left", fontsize=10)
    plain_axis(axis)
    if target is not None:
        mark_target(axis, target)
    if ends:
        _label_ends(axis, ends)
    else:
        axis.text(0.5, 0.5, "no certified point", transform=axis.transAxes, ha="center", color=GREY)


def _title(name: str, group: list[Record]) -> str:
    about = sizes(group)
    if not about:
        return name
    shape = f"n={about['n']}, d={about['d']}, c={about['c']}, {about['P']} patterns"
    head = f"{name}\n" if name else ""
    return f"{head}{about['loss']}, {about['activation']}, {shape} ({about['scope']})"


def _label_ends(axis: "Axes", ends: dict[str, tuple[float, float, str]]) -> None:
    """Write solver names to the right of the panel, at the heights of their last points, moved apart."""
    low, high = (math.log10(value) for value in axis.get_ylim())
    heights = {name: (math.log10(gap) - low) / (high - low) for name, (_, gap, _) in ends.items()}
    # From the top down, each name takes its own height, or the highest one that is free below the name before.
    placed, ceiling = {}, math.inf
    for name in sorted(heights, key=lambda key: -heights[key]):
        ceiling = placed[name] = min(heights[name], ceiling - LABEL_SPACING)
    lift = max(0.0, -min(placed.values()))  # lifts all labels if the lowest was pushed below the panel
    for name, height in placed.items():
        seconds, gap, colour = ends[name]
        leader: dict[str, Any] = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.5, "shrinkB": 4}
        axis.annotate(
            name, (seconds, gap), (1.02, height + lift), textcoords="axes fraction", va="center", fontsize=9,
            color=colour, arrowprops=leader, annotation_clip=False,
        )  # fmt: skip
