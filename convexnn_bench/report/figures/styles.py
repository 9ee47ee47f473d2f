"""How solvers and axes look in every figure: colours, markers and dashes, and the plain frame of a panel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from convexnn_bench.records import Record
from convexnn_bench.report.numbers import curve_name, without_tolerance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, distinct under every common colour blindness; its yellow is too pale on white
COLOURS: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS: str = "os^Dv<>"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))  # matplotlib's, in points
GREY = "#555555"  # for what belongs to no solver: targets, diagonals, baselines


@dataclass(frozen=True)
class Style:
    """How a solver is drawn in every figure of a report; two solvers never differ by colour alone."""

    colour: str
    marker: str
    dashes: Any


def styles_by_solver(records: Sequence[Record]) -> dict[str, Style]:
    """Return {solver without its tolerance: its style}, in the order of the records."""
    # The order of the records decides, so that a solver looks the same in every figure and on the page.
    names = list(dict.fromkeys(curve_name(record) for record in records))
    return {name: style(index) for index, name in enumerate(names)}


def style(index: int) -> Style:
    """Return the style with this index. Neighbours differ in colour, marker and dashes.

    The pair of colour and marker is unique for 49 indices, that of colour and dashes for 28.
    """
    turn = index // len(COLOURS)  # a colour returns with the next marker, and with other dashes: 4 does not divide 7
    marker = MARKERS[(index + turn) % len(MARKERS)]
    return Style(COLOURS[index % len(COLOURS)], marker, DASHES[index % len(DASHES)])


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches, whose panels and legend make room for each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def solver_legend(figure: "Figure", names: Sequence[str], looks: dict[str, Style], lines: bool = True) -> None:
    """Name the solvers below the panels; all tolerances of one solver look the same."""
    from matplotlib.lines import Line2D

    shown = {without_tolerance(name) for name in names}
    handles = [
        Line2D(
            [], [], color=look.colour, marker=look.marker, linestyle=look.dashes if lines else "", markersize=6,
            label=name,
        )
        for name, look in looks.items()
        if name in shown
    ]  # fmt: skip
    columns = max(1, min(4, int(figure.get_figwidth() / (0.09 * max(map(len, shown), default=8) + 0.7))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def plain_axis(axis: "Axes", which: Literal["both", "x", "y"] = "both") -> None:
    """Give a panel a light grid behind its lines, along `which` axes, and no frame on top and on the right."""
    axis.grid(True, which="major", axis=which, color="#dddddd", linewidth=0.6)
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
