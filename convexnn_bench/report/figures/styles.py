"""Common parts of a report's figures: styles of solvers, legends, frames of panels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from convexnn_bench.house_style import COLOURS, DASHES, GREY, GRID, MARKERS, Style, find_styles
from convexnn_bench.records import Record
from convexnn_bench.report.numbers import curve_name, without_tolerance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def styles_by_solver(records: Sequence[Record]) -> dict[str, Style]:
    """Return {solver without its tolerance: style}, in the order of the records."""
    return find_styles({curve_name(record): str(record.get("formulation")) for record in records})


def series_style(index: int) -> Style:
    """Return a style for a series that is not a solver, by its index in the figure.

    Consecutive series differ in colour, marker and dashes.
    """
    # 7 colours have no divisor in common with 8 markers and 4 dashes, so that pairs repeat only after 56 and 28 series.
    return Style(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)])


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure in inches, with a layout that keeps panels and legend apart."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def solver_legend(figure: "Figure", names: Sequence[str], looks: dict[str, Style], lines: bool = True) -> None:
    """Name the solvers below the panels; all tolerances of one solver look the same."""
    from matplotlib.lines import Line2D

    shown = {without_tolerance(name) for name in names}
    handles = [
        Line2D([], [], **(look.keywords() | ({} if lines else {"linestyle": ""})), markersize=6, label=name)
        for name, look in looks.items()
        if name in shown
    ]
    columns = max(1, min(4, int(figure.get_figwidth() / (0.09 * max(map(len, shown), default=8) + 0.7))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def plain_axis(axis: "Axes", which: Literal["both", "x", "y"] = "both") -> None:
    """Give a panel a light grid behind its lines, along `which` axes.

    It has no frame on top and on the right.
    """
    axis.grid(True, which="major", axis=which, color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def mark_target(axis: "Axes", target: float, label: str = "target", right: bool = False) -> None:
    """Draw a dotted line at the height of the target, with its label at the left or the right end."""
    axis.axhline(target, color=GREY, linewidth=1, linestyle=":")
    where, offset, align = (1.0, (-3, 3), "right") if right else (0.0, (3, 3), "left")
    axis.annotate(
        label, (where, target), offset, xycoords=("axes fraction", "data"), textcoords="offset points", ha=align,
        fontsize=8, color=GREY,
    )  # fmt: skip
