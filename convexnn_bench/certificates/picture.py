"""Certificates as HTML for notebooks: a bar that shows where the optimum lies.

The HTML takes the colour of the surrounding text and one colour that stands out on white and on black, so that it can
be read in a light and in a dark notebook. It needs no other file, and screen readers read the statement of the bar.
"""

import math
import sys
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from html import escape

from convexnn_bench.house_style import ORANGE

ACCENT = ORANGE  # bounds come from the convex program
WIDTH, LEAST = 1000.0, 5.0  # widths of a bar and of its narrowest part, in units of the SVG
MUTED = "opacity:.75"
BOX = "max-width:46em;line-height:1.45;margin:.3em 0"


def rounded(value: float, digits: int, rounding: str) -> str:
    """Return a number with so many significant digits.

    rounding: a rounding mode of `decimal`, such as ROUND_FLOOR.
    """
    exact = Context(prec=digits, rounding=rounding).create_decimal(value)
    number = float(exact)
    if 0 < abs(number) < sys.float_info.min:  # a subnormal float has fewer digits, and may lie on the other side
        return f"{exact:e}"
    return f"{number:.0f}" if 10**digits <= abs(number) < 1e6 else f"{number:.{digits}g}"


def enclosure_words(primal: float, dual: float, refused: str | None = None) -> str:
    """Return a sentence that says where the optimum lies.

    Its numbers are rounded outwards, so that it remains true.
    """
    if math.isnan(dual):
        return "Nothing was proven."
    low, high = rounded(dual, 7, ROUND_FLOOR), rounded(primal, 7, ROUND_CEILING)
    if refused is not None:
        return f"The optimum is at least {low}. No gap is stated: {refused}."
    where = f"The optimum lies between {low} and the objective, {high}"
    if primal <= dual:
        return f"{where}: the point is optimal."
    if dual <= 0:
        return f"{where}; no percentage can be stated, since the bound is not positive."
    gap = (primal - dual) / dual
    if gap >= 10:
        return f"{where}, which is at most {rounded(1 + gap, 2, ROUND_CEILING)} times the optimum."
    return f"{where}, which is at most {rounded(100 * gap, 2, ROUND_CEILING)} % above the optimum."


def bar(primal: float, dual: float, words: str, ends: tuple[float, float] | None = None, width: float = WIDTH) -> str:
    """Return a bar as SVG, with a mark at its end.

    It is grey up to the lower bound, and coloured from the bound to the objective.

    Parameters
    ----------
    primal, dual : float
        The objective and the lower bound. The result is an empty text if one of them is not finite.
    words : str
        The statement of the bar as text.
    ends : pair of float, optional
        The values at both ends of the bar, by default the least of zero and both numbers, and the objective.
    width : float
        Width in units of the SVG, in which the narrowest part is 5 wide. The page stretches the bar to its column.
    """
    if not (math.isfinite(primal) and math.isfinite(dual)):
        return ""
    low, high = ends or (min(0.0, dual, primal), max(0.0, primal))

    def at(value: float) -> float:
        part = (value - low) / (high - low) if high > low else 1.0
        return width * min(max(part, 0.0), 1.0)

    # Draw a gap that is too small to be seen with the least width, between the proven part and the mark.
    right = max(at(primal), 2 * LEAST)
    left = max(0.0, min(at(dual), right - 2 * LEAST))
    parts = (
        (0.0, left, 10, 12, 'fill="currentColor" fill-opacity="0.22"'),
        (left, right - left, 10, 12, f'fill="{ACCENT}"'),
        (right - LEAST, LEAST, 4, 24, 'fill="currentColor"'),
    )
    drawn = "".join(
        f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{tall}" {style}/>' for x, wide, y, tall, style in parts
    )
    label = escape(words, quote=True)
    return (
        f'<svg viewBox="0 0 {width:.0f} 32" width="100%" height="22" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}" style="display:block"><title>{label}</title>{drawn}</svg>'
    )


def legend() -> str:
    """Return the legend of a bar as HTML."""
    square = '<span style="display:inline-block;width:.7em;height:.7em;margin-right:.35em;{}"></span>'
    grey, coloured = square.format("background:currentColor;opacity:.22"), square.format(f"background:{ACCENT}")
    mark = (
        '<span style="display:inline-block;width:.18em;height:.9em;margin-right:.35em;background:currentColor"></span>'
    )
    names = ((grey, "below the proven bound"), (coloured, "where the optimum lies"), (mark, "objective"))
    return " ".join(f'<span style="margin-right:1.2em;white-space:nowrap">{sign}{name}</span>' for sign, name in names)


def certificate_html(
    title: str, primal: float, dual: float, refused: str | None = None, lines: Sequence[str] = ()
) -> str:
    """Return a title, the bar with its statement and legend, and further lines.

    Parameters
    ----------
    title : str
        The name of the certified object.
    primal, dual, refused
        As in `Certificate`.
    lines : sequence of str
        Further lines, as plain text.
    """
    words = enclosure_words(primal, dual, refused)
    drawn = bar(primal, dual, words) if refused is None else ""
    below = f'<div style="font-size:85%;{MUTED}">{legend()}</div>' if drawn else ""
    further = "".join(f'<div style="font-size:90%;{MUTED}">{escape(line)}</div>' for line in lines)
    return (
        f'<div style="{BOX}"><div><strong>{escape(title)}</strong></div>{drawn}{below}'
        f"<div>{escape(words)}</div>{further}</div>"
    )
