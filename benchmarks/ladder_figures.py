"""The map of where Burer-Monteiro beats exact solvers, over samples, blocks and outputs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convexnn_bench.errors import InputError
from convexnn_bench.house_style import GREY, SHADES, hue_of
from convexnn_bench.report import SolverTimes, by_rung, format_seconds, format_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST_ORDER = ("fista",)  # solves the convex program, but is no exact solver: marked on the map
EDGE = 300.0  # ratio at which the map's colours end


def map_figure(found: Sequence[SolverTimes], gap: float) -> "Figure":
    """How many times faster the best Burer-Monteiro solver is than the best solver of the convex program.

    One panel a number of outputs c, a square for each n and P. Where only one side reached the gap the number is a
    bound, and where neither did the square is hatched. A dashed border marks squares in which the best convex solver is
    a first-order one.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.figure import Figure

    groups = [group for (_, at), group in by_rung(found, (gap,)).items() if at == gap and group[0].problem]
    if not groups:
        raise InputError(f"no record says how large its problem is: there is no map to draw at a gap of {gap:g}")
    places = [tuple(group[0].problem[key] for key in ("n", "P", "c")) for group in groups]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise InputError(f"a map holds one problem for each n, P and c, but there are several with {twice}")
    axis_values = {key: sorted({group[0].problem[key] for group in groups}) for key in ("n", "P", "c")}
    ns, Ps, cs = axis_values.values()
    figure = Figure(figsize=(max(9.0, 1.35 * len(ns) * len(cs) + 2.2), 1.1 * len(Ps) + 1.7), layout="constrained")
    axes = figure.subplots(1, len(cs), squeeze=False)[0]
    colours = LinearSegmentedColormap.from_list("sides", [SHADES["convex"][0], "white", SHADES["burer_monteiro"][0]])
    norm = LogNorm(1 / EDGE, EDGE)
    for axis, c in zip(axes, cs, strict=True):
        for group in groups:
            if group[0].problem["c"] == c:
                _square(axis, ns.index(group[0].problem["n"]), Ps.index(group[0].problem["P"]), group, colours, norm)
        axis.set(xlim=(-0.5, len(ns) - 0.5), ylim=(-0.5, len(Ps) - 0.5), xlabel="samples n")
        axis.set_title(f"{c} output{'s' if c > 1 else ''}", loc="left", fontsize=10)
        axis.set_xticks(range(len(ns)), ns)
        axis.set_yticks(range(len(Ps)), Ps)
    axes[0].set_ylabel("blocks P")
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(axes), pad=0.01, extend="both")
    bar.set_label(f"convex time / Burer-Monteiro time, to {format_target(gap)}", fontsize=9)
    figure.supxlabel(
        "blue: the best Burer-Monteiro solver is faster; orange: the best solver of the convex program is "
        f"(dashed border: {' or '.join(FIRST_ORDER)})",
        fontsize=8,
        color=GREY,
    )
    return figure


def sides(group: Sequence[SolverTimes]) -> tuple[SolverTimes | None, SolverTimes | None]:
    """The best Burer-Monteiro solver and the best of the convex program, rivals left out; None where there is none."""
    ours = [one for one in group if one.formulation == "burer_monteiro"]
    exact = [one for one in group if hue_of(one.solver, one.formulation) == "convex"]
    return _quickest(ours), _quickest(exact)


def _quickest(side: Sequence[SolverTimes]) -> SolverTimes | None:
    return min(side, key=lambda one: (not one.done, one.bound), default=None)


def map_ratio(group: Sequence[SolverTimes]) -> tuple[float, str, str]:
    """(exact time / Burer-Monteiro time, ">" or "<" where it is a bound, who was compared); nan where neither ended."""
    ours, exact = sides(group)
    if ours is None or exact is None or not (ours.done or exact.done):
        return math.nan, "", "neither"
    ratio = exact.bound / ours.bound
    sign = "" if ours.done and exact.done else ">" if ours.done else "<"
    return ratio, sign, f"{_short(ours)} {_took(ours)}\n{_short(exact)} {_took(exact)}"


def _short(one: SolverTimes) -> str:
    return one.solver.partition("[")[0].removeprefix("bm_").removeprefix("cvxpy_").removesuffix("_newton")


def _took(one: SolverTimes) -> str:
    return f"{'' if one.done else '>'}{format_seconds(one.bound)} s" if math.isfinite(one.bound) else "never"


def _square(axis: "Axes", column: int, row: int, group: Sequence[SolverTimes], colours: Any, norm: Any) -> None:
    from matplotlib.patches import Rectangle

    ratio, sign, names = map_ratio(group)
    corner = (column - 0.48, row - 0.48)
    if math.isnan(ratio):
        axis.add_patch(Rectangle(corner, 0.96, 0.96, facecolor="white", edgecolor="#999999", hatch="///"))
        axis.text(column, row, names, ha="center", va="center", fontsize=8, backgroundcolor="white")
        return
    level = norm(min(max(ratio, 1 / EDGE), EDGE))
    exact = sides(group)[1]
    dashed = exact is not None and exact.done and exact.solver.partition("[")[0] in FIRST_ORDER
    border = {"edgecolor": "black", "linestyle": "--", "linewidth": 1.6} if dashed else {"edgecolor": "white"}
    axis.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=colours(level), **border))
    ink = "white" if abs(level - 0.5) > 0.33 else "black"
    known = f"{sign}{ratio:.2g}x" if math.isfinite(ratio) and ratio > 0 else "only BM" if ratio > 1 else "only exact"
    axis.text(column, row + 0.18, known, ha="center", va="center", fontsize=11, color=ink, weight="bold")
    axis.text(column, row - 0.2, names, ha="center", va="center", fontsize=7, color=ink)
