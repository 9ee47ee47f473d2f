"""Scores on held-out samples stand in tables, figures and the page where a campaign has them, and nowhere else."""

import csv
import io
import math

import pytest
from test_report import record, rendered
from test_report_page import Reader

from convexnn_bench.records import TEST_FIELDS
from convexnn_bench.records.reading import checked
from convexnn_bench.report import table_text
from convexnn_bench.report.figures import Drawn
from convexnn_bench.report.figures.scores import score_figures
from convexnn_bench.report.figures.styles import styles_by_solver
from convexnn_bench.report.numbers import derived, solver_times
from convexnn_bench.report.page.page import payload, time_table, write_page


def scored(solver="fista", n=9, seed=0, **fields):
    own = {"test_samples": 20.0, "test_loss": 5.0, "test_accuracy": 0.85, "seed": seed}
    return record(solver, n, **{**own, **fields})


def test_tables_have_the_columns_of_scores_that_are_known():
    text = rendered([scored(), scored("bm_newton", test_loss=4.0, test_accuracy=0.9)], width=140)
    assert "test loss" in text
    assert "test acc." in text
    assert "0.8500" in text
    assert "0.9000" in text
    assert "test R2" not in text
    numbers = rendered([scored(test_accuracy=None, test_r2=-0.25)], width=140)
    assert "test acc." not in numbers
    assert "-0.2500" in numbers
    assert "test" not in rendered([record()], width=140)


def test_a_record_of_an_earlier_version_has_no_scores_and_no_fault():
    old = {name: value for name, value in record().items() if name not in TEST_FIELDS}
    read, faults = checked({**old, "schema": 3})
    assert faults == []
    assert [read[name] for name in TEST_FIELDS] == [None] * 4
    assert "test" not in rendered([read])
    assert derived.scored_points([old]) == []
    assert score_figures([old], styles_by_solver([old])).startswith("no cell was scored")


def test_an_invalid_record_loses_its_scores():
    read, faults = checked(scored(gap="tiny"))
    assert len(faults) == 1
    assert (read["test_loss"], read["test_accuracy"]) == (None, None)


def test_csv_and_latex_have_the_scores():
    records = [scored(), scored("bm_newton", test_accuracy=0.9), scored("bm_gd", test_loss=None, test_accuracy=None)]
    rows = list(csv.DictReader(io.StringIO(table_text(records, "csv"))))
    assert [row["test_accuracy"] for row in rows] == ["0.85", "0.9", ""]
    assert [row["test_samples"] for row in rows] == ["20.0"] * 3
    latex = table_text(records, "latex")
    assert r"\begin{tabular}{llrrrrrrrr}" in latex
    assert "test acc." in latex


def test_several_draws_have_their_median():
    records = [scored(seed=seed, test_accuracy=a) for seed, a in enumerate((0.7, 0.8, 1.0))]
    records += [record("bm_gd", seed=seed) for seed in range(3)]
    first, second = solver_times(records, [1e-6])
    assert (first.scores, second.scores) == ({"test_loss": 5.0, "test_accuracy": 0.8}, {})
    rows = list(csv.DictReader(io.StringIO(table_text(records, "csv"))))
    assert {row["solver"]: row["test_accuracy_median"] for row in rows} == {"fista": "0.8", "bm_gd": ""}
    assert "test acc." in table_text(records, "latex")
    table = time_table(records)
    assert table["titles"][-2:] == ["test loss", "test acc."]
    assert [row[-1][0] for row in table["rows"]] == ["0.8000", "-"]


def test_of_several_tolerances_the_tightest_gap_is_scored():
    runs = [
        scored("cvxpy_scs", solver_name=f"cvxpy_scs[tolerance={t}]", gap=gap, test_accuracy=accuracy)
        for t, gap, accuracy in ((1e-2, 1e-3, 0.5), (1e-6, 1e-8, 0.75), (1e-4, None, 0.25))
    ]
    (times,) = solver_times(runs, [1e-6])
    assert times.scores["test_accuracy"] == 0.75


def test_a_problem_shows_the_score_that_all_of_its_cells_have():
    mixed = [
        scored(),
        scored("bm_gd", test_accuracy=None),
        scored(n=12),
        scored(n=15, test_accuracy=None, test_r2=0.5),
        scored("bm_newton", n=15, test_loss=None),
    ]
    kinds = [(one.problem, one.kind, one.score) for one in derived.scored_points(mixed)]
    assert kinds == [
        ("spiral[n=9]", "test loss per sample", 0.25),
        ("spiral[n=9]", "test loss per sample", 0.25),
        ("spiral[n=12]", "test accuracy", 0.85),
        ("spiral[n=15]", "test R2", 0.5),
    ]


@pytest.mark.parametrize(("scores", "low", "high"), [((0.5,), 0.48, 0.52), ((0.5, 1.0), 0.45, 1.0)])
def test_the_axis_of_accuracies_ends_at_one_and_does_not_magnify_rounding(scores, low, high):
    points = derived.scored_points([scored(seed=k, test_accuracy=score) for k, score in enumerate(scores)])
    assert derived.score_range(points) == pytest.approx((low, high))


@pytest.mark.slow
def test_figure_and_page_show_each_score_at_its_gap_and_its_time(tmp_path):
    records = [
        scored(),
        scored("bm_newton", test_accuracy=0.9, gap=0.0, reason="solved; no test scores: <none>"),
        scored("bm_gd", gap=None, test_accuracy=0.8),
    ]
    (figure,) = score_figures(records, styles_by_solver(records))
    by_gap, by_time = figure.axes
    assert by_gap.get_ylabel() == "test accuracy"
    found = [(*line.get_xdata(), *line.get_ydata()) for line in by_gap.lines]
    assert found == [(1e-7, 0.85), (1e-12, 0.9)]  # a gap that was not proven has no place
    assert [(*line.get_xdata(), *line.get_ydata()) for line in by_time.lines] == [(1.6, 0.85), (1.6, 0.9), (1.6, 0.8)]
    rows = payload(records)["charts"]["scores"]["rows"]
    assert [(row["gap"], row["score"], row["seconds"]) for row in rows] == [
        (1e-7, 0.85, 1.6),
        (1e-12, 0.9, 1.6),
        (None, 0.8, 1.6),
    ]
    page = write_page(records, tmp_path / "report.html", []).read_text()
    table = page[page.index('id="all"') :]
    first_row = table[: table.index("</tr>", table.index("<td"))]
    assert first_row.count("<th ") == first_row.count("<td") == 14
    cells = Reader(page).cells
    assert cells.count("0.8500") == 2  # among the times and among all cells
    assert "solved; no test scores: <none>" in cells
    assert 'id="chart-scores"' in page
    missing = Drawn("test_scores", "Test scores", [], score_figures([record()], styles_by_solver([record()])))
    plain = write_page([record()], tmp_path / "plain.html", [missing]).read_text()
    assert 'id="chart-scores"' not in plain
    assert "Not shown: no cell was scored on held-out samples" in plain
    assert "test acc." not in plain


@pytest.mark.slow
def test_the_chart_of_scores_is_one_that_vega_draws():
    import vl_convert

    chart = payload([scored(), scored("bm_gd", n=12, test_accuracy=None)])["charts"]["scores"]
    for problem, kind in (("spiral[n=9]", "test accuracy"), ("spiral[n=12]", "test loss per sample")):
        spec = {**chart["spec"], "datasets": {"rows": chart["rows"]}, "width": 300}
        values = {"shown": ["fista", "bm_gd"], "problem": problem}
        spec["params"] = [{**one, "value": values.get(one["name"], one["value"])} for one in spec["params"]]
        drawn = vl_convert.vegalite_to_svg(spec)
        assert kind in drawn
    assert math.isfinite(chart["rows"][0]["low"])
