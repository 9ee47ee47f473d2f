"""What the charts of the page share, as Vega-Lite specifications.

They share styles of lines, axes, tooltips and layers.
"""

import math
from collections.abc import Sequence
from typing import Any

from convexnn_bench.house_style import SOLID
from convexnn_bench.records import Record
from convexnn_bench.report.figures import styles_by_solver
from convexnn_bench.report.numbers import without_tolerance

SHAPES = {  # of a matplotlib marker in Vega
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "<": "triangle-left",
    ">": "triangle-right", "P": "cross",
}  # fmt: skip
POINT = {"type": "point", "filled": True, "size": 50}
# only with Ctrl: the wheel alone scrolls the page
ZOOM = [{"name": "zoom", "select": {"type": "interval", "zoom": "wheel![event.ctrlKey]"}, "bind": "scales"}]
Chart = dict[str, Any]


def solver_styles(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return [{name, colour, shape, dash}] of every line."""
    looks = []
    for name, look in styles_by_solver(records).items():
        dash = [1, 0] if look.dashes == SOLID else [3 * length for length in look.dashes[1]]
        looks.append({"name": name, "colour": look.colour, "shape": SHAPES[look.marker], "dash": dash})
    return looks


def line_names(solver: str) -> dict[str, str]:
    return {"solver": solver, "line": without_tolerance(solver)}


def solver_scales(looks: Sequence[dict[str, Any]]) -> dict[str, Chart]:
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


def log_axis(field: str, title: Any, label: str = "~g") -> Chart:
    """Return a logarithmic axis.

    label: the format of its numbers, "~e" for powers of ten.
    """
    axis = {"title": title, "format": label, "labelOverlap": True}
    scale = {"type": "log", "nice": False, "padding": 12}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def tooltip(**fields: str) -> list[Chart]:
    """Return the tooltip with the fields {field: title}, numbers to three digits."""
    numbers = ("seconds", "gap", "excess", "least", "most", "bound", "ratio", "size", "score")
    return [
        {"field": field, "title": title}
        | ({"type": "quantitative", "format": ".3g"} if field in numbers else {"type": "nominal"})
        for field, title in fields.items()
    ]


def layered_chart(height: int, params: dict[str, Any], layer: list[Chart], transform: Sequence[Chart] = ()) -> Chart:
    """Return a layered chart as wide as the page allows.

    The page sets the parameters, `shown` among them.
    """
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": height,
        "data": {"name": "rows"},
        "params": [{"name": "shown", "value": []}, *({"name": key, "value": value} for key, value in params.items())],
        "transform": [{"filter": "indexof(shown, datum.line) >= 0"}, *transform],
        "layer": layer,
    }


def rounded(value: float) -> float | None:
    """Round to four digits, to save space; return None for what is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
