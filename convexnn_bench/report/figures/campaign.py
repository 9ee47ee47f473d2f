"""The figures of a report for print, as PNG and SVG, each drawn from records alone.

The page draws the same numbers as interactive charts, one problem, gap or size at a time (report.page.charts).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convexnn_bench.house_style import GREY, GRID, Style
from convexnn_bench.records import Record
from convexnn_bench.report.figures.gaps import on_axis
from convexnn_bench.report.figures.matrix import matrix_figure
from convexnn_bench.report.figures.scaling import scaling_figure
from convexnn_bench.report.figures.scores import score_figures
from convexnn_bench.report.figures.styles import new_figure, plain_axis, solver_legend, styles_by_solver
from convexnn_bench.report.formats import format_target
from convexnn_bench.report.matrix import matrix
from convexnn_bench.report.numbers import Band, asked_gap, bands, derived, optimum, solver_times, without_tolerance
from convexnn_bench.storage import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 6  # problems in one figure of curves
RANK_ROWS = 24  # problems in one figure of ranks
LABEL_WIDTH = 44  # characters of a problem's name on an axis


@dataclass(frozen=True)
class Drawn:
    """One figure of a report, in parts if it is large.

    `figures` is empty if `missing` says why it was not drawn.
    """

    name: str
    title: str
    figures: "list[Figure]"
    missing: str | None = None


def draw_all(records: Sequence[Record]) -> Iterator[Drawn]:
    """Draw every figure in turn, all with the same styles."""
    looks = styles_by_solver(records)
    for name, (title, make) in FIGURES.items():
        made = make(records, looks)
        yield Drawn(name, title, [], made) if isinstance(made, str) else Drawn(name, title, made)


def save_all(records: Sequence[Record], folder: Path) -> Iterator[tuple[Drawn, list[Path]]]:
    """Draw every figure and write it to `folder` as NAME.png and NAME.svg.

    Further parts are NAME_2 and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for drawn in draw_all(records):
        paths = []
        for part, figure in enumerate(drawn.figures, start=1):
            stem = drawn.name if part == 1 else f"{drawn.name}_{part}"
            for suffix in ("png", "svg"):
                paths.append(folder / f"{stem}.{suffix}")
                with whole_file(paths[-1]) as partial:
                    figure.savefig(partial, dpi=150, format=suffix)
                # The first file has laid out the figure, in inches, for the second one as well.
                figure.set_layout_engine("none")
        yield drawn, paths


def matrix_figures(records: Sequence[Record], looks: dict[str, Style]) -> "list[Figure] | str":
    """Draw the matrix of solvers by problems at the campaign's gap."""
    gap = asked_gap(records)
    one = matrix(solver_times(records, [gap]), gap)
    if not any(square.reached for square in one.squares.values()):
        return f"no solver reached a gap of {format_target(gap)}"
    return [matrix_figure(one, looks)]


def curve_figures(records: Sequence[Record], looks: dict[str, Style], what: str) -> "list[Figure] | str":
    """Draw `what` against seconds: a panel a rung, medians and quartiles of draws.

    what: "gaps" or "excess", of `Band`.
    """
    panels: dict[str, list[Band]] = {}
    for band in bands(records):
        if any(math.isfinite(one.median) for one in getattr(band, what)):
            panels.setdefault(band.rung, []).append(band)
    if not panels:
        return "no record has a point with a proven gap"
    names, made = list(panels), []
    for first in range(0, len(names), PANELS):
        part = names[first : first + PANELS]
        across, down = min(2, len(part)), math.ceil(len(part) / 2)
        figure = new_figure(5.6 * across, 3.4 * down + 0.9)
        axes = figure.subplots(down, across, squeeze=False)
        for axis, name in zip(axes.flat, part, strict=False):
            _curves(axis, name, panels[name], looks, what)
        for axis in axes.flat[len(part) :]:
            axis.set_axis_off()
        words = {"gaps": "certified relative gap", "excess": "distance to the optimum, at most (relative)"}
        for axis in axes.flat[max(0, len(part) - across) : len(part)]:
            axis.set_xlabel("set-up + solve time (s)")
        for row in axes:
            row[0].set_ylabel(words[what])
        solver_legend(figure, [band.solver for name in part for band in panels[name]], looks)
        made.append(figure)
    return made


def _curves(axis: "Axes", name: str, group: list[Band], looks: dict[str, Style], what: str) -> None:
    for band in group:
        look = looks[band.solver]
        points = [
            (max(seconds, 1e-4), *map(on_axis, (one.median, one.low, one.high)))
            for seconds, one in zip(band.seconds, getattr(band, what), strict=True)
            if math.isfinite(one.median)
        ]
        if points:
            x, y, low, high = zip(*points, strict=True)
            # Nothing is proven between two points, so that a curve is flat up to the next one.
            axis.step(x, y, where="post", linestyle=look.dashes, color=look.colour, linewidth=1.4)
            if band.draws > 1:
                axis.fill_between(x, low, high, step="post", color=look.colour, alpha=0.15, linewidth=0)
            # One marker at the end of each line tells the solvers apart without colour.
            axis.plot(x[-1:], y[-1:], look.marker, color=look.colour, markersize=5.5)
    axis.set_xscale("log")
    axis.set_yscale("log")
    draws = max((band.draws for band in group), default=1)
    runs = f"   (median and quartiles of {draws} runs)" if draws > 1 else ""
    axis.set_title(f"{name}{runs}", loc="left", fontsize=8.5 if len(name + runs) < 60 else 7)
    plain_axis(axis)


def truth_figure(records: Sequence[Record], looks: dict[str, Style]) -> "list[Figure] | str":
    """Draw the certified gap, and the paper's bound, against the true distance.

    The distance to the optimum is what is known of it.
    """
    points = optimum.truths(records)
    if not points:
        return "no record ends with a proven gap at a positive optimum"
    # Both panels have the same two axes, so that a point keeps its height and only its bound moves.
    figure = new_figure(11.0, 5.2)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    floor, end = 1e-10, optimum.reach(points)
    titles = ("certified gap", "bound of Theorem 3.4 alone: holds at stationary points only")
    for axis, title, pick in zip(axes, titles, (lambda t: t.gap, lambda t: t.paper), strict=True):
        for one in points:
            bound = pick(one)
            if math.isnan(bound):
                continue
            look = looks[without_tolerance(one.solver)]
            x, low, high = (min(max(value, floor), end) for value in (bound, one.least, one.most))
            # The true distance is only known to lie in an interval. The marker is at its upper end, which is safe to
            # claim.
            axis.plot([x, x], [low, high], "-", color=look.colour, linewidth=0.8, alpha=0.6)
            axis.plot([x], [high], look.marker, color=look.colour, markersize=5, alpha=0.8)
        ends = [floor, end]
        # A valid bound lies at or to the right of the diagonal, and the distance from it shows how much it
        # overestimates.
        axis.plot(ends, ends, "--", color=GREY, linewidth=1)
        axis.annotate("bound = truth", (1e-4, 1e-4), (-10, 2), textcoords="offset points", ha="right", fontsize=8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(floor / 2, 2 * end)
        axis.set_ylim(floor / 2, 2 * end)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("bound on the relative distance to the optimum")
        plain_axis(axis)
    axes[0].set_ylabel("relative distance, as far as it is known")
    solver_legend(figure, [one.solver for one in points], looks, lines=False)
    return [figure]


def profile_figure(records: Sequence[Record], looks: dict[str, Style]) -> "list[Figure] | str":
    """Draw performance profiles, one panel a gap."""
    panels = {gap: derived.profiles(records, gap) for gap in derived.gaps_of(records)}
    panels = {gap: profiles for gap, profiles in panels.items() if any(one.ratios for one in profiles)}
    if not panels:
        return "no solver reached any of the gaps"
    if max(map(len, panels.values())) < 2:
        return "a profile compares solvers, and there is only one"
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(4.2 * len(panels) + 0.6, 4.6)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (gap, profiles) in zip(axes, panels.items(), strict=True):
        # All lines go on to the same end, where a line's height is the share of races in which its solver reached the
        # gap at all.
        end = 2 * max(ratio for one in profiles for ratio in (one.ratios or [1.0]))
        for one in profiles:
            x = [1.0, *one.ratios, end]
            y = [0.0, *((rank + 1) / one.runs for rank in range(len(one.ratios))), len(one.ratios) / one.runs]
            look = looks[one.solver]
            # A profile counts races, so that it jumps at each ratio and is flat in between.
            axis.step(x, y, where="post", linestyle=look.dashes, color=look.colour, linewidth=1.6)
            axis.plot(x[-1:], y[-1:], look.marker, color=look.colour, markersize=6, clip_on=False)
        # A solver that is ten times slower and one that is a hundred times slower must both be visible.
        axis.set_xscale("log")
        axis.set_xlim(1, end)
        nobody = f", {profiles[0].unsolved} won by none" if profiles[0].unsolved else ""
        axis.set_title(f"certified gap {format_target(gap)}, {profiles[0].runs} races{nobody}", loc="left", fontsize=10)
        axis.set_xlabel("time, in times of the quickest solver's")
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        plain_axis(axis)
    axes[0].set_ylabel("races in which the solver reached the gap")
    axes[0].set_ylim(-0.02, 1.02)
    solver_legend(figure, [one.solver for profiles in panels.values() for one in profiles], looks)
    return [figure]


def scaling_figures(records: Sequence[Record], looks: dict[str, Style]) -> "list[Figure] | str":
    """Draw seconds to the campaign's gap against each size, with fitted powers.

    The problems are its largest family.
    """
    chosen: dict[tuple[str, str], derived.Scaling] = {}
    for one in derived.scalings(records):
        if one.laws:
            # Families come largest first, so that each data set and size keeps its largest one.
            chosen.setdefault((one.title.partition("[")[0], one.size), one)
    if not chosen:
        return (
            "three problems are needed that differ in one size only (n, d, c or patterns), "
            "and a solver that reached the gap on all of them"
        )
    gap = format_target(asked_gap(records))
    panels, missed = {}, {}
    for one in chosen.values():
        title = f"{one.size}   ({one.title})"
        panels[title] = {name: one.points[name] for name in one.laws}
        missed[title] = {name: one.missed[name] for name in one.laws if name in one.missed}
    return [scaling_figure(panels, f"seconds to a certified gap of {gap}", looks, missed)]


def rank_figure(records: Sequence[Record], looks: dict[str, Style]) -> "list[Figure] | str":
    """Draw the number of nonzero blocks at the optimum, out of P, and their ranks.

    There is one row a problem.
    """
    ranks = derived.ranks(records)
    if not ranks:
        return "no record reached its gap and counts its blocks (records of schema 1 do not)"
    names = list(dict.fromkeys(one.problem for one in ranks))
    made = []
    for first in range(0, len(names), RANK_ROWS):
        part = names[first : first + RANK_ROWS]
        in_part = [one for one in ranks if one.problem in part]
        figure = new_figure(10.5, 0.4 * len(part) + 1.6)
        axis = figure.subplots()
        for row, name in enumerate(part):
            solvers = [one for one in ranks if one.problem == name]
            axis.plot([1, solvers[0].P], [row, row], "-", color=GRID, linewidth=5, solid_capstyle="butt")
            for turn, one in enumerate(solvers):
                look = looks[without_tolerance(one.solver)]
                height = row + 0.5 * ((turn + 0.5) / len(solvers) - 0.5)  # so that no marker hides another
                # Zero blocks are possible, and a logarithmic axis has no zero.
                axis.plot([max(one.active, 0.8)], [height], look.marker, color=look.colour, markersize=5.5)
            label = f"of {solvers[0].P}; rank ≤ {max(one.largest for one in solvers)} of {solvers[0].most}"
            axis.annotate(label, (solvers[0].P, row), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axis.set_yticks(range(len(part)), [_short(name) for name in part], fontsize=8)
        # The first problem is at the top, as in the tables.
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.set_xlim(0.7, 6 * max(one.P for one in in_part))
        axis.set_xlabel("blocks that are not zero at the optimum (grey: all blocks)")
        plain_axis(axis)
        axis.grid(False, axis="y")
        solver_legend(figure, [one.solver for one in in_part], looks, lines=False)
        made.append(figure)
    return made


def _short(name: str) -> str:
    return name if len(name) <= LABEL_WIDTH else f"{name[: LABEL_WIDTH - 1]}…"


Maker = Callable[[Sequence[Record], dict[str, Style]], "list[Figure] | str"]  # the figures, or why there are none
FIGURES: dict[str, tuple[str, Maker]] = {
    "matrix": ("Time to the gap over the best", matrix_figures),
    "gap_against_time": ("Certified gap against time", lambda r, s: curve_figures(r, s, "gaps")),
    "objective_against_time": ("Objective against time", lambda r, s: curve_figures(r, s, "excess")),
    "performance_profile": ("Performance profiles", profile_figure),
    "scaling": ("Wall clock against size", scaling_figures),
    "bound_against_truth": ("Proven bound against the truth", truth_figure),
    "ranks": ("Active blocks and ranks at the optimum", rank_figure),
    "test_scores": ("Test scores", score_figures),
}
