"""Colours, markers and dashes of the solvers in every figure.

The hue shows the formulation; shade, marker and dashes show the solver.

Blue is Burer-Monteiro, orange is the convex program and the bounds that it proves, green is the network, and grey is a
rival. Every colour has a contrast of at least 3:1 on white and on the dark page of the report.
"""

import itertools
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convexnn_bench.errors import InputError
from convexnn_bench.plugins import SOLVERS, parse_spec

# The first shades are from Okabe and Ito's palette, which is distinct under every common colour blindness.
BLUE, ORANGE, GREEN, GREY, PINK = "#0072B2", "#D55E00", "#009E73", "#6C6C6C", "#C2649A"
SHADES: dict[str, tuple[str, str]] = {  # formulation, or "rival" -> shades
    "burer_monteiro": (BLUE, "#3B93D8"),
    "convex": (ORANGE, "#B34700"),
    "network": (GREEN, "#00754F"),
    "rival": (GREY, "#909090"),
}
COLOURS: tuple[str, ...] = (BLUE, ORANGE, GREEN, PINK, "#3B93D8", "#B34700", "#00754F")  # for other series
MARKERS: str = "osD^v<>P"
SOLID, DASHED, DOTTED, DASH_DOT = "-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5))  # in points
DASHES: tuple[Any, ...] = (SOLID, DASHED, DOTTED, DASH_DOT)
WHITE, DARK = "#ffffff", "#14161a"  # the pages on which figures stand
GRID = "#dddddd"  # on white
INK = "#1c1c1e"  # text and axes on white
# What a colour of a figure's page, text and lines on white becomes on the dark page; the colours of solvers stay.
ON_DARK: dict[str, str] = {
    WHITE: DARK, INK: "#e8eaed", "#000000": "#e8eaed", GRID: "#343a42", "#5f6368": "#a3a9b2", "#c4c4c4": "#4a515a",
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """The look of a solver in every figure. Two solvers never differ by colour alone."""

    colour: str
    marker: str
    dashes: Any

    def keywords(self) -> dict[str, Any]:
        """Return the style as keyword arguments of matplotlib's `plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes}


def _fixed(hue: str, *looks: tuple[str, int, str, Any]) -> dict[str, Style]:
    """Return {name: style} for solvers of one hue, from name, shade, marker and dashes."""
    return {name: Style(SHADES[hue][shade], marker, dashes) for name, shade, marker, dashes in looks}


# A pair of marker and dashes is unique over all hues, so that a print without colours can be read.
FIXED: dict[str, Style] = {
    **_fixed(
        "burer_monteiro",
        ("bm_newton", 0, "o", SOLID),
        ("auto", 1, "P", SOLID),
        ("bm_lbfgs", 1, "s", DASHED),
        ("bm_gd", 1, "v", DOTTED),
        ("bm_scaled_gd", 0, "<", DASH_DOT),
        ("bm_adam", 0, "^", DASHED),
        ("bm_ipopt", 1, "D", DASH_DOT),
        ("bm_uno", 0, "D", DOTTED),
    ),
    **_fixed(
        "convex",
        ("cvxpy_clarabel", 0, "D", SOLID),
        ("cvxpy_mosek", 1, "s", SOLID),
        ("cvxpy_scs", 1, "<", DASHED),
        ("cvxpy_qoco", 0, "^", DASH_DOT),
        ("semismooth_newton", 0, "o", DASHED),
        ("fista", 0, ">", DOTTED),
        ("column_generation", 1, "P", DASH_DOT),
        ("interior_point", 1, "o", DOTTED),
    ),
    **_fixed(
        "network",
        ("network_adam", 0, "^", SOLID),
        ("network_gd", 1, "v", DASH_DOT),
        ("network_sgd", 0, "<", DOTTED),
        ("network_lbfgs", 1, "s", DOTTED),
        ("cvxpy_infinite_width", 1, ">", DASHED),
    ),
    **_fixed(
        "rival",
        ("rival_scnn", 0, "D", DASHED),
        ("rival_adelie", 1, "P", DOTTED),
        ("rival_celer", 0, ">", SOLID),
        ("rival_skglm", 1, "v", DASHED),
    ),
}


def hue_of(solver: str, formulation: str) -> str:
    """Return the key of SHADES: the formulation, or "rival" for other packages and unknown formulations."""
    return "rival" if solver.startswith("rival_") or formulation not in SHADES else formulation


def find_styles(formulations: Mapping[str, str]) -> dict[str, Style]:
    """Return {solver: style} for one figure, with distinct styles as far as there are any.

    Parameters
    ----------
    formulations : mapping
        Formulation of each solver. A key is a name, with parameters in brackets if the solver has any.

    Notes
    -----
    A name in FIXED always has its own style. A solver with parameters takes the style of its name if nothing else in
    the figure does. Any other solver takes the style of its hue that resembles the fewest others. The search starts at
    an index that depends on the solver's name alone.
    """
    styles = {solver: FIXED[solver] for solver in formulations if solver in FIXED}
    for solver, formulation in formulations.items():
        name = parse_spec(solver)[0]
        if solver not in styles and name in FIXED and FIXED[name] not in styles.values():
            styles[solver] = FIXED[name]
        elif solver not in styles:
            styles[solver] = _free_style(solver, hue_of(name, formulation), (*FIXED.values(), *styles.values()))
    return {solver: styles[solver] for solver in formulations}


def _free_style(solver: str, hue: str, taken: tuple[Style, ...]) -> Style:
    """Return the style of a hue that resembles the fewest of the taken ones."""
    all_styles = [Style(*parts) for parts in itertools.product(SHADES[hue], MARKERS, DASHES)]
    start = zlib.crc32(solver.encode()) % len(all_styles)
    return min(all_styles[start:] + all_styles[:start], key=lambda one: _resemblance(one, taken))


def _resemblance(one: Style, taken: tuple[Style, ...]) -> int:
    """Count the taken styles that resemble a style in points, in lines, or without colours."""
    points = sum((one.colour, one.marker) == (other.colour, other.marker) for other in taken)
    lines = sum((one.colour, one.dashes) == (other.colour, other.dashes) for other in taken)
    uncoloured = sum((one.marker, one.dashes) == (other.marker, other.dashes) for other in taken)
    # An equal style weighs most. Points weigh more than lines, because figures show them more often.
    return 1000 * (one in taken) + 100 * points + 10 * uncoloured + lines


def solver_style(solver: str, formulation: str | None = None) -> dict[str, Any]:
    """Return colour, marker and line style of a solver for a figure of your own.

    Parameters
    ----------
    solver : str
        The name of a solver, with parameters in brackets if it has any.
    formulation : str, optional
        "convex", "burer_monteiro", "network" or "rival", the hue of the solver. It is needed only for a solver that is
        not registered.

    Returns
    -------
    dict
        Keyword arguments of matplotlib's ``plot``: color, marker and linestyle, the same as in every figure of the
        package.

    Raises
    ------
    InputError
        If `formulation` is none of these.
    UnknownNameError
        If the solver is not registered, and `formulation` is not given.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> cnn.solver_style("bm_newton")
    {'color': '#0072B2', 'marker': 'o', 'linestyle': '-'}
    >>> cnn.solver_style("my_newton", "burer_monteiro")["color"] in ("#0072B2", "#3B93D8")
    True
    """
    name = parse_spec(solver)[0]
    if formulation is None:
        formulation = str(SOLVERS.get(name).formulation)
    elif formulation not in SHADES:
        raise InputError(f"formulation must be one of {', '.join(SHADES)}, got {formulation!r}")
    return find_styles({solver: formulation})[solver].keywords()


def on_dark(svg: str) -> str:
    """Return the text of an SVG figure that was drawn for a white page, with the colours for the dark page."""
    for light, dark in ON_DARK.items():
        svg = re.sub(f"{light}\\b", dark, svg, flags=re.IGNORECASE)
    # letters of matplotlib have no colour of their own where they are black
    return re.sub(r"(<svg\b[^>]*>)", rf"\1<style>svg {{ fill: {ON_DARK[INK]} }}</style>", svg, count=1)


def style(dark: bool = False) -> dict[str, Any]:
    """Return settings of matplotlib for figures in the style of the package.

    Parameters
    ----------
    dark : bool
        Whether the figures stand on a dark page.

    Returns
    -------
    dict
        Settings for ``plt.rcParams.update``, ``plt.style.use`` or ``plt.rc_context``: 200 dpi, a light grid, no frame
        on top and on the right, and the colours C0 (blue), C1 (orange), C2 (green), C3 (pink) and three more shades.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import convexnn_bench as cnn
    >>> with plt.rc_context(cnn.style()):
    ...     figure, axis = plt.subplots()
    ...     lines = axis.plot([1, 2], [1, 1e-6], **cnn.solver_style("bm_newton"))
    >>> figure.get_dpi()
    200.0
    """
    page, ink, grid = (ON_DARK[colour] if dark else colour for colour in (WHITE, INK, GRID))
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        "figure.dpi": 200, "savefig.dpi": 200,
        **dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), page),
        **dict.fromkeys(inked, ink),
        "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
        "axes.grid": True, "grid.color": grid, "grid.linewidth": 0.6, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.titlelocation": "left", "legend.frameon": False,
    }  # fmt: skip
