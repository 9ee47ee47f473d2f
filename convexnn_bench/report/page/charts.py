"""The interactive charts of the page: Vega-Lite specifications, and the rows they are drawn from.

The page inserts the rows, so that every number is in the file once. A row's `line` is its solver without the
tolerance, drawn in the colour, marker and dashes of the figures. Every chart has a parameter `shown`, the lines that
are switched on, and parameters for the problem, gap or size that it shows. The figures for print draw the same numbers
in panels (report.figures.campaign).
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from convexnn_bench.house_style import SOLID
from convexnn_bench.records import Record
from convexnn_bench.report.figures import GAP_CEILING, GAP_FLOOR, styles_by_solver
from convexnn_bench.report.numbers import derived, optimum, without_tolerance
from convexnn_bench.report.tables import format_target

SHAPES = {  # of a matplotlib marker in Vega
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "<": "triangle-left",
    ">": "triangle-right", "P": "cross",
}  # fmt: skip
TITLE = "what === 'gap' ? 'certified relative gap' : 'distance to the optimum, at most (relative)'"
POINT = {"type": "point", "filled": True, "size": 50}
# only with Ctrl: the wheel alone scrolls the page
ZOOM = [{"name": "zoom", "select": {"type": "interval", "zoom": "wheel![event.ctrlKey]"}, "bind": "scales"}]
FLOOR = 1e-10  # relative; smaller bounds and distances are drawn at this height
Chart = dict[str, Any]


def solver_styles(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return [{name, colour, shape, dash}] of every line."""
    looks = []
    for name, look in styles_by_solver(records).items():
        dash = [1, 0] if look.dashes == SOLID else [3 * length for length in look.dashes[1]]
        looks.append({"name": name, "colour": look.colour, "shape": SHAPES[look.marker], "dash": dash})
    return looks


def _names(solver: str) -> dict[str, str]:
    return {"solver": solver, "line": without_tolerance(solver)}


def _scales(looks: Sequence[dict[str, Any]]) -> dict[str, Chart]:
    """Return the encodings by solver, without a legend: the page has its own."""
    names = [look["name"] for look in looks]
    kinds = {"color": "colour", "shape": "shape", "strokeDash": "dash"}
    return {
        channel: {
            "field": "line", "type": "nominal", "legend": None,
            "scale": {"domain": names, "range": [look[key] for look in looks]},
        }
        for channel, key in kinds.items()
    }  # fmt: skip


def _axis(field: str, title: Any, label: str = "~g") -> Chart:
    """Return a logarithmic axis. label: the format of its numbers, "~e" for powers of ten."""
    axis = {"title": title, "format": label, "labelOverlap": True}
    scale = {"type": "log", "nice": False, "padding": 12}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def _tooltip(**fields: str) -> list[Chart]:
    """Return the tooltip with the fields {field: title}, numbers to three digits."""
    numbers = ("seconds", "gap", "excess", "least", "most", "bound", "ratio", "size", "score")
    return [
        {"field": field, "title": title}
        | ({"type": "quantitative", "format": ".3g"} if field in numbers else {"type": "nominal"})
        for field, title in fields.items()
    ]


def _chart(height: int, params: dict[str, Any], layer: list[Chart], transform: Sequence[Chart] = ()) -> Chart:
    """Return a layered chart as wide as the page allows. The page sets the parameters, `shown` among them."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": height,
        "data": {"name": "rows"},
        "params": [{"name": "shown", "value": []}, *({"name": key, "value": value} for key, value in params.items())],
        "transform": [{"filter": "indexof(shown, datum.line) >= 0"}, *transform],
        "layer": layer,
    }


def curve_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart the certified gap, or the distance to the optimum, against time, one problem at a time."""
    rows = []
    for one in derived.curves(records):
        points = [
            [_round(seconds), *(_round(min(max(v, GAP_FLOOR), GAP_CEILING)) for v in pair)]
            for seconds, *pair in zip(one.seconds, one.gaps, one.excess, strict=True)
        ]
        rows.append({"problem": one.problem, **_names(one.solver), "seed": one.seed, "points": points})
    scales = _scales(looks)
    encoding = {
        "x": _axis("seconds", "set-up + solve time (s)"),
        "y": _axis("value", {"expr": TITLE}, "~e"),
        "color": scales["color"],
        "detail": [{"field": "seed", "type": "nominal"}, {"field": "solver", "type": "nominal"}],
        "tooltip": _tooltip(solver="solver", seed="seed", seconds="seconds", gap="certified gap", excess="distance ≤"),
    }
    keep = [
        {"filter": "datum.problem === problem"},
        {"calculate": "what === 'gap' ? datum.gap : datum.excess", "as": "value"},
        {"filter": "isValid(datum.value)"},
    ]
    layer = [
        {
            "mark": {"type": "line", "strokeWidth": 1.6},
            "encoding": {**encoding, "strokeDash": scales["strokeDash"]},
            "params": ZOOM,
        },
        {"mark": POINT, "encoding": {**encoding, "shape": scales["shape"]}},
    ]
    first = rows[0]["problem"] if rows else ""
    # The page sets `problem` and `what` to what its reader has chosen.
    return _chart(380, {"problem": first, "what": "gap"}, layer, keep), rows


def profile_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart performance profiles, one gap at a time."""
    rows, scales = [], _scales(looks)
    for gap in derived.gaps_of(records):
        profiles = derived.profiles(records, gap)
        end = 2 * max((ratio for one in profiles for ratio in one.ratios), default=1.0)
        for one in profiles:
            steps = [(1.0, 0.0), *((ratio, (k + 1) / one.runs) for k, ratio in enumerate(one.ratios))]
            rows += [
                {"gap": format_target(gap), **_names(one.solver), "ratio": _round(ratio), "share": _round(share)}
                for ratio, share in [*steps, (end, steps[-1][1])]
            ]
    axis = {"title": "races in which it reached the gap", "format": "%"}
    y = {"field": "share", "type": "quantitative", "axis": axis, "scale": {"domain": [0, 1]}}
    encoding = {
        "x": _axis("ratio", "time, in times of the quickest solver's"),
        "y": y,
        "color": scales["color"],
        "strokeDash": scales["strokeDash"],
        "tooltip": _tooltip(solver="solver", ratio="times the quickest"),
    }
    layer = [{"mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2}, "encoding": encoding}]
    finest = format_target(derived.gaps_of(records)[-1])
    return _chart(320, {"gap": finest}, layer, [{"filter": "datum.gap === gap"}]), rows


def scaling_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart seconds against a size, with the fitted powers, one family of problems at a time."""
    rows, scales = [], _scales(looks)
    for one in derived.scalings(records):
        panel = f"{one.size} of {one.title}"
        for solver, points in one.points.items():
            law = one.laws.get(solver)
            exponent = f"{law.exponent:.2f} [{law.low:.2f}, {law.high:.2f}]" if law else "too few sizes"
            for size, seconds in points:
                fitted = None if law is None else _round(law.factor * size**law.exponent)
                row = {"panel": panel, **_names(solver), "size": size, "seconds": _round(seconds)}
                rows.append({**row, "fitted": fitted, "exponent": exponent})
        for solver, points in one.missed.items():
            for size, seconds in points:
                row = {"panel": panel, **_names(solver), "size": size, "seconds": _round(seconds)}
                rows.append({**row, "fitted": None, "exponent": "not reached by then"})
    shared: Chart = {
        "x": _axis("size", "size"),
        "color": scales["color"],
        "tooltip": _tooltip(solver="solver", size="size", seconds="seconds", exponent="exponent [95 %]"),
    }
    measured = {**shared, "y": _axis("seconds", "seconds to the campaign's gap"), "shape": scales["shape"]}
    lines = {**shared, "y": {"field": "fitted", "type": "quantitative"}, "strokeDash": scales["strokeDash"]}
    known = [{"filter": "isValid(datum.fitted)"}]
    missed = "datum.exponent === 'not reached by then'"
    layer: list[Chart] = [
        {"mark": {"type": "line", "strokeWidth": 1.4}, "encoding": lines, "transform": known, "params": ZOOM},
        {"mark": POINT, "encoding": measured, "transform": [{"filter": f"!({missed})"}]},
        {"mark": {**POINT, "filled": False}, "encoding": measured, "transform": [{"filter": missed}]},
    ]
    return _chart(340, {"panel": rows[0]["panel"] if rows else ""}, layer, [{"filter": "datum.panel === panel"}]), rows


def truth_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart the certified gap, or the paper's bound, against what is known of the true distance."""
    rows, scales = [], _scales(looks)
    truths = optimum.truths(records)
    end = optimum.reach(truths) if truths else 1.0
    for one in truths:
        names = {"problem": one.problem, **_names(one.solver)}
        # A logarithmic axis has no zero, so that a distance of zero is drawn at the floor.
        known = {"least": _round(max(one.least, FLOOR)), "most": _round(max(one.most, FLOOR))}
        for kind, bound in (("certified", one.gap), ("paper", one.paper)):
            if not math.isnan(bound):
                rows.append({**names, "kind": kind, **known, "bound": _round(min(max(bound, FLOOR), end))})
    tooltip = _tooltip(
        problem="problem", solver="solver", bound="bound", least="distance, at least", most="distance, at most"
    )
    x = _axis("bound", "bound on the relative distance to the optimum", "~e")
    shared: Chart = {"x": x, "color": scales["color"], "tooltip": tooltip}
    y = _axis("most", "relative distance to the optimum, as far as known", "~e")
    ends = {"values": [{"bound": FLOOR, "most": FLOOR}, {"bound": end, "most": end}]}
    grey = {"type": "line", "color": "#888888", "strokeDash": [4, 4]}
    bar = {"type": "rule", "opacity": 0.6}
    layer: list[Chart] = [
        {"mark": bar, "encoding": {**shared, "y": {**y, "field": "least"}, "y2": {"field": "most"}}, "params": ZOOM},
        {"mark": POINT, "encoding": {**shared, "y": y, "shape": scales["shape"]}},
        {"data": ends, "mark": grey, "encoding": {"x": x, "y": y}},
    ]
    chart = _chart(380, {"kind": "certified"}, layer)
    shown = chart.pop("transform")
    for part in layer[:2]:  # not the diagonal, which belongs to no solver
        part["transform"] = [*shown, {"filter": "datum.kind === kind"}]
    return chart, rows


def rank_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart the number of blocks that are not zero, out of all, a row a problem."""
    rows, scales = [], _scales(looks)
    for one in derived.ranks(records):
        row = {"problem": one.problem, **_names(one.solver), "active": max(one.active, 1), "P": one.P, "one": 1}
        rows.append({**row, "ranks": f"largest {one.largest} of {one.most}, sum {one.total}"})
    y = {"field": "problem", "type": "nominal", "sort": None, "axis": {"title": None}}
    log = {"type": "log", "nice": False}
    x = {"field": "active", "type": "quantitative", "scale": log, "axis": {"title": "blocks"}}
    tooltip = _tooltip(problem="problem", solver="solver", active="blocks not zero", P="of", ranks="ranks")
    bar = {"type": "rule", "strokeWidth": 7, "color": "#8888883a"}
    layer: list[Chart] = [
        {
            "mark": bar, "encoding": {"y": y, "x": {**x, "field": "one"}, "x2": {"field": "P"}},
            "transform": [{"aggregate": [{"op": "max", "field": "P", "as": "P"}], "groupby": ["problem", "one"]}],
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {
                "y": y, "x": x, "color": scales["color"], "shape": scales["shape"], "tooltip": tooltip,
                "yOffset": {"field": "solver", "type": "nominal", "scale": {"paddingOuter": 0.8}},
            },
        },
    ]  # fmt: skip
    problems = [row["problem"] for row in rows]
    crowd = max(map(problems.count, problems), default=1)  # the most solvers of one problem, drawn one above the other
    return _chart((11 * crowd + 14) * len(set(problems)), {}, layer), rows


def score_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart the test scores of final points against their certified gaps or times, one problem at a time."""
    rows, scales = [], _scales(looks)
    groups: dict[str, list[derived.ScoredPoint]] = {}
    for one in derived.scored_points(records):
        groups.setdefault(one.problem, []).append(one)
    for problem, group in groups.items():
        low, high = map(_round, derived.score_range(group))
        for one in group:
            row = {"problem": problem, **_names(one.solver), "seed": one.seed, "low": low, "high": high}
            # Leave out points without a proven gap.
            gap = None if math.isnan(one.gap) else _round(min(max(one.gap, GAP_FLOOR), GAP_CEILING))
            rows.append({**row, "score": _round(one.score), "gap": gap, "seconds": _round(max(one.seconds, 1e-4))})
    kinds = {problem: group[0].kind for problem, group in groups.items()}
    title = "what === 'gap' ? 'certified relative gap of the training objective' : 'set-up + solve time (s)'"
    axis = {"title": {"expr": f"{json.dumps(kinds)}[problem]"}, "format": "~g"}
    y = {"field": "score", "type": "quantitative", "scale": {"zero": False, "nice": False}, "axis": axis}
    encoding = {
        "x": _axis("value", {"expr": title}),
        "y": y,
        "color": scales["color"],
        "shape": scales["shape"],
        "tooltip": _tooltip(solver="solver", seed="seed", score="score", gap="certified gap", seconds="seconds"),
    }
    keep = [
        {"filter": "datum.problem === problem"},
        {"calculate": "what === 'gap' ? datum.gap : datum.seconds", "as": "value"},
        {"filter": "isValid(datum.value)"},
    ]
    # Invisible rules give the axis its ends.
    ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    layer: list[Chart] = [
        {"mark": {**POINT, "size": 90, "opacity": 0.8}, "encoding": encoding, "params": ZOOM},
        {"mark": {"type": "rule", "opacity": 0}, "encoding": ends},
    ]
    first = rows[0]["problem"] if rows else ""
    return _chart(320, {"problem": first, "what": "gap"}, layer, keep), rows


def _round(value: float) -> float | None:
    """Round to four digits, to save space; return None for what is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
