"""The figure of measured costs and the power laws fitted to them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from convexnn_bench.house_style import Style
from convexnn_bench.report.figures.styles import plain_axis, series_style
from convexnn_bench.report.numbers import Number, fit_power_law

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Mapping[str, Sequence[tuple[Number, Number]]]  # {what was measured: [(size, cost), ...]}


def scaling_figure(
    panels: Mapping[str, Series],
    cost: str,
    looks: Mapping[str, Style] | None = None,
    missed: Mapping[str, Series] | None = None,
) -> "Figure":
    """Draw cost against size, both logarithmic, one panel a size, with fitted lines and their exponents.

    panels: {name of the size: series}. cost: label of the vertical axis, with its unit. looks: {what was measured: its
    style}, by default the styles in the order of the names. missed: series of the same panels and names whose costs are
    lower bounds; they are drawn hollow and do not enter the fit.
    """
    from matplotlib.figure import Figure

    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(7.4 * across, 4.6 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    looks = looks or {name: series_style(index) for index, name in enumerate(names)}
    for axis, (size, series) in zip(axes.flat, panels.items(), strict=False):
        _panel(axis, size, series, looks, (missed or {}).get(size, {}))
        axis.set_ylabel(cost)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    return figure


def _panel(axis: "Axes", size: str, series: Series, looks: Mapping[str, Style], missed: Series) -> None:
    for name, points in series.items():
        look = looks[name]
        x, y = zip(*points, strict=True)
        law = fit_power_law(x, y)
        label = f"{name}: {law.exponent:.2f}  [{law.low:.2f}, {law.high:.2f}]"
        axis.plot(x, y, look.marker, color=look.colour, markersize=6, label=label)
        ends = np.array([min(x), max(x)])
        # cost = factor size^exponent is a straight line on these axes, and the exponent is its slope.
        axis.plot(ends, law.factor * ends**law.exponent, linestyle=look.dashes, color=look.colour, linewidth=1.2)
        for at, least in missed.get(name, ()):
            axis.plot([at], [least], look.marker, color=look.colour, markersize=7, fillstyle="none")
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = sorted({x for some in (series, missed) for points in some.values() for x, _ in points})
    # Only the measured sizes are marked, because nothing is known in between.
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlabel(size)
    plain_axis(axis)
    axis.legend(
        title="exponent [95 %]" + ("\nhollow: not reached by then" if missed else ""),
        fontsize=8,
        title_fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
    )
