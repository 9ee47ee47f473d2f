"""The figure of test scores of final points, against certified gap and time."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convexnn_bench.house_style import Style
from convexnn_bench.records import Record
from convexnn_bench.report.figures.gaps import GAP_CEILING, GAP_FLOOR
from convexnn_bench.report.figures.styles import new_figure, plain_axis, solver_legend
from convexnn_bench.report.numbers import derived, without_tolerance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = 3  # number of problems in one figure, each with two panels
NOTHING = 'no cell was scored on held-out samples: give a data set test=0.2, as in "digits[test=0.2]"'


def score_figures(records: Sequence[Record], looks: dict[str, Style]) -> "list[Figure] | str":
    """Draw test scores of final points against certified gap and time, one row for each problem."""
    rows: dict[str, list[derived.ScoredPoint]] = {}
    for one in derived.scored_points(records):
        rows.setdefault(one.problem, []).append(one)
    if not rows:
        return NOTHING
    names, made = list(rows), []
    for first in range(0, len(names), ROWS):
        part = names[first : first + ROWS]
        figure = new_figure(11.2, 2.9 * len(part) + 0.9)
        axes = figure.subplots(len(part), 2, squeeze=False, sharey="row")
        for (by_gap, by_time), name in zip(axes, part, strict=True):
            for one in rows[name]:
                look = looks[without_tolerance(one.solver)]
                # A logarithmic axis cannot show zero. Draw gaps beyond the edges at the edges.
                gap, seconds = min(max(one.gap, GAP_FLOOR), GAP_CEILING), max(one.seconds, 1e-4)
                for axis, x in ((by_gap, gap), (by_time, seconds)):
                    if not math.isnan(x):
                        axis.plot(
                            [x], [one.score], look.marker, color=look.colour, markersize=7, alpha=0.8, clip_on=False
                        )
            for axis in (by_gap, by_time):
                axis.set_xscale("log")
                _mark_ticks(axis)
                plain_axis(axis)
            by_gap.set_ylabel(rows[name][0].kind)
            by_gap.set_ylim(*derived.score_range(rows[name]))
            by_gap.set_title(name, loc="left", fontsize=8.5 if len(name) < 60 else 7)
        axes[-1][0].set_xlabel("certified relative gap of the training objective")
        axes[-1][1].set_xlabel("set-up + solve time (s)")
        solver_legend(figure, [one.solver for name in part for one in rows[name]], looks, lines=False)
        made.append(figure)
    return made


def _mark_ticks(axis: "Axes") -> None:
    """Label powers of ten, and on axes of less than two decades also 2 and 5 times these."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
