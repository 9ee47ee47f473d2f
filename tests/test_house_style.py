"""One style for every figure: hues of formulations, distinct solvers, contrast, and figures that use them."""

import colorsys
import io
import itertools
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.comparison import Comparison
from convexnn_bench.house_style import COLOURS, DARK, FIXED, MARKERS, ON_DARK, SHADES, WHITE, find_styles, on_dark
from convexnn_bench.records import blank
from convexnn_bench.report.page.vega import SHAPES, solver_styles

ROOT = Path(__file__).resolve().parents[1]
REGISTERED = {name: cnn.SOLVERS.get(name).formulation for name in cnn.SOLVERS.names()}
LOOKS = {name: cnn.solver_style(name) for name in REGISTERED}


def luminance(colour):
    """WCAG 2.1, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour, ground):
    light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrasts_of_known_pairs():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("ground", [WHITE, DARK, "#111111"])
def test_every_colour_stands_out_on_white_and_on_black(ground):
    """WCAG 2.1, 1.4.11: at least 3 to 1 for parts of graphics."""
    for colour in {*COLOURS, *itertools.chain(*SHADES.values())}:
        assert contrast(colour, ground) >= 3, colour


def test_a_figure_on_white_becomes_one_on_the_dark_page():
    """Page, letters, axes and grid change; the colours of solvers stay."""
    figure = mpl.figure.Figure(figsize=(3, 2))
    axis = figure.subplots()
    axis.plot([1, 2], [1, 2], **cnn.solver_style("bm_newton"))
    axis.grid(True, color="#dddddd")
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    svg = on_dark(stream.getvalue())
    assert ET.fromstring(svg).tag.endswith("svg")
    dark = svg.lower()
    assert all(colour in dark for colour in (DARK, "#e8eaed", "#343a42", "#0072b2"))
    assert not any(f"{colour};" in dark or f'{colour}"' in dark for colour in ON_DARK)
    assert min(contrast(ON_DARK[ink], DARK) for ink in ("#1c1c1e", "#000000", "#5f6368")) >= 4.5  # 1.4.3, for text


def test_every_registered_solver_has_a_place_in_the_table():
    """Where this fails, give the new solver its style in FIXED."""
    assert set(REGISTERED) == set(FIXED)


@pytest.mark.parametrize(
    "parts", [("color", "marker"), ("color", "linestyle"), ("marker", "linestyle")], ids=["points", "lines", "print"]
)
def test_no_two_registered_solvers_look_alike(parts):
    """Neither as points alone, nor as lines alone, nor in a print without colours."""
    pairs = [tuple(look[part] for part in parts) for look in LOOKS.values()]
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("name", REGISTERED)
def test_the_hue_is_the_formulation(name):
    """Blue, orange and green by the angle of the hue, and a grey that has none."""
    red, green, blue = (int(LOOKS[name]["color"][i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, _, saturation = colorsys.rgb_to_hls(red, green, blue)
    angles = {"burer_monteiro": (195, 215), "convex": (20, 35), "network": (155, 170)}
    if name.startswith("rival_"):
        assert saturation < 0.05
    else:
        low, high = angles[REGISTERED[name]]
        assert low <= 360 * hue <= high
        assert saturation > 0.5


def test_a_solver_of_a_plug_in_has_a_style_by_formulation_and_name():
    mine = cnn.solver_style("my_newton", "burer_monteiro")
    assert mine == cnn.solver_style("my_newton", "burer_monteiro")
    assert mine["color"] in SHADES["burer_monteiro"]
    assert mine not in LOOKS.values()
    assert cnn.solver_style("my_newton", "network")["color"] in SHADES["network"]
    assert cnn.solver_style("rival_mine", "convex")["color"] in SHADES["rival"]
    with pytest.raises(cnn.UnknownNameError, match="my_newton"):
        cnn.solver_style("my_newton")
    with pytest.raises(cnn.InputError, match="burer_monteiro, convex, network, rival, got 'dual'"):
        cnn.solver_style("bm_newton", "dual")


def test_solvers_of_one_figure_differ_and_names_keep_their_style():
    variants = [f"bm_gd[step={step}]" for step in range(8)] + [f"mine_{i}" for i in range(8)]
    styles = find_styles({**dict.fromkeys(variants, "burer_monteiro"), **REGISTERED})
    assert list(styles) == [*variants, *REGISTERED]
    assert {name: styles[name].keywords() for name in REGISTERED} == LOOKS
    assert len(set(styles.values())) == len(styles)
    # One variant alone looks as its solver does.
    assert find_styles({"bm_gd[step=2]": "burer_monteiro"})["bm_gd[step=2]"] == FIXED["bm_gd"]
    room = 16 - list(REGISTERED.values()).count("burer_monteiro")
    few = find_styles({**dict.fromkeys(variants[:room], "burer_monteiro"), **REGISTERED})
    assert len({(one.colour, one.marker) for one in few.values()}) == len(few)  # 16 points in two shades of blue


def test_the_page_knows_every_marker():
    assert set(SHAPES) == set(MARKERS)
    page = (ROOT / "convexnn_bench/report/page/page.html.jinja").read_text()
    table = page[page.index("const shapes = {") :].partition("};")[0]
    assert all(f"{shape}:" in table or f'"{shape}":' in table for shape in SHAPES.values())


def test_a_comparison_is_drawn_in_the_styles_of_its_solvers():
    problem = cnn.make_problem("spiral", n=9)
    solvers = ["network_gd", "bm_newton", "fista"]
    curve = [[0.1, 2.0, 0.5], [0.2, 1.0, 1e-4]]
    table = Comparison(
        problem,
        [
            {
                **blank(),
                "solver_name": one,
                "formulation": REGISTERED[one],
                "problem_name": "",
                "problem": {},
                "curve": curve,
            }
            for one in solvers
        ],
    )
    figure = table.plot()
    ends = [line for line in figure.axes[0].lines if line.get_marker() in MARKERS]
    assert [(end.get_color(), end.get_marker()) for end in ends] == [
        (LOOKS[name]["color"], LOOKS[name]["marker"]) for name in solvers
    ]
    assert [one["colour"] for one in solver_styles(table.records)] == [LOOKS[name]["color"] for name in solvers]


def test_benchmarks_draw_solvers_in_their_styles():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import bm_against_network
        import convergence_rate
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    names = ["bm_gd", "network_adam"]
    lines = convergence_rate.draw({"spiral": {name: [(1, 0.1, 0.5), (9, 0.2, 1e-3)] for name in names}}).axes[0].lines
    drawn = {line.get_label(): (line.get_color(), line.get_marker()) for line in lines}
    rows = [dict.fromkeys(bm_against_network.COLUMNS, 0.5) | {"dataset": "a", "solver": name} for name in names]
    points = bm_against_network.draw(rows, names).axes[0].lines[::2]
    for name, point in zip(names, points, strict=True):
        expected = (LOOKS[name]["color"], LOOKS[name]["marker"])
        assert drawn[name] == (point.get_color(), point.get_marker()) == expected


@pytest.mark.parametrize("folder", ["convexnn_bench", "benchmarks"])
def test_no_other_file_has_colours_of_its_own(folder):
    """Every colour of a figure has one source. The page's own text and paper are in its template."""
    own = [path for path in (ROOT / folder).rglob("*.py") if path.stem != "house_style"]
    words = ("tab:", "tab10", "tab20", *SHADES["convex"], *SHADES["network"], *SHADES["burer_monteiro"])
    assert [path.name for path in own if any(word in path.read_text() for word in words)] == []


def test_settings_are_matplotlibs_and_readable_on_their_page():
    for dark in (False, True):
        settings = cnn.style(dark)
        with mpl.rc_context(settings):
            assert mpl.rcParams["savefig.dpi"] == 200
            assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(COLOURS)
        assert contrast(settings["text.color"], settings["axes.facecolor"]) > 7
    assert not np.isclose(luminance(cnn.style()["axes.facecolor"]), luminance(cnn.style(dark=True)["axes.facecolor"]))
