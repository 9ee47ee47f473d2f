"""Fill the template of the page with colours, scripts and stored cases."""

import math
from pathlib import Path

from convexnn_bench.house_style import DARK, PINK, SHADES, WHITE, style
from convexnn_bench.storage import whole_file

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("patterns", "factors", "words", "drawing", "cells", "landscape", "staircase", "selftest", "start")
HUES = {"blue": "burer_monteiro", "orange": "convex", "green": "network"}


def page_text() -> str:
    """Return the page "See it" as one HTML text.

    It needs no other file and no connection.
    """
    text = (FOLDER / "page.html").read_text(encoding="utf-8")
    scripts = [(FOLDER / "scripts" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    parts = {
        "light": declarations(dark=False),
        "dark": declarations(dark=True),
        "star": star(),
        "cases": (FOLDER / "cases.json").read_text(encoding="utf-8").strip(),
        "scripts": "\n".join(scripts).strip(),
    }
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def write_page(path: str | Path) -> Path:
    """Write the page to a file in one step and return its path."""
    target = Path(path)
    with whole_file(target) as partial:
        partial.write_text(page_text(), encoding="utf-8")
    return target


def declarations(dark: bool) -> str:
    """Return the colours of the page as CSS variables, for a light or a dark screen.

    Marks have the first shade of their hue, which stands out on both. Text has the shade with more contrast.
    """
    settings = style(dark)
    colours = {"paper": DARK if dark else WHITE, "ink": settings["text.color"], "grid": settings["grid.color"]}
    # Text and panels of the report's page, which are no colours of figures.
    colours |= {"soft": "#a3a9b2", "panel": "#2a2f37"} if dark else {"soft": "#5f6368", "panel": "#eceef1"}
    for name, hue in HUES.items():
        first, second = SHADES[hue]
        lighter, darker = sorted((first, second), key=_brightness, reverse=True)
        colours |= {name: first, f"{name}-text": lighter if dark else darker}
    colours["pink"] = PINK
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def _brightness(colour: str) -> int:
    return sum(weight * int(colour[at : at + 2], 16) for weight, at in ((2, 1), (7, 3), (1, 5)))


def star(points: int = 5, outer: float = 9.0, inner: float = 4.0) -> str:
    """Return the path of a star around zero, in units of an SVG."""
    corners = []
    for k in range(2 * points):
        angle, radius = math.pi * (k / points - 0.5), inner if k % 2 else outer
        corners.append(f"{radius * math.cos(angle):.2f},{radius * math.sin(angle):.2f}")
    return f"M{' '.join(corners)}z"
