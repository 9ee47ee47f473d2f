"""The table of a report as CSV, Markdown and LaTeX, by one writer."""

import csv
import io
import math
import re

import pytest
from harness_fixtures import spiral_cell

from convexnn_bench.harness.cell_run import blank_record, skipped_record
from convexnn_bench.report import csv_text, table_text, write_csv
from convexnn_bench.report.writers import latex, latex_table, markdown_table

SIZES = {
    "n": 9, "d": 2, "c": 3, "P": 18, "activation": "gated_relu", "architecture": "mlp", "loss": "squared",
    "beta": 0.5, "beta_max": 4.0, "scope": "complete",
}  # fmt: skip


def record(solver="fista", n=9, **fields):
    good = {
        "status": "gap_reached", "objective": 2.0, "lower_bound": 1.999, "gap": 3.1e-7, "setup_seconds": 0.1,
        "solve_seconds": 1.5, "peak_memory_mb": 300.0, "curve": [[0.5, 2.0, 1e-3], [1.5, 2.0, 3.1e-7]],
    }  # fmt: skip
    return {**blank_record(spiral_cell(solver, n=n), SIZES), **good, **fields}


def parsed(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_cells_as_csv():
    records = [record(), record("bm_gd", gap=None, reason='has "quotes", commas')]
    records.append({**skipped_record(spiral_cell("bm_adam"), "no licence"), "problem": {}})
    rows = parsed(table_text(records, "csv"))
    assert [row["solver"] for row in rows] == ["fista", "bm_gd", "bm_adam"]
    assert [row["status"] for row in rows] == ["gap_reached", "gap_reached", "skipped"]
    assert [row["gap"] for row in rows] == ["3.1e-07", "", ""]  # all digits, and nothing where nothing is known
    assert [row["beta_fraction"] for row in rows] == ["0.125", "0.125", ""]
    assert rows[1]["reason"] == 'has "quotes", commas'
    assert float(rows[0]["objective"]) == 2.0
    assert rows[0]["problem"] == "spiral[n=9]"


def test_several_draws_are_medians_as_in_the_terminal():
    records = [record(seed=seed, solver=solver) for seed in (0, 1, 2) for solver in ("fista", "bm_gd")]
    rows = parsed(table_text(records, "csv"))
    assert {row["solver"] for row in rows} == {"fista", "bm_gd"}
    assert all(int(row["runs"]) == 3 for row in rows)
    assert "total_seconds_median" in rows[0]
    text = table_text(records, "latex")
    assert text.startswith("\\begin{tabular}{lrr")
    assert r"bm\_gd & " in text


def test_cells_as_latex():
    text = table_text([record(), record("bm_gd", n=12, gap=None)], "latex")
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{llrrrrrr}"
    assert lines[1] == r"\toprule"
    assert lines[2].startswith("solver & status & objective & lower bound & gap & ")
    assert r"\multicolumn{8}{l}{spiral[n=9]} \\" in lines
    assert r"fista & gap\_reached & 2.000000 & 1.999000 & $3.1 \times 10^{-7}$ & 0.100 & 1.50 & 300 \\" in lines
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert text.count(r"\midrule") == 2
    for line in lines:
        assert line.count("{") == line.count("}")
        if line.endswith(r"\\") and "multicolumn" not in line:
            assert len(re.findall(r"(?<!\\)&", line)) == 7


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bm_gd[m=2]", r"bm\_gd[m=2]"),
        ("> 4.50", "$>$ 4.50"),
        ("1.0e-06", r"$1.0 \times 10^{-6}$"),
        ("2.5e+03 s", r"$2.5 \times 10^{3}$ s"),
        ("[0.50, -]", "[0.50, -]"),
        ("50 % & more", r"50 \% \& more"),
        (r"C:\x^2~{a}$#", r"C:\textbackslash{}x\textasciicircum{}2\textasciitilde{}\{a\}\$\#"),
        ("line3e5x, e7, 1e", "line3e5x, e7, 1e"),
        ("", ""),
    ],
)
def test_latex_text(text, shown):
    assert latex(text) == shown


def test_writers_by_themselves(tmp_path):
    rows = [{"a": 1, "b": None}, {"a": math.pi, "b": "x,y"}]
    assert csv_text(rows) == 'a,b\n1,\n3.141592653589793,"x,y"\n'
    assert write_csv(rows, tmp_path / "t.csv").read_text() == csv_text(rows)
    assert markdown_table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"
    assert r"\multicolumn" not in latex_table(["a", "b"], {"only": [["x", "1"]]})
