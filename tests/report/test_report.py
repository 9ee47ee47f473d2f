"""Tables, figures and comparisons say what the records say."""

import io
import math
import re

import numpy as np
import pytest
from harness_fixtures import solvers_from, spiral_cell
from rich.console import Console

import convexnn_bench as cnn
from convexnn_bench.harness.cell_run import blank_record, skipped_record
from convexnn_bench.report.figures.gaps import gap_figure, save_gap_figure
from convexnn_bench.report.formats import format_gap, format_seconds, format_value
from convexnn_bench.report.tables import print_results, reasons

SIZES = {
    "n": 9, "d": 2, "c": 3, "P": 18, "activation": "gated_relu", "architecture": "mlp", "loss": "squared",
    "beta": 0.5, "scope": "complete",
}  # fmt: skip


def record(solver="fista", n=9, **fields):
    curve = [[0.01 * 2**i, 2.0, 10.0**-i] for i in range(8)]
    good = {
        "status": "gap_reached", "objective": 2.0, "lower_bound": 1.999, "gap": 1e-7, "setup_seconds": 0.1,
        "solve_seconds": 1.5, "peak_memory_mb": 300.0, "curve": curve,
    }  # fmt: skip
    return {**blank_record(spiral_cell(solver, n=n), SIZES), **good, **fields}


def rendered(records, **options):
    console = Console(file=io.StringIO(), highlight=False, **{"width": 100, **options})
    print_results(records, console)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("gap", "plain", "fancy"),
    [
        (3.14e-7, "3.1e-07", "3.1×10⁻⁷"),
        (9.96e-7, "1.0e-06", "1.0×10⁻⁶"),
        (0.5, "5.0e-01", "5.0×10⁻¹"),
        (12.0, "1.2e+01", "1.2×10¹"),
        (None, "-", "-"),
        (math.nan, "-", "-"),
        (math.inf, "inf", "inf"),
        (0.0, "0", "0"),
    ],
)
def test_gaps_are_powers_of_ten(gap, plain, fancy):
    assert format_gap(gap) == plain
    assert format_gap(gap, superscript=True) == fancy


def test_notes_on_the_data_stand_below_the_title():
    one = record()
    one["problem"] = {**SIZES, "notes": "Line 1 was read as the header: a,b."}
    lines = rendered([one, record("bm_newton")]).splitlines()
    assert lines[2].strip() == "Line 1 was read as the header: a,b."
    assert lines[3].strip().startswith("solver")


def test_numbers():
    shown = [format_value(value) for value in (29.9153860, None, 0.0, 2, 1.5e-9)]
    assert shown == ["29.91539", "-", "0", "2.000000", "1.500000e-09"]
    assert [format_seconds(x) for x in (None, 0.0123, 1.234, 99.9)] == ["-", "0.012", "1.23", "100"]


def test_table_is_grouped_by_problem_and_explains_what_went_wrong():
    records = [
        record("fista"),
        record("bm_gd", status="stalled", gap=None, objective=3.0, reason="ended above the target"),
        {**skipped_record(spiral_cell("bm_adam"), "no licence at ~/there", SIZES)},
        record("fista", n=12),
        {**skipped_record(spiral_cell("bm_adam", n=12), "no licence at ~/there", SIZES)},
    ]
    text = rendered(records)
    assert text.index("spiral[n=9]") < text.index("bm_gd") < text.index("spiral[n=12]")
    assert "n=9, d=2, 3 outputs, gated_relu mlp, 18 patterns (complete), squared loss, beta=0.5" in text
    assert "bm_gd stalled on spiral[n=9]: ended above the target" in text
    assert text.count("no licence at ~/there") == 1  # the same reason is told once
    assert reasons(records)[1] == "bm_adam skipped: no licence at ~/there"
    for word in ("status", "lower bound", "gap", "set-up s", "solve s", "1.0e-07", "1.999", "1.5", "300"):
        assert word in text, word
    assert "\x1b" not in text


def test_best_values_are_bold_on_a_terminal():
    text = rendered(
        [
            record("fista"),
            record("bm_gd", gap=1e-3, lower_bound=1.9, objective=2.002, solve_seconds=0.2, status="time_limit"),
        ],
        force_terminal=True,
    )
    bold = [line for line in text.splitlines() if "\x1b[1m" in line and "bm_gd" in line]
    assert not bold
    fista = next(line for line in text.splitlines() if "fista" in line)
    assert fista.count("\x1b[1m") == 4  # objective, bound, gap, time


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_number_is_cut_at_any_width(width):
    records = [
        record("network_adam", objective=12345.678901, lower_bound=12345.6, status="gap_reached"),
        record("bm_lbfgs", status="memory_limit", reason="killed"),
    ]
    records[0]["solver_name"] = "network_adam[rate=0.05,width=200]"
    text = rendered(records, width=width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for word in ("12345.68", "12345.60", "memory_limit", "1.0e-07", "set-up s", "0.100", "1.50", " 300"):
        assert text.count(word) >= 1, word
    assert "network_adam[rate=0.05,width=200]" in text or width == 80  # folded there


def test_sizes_come_from_any_record_that_has_them():
    skipped = skipped_record(spiral_cell("bm_adam"), "no licence")
    lines = rendered([skipped, record()]).splitlines()
    assert lines[1].startswith("n=9, d=2")
    assert rendered([skipped]).splitlines()[1].startswith("solver")


def test_seeds_are_told_apart():
    text = rendered([record(seed=0), record(seed=1)])
    assert "fista #0" in text
    assert "fista #1" in text


@pytest.mark.slow
def test_figure_has_a_panel_a_problem_and_a_label_a_solver(tmp_path):
    records = [record("fista"), record("bm_gd"), record("fista", n=12), record("bm_gd", n=12, curve=[])]
    figure = gap_figure(records, target=1e-6)
    panels = [axis for axis in figure.axes if axis.axison]
    assert len(panels) == 2
    texts = [[text.get_text() for text in axis.texts] for axis in panels]
    assert "fista" in texts[0]
    assert "bm_gd" in texts[0]
    assert "bm_gd" not in texts[1]  # it has no point there
    assert all(axis.get_yscale() == axis.get_xscale() == "log" for axis in panels)
    line = next(line for line in panels[0].lines if len(line.get_xdata()) == 8)
    np.testing.assert_allclose(line.get_xdata()[0], 0.11)  # set-up and solve time together
    assert line.get_color() == cnn.solver_style("fista")["color"]
    path = save_gap_figure(records, tmp_path / "gap.png")
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_figure_of_nothing_and_of_odd_gaps(tmp_path):
    nothing = skipped_record(spiral_cell("fista"), "no")
    assert gap_figure([nothing]).axes[0].texts[0].get_text() == "no certified point"
    odd = record(curve=[[0.0, 1.0, None], [0.1, 1.0, 1e300], [0.2, 1.0, 0.0], [0.3, 1.0, -1e-18]])
    save_gap_figure([odd], tmp_path / "odd.png")


# -- compare ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    with solvers_from(tmp_path_factory.mktemp("plugins") / "bad", "zero", "raises", "skips"):
        problem = cnn.make_problem("spiral", n=30)
        yield cnn.compare(problem, ["fista", "bm_lbfgs[m=2]", "raises", "skips"], gap=1e-3, time_limit=600.0)


@pytest.mark.slow
def test_comparison_has_a_row_a_solver(table):
    frame = table.to_frame()
    assert list(frame["solver"]) == ["fista", "bm_lbfgs[m=2]", "raises", "skips"]
    assert frame["status"][0] == "gap_reached"
    assert frame["gap"][0] <= 1e-3
    assert (frame["lower_bound"][:2] <= frame["objective"][:2]).all()
    assert list(frame["status"][2:]) == ["failed", "skipped"]
    assert "RuntimeError" in frame["reason"][2]
    assert frame["objective"].dtype == float
    assert table.results["fista"].certificate.gap == frame["gap"][0]


def test_a_comparison_makes_each_solver_once(monkeypatch):
    made = []
    cls = cnn.SOLVERS.get("fista")
    monkeypatch.setattr(cls, "__init__", lambda self, **_: made.append(1) or cnn.BaseSolver.__init__(self))
    cnn.compare(cnn.make_problem("spiral", n=9), ["fista"], gap=1e-1, time_limit=600.0)
    assert made == [1]


@pytest.mark.slow
def test_comparison_shows_itself(table):
    text, html = repr(table), table._repr_html_()
    assert "raises failed: RuntimeError" in text
    assert "fista" in text
    assert "gap_reached" in text
    assert "MB" not in text  # one process: peak memory says nothing of one solver
    assert "fista" in html
    assert "RuntimeError" in html
    assert html.count("<svg") == sum(record["gap"] is not None for record in table.records)
    assert [t.get_text() for t in table.plot().axes[0].texts].count("fista") == 1


@pytest.mark.parametrize(
    ("solvers", "words"),
    [
        ([], "at least one name"),
        ("fista", "must be a list"),
        (["fista", "fista"], "'fista' is given twice"),
        (["fisto"], "did you mean 'fista'"),
        (["fista[a=1]"], "has no parameter 'a'"),
    ],
)
def test_bad_comparisons(solvers, words):
    with pytest.raises(cnn.InputError, match=re.escape(words)):
        cnn.compare(cnn.make_problem("spiral", n=9), solvers)


def test_bad_limits_of_a_comparison():
    with pytest.raises(cnn.InputError, match="time_limit must be a positive number"):
        cnn.compare(cnn.make_problem("spiral", n=9), ["fista"], time_limit=-1.0)
