"""The figure of a campaign's matrix: solvers by problems.

Each square has the time to one certified gap over the best.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convexnn_bench.house_style import GREY, WHITE, Style
from convexnn_bench.report.figures.styles import new_figure
from convexnn_bench.report.formats import format_target
from convexnn_bench.report.matrix import Matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEEPEST, PALEST = 0.55, 0.08  # opacity of a solver's colour in the square of the best and of the slowest
NAME_WIDTH = 26  # characters of a problem's name in one line


def matrix_figure(one: Matrix, looks: Mapping[str, Style]) -> "Figure":
    """Draw one row a problem and one column a solver, in the solver's colour.

    A square is hatched if the gap was not reached.

    looks: the style of every solver. The deeper the colour, the closer is the time to that of the best solver.
    """
    figure = new_figure(1.05 * len(one.solvers) + 3.0, 0.52 * len(one.rungs) + 1.9)
    axis = figure.subplots()
    for column, solver in enumerate(one.solvers):
        for row, rung in enumerate(one.rungs):
            if (rung, solver) in one.squares:
                _draw_square(axis, column, row, one, (rung, solver), looks[solver].colour)
    axis.set_xlim(-0.5, len(one.solvers) - 0.5)
    axis.set_ylim(len(one.rungs) - 0.5, -0.5)  # the first problem is at the top, as in the tables
    axis.xaxis.tick_top()
    axis.set_xticks(
        range(len(one.solvers)),
        [folded(name, 18) for name in one.solvers],
        rotation=35,
        ha="left",
        rotation_mode="anchor",
        fontsize=8.5,
    )
    axis.set_yticks(range(len(one.rungs)), [folded(rung) for rung in one.rungs], fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.grid(False)
    axis.set_xlabel(
        f"median time to a certified gap of {format_target(one.gap)}, over that of the best solver (which has its time)"
        "\nhatched: not reached; empty: not run",
        fontsize=8.5,
        color=GREY,
    )
    return figure


def _draw_square(axis: "Axes", column: int, row: int, one: Matrix, where: tuple[str, str], colour: str) -> None:
    from matplotlib.patches import Rectangle

    square = one.squares[where]
    corner = (column - 0.48, row - 0.47)
    look: dict[str, Any] = {"facecolor": WHITE, "edgecolor": "#c4c4c4", "hatch": "////", "linewidth": 0.0}
    if square.reached:
        look = {"facecolor": colour, "alpha": PALEST + (DEEPEST - PALEST) * square.level, "linewidth": 0.0}
    axis.add_patch(Rectangle(corner, 0.96, 0.94, **look))
    if square.best:
        axis.add_patch(Rectangle(corner, 0.96, 0.94, fill=False, edgecolor=colour, linewidth=1.6))
    paper = None if square.reached else {"facecolor": WHITE, "edgecolor": "none", "pad": 1.2}
    weight = "bold" if square.best else "normal"
    axis.text(column, row, square.text, ha="center", va="center", fontsize=8.5, weight=weight, bbox=paper)


def folded(rung: str, width: int = NAME_WIDTH) -> str:
    """Return a long name in several lines, broken at its commas."""
    lines = [""]
    for part in rung.replace("[", " [").split(","):
        lines = (
            [*lines, part] if len(lines[-1]) + len(part) > width else [*lines[:-1], f"{lines[-1]},{part}".lstrip(",")]
        )
    return ",\n".join(line for line in lines if line)
