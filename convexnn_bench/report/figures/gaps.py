"""Figures from records: certified relative gap against time, one panel a problem."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convexnn_bench.records.records import Record, whole_file
from convexnn_bench.report.numbers.time_to_gap import curve_name
from convexnn_bench.report.tables import finite, group_by_problem, sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart under every common colour blindness; its yellow is too pale on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<>"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
GAP_FLOOR, GAP_CEILING = 1e-12, 10.0


@dataclass(frozen=True)
class Style:
    """How a solver is drawn in every figure of a report: colour is never all that tells two of them apart."""

    colour: str
    marker: str
    dashes: Any


def styles(records: Sequence[Record]) -> dict[str, Style]:
    """{solver without its tolerance: its style}, in the order of the records."""
    names = list(dict.fromkeys(curve_name(record) for record in records))
    return {name: style(place) for place, name in enumerate(names)}


def style(place: int) -> Style:
    """The place-th of the styles. Neighbours differ in colour, marker and dashes.

    Colour and marker are a pair of their own for 49 places, colour and dashes for 28.
    """
    turn = place // len(COLOURS)  # a colour comes back with the next marker, and with other dashes: 4 does not divide 7
    marker = MARKERS[(place + turn) % len(MARKERS)]
    return Style(COLOURS[place % len(COLOURS)], marker, DASHES[place % len(DASHES)])


def gap_figure(records: Sequence[Record], target: float | None = None) -> "Figure":
    """Relative gap (log) against set-up plus solve time in seconds (log), a panel a problem.

    A solver has the same colour in every panel. Each line carries its solver's name at its end. target: the
    gap asked for, drawn as a dotted line. Points outside 1e-12..10 are drawn at that edge.
    """
    from matplotlib.figure import Figure

    groups = group_by_problem(records)
    across = min(2, max(1, len(groups)))
    down = max(1, math.ceil(len(groups) / across))
    figure = Figure(figsize=(6.4 * across, 3.7 * down + 0.3), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    drawn = styles(records)
    for place, (name, group) in enumerate(groups.items()):
        _panel(axes[place // across][place % across], name, group, drawn, target)
    for place in range(len(groups), down * across):
        axes[place // across][place % across].set_axis_off()
    for row in axes:
        row[0].set_ylabel("certified relative gap")
    for axis in axes[-1]:
        axis.set_xlabel("set-up + solve time (s)")
    return figure


def save_gap_figure(records: Sequence[Record], path: str | Path, target: float | None = None) -> Path:
    """`gap_figure` as an image file; the format follows the suffix."""
    figure = gap_figure(records, target)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150)
    return Path(path)


def _points(record: Record) -> tuple[list[float], list[float]]:
    """Times from the start of set-up, and gaps held within the limits of the axis."""
    setup = finite(record["setup_seconds"])
    offset = setup if math.isfinite(setup) else 0.0
    seconds, gaps = [], []
    for moment, _, gap in record["curve"]:
        if not math.isnan(finite(gap)):
            seconds.append(max(offset + moment, 1e-4))
            gaps.append(min(max(gap, GAP_FLOOR), GAP_CEILING))
    return seconds, gaps


def _panel(axis: "Axes", name: str, group: list[Record], drawn: dict[str, Style], target: float | None) -> None:
    ends: dict[str, tuple[float, float, str]] = {}
    for record in group:
        seconds, gaps = _points(record)
        if not seconds:
            continue
        own = drawn[curve_name(record)]
        axis.plot(seconds, gaps, linestyle=own.dashes, color=own.colour, linewidth=1.6)
        axis.plot(seconds[-1:], gaps[-1:], own.marker, color=own.colour, markersize=6)
        ends[record["solver_name"]] = (seconds[-1], gaps[-1], own.colour)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_title(_title(name, group), loc="left", fontsize=10)
    axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    if target is not None:
        axis.axhline(target, color="#555555", linewidth=1, linestyle=":")
        axis.annotate(
            "target", (0.0, target), (3, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=8, color="#555555",
        )  # fmt: skip
    if ends:
        _label_ends(axis, ends)
    else:
        axis.text(0.5, 0.5, "no certified point", transform=axis.transAxes, ha="center", color="#555555")


def _title(name: str, group: list[Record]) -> str:
    about = sizes(group)
    if not about:
        return name
    shape = f"n={about['n']}, d={about['d']}, c={about['c']}, {about['P']} patterns"
    head = f"{name}\n" if name else ""
    return f"{head}{about['loss']}, {about['activation']}, {shape} ({about['scope']})"


def _label_ends(axis: "Axes", ends: dict[str, tuple[float, float, str]]) -> None:
    """Solver names to the right of the panel, at the height of their last point, moved apart."""
    low, high = (math.log10(value) for value in axis.get_ylim())
    heights = {name: (math.log10(gap) - low) / (high - low) for name, (_, gap, _) in ends.items()}
    spacing, placed, ceiling = 0.07, {}, math.inf
    for name in sorted(heights, key=lambda key: -heights[key]):
        ceiling = placed[name] = min(heights[name], ceiling - spacing)
    lift = max(0.0, -min(placed.values()))  # labels pushed below the panel lift the crowd
    for name, height in placed.items():
        seconds, gap, colour = ends[name]
        leader: dict[str, Any] = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.5, "shrinkB": 4}
        axis.annotate(
            name,
            (seconds, gap),
            (1.02, height + lift),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=colour,
            arrowprops=leader,
            annotation_clip=False,
        )
