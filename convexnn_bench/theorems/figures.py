"""Figures of the theorem checks: the ends of random starts, and the staircase."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from convexnn_bench.house_style import BLUE, GREEN, GREY, ORANGE, PINK
from convexnn_bench.report import mark_target, plain_axis
from convexnn_bench.theorems.ends import End, StaircaseStep, Width

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FLOOR = 1e-13  # relative; an excess or a gap below it is drawn at this height
KINDS = {  # colour and marker of an end of training
    "global": (BLUE, "o"),
    "second order, above p*": (PINK, "D"),
    "unfinished": (GREY, "x"),
}


def starts_figure(
    ends: Sequence[End], widths: Sequence[Width], tolerance: float, covered_from: int, xlabel: str, title: str
) -> "Figure":
    """Draw the relative excess of every end over the lower bound (log) against m.

    The ends of one width are spread sideways, so that they do not hide each other. A dotted line marks the tolerance,
    and a shade the widths m >= covered_from, for which the theorem excludes spurious minima.
    """
    from matplotlib.figure import Figure

    columns = [width.m for width in widths]
    figure = Figure(figsize=(max(5.6, 1.4 + 0.75 * len(columns)), 4.2), layout="constrained")
    axis = figure.subplots()
    # A fixed seed draws the same figure from the same ends.
    rng = np.random.default_rng(0)
    for kind, (colour, marker) in KINDS.items():
        alike = [end for end in ends if end.kind == kind]
        if not alike:
            continue
        places = [columns.index(end.m) + rng.uniform(-0.28, 0.28) for end in alike]
        heights = [max(end.excess, FLOOR) for end in alike]
        axis.scatter(places, heights, s=26, marker=marker, color=colour, alpha=0.75, label=f"{kind} ({len(alike)})")
    # Global ends differ from p* by rounding and others by per cents, which only a logarithmic axis shows together.
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, FLOOR / 2), max(high, 10 * tolerance))
    mark_target(axis, tolerance, f"{tolerance:.0e}", right=True)
    axis.set_xticks(range(len(columns)), [str(m) for m in columns])
    axis.set_xlim(-0.6, len(columns) - 0.4)
    # Widths are drawn at 0, 1, 2, ..., and the shade begins halfway before the first one that the theorem covers.
    covered = sum(m < covered_from for m in columns) - 0.5
    if covered < len(columns) - 0.5:
        axis.axvspan(covered, len(columns) - 0.4, color=GREEN, alpha=0.08, linewidth=0)
        axis.annotate(
            f"m ≥ min(p, q)\n= {covered_from}:\nno spurious\nminimum", (1.0, 1.0), (-3, -4),
            xycoords="axes fraction", textcoords="offset points", ha="right", va="top", fontsize=8, color=GREEN,
        )  # fmt: skip
    axis.set_xlabel(xlabel)
    axis.set_ylabel("relative excess over the proven bound")
    axis.set_title(title, loc="left", fontsize=10)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=len(KINDS))
    plain_axis(axis, "y")
    return figure


def staircase_figure(steps: Sequence[StaircaseStep], target: float) -> "Figure":
    """Draw the objective with its bound (left) and the gap (right, log) against m."""
    from matplotlib.figure import Figure

    m = [step.m for step in steps]
    figure = Figure(figsize=(8.4, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(m, [step.objective for step in steps], "o-", color=BLUE, label="objective")
    bounds = [step.lower_bound for step in steps]
    left.plot(m, bounds, "v--", color=ORANGE, label="proven lower bound")
    left.set_ylabel("objective")
    left.legend(fontsize=8, frameon=False)
    # The gap of the zero network may be infinite, and that of the last step zero. Both are drawn at an edge.
    right.plot(m, [min(max(step.gap, FLOOR), 1e3) for step in steps], "o-", color=BLUE)
    right.set_yscale("log")
    right.set_ylabel("certified relative gap")
    mark_target(right, target)
    for axis in (left, right):
        axis.set_xticks(m)
        axis.set_xlabel("columns m of every block")
        plain_axis(axis, "y")
    return figure
