"""The figure of an interval: both bounds on the optimum against time."""

from typing import TYPE_CHECKING

import numpy as np

from convexnn_bench.house_style import GREEN, ORANGE
from convexnn_bench.report import mark_target, new_figure, plain_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def interval_figure(curve: np.ndarray, primal: float) -> "Figure":
    """Return the figure of moments (seconds, low, high), one a row.

    primal: the objective of the user's network.
    """
    figure = new_figure(6.8, 4.8)
    axes = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.6])
    # Both ends stay as they are until the next moment.
    seconds, low, high = curve.T
    axes[0].fill_between(seconds, low, high, step="post", color=ORANGE, alpha=0.35, linewidth=0)
    axes[0].step(seconds, high, where="post", color=GREEN, label="best network")
    axes[0].step(seconds, low, where="post", color=ORANGE, linestyle=(0, (5, 1.5)), label="lower bound")
    mark_target(axes[0], primal, "your network", right=True)
    axes[0].set_ylabel("objective")
    axes[0].legend(frameon=False, fontsize=9)
    widths = np.divide(high - low, np.abs(low), out=np.full_like(low, np.nan), where=low != 0)
    axes[1].step(seconds, 100 * widths, where="post", color=ORANGE)
    axes[1].set_yscale("log")
    axes[1].set_ylabel("width in %")
    axes[1].set_xlabel("seconds")
    for axis in axes:
        plain_axis(axis)
    return figure
