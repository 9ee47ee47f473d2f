"""Power laws fitted to measured costs, and their figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convexnn_bench.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from convexnn_bench.report.figures.gaps import Style

Number = int | float
Series = Mapping[str, Sequence[tuple[Number, Number]]]  # {what was measured: [(size, cost), ...]}


@dataclass(frozen=True)
class PowerLaw:
    """cost = factor size^exponent. error: standard error of the exponent; low, high: its 95 % confidence interval."""

    exponent: float
    factor: float
    error: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.exponent:.2f} ± {self.error:.2f}"


def fit_power_law(sizes: Sequence[Number], costs: Sequence[Number]) -> PowerLaw:
    """Least squares on logarithms, log cost = log factor + exponent log size.

    The interval is Student's, exponent ± t(0.975, points - 2) error. Raises InputError for fewer than three different
    sizes, or values that are not positive and finite.
    """
    from scipy.stats import linregress, t

    x, y = np.asarray(sizes, dtype=float), np.asarray(costs, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(np.unique(x)) < 3:
        raise InputError(f"a power law needs costs at three different sizes at least, got sizes {list(sizes)}")
    if not all(np.isfinite(v).all() and (v > 0).all() for v in (x, y)):
        raise InputError(f"sizes and costs must be positive and finite, got {list(sizes)} and {list(costs)}")
    fit = linregress(np.log(x), np.log(y))
    width = float(t.ppf(0.975, len(x) - 2)) * float(fit.stderr)
    exponent = float(fit.slope)
    return PowerLaw(exponent, math.exp(fit.intercept), float(fit.stderr), exponent - width, exponent + width)


def scaling_figure(
    panels: Mapping[str, Series],
    cost: str,
    looks: Mapping[str, "Style"] | None = None,
    missed: Mapping[str, Series] | None = None,
) -> "Figure":
    """Cost against size, logarithmic, one panel a size: the points measured, the fitted lines, the exponents.

    panels: {name of the size: series}. cost: label of the vertical axis, with its unit. looks: {what was measured: its
    style}; in the order of their names if not given. missed: series of the same panels and names whose costs are only
    known to be larger: drawn hollow, no part of the fit.
    """
    from matplotlib.figure import Figure

    from convexnn_bench.report.figures.gaps import style

    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(7.4 * across, 4.6 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    looks = looks or {name: style(place) for place, name in enumerate(names)}
    for axis, (size, series) in zip(axes.flat, panels.items(), strict=False):
        _panel(axis, size, series, looks, (missed or {}).get(size, {}))
        axis.set_ylabel(cost)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    return figure


def _panel(axis: "Axes", size: str, series: Series, looks: Mapping[str, "Style"], missed: Series) -> None:
    for name, points in series.items():
        own = looks[name]
        x, y = zip(*points, strict=True)
        law = fit_power_law(x, y)
        label = f"{name}: {law.exponent:.2f}  [{law.low:.2f}, {law.high:.2f}]"
        axis.plot(x, y, own.marker, color=own.colour, markersize=6, label=label)
        ends = np.array([min(x), max(x)])
        axis.plot(ends, law.factor * ends**law.exponent, linestyle=own.dashes, color=own.colour, linewidth=1.2)
        for at, least in missed.get(name, ()):
            axis.plot([at], [least], own.marker, color=own.colour, markersize=7, fillstyle="none")
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = sorted({x for some in (series, missed) for points in some.values() for x, _ in points})
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlabel(size)
    axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        title="exponent [95 %]" + ("\nhollow: not reached by then" if missed else ""),
        fontsize=8,
        title_fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
    )
