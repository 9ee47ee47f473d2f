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

from convexnn_bench.records import Record
from convexnn_bench.report.figures import on_axis
from convexnn_bench.report.formats import format_target
from convexnn_bench.report.numbers import bands, derived, optimum
from convexnn_bench.report.page.vega import (
    POINT,
    ZOOM,
    Chart,
    layered_chart,
    line_names,
    log_axis,
    rounded,
    solver_scales,
    tooltip,
)

TITLE = "what === 'gap' ? 'certified relative gap' : 'distance to the optimum, at most (relative)'"
# Narrow panels have labels at 1 and 3 times a power of ten.
ONE_OR_THREE = (
    "indexof([1, 3], round(datum.value / pow(10, floor(log(datum.value) / LN10 + 1e-9)))) < 0 ? '' : datum.label"
)
FLOOR = 1e-10  # relative; smaller bounds and distances are drawn at this height


def curve_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart the certified gap, or the distance to the optimum, against time.

    There is one panel a problem, with medians and bands.
    """
    rows: list[dict[str, Any]] = []
    for one in bands(records):
        points = []
        for seconds, gap, excess in zip(one.seconds, one.gaps, one.excess, strict=True):
            ends = [gap.median, excess.median]
            if one.draws > 1:
                ends += [gap.low, gap.high, excess.low, excess.high]
            if math.isfinite(gap.median) or math.isfinite(excess.median):
                points.append([rounded(max(seconds, 1e-4)), *map(_axis_value, ends)])
        if points:
            rows.append({"problem": one.rung, **line_names(one.solver), "runs": one.draws, "points": points})
    scales = solver_scales(looks)
    x, y = log_axis("seconds", "set-up + solve time (s)"), log_axis("value", {"expr": TITLE}, "~e")
    x["axis"] |= {"labelExpr": ONE_OR_THREE, "grid": False}
    # All panels have the same heights, so that they can be compared; their times differ.
    y["scale"] |= {which: {"expr": f"what === 'gap' ? {ends[0]} : {ends[1]}"} for which, ends in _ends(rows).items()}
    y["axis"]["titleLimit"] = 190
    tips = {"seconds": "seconds", "gap": "certified gap", "excess": "distance ≤", "runs": "runs"}
    encoding: Chart = {"x": x, "y": y, "color": scales["color"], "tooltip": tooltip(solver="solver", **tips)}
    keep = [
        {"filter": "datum.problem === problem"},
        *(
            {"calculate": f"what === 'gap' ? datum.gap{end} : datum.excess{end}", "as": f"value{end}"}
            for end in ("", "_low", "_high")
        ),
        {"filter": "isValid(datum.value)"},
    ]
    step: Chart = {"interpolate": "step-after"}
    band = {**encoding, "y": {**y, "field": "value_low"}, "y2": {"field": "value_high"}}
    size = {"condition": {"test": "datum.last", "value": 55}, "value": 7}
    layer: list[Chart] = [
        {
            "mark": {"type": "area", "opacity": 0.16, **step},
            "encoding": {key: band[key] for key in ("x", "y", "y2", "color")},
            "transform": [{"filter": "isValid(datum.value_low)"}],
        },
        {
            "mark": {"type": "line", "strokeWidth": 1.6, **step},
            "encoding": {**encoding, "strokeDash": scales["strokeDash"]},
            "params": ZOOM,
        },
        {"mark": POINT, "encoding": {**encoding, "shape": scales["shape"], "size": size}},
    ]
    first = rows[0]["problem"] if rows else ""
    # The page sets `problem` in each panel, and `what` to what its reader has chosen.
    return layered_chart(190, {"problem": first, "what": "gap"}, layer, keep), rows


def _axis_value(value: float) -> float | None:
    """Return a gap or a distance as the axis shows it; None for what is not known."""
    return None if math.isnan(value) else rounded(on_axis(value))


def _ends(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return the ends of the axis of gaps and of the axis of distances, over all panels."""
    known = [[p[which] for row in rows for p in row["points"] if p[which] is not None] or [1.0] for which in (1, 2)]
    return {
        "domainMin": (min(known[0]), min(known[1])),
        "domainMax": (max(known[0]), max(known[1])),
    }


def profile_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart performance profiles, one gap at a time."""
    rows, scales = [], solver_scales(looks)
    for gap in derived.gaps_of(records):
        profiles = derived.profiles(records, gap)
        end = 2 * max((ratio for one in profiles for ratio in one.ratios), default=1.0)
        for one in profiles:
            steps = [(1.0, 0.0), *((ratio, (k + 1) / one.runs) for k, ratio in enumerate(one.ratios))]
            rows += [
                {"gap": format_target(gap), **line_names(one.solver), "ratio": rounded(ratio), "share": rounded(share)}
                for ratio, share in [*steps, (end, steps[-1][1])]
            ]
    axis = {"title": "races in which it reached the gap", "format": "%"}
    y = {"field": "share", "type": "quantitative", "axis": axis, "scale": {"domain": [0, 1]}}
    encoding = {
        "x": log_axis("ratio", "time, in times of the quickest solver's"),
        "y": y,
        "color": scales["color"],
        "strokeDash": scales["strokeDash"],
        "tooltip": tooltip(solver="solver", ratio="times the quickest"),
    }
    layer = [{"mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2}, "encoding": encoding}]
    finest = format_target(derived.gaps_of(records)[-1])
    return layered_chart(320, {"gap": finest}, layer, [{"filter": "datum.gap === gap"}]), rows


def scaling_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart seconds against a size, with the fitted powers, one family of problems at a time."""
    rows, scales = [], solver_scales(looks)
    for one in derived.scalings(records):
        panel = f"{one.size} of {one.title}"
        for solver, points in one.points.items():
            law = one.laws.get(solver)
            exponent = f"{law.exponent:.2f} [{law.low:.2f}, {law.high:.2f}]" if law else "too few sizes"
            for size, seconds in points:
                fitted = None if law is None else rounded(law.factor * size**law.exponent)
                row = {"panel": panel, **line_names(solver), "size": size, "seconds": rounded(seconds)}
                rows.append({**row, "fitted": fitted, "exponent": exponent})
        for solver, points in one.missed.items():
            for size, seconds in points:
                row = {"panel": panel, **line_names(solver), "size": size, "seconds": rounded(seconds)}
                rows.append({**row, "fitted": None, "exponent": "not reached by then"})
    shared: Chart = {
        "x": log_axis("size", "size"),
        "color": scales["color"],
        "tooltip": tooltip(solver="solver", size="size", seconds="seconds", exponent="exponent [95 %]"),
    }
    measured = {**shared, "y": log_axis("seconds", "seconds to the campaign's gap"), "shape": scales["shape"]}
    lines = {**shared, "y": {"field": "fitted", "type": "quantitative"}, "strokeDash": scales["strokeDash"]}
    known = [{"filter": "isValid(datum.fitted)"}]
    missed = "datum.exponent === 'not reached by then'"
    layer: list[Chart] = [
        {"mark": {"type": "line", "strokeWidth": 1.4}, "encoding": lines, "transform": known, "params": ZOOM},
        {"mark": POINT, "encoding": measured, "transform": [{"filter": f"!({missed})"}]},
        {"mark": {**POINT, "filled": False}, "encoding": measured, "transform": [{"filter": missed}]},
    ]
    return layered_chart(
        340, {"panel": rows[0]["panel"] if rows else ""}, layer, [{"filter": "datum.panel === panel"}]
    ), rows


def truth_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart the certified gap, or the paper's bound, against what is known of the true distance."""
    rows, scales = [], solver_scales(looks)
    truths = optimum.truths(records)
    end = optimum.reach(truths) if truths else 1.0
    for one in truths:
        names = {"problem": one.problem, **line_names(one.solver)}
        # A logarithmic axis has no zero, so that a distance of zero is drawn at the floor.
        known = {"least": rounded(max(one.least, FLOOR)), "most": rounded(max(one.most, FLOOR))}
        for kind, bound in (("certified", one.gap), ("paper", one.paper)):
            if not math.isnan(bound):
                rows.append({**names, "kind": kind, **known, "bound": rounded(min(max(bound, FLOOR), end))})
    tips = tooltip(
        problem="problem", solver="solver", bound="bound", least="distance, at least", most="distance, at most"
    )
    x = log_axis("bound", "bound on the relative distance to the optimum", "~e")
    shared: Chart = {"x": x, "color": scales["color"], "tooltip": tips}
    y = log_axis("most", "relative distance to the optimum, as far as known", "~e")
    ends = {"values": [{"bound": FLOOR, "most": FLOOR}, {"bound": end, "most": end}]}
    grey = {"type": "line", "color": "#888888", "strokeDash": [4, 4]}
    bar = {"type": "rule", "opacity": 0.6}
    layer: list[Chart] = [
        {"mark": bar, "encoding": {**shared, "y": {**y, "field": "least"}, "y2": {"field": "most"}}, "params": ZOOM},
        {"mark": POINT, "encoding": {**shared, "y": y, "shape": scales["shape"]}},
        {"data": ends, "mark": grey, "encoding": {"x": x, "y": y}},
    ]
    chart = layered_chart(380, {"kind": "certified"}, layer)
    shown = chart.pop("transform")
    for part in layer[:2]:  # not the diagonal, which belongs to no solver
        part["transform"] = [*shown, {"filter": "datum.kind === kind"}]
    return chart, rows


def rank_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart the number of blocks that are not zero, out of all, a row a problem."""
    rows, scales = [], solver_scales(looks)
    for one in derived.ranks(records):
        row = {"problem": one.problem, **line_names(one.solver), "active": max(one.active, 1), "P": one.P, "one": 1}
        rows.append({**row, "ranks": f"largest {one.largest} of {one.most}, sum {one.total}"})
    y = {"field": "problem", "type": "nominal", "sort": None, "axis": {"title": None}}
    log = {"type": "log", "nice": False}
    x = {"field": "active", "type": "quantitative", "scale": log, "axis": {"title": "blocks"}}
    tips = tooltip(problem="problem", solver="solver", active="blocks not zero", P="of", ranks="ranks")
    bar = {"type": "rule", "strokeWidth": 7, "color": "#8888883a"}
    layer: list[Chart] = [
        {
            "mark": bar, "encoding": {"y": y, "x": {**x, "field": "one"}, "x2": {"field": "P"}},
            "transform": [{"aggregate": [{"op": "max", "field": "P", "as": "P"}], "groupby": ["problem", "one"]}],
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {
                "y": y, "x": x, "color": scales["color"], "shape": scales["shape"], "tooltip": tips,
                "yOffset": {"field": "solver", "type": "nominal", "scale": {"paddingOuter": 0.8}},
            },
        },
    ]  # fmt: skip
    problems = [row["problem"] for row in rows]
    crowd = max(map(problems.count, problems), default=1)  # the most solvers of one problem, drawn one above the other
    return layered_chart((11 * crowd + 14) * len(set(problems)), {}, layer), rows


def score_chart(records: Sequence[Record], looks: Sequence[dict[str, Any]]) -> tuple[Chart, list[Any]]:
    """Chart the test scores of final points against their certified gaps or times, one problem at a time."""
    rows, scales = [], solver_scales(looks)
    groups: dict[str, list[derived.ScoredPoint]] = {}
    for one in derived.scored_points(records):
        groups.setdefault(one.problem, []).append(one)
    for problem, group in groups.items():
        low, high = map(rounded, derived.score_range(group))
        for one in group:
            row = {"problem": problem, **line_names(one.solver), "seed": one.seed, "low": low, "high": high}
            # Leave out points without a proven gap.
            gap = None if math.isnan(one.gap) else rounded(on_axis(one.gap))
            rows.append({**row, "score": rounded(one.score), "gap": gap, "seconds": rounded(max(one.seconds, 1e-4))})
    kinds = {problem: group[0].kind for problem, group in groups.items()}
    title = "what === 'gap' ? 'certified relative gap of the training objective' : 'set-up + solve time (s)'"
    axis = {"title": {"expr": f"{json.dumps(kinds)}[problem]"}, "format": "~g"}
    y = {"field": "score", "type": "quantitative", "scale": {"zero": False, "nice": False}, "axis": axis}
    encoding = {
        "x": log_axis("value", {"expr": title}),
        "y": y,
        "color": scales["color"],
        "shape": scales["shape"],
        "tooltip": tooltip(solver="solver", seed="seed", score="score", gap="certified gap", seconds="seconds"),
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
    return layered_chart(320, {"problem": first, "what": "gap"}, layer, keep), rows
