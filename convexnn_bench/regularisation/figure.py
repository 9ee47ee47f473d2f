"""The figure of a path: enclosure, gap, neurons and test score against beta."""

from typing import TYPE_CHECKING, Any

import numpy as np

from convexnn_bench.house_style import GREEN, ORANGE, PINK
from convexnn_bench.report import mark_target, new_figure, plain_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

GAP_FLOOR = 1e-3  # lower edge of the gaps' axis, relative to the tolerance; smaller gaps are drawn there
SCORES = {"test_accuracy": "test accuracy", "test_r2": "test R2", "test_loss": "test loss"}


def path_figure(betas: np.ndarray, enclosures: np.ndarray, frame: "pd.DataFrame", tolerance: float) -> "Figure":
    """Return the figure: a column of panels with a logarithmic axis of beta.

    betas, enclosures: weight decays and their bounds (one row each). frame: the table of the certified networks.
    """
    # 1. One panel for each quantity that is known.
    score = next((name for name in SCORES if name in frame and frame[name].notna().any()), None)
    figure = new_figure(6.8, 6.6 if score is None else 8.2)
    heights = [3, 1.6, 1.6] if score is None else [3, 1.6, 1.6, 1.6]
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    low, high = enclosures.T
    # 2. Draw the enclosure and its relative width. A bound of zero has no finite gap.
    axes[0].fill_between(betas, low, high, color=ORANGE, alpha=0.5, linewidth=0.8, label="enclosure of the optimum")
    axes[0].plot(frame["beta"], frame["objective"], "o", color=GREEN, markersize=3.5, label="certified networks")
    axes[0].set_ylabel("objective")
    axes[0].legend(frameon=False, fontsize=9)
    gaps = np.divide(high - low, np.abs(low), out=np.full_like(low, np.nan), where=low != 0)
    axes[1].plot(betas, np.maximum(gaps, GAP_FLOOR * tolerance), color=ORANGE, linewidth=1.2)
    axes[1].set_yscale("log")
    axes[1].set_ylabel("relative gap")
    mark_target(axes[1], tolerance, "tolerance")
    # 3. Draw the quantities that only certified networks have.
    axes[2].plot(frame["beta"], frame["active_neurons"], "o-", color=GREEN, markersize=3.5, linewidth=1)
    axes[2].set_ylabel("active neurons")
    if score is not None:
        axes[3].plot(frame["beta"], frame[score], "o-", color=PINK, markersize=3.5, linewidth=1)
        axes[3].set_ylabel(SCORES[score])
    axes[-1].set_xscale("log")
    axes[-1].set_xlabel("weight decay beta")
    for axis in axes:
        plain_axis(axis)
    return figure


def record_figure(record: dict[str, Any]) -> "Figure":
    """Return the figure of a path from what `RegularisationPath.to_record` returned."""
    import pandas as pd

    betas, *bounds = np.array(record["enclosure"], dtype=float).T
    frame = pd.DataFrame(record["networks"])
    return path_figure(betas, np.column_stack(bounds), frame, record["tolerance"])
