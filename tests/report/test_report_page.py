"""`convexnn-bench report`: numbers derived from records by hand-made examples, figures, and the page."""

import html
import html.parser
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import vl_convert
from test_report import SIZES, record
from typer.testing import CliRunner

from convexnn_bench.cli import app
from convexnn_bench.harness.campaign import find_campaign, load_campaign
from convexnn_bench.harness.cell import Cell, Limits
from convexnn_bench.harness.cell_run import blank_record
from convexnn_bench.harness.plan import plan
from convexnn_bench.harness.repeat import campaign_again, cell_again, cell_campaign
from convexnn_bench.house_style import FIXED
from convexnn_bench.plugins.registry import DATASETS, SOLVERS
from convexnn_bench.records.records import RecordFile
from convexnn_bench.report.figures.campaign import FIGURES, draw_all
from convexnn_bench.report.figures.styles import series_style, styles_by_solver
from convexnn_bench.report.ladder import time_rows
from convexnn_bench.report.numbers import derived, optimum
from convexnn_bench.report.numbers.convergence import bands
from convexnn_bench.report.numbers.time_to_gap import pooled, solver_times
from convexnn_bench.report.page.page import payload, write_page
from convexnn_bench.report.page.words import descriptions, sentences

ABOUT = {**SIZES, "p": 2, "q": 3}


def told(name, solver, objective, bound, **fields):
    gap = objective / bound - 1
    curve = [[1.0, 2 * objective, 2 * objective / bound - 1], [2.0, objective, gap]]
    own = {"problem_name": name, "solver_name": solver, "objective": objective, "lower_bound": bound, "gap": gap}
    return record(solver.partition("[")[0], **{**own, "curve": curve, "setup_seconds": 0.0, "problem": ABOUT, **fields})


def timed(name, solver, seconds, seed=0, **fields):
    """Got to 1e-6 after so many seconds; None: never."""
    curve = [] if seconds is None else [[seconds, 1.0, 1e-7]]
    status = "time_limit" if seconds is None else "gap_reached"
    gap = 1.0 if seconds is None else 1e-7
    own = {"problem_name": name, "solver_name": solver, "seed": seed, "status": status, "gap": gap, "problem": ABOUT}
    return record(solver, **{**own, "objective": 1.0, "lower_bound": 1.0 / (1 + gap), "setup_seconds": 0.0,
                             "solve_seconds": seconds or 9.0, "curve": curve, **fields})  # fmt: skip


# -- what is derived ------------------------------------------------------------------------------------------------


def test_the_optimum_lies_between_the_best_bound_and_the_least_objective():
    records = [told("a", "fista", 11.0, 8.0), told("a", "bm_gd", 10.0, 5.0), told("b", "fista", 3.0, 2.0)]
    intervals = optimum.optimum_intervals(records)
    assert intervals["a", False] == optimum.Interval(8.0, 10.0)
    assert intervals["b", False] == optimum.Interval(2.0, 3.0)
    first, second, _ = optimum.truths(records)
    assert (first.least, first.most) == pytest.approx((0.1, 11 / 8 - 1))
    assert (second.least, second.most) == pytest.approx((0.0, 10 / 8 - 1))
    assert first.gap == pytest.approx(11 / 8 - 1)
    assert optimum.violations(records) == []
    assert [one.median for one in bands(records)[0].excess] == pytest.approx([22 / 8 - 1, 11 / 8 - 1])


def test_a_bound_above_an_objective_is_told_and_rounding_is_not():
    wrong = [told("a", "fista", 10.0, 9.0), told("a", "bm_gd", 10.5, 10.1)]
    (line,) = optimum.violations(wrong)
    assert "lower bound 10.1 is above the objective 10" in line
    assert optimum.violations([told("a", "fista", 10.0, 9.0), told("a", "bm_gd", 10.5, 10.0 * (1 + 1e-12))]) == []
    # so is one of a point on the way: 12 / (1 + 0.1) > 10
    passing = told("a", "bm_gd", 10.0, 9.0, curve=[[1.0, 12.0, 0.1], [2.0, 10.0, 1 / 9]])
    (line,) = optimum.violations([told("a", "fista", 10.0, 9.0), passing])
    assert "lower bound 10.9090909091 is above the objective 10" in line
    # a gap of 3 may also come of a negative bound, and tells nothing
    far = told("a", "bm_gd", 10.0, 9.0, curve=[[1.0, 100.0, 3.0]])
    assert optimum.violations([far]) == []


def test_points_on_the_way_tell_of_the_optimum_too():
    """A solver may leave the best point it had; and the bound of every point is one on the optimum."""
    left = told("a", "bm_adam", 11.0, 8.0, curve=[[1.0, 10.0, 0.25], [2.0, 11.0, 11 / 8 - 1]])
    near = told("a", "fista", 12.0, 9.0, curve=[[1.0, 12.0, 1 / 3], [2.0, None, None], [3.0, 9.5, None]])
    assert optimum.optimum_intervals([left, near])["a", False] == optimum.Interval(9.0, 10.0)


def test_bounds_over_all_patterns_do_not_compete_with_those_over_sampled_ones():
    """A network may leave the sampled program, so that its objective is no point of it; the other way round it is."""
    sampled = {**ABOUT, "scope": "sampled"}
    inside = told("a", "fista", 10.0, 9.9, scope="sampled", problem=sampled)
    outside = told("a", "network_adam", 8.0, 7.0, scope="complete", problem=sampled)
    intervals = optimum.optimum_intervals([inside, outside])
    assert intervals == {("a", False): optimum.Interval(9.9, 10.0), ("a", True): optimum.Interval(7.0, 8.0)}
    assert optimum.violations([inside, outside]) == []
    worse = told("a", "network_adam", 12.0, 7.0, scope="complete", problem=sampled)
    assert optimum.optimum_intervals([inside, worse])["a", True] == optimum.Interval(7.0, 10.0)


def test_performance_profiles_by_hand():
    records = [
        timed("spiral[n=9]", "fista", 1.0), timed("spiral[n=9]", "bm_gd", 3.0),
        timed("spiral[n=9]", "fista", 8.0, seed=1), timed("spiral[n=9]", "bm_gd", 2.0, seed=1),
        timed("spiral[n=12]", "fista", 5.0), timed("spiral[n=12]", "bm_gd", None),
        timed("spiral[n=15]", "fista", None), timed("spiral[n=15]", "bm_gd", None),
    ]  # fmt: skip
    fista, bm_gd = derived.profiles(records, 1e-6)
    assert (fista.solver, fista.ratios, fista.runs, fista.unsolved) == ("fista", [1.0, 1.0, 4.0], 4, 1)
    assert (bm_gd.ratios, bm_gd.runs, bm_gd.unsolved) == ([1.0, 3.0], 4, 1)
    (line,) = sentences([one for one in records if one["solver_name"] == "bm_gd"])
    assert line.startswith("In 4 races, each of one draw of a problem,")
    assert "most often by bm_gd (in 2 of its 4), and first by bm_gd (2); no solver reached it in 2 of them." in line


def test_a_solver_run_from_one_start_counts_in_the_races_of_every_start():
    """As in the campaign `paper`: three starts of one solver and one of another on the same data."""
    records = [timed("spiral[n=9]", "bm_gd", seconds, seed=seed) for seed, seconds in enumerate((4.0, 1.0, None))]
    records.append(timed("spiral[n=9]", "cvxpy_clarabel", 2.0))
    bm_gd, clarabel = derived.profiles(records, 1e-6)
    assert (clarabel.ratios, clarabel.runs, clarabel.ran) == ([1.0, 1.0, 2.0], 3, 3)
    assert (bm_gd.ratios, bm_gd.ran) == ([1.0, 2.0], 3)
    other_data = [timed("spiral[n=9,seed=1]", "bm_gd", 1.0), timed("spiral[n=9,seed=0]", "fista", 1.0)]
    assert [(one.ratios, one.runs, one.ran) for one in derived.profiles(other_data, 1e-6)] == [([1.0], 2, 1)] * 2


def test_all_tolerances_of_a_one_shot_solver_are_one_runner():
    loose = timed("spiral[n=9]", "cvxpy_scs", 1.0, gap=1e-2)
    loose.update(solver_name="cvxpy_scs[tolerance=0.001]", curve=[[1.0, 1.0, 1e-3]])
    tight = {**timed("spiral[n=9]", "cvxpy_scs", 4.0)}
    assert [one.ratios for one in derived.profiles([loose, tight], 1e-2)] == [[1.0]]
    assert [one.solver for one in derived.profiles([loose, tight], 1e-6)] == ["cvxpy_scs"]


def test_tolerances_that_form_one_curve_are_told():
    one, other = (timed("a", "cvxpy_scs", 1.0, solver_parameters={"tolerance": t}) for t in (1e-3, 1e-6))
    assert pooled([one, {**other, "status": "skipped"}]) == []
    assert pooled([one, other]) == [
        "cvxpy_scs: in every race the quickest of its runs with tolerance 0.001, 1e-06 counts."
    ]


def test_memory_is_of_the_cells_that_have_one():
    records = [timed("a", "fista", 1.0, seed, peak_memory_mb=peak) for seed, peak in enumerate((300.0, None, 500.0))]
    assert solver_times(records)[0].memory_mb == 400.0
    assert time_rows(solver_times([records[1]]))["a"][0][-1] == "-"


def test_what_is_told_first_of_skips_only_and_of_mixed_versions():
    skips = [timed("a", "fista", None, status="skipped")]
    assert sentences(skips) == ["Every cell was skipped, and nothing was run. The reasons are below."]
    mixed = [timed("a", "fista", 1.0, version="0.1"), timed("b", "fista", 1.0, version="0.2")]
    assert sentences(mixed)[1] == "The records are of 2 versions of the code: 0.1, 0.2."


def test_scaling_finds_the_size_that_varies_alone_and_its_exponent():
    records = [
        timed(f"teacher[d={d},n={n}]", "fista", 1e-3 * n**2 * d, problem={**ABOUT, "n": n, "d": d})
        for n, d in [(10, 2), (20, 2), (40, 2), (10, 4), (20, 4)]
    ]
    (found,) = derived.scalings(records)  # d has two values only, and so has n where d = 4
    assert (found.title, found.size) == ("teacher[d=2]", "n")
    assert found.laws["fista"].exponent == pytest.approx(2.0)
    assert found.missed == {}
    assert found.points["fista"] == [(10.0, pytest.approx(0.2)), (20.0, pytest.approx(0.8)), (40.0, pytest.approx(3.2))]


def test_where_a_solver_ran_out_of_time_it_is_shown_and_is_no_part_of_the_fit():
    records = [timed(f"spiral[n={n}]", "fista", n / 10, problem={**ABOUT, "n": n}) for n in (10, 20, 40)]
    records.append(timed("spiral[n=80]", "fista", None, problem={**ABOUT, "n": 80}, solve_seconds=5.0))
    (found,) = derived.scalings(records)
    assert found.missed == {"fista": [(80.0, 5.0)]}
    assert found.laws["fista"].exponent == pytest.approx(1.0)
    (figure,) = {one.name: one for one in draw_all(records)}["scaling"].figures
    hollow = [line for line in figure.axes[0].lines if line.get_fillstyle() == "none"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in hollow] == [(80.0, 5.0)]


def test_several_problems_of_one_size_are_no_three_sizes():
    """More patterns than there are: P is the same."""
    sizes = {5: 5, 10: 10, 100: 18, 200: 18, 300: 18}
    records = [
        timed(f"spiral[patterns={k}]", "fista", 1.0 if P == 18 else None, problem={**ABOUT, "P": P})
        for k, P in sizes.items()
    ]
    (found,) = derived.scalings(records)
    assert (found.laws, len(found.points["fista"])) == ({}, 3)


def test_ranks_are_of_records_that_got_there_and_tell_their_blocks():
    good = told("a", "fista", 1.0, 1 / (1 + 1e-7), active_blocks=5, largest_rank=2, total_rank=8)
    short = told("b", "fista", 1.0, 0.5, active_blocks=5, largest_rank=2, total_rank=8)
    old = {key: value for key, value in told("c", "fista", 1.0, 1 / (1 + 1e-7)).items() if "rank" not in key}
    old.pop("active_blocks")
    assert derived.ranks([good, short, old]) == [derived.Ranks("a", "fista", "convex", 5, 2, 8, 18, 2)]


def test_a_band_has_medians_and_quartiles_of_the_least_gap_by_each_time():
    curves = [[[1.0, 2.0, 0.5], [3.0, 3.0, 0.7]], [[2.0, 2.0, 0.1]], []]
    records = [timed("spiral[n=9]", "bm_gd", 1.0, seed=k, curve=curve) for k, curve in enumerate(curves)]
    (band,) = bands(records)
    assert (band.rung, band.solver, band.draws, band.seconds) == ("spiral[n=9]", "bm_gd", 3, [1.0, 2.0, 3.0])
    # by 1 s one run of three has a gap, by 2 s two of them; the rise to 0.7 does not count
    assert [one.median for one in band.gaps] == [np.inf, 0.5, 0.5]
    assert [one.low for one in band.gaps] == pytest.approx([np.inf, 0.3, 0.3])
    assert [one.high for one in band.gaps] == [np.inf, np.inf, np.inf]
    long = [timed("a", "bm_gd", 1.0, curve=[[0.01 * k, 1.0, 1.0 / k] for k in range(1, 2000)])]
    (band,) = bands(long)
    assert (band.seconds[0], band.seconds[-1]) == pytest.approx((0.01, 19.99))
    assert 20 < len(band.seconds) <= 31
    assert all(one.median == pytest.approx(0.01 / s) for s, one in zip(band.seconds, band.gaps, strict=True))


def test_all_tolerances_of_a_solver_are_one_band_and_set_up_counts():
    runs = [(1e-3, [[1.0, 2.0, 1e-2]]), (1e-6, [[4.0, 2.0, 1e-6]])]
    records = [told("a", f"cvxpy_scs[tolerance={t}]", 2.0, 1.0, curve=curve, setup_seconds=0.5) for t, curve in runs]
    (band,) = bands(records)
    assert (band.solver, band.draws, band.seconds) == ("cvxpy_scs", 1, [1.5, 4.5])
    assert [one.median for one in band.gaps] == [1e-2, 1e-6]


def test_a_chart_in_words_says_who_reached_the_gap_and_where_others_ended():
    words = descriptions([timed("a", "fista", 2.0), timed("a", "bm_gd", 3.0, curve=[[3.0, 1.0, 0.05]])])
    assert words["curves"] == {
        "a": "Certified relative gap against set-up and solve time, both logarithmic, on a: fista reached 1e-06 after "
        "2.00 s; bm_gd ended at 5.0e-02 after 3.00 s."
    }
    assert "fista in 1, bm_gd in 0" in words["profile"]["1e-06"]
    assert words["truth"]["certified"].endswith("at 2 of them the gap is at least the distance.")


# -- figures --------------------------------------------------------------------------------------------------------


def test_styles_of_many_solvers_differ_and_not_by_colour_alone():
    looks = list(map(series_style, range(56)))
    assert len({(one.colour, one.marker) for one in looks}) == 56
    assert len({(one.colour, str(one.dashes)) for one in looks[:28]}) == 28
    assert len({one.marker for one in looks[:7]}) == 7
    for one, other in itertools.pairwise(looks):
        assert one.marker != other.marker
        assert one.dashes != other.dashes


@pytest.mark.slow
def test_a_solver_looks_the_same_in_every_figure_and_on_the_page():
    """All tolerances of a one-shot solver are one line in a profile, so they look the same everywhere."""
    records = campaign_records(3)
    for one in campaign_records(3, solvers=("cvxpy_scs",)):
        one.update(solver_name="cvxpy_scs[tolerance=0.001]", solver_parameters={"tolerance": 1e-3})
        records.insert(3, one)
    for one in records:
        if one["solver"] == "fista":  # the first of them has no part in all figures
            one.update(status="time_limit", gap=0.5, lower_bound=1 / 1.5, curve=[[1.0, 1.0, 0.5]], active_blocks=None)
    looks = styles_by_solver(records)
    assert list(looks) == ["fista", "bm_gd", "bm_newton", "cvxpy_scs"]
    assert [one["name"] for one in payload(records)["styles"]] == list(looks)
    for drawn in draw_all(records):
        for figure in drawn.figures if drawn.name != "matrix" else []:  # which names solvers on its axis
            for handle, text in labelled(figure):
                own = looks[text.partition(":")[0]]
                assert (handle.get_color(), handle.get_marker()) == (own.colour, own.marker), (drawn.name, text)


def labelled(figure):
    """(handle, label) of every legend."""
    legends = [*figure.legends, *filter(None, (axis.get_legend() for axis in figure.axes))]
    assert legends
    return [pair for one in legends for pair in zip(one.legend_handles, [t.get_text() for t in one.texts], strict=True)]


def test_every_figure_is_drawn_or_says_why_not():
    full = campaign_records(3)
    assert {one.name: one.missing for one in draw_all(full) if one.missing} == {}
    drawn = {one.name: one for one in draw_all([told("a", "fista", 1.0, 0.5)])}
    assert set(drawn) == set(FIGURES)
    assert drawn["performance_profile"].missing == "no solver reached any of the gaps"
    assert "three problems are needed" in drawn["scaling"].missing
    assert "no record reached its gap" in drawn["ranks"].missing
    nothing = {one.name: one.missing for one in draw_all([record(curve=[], gap=None, objective=None, status="failed")])}
    assert all(nothing.values())


def campaign_records(problems, solvers=("fista", "bm_gd", "bm_newton", "cvxpy_scs"), points=30, words="fine"):
    """Records as a campaign would leave them, of problems that differ in n alone."""
    found, draw = [], np.random.default_rng(0)
    for k in range(problems):
        for place, solver in enumerate(solvers):
            parameters = {name: values[0] for name, values in SOLVERS.get(solver).parameters.items()}
            own = {**DATASETS.get("spiral").parameters, "n": 9 + 3 * k}
            cell = Cell("spiral", own, {}, solver, parameters, limits=Limits(5.0, 1e-6), campaign="made")
            seconds = np.sort(draw.uniform(0.01, 4.0, points))
            gaps = np.geomspace(2.0, 1e-7, points)
            curve = [[float(s), 1 + float(g) / 2, float(g)] for s, g in zip(seconds, gaps, strict=True)]
            about = {**ABOUT, "n": 9 + 3 * k, "P": 18 + 6 * k}
            record = {**blank_record(cell, about), "status": "gap_reached", "reason": words, "curve": curve}
            record.update(objective=1.0, lower_bound=1 / (1 + 1e-7), gap=1e-7, setup_seconds=0.01 * (place + 1))
            record.update(solve_seconds=curve[-1][0], stationarity_bound=1e-5, peak_memory_mb=300.0, scope="complete")
            record.update(active_blocks=4, largest_rank=2, total_rank=6)
            record.update(test_samples=40.0, test_loss=7.0 + place, test_accuracy=0.9 + 0.02 * place)
            found.append(record)
    return found


# -- the page -------------------------------------------------------------------------------------------------------


class Reader(html.parser.HTMLParser):
    """Checks that elements are closed in order, and keeps attributes that load something, and text by element."""

    VOID = ("meta", "input", "link", "br", "wbr")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.loads, self.cells, self.scripts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "srcset", "data", "action")]
        self.loads += [value for name, value in attributes if name == "href" and not value.startswith("#")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "script":
            self.scripts.append(text)
        elif self.open and self.open[-1] == "td":
            self.cells.append(text)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of 280 cells, its reasons hostile, one of its curves long."""
    words = '</script><script>alert(1)</script> & "quoted" <b>'
    records = campaign_records(70, points=60, words=words)
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(records, path, list(draw_all(records[:8])), ["line 3: not a whole record"])
    return records, path, words


@pytest.mark.slow
def test_the_page_is_one_offline_file_below_three_megabytes(page):
    records, path, words = page
    text = path.read_text()
    assert len(text.encode()) < 3e6
    read = Reader(text)
    assert read.loads == []
    style_sheet = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style_sheet
    assert "@import" not in style_sheet
    assert read.cells.count(words) == len(records)  # escaped, and read back as it was
    assert "<script>alert" not in text
    assert len(read.scripts) == 3
    assert "not a whole record" in text


@pytest.mark.slow
def test_every_cell_has_a_row_and_a_file_that_makes_the_same_cell(page, tmp_path):
    records, path, _ = page
    text = path.read_text()
    body = text[text.index('id="all"') :]
    assert body.count("<summary>command</summary>") == len(records)
    for one in (records[0], records[-1], *odd_records()):
        file = tmp_path / "cell.toml"
        file.write_text(cell_campaign(one))
        (cell,) = plan(*load_campaign(file))
        assert cell.key == one["key"]


@pytest.mark.parametrize("name", ["quickstart", "ladder", "map", "paper", "scaling", "test_scores", "infinite-width"])
def test_the_file_of_every_cell_of_the_shipped_campaigns_makes_that_cell(tmp_path, name):
    cells = plan(*load_campaign(find_campaign(name)))
    for cell in cells[:: max(1, len(cells) // 25)]:
        file = tmp_path / "cell.toml"
        file.write_text(cell_campaign(blank_record(cell)))
        (again,) = plan(*load_campaign(file))
        assert again.key == cell.key, cell_campaign(blank_record(cell))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"objective": None, "lower_bound": None, "gap": None, "curve": [], "status": "failed", "problem": {}},
        {"objective": 0.0, "lower_bound": 0.0, "gap": 0.0, "curve": [[0.0, 0.0, 0.0]]},
        {"objective": -1.0, "lower_bound": -2.0, "gap": 0.5},
        {"objective": 1e300, "lower_bound": 1e-300, "gap": 1e308, "curve": [[1e-9, 1e300, 1e308], [1e9, 1e300, 1.0]]},
        {"gap": None, "lower_bound": None, "curve": [[0.1, 5.0, None], [0.2, 4.0, None]]},
        {"setup_seconds": None, "status": "time_limit"},
        {"problem_name": "file[path='a b,c.csv',target=y]", "solver_name": "mine[x='<b>']", "campaign": "ü"},
    ],
)
def test_odd_records_are_reported_on(tmp_path, fields):
    records = [{**one, **fields} for one in campaign_records(2)]
    drawn = list(draw_all(records))
    assert len(drawn) == len(FIGURES)
    assert write_page(records, tmp_path / "report.html", drawn).stat().st_size > 500_000


def odd_records():
    """Cells with limits, a seed and parameters of their own."""
    own = {**DATASETS.get("spiral").parameters, "n": 12}
    parameters = {name: values[0] for name, values in SOLVERS.get("bm_gd").parameters.items()} | {"m": 2}
    rest = {"beta_fraction": 0.05, "loss": "huber[delta=0.5]"}
    limits = Limits(7.0, 1e-3, 33.0, 1.5, 2)
    label = "spiral[beta_fraction=0.05,loss='huber[delta=0.5]',n=12]"
    yield blank_record(Cell("spiral", own, rest, "bm_gd", parameters, 5, limits=limits, label=label))
    yield blank_record(Cell("spiral", own, rest, "bm_gd", parameters, 5, "cuda", limits=Limits(7.0, 1e-3)))


@pytest.mark.slow
def test_names_cannot_end_the_script_that_holds_them(tmp_path):
    hostile = "</script><script>alert(1)</script><!--"
    records = campaign_records(1)
    for one in records:
        one.update(problem_name=f"file[path='{hostile}']", solver_name=f"{one['solver']}[x='{hostile}']")
    text = write_page(records, tmp_path / "report.html", list(draw_all(records))).read_text()
    read = Reader(text)
    assert len(read.scripts) == 3
    rows = json.loads(read.scripts[0])["charts"]["curves"]["rows"]
    assert {row["problem"] for row in rows} == {f"file[path='{hostile}']"}


def keys_of(text, folder):
    """The keys of the cells that a command, or a campaign file, would run."""
    if not text.startswith("convexnn-bench run "):
        (folder / "again.toml").write_text(text)
        text = f"convexnn-bench run {shlex.quote(str(folder / 'again.toml'))}"
    done = command(*shlex.split(text)[1:], "--dry-run", "--json", "--out", folder / "none")
    assert done.exit_code == 0, done.output
    return [json.loads(line)["key"] for line in done.stdout.splitlines()]


def test_the_command_of_a_cell_makes_the_same_cell(tmp_path):
    plain = campaign_records(2)[1]
    again = cell_again(plain)
    assert again == "convexnn-bench run --dataset 'spiral[n=9]' --solver bm_gd --time-limit 5.0 --gap 1e-06"
    assert keys_of(again, tmp_path) == [plain["key"]]
    later = blank_record(Cell("spiral", plain["dataset_parameters"], {}, "bm_gd", plain["solver_parameters"], 2,
                              limits=Limits(5.0, 1e-6)))  # fmt: skip
    assert cell_again(later).startswith("datasets = ")  # nor its seed
    assert keys_of(cell_again(later), tmp_path) == [later["key"]]
    for one in odd_records():  # no command says its limits
        assert keys_of(cell_again(one), tmp_path) == [one["key"]]


@pytest.mark.slow
def test_the_campaign_is_told_by_its_command_or_rebuilt(tmp_path):
    grid = campaign_records(2)
    (again,) = campaign_again(grid)
    assert again.startswith("convexnn-bench run --dataset 'spiral[n=9]' --dataset 'spiral[n=12]' --solver fista ")
    assert keys_of(again, tmp_path) == [one["key"] for one in grid]
    mixed = [*grid[:-1], *odd_records()]  # no grid: of the last problem one solver is missing
    texts = campaign_again(mixed)
    assert sorted(key for text in texts for key in keys_of(text, tmp_path)) == sorted(one["key"] for one in mixed)
    ladder = [blank_record(cell) for cell in plan(*load_campaign(find_campaign("ladder")))]
    assert campaign_again(ladder[:50]) == ["convexnn-bench run ladder"]
    ladder[3]["limits"] = {**ladder[3]["limits"], "time_limit": 1.0}  # as with --time-limit
    assert all("[[part]]" in text for text in campaign_again(ladder))


@pytest.mark.slow
def test_the_charts_are_valid_and_drawn_from_the_rows_of_the_page(page):
    records, _, _ = page
    made = payload(records[:12])
    assert set(made["charts"]) == {"curves", "profile", "scaling", "truth", "ranks", "scores"}
    names = [look["name"] for look in made["styles"]]
    for name, chart in made["charts"].items():
        rows = chart["rows"]
        if name == "curves":  # the page expands them in the same way
            keys = ("seconds", "gap", "excess", "gap_low", "gap_high", "excess_low", "excess_high")
            rows = [{**row, "last": True, **dict(zip(keys, p, strict=False))} for row in rows for p in row["points"]]
        spec = json.loads(json.dumps(chart["spec"]))
        assert spec["data"] == {"name": "rows"}
        spec["data"] = {"values": rows}
        spec["width"] = 400
        for parameter in spec["params"]:
            if parameter["name"] == "shown":
                parameter["value"] = names
        drawn = vl_convert.vegalite_to_svg(spec)
        empty = vl_convert.vegalite_to_svg({**spec, "params": [{**p, "value": []} if p["name"] == "shown" else p
                                                                for p in spec["params"]]})  # fmt: skip
        assert drawn.count("<path") > empty.count("<path") + 2, name
        assert "NaN" not in drawn


PROBE = """
<script>
const wait = setInterval(() => { if (document.body.dataset.ready !== "yes") return; clearInterval(wait);
  const told = {}, click = (table, column) => table.tHead.rows[0].cells[column].querySelector("button").click();
  const all = document.getElementById("all"), column = (k) => [...all.tBodies[0].rows].map(r => r.cells[k].textContent);
  click(all, 9); told.up = column(9); told.aria = all.tHead.rows[0].cells[9].getAttribute("aria-sort");
  click(all, 9); told.down = column(9);
  const search = document.getElementById("search");
  search.value = "n=12] fista"; search.dispatchEvent(new Event("input"));
  const left = [...all.tBodies[0].rows].filter(row => !row.hidden);
  told.visible = left.map(row => row.cells[0].textContent + row.cells[1].textContent);
  const shows = (gap) => [...document.querySelectorAll("[data-gap]")].filter(t => !t.hidden).map(t => t.dataset.gap);
  told.gaps = [shows()]; const gap = document.getElementById("gap");
  gap.value = "1e-02"; gap.dispatchEvent(new Event("change")); told.gaps.push(shows());
  told.matrix = document.querySelector(".matrix").getBoundingClientRect().top + scrollY;
  told.copies = document.querySelectorAll(".box > button").length - document.querySelectorAll("pre").length;
  told.names = [...document.querySelectorAll(".chart svg[role=img]")].map(svg => svg.getAttribute("aria-label"));
  told.charts = [...document.querySelectorAll(".chart")].map(c => c.querySelectorAll("svg path").length);
  told.width = window.innerWidth;
  told.wide = document.documentElement.scrollWidth <= window.innerWidth;
  told.paper = getComputedStyle(document.body).backgroundColor;
  const axis = document.querySelector("#panel-curves-0 .role-axis-label text, #panel-curves-0 .role-axis-title text");
  told.title = [...document.querySelectorAll("#panel-curves-0 .role-axis-title text")].map(t => t.textContent);
  told.chip = document.querySelector(".chip path").getAttribute("stroke");
  told.ink = axis && axis.getAttribute("fill");
  told.scrolls = [["#panel-curves-0", false], ["#chart-truth", true]].map(([chart, ctrlKey]) => {
    const plot = document.querySelector(chart + " .background"); plot.scrollIntoView();
    const at = plot.getBoundingClientRect(), place = { clientX: at.x + 50, clientY: at.y + 50 };
    const own = { bubbles: true, cancelable: true, deltaY: -300, ctrlKey, ...place };
    return plot.dispatchEvent(new WheelEvent("wheel", own)); });
  document.querySelectorAll(".chip").forEach((chip, k) => { if (k) chip.click(); });
  told.pressed = [...document.querySelectorAll(".chip")].map(chip => chip.getAttribute("aria-pressed"));
  const out = document.createElement("pre"); out.id = "probe"; out.textContent = JSON.stringify(told);
  parent.document.body.append(out); }, 50);
</script>
"""


def browser():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.process
@pytest.mark.skipif(browser() is None, reason="needs a browser to open the page in: install chromium")
@pytest.mark.parametrize(("width", "dark"), [(400, True), (1280, False)])
def test_in_a_browser_it_sorts_searches_draws_and_fits(tmp_path, width, dark):
    records = campaign_records(4)
    path = write_page(records, tmp_path / "report.html", list(draw_all(records)))
    page, _, end = path.read_text().rpartition("</body>")
    # no window is narrower than 500 px; a frame is
    inside = html.escape(f"{page}{PROBE}</body>{end}")
    path.write_text(f'<!doctype html><body><iframe width="{width}" height="900" srcdoc="{inside}"></iframe></body>')
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    own = [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [browser(), *options, *own, path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    told = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL).group(1)))
    setups = sorted(one["setup_seconds"] for one in records)
    assert [float(text) for text in told["up"]] == pytest.approx(setups)
    assert [float(text) for text in told["down"]] == pytest.approx(setups[::-1])
    assert told["aria"] == "ascending"
    assert told["visible"] == ["spiral[n=12]fista"]
    assert len(told["charts"]) == 4 + 5  # a panel of convergence a problem, and five charts
    assert told["gaps"] == [["1e-06"], ["1e-02"]]
    assert told["matrix"] < 900  # in the first fold
    assert told["copies"] == 0
    assert len(set(told["names"])) == len(told["names"]) == 9
    assert all("fista" in name for name in told["names"][:4])
    assert min(told["charts"]) > 3
    assert (told["width"], told["wide"]) == (width, True)
    assert told["title"][1] == "certified relative gap"
    assert told["scrolls"] == [True, False]  # the wheel scrolls the page, and with Ctrl zooms the chart
    assert told["pressed"] == ["true", "false", "false", "false"]
    colours = ("rgb(20, 22, 26)", "#e8eaed") if dark else ("rgb(255, 255, 255)", "#1c1c1e")
    assert (told["paper"], told["ink"]) == colours
    assert told["chip"] == payload(records)["styles"][0]["colour"] == FIXED["fista"].colour  # readable on both


# -- the command ----------------------------------------------------------------------------------------------------


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.slow
def test_report_writes_figures_in_both_formats_and_the_page(tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    for one in campaign_records(3):
        file.append(one)
    with file.path.open("a") as stream:
        stream.write('{"key": "bare", "status": "solved"}\n{"key": "half')
    done = command("report", tmp_path)
    assert done.exit_code == 0, done.output
    for name in FIGURES:
        png, svg = (tmp_path / "figures" / f"{name}.{suffix}" for suffix in ("png", "svg"))
        assert png.read_bytes().startswith(b"\x89PNG")
        assert "<svg" in svg.read_text()
        assert str(png) in done.stdout
    assert (tmp_path / "report.html").is_file()
    assert "not a whole record" in done.stdout
    assert "line 13: campaign is missing; started is missing; version is missing" in done.stdout
    assert done.stdout.startswith("made, unknown: 13 cells, 12 gap_reached, 1 failed\n")
    page = (tmp_path / "report.html").read_text()
    assert "not a whole record" in page
    assert "invalid record: campaign is missing, started is missing, version is missing" in page
    assert "spiral[n=12]" in done.stdout


@pytest.mark.parametrize("name", ["matplotlib", "jinja2", "vl_convert"])
def test_a_missing_package_is_told_in_one_line(tmp_path, monkeypatch, name):
    RecordFile(tmp_path / "records.jsonl").append(campaign_records(1)[0])
    monkeypatch.setitem(sys.modules, name, None)
    done = command("report", tmp_path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: a report needs {name}, which cannot be imported: pip install ")
    assert done.stderr.count("\n") == 1


def test_report_of_what_is_no_campaign(tmp_path):
    done = command("report", tmp_path)
    assert (done.exit_code, "it holds no records.jsonl" in done.stderr) == (2, True)
    done = command("report", tmp_path / "nowhere")
    assert (done.exit_code, "it is not a folder" in done.stderr) == (2, True)
    (tmp_path / "records.jsonl").write_text('{"no": "key"}\n')
    done = command("report", tmp_path)
    assert (done.exit_code, "holds no whole record" in done.stderr) == (2, True)
    (tmp_path / "records.jsonl").write_text('{"half')
    done = command("report", tmp_path)
    assert (done.exit_code, "holds no whole record" in done.stderr) == (2, True)


@pytest.mark.slow
def test_a_wrong_certificate_is_loud(tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    for one in (told("a", "fista", 10.0, 9.0), told("a", "bm_gd", 10.5, 10.1)):
        file.append(one)
    done = command("report", tmp_path)
    assert done.exit_code == 1
    assert "ERROR: a certificate is wrong: a: lower bound 10.1 is above the objective 10" in done.stdout
    assert "a certificate is wrong" in (tmp_path / "report.html").read_text()
