"""--dry-run, --rerun, merge and doctor."""

import json

import pytest
from harness_fixtures import solvers_from, spiral_cell
from test_campaign import Watcher
from typer.testing import CliRunner

import convexnn_bench as cnn
from convexnn_bench.cli import app
from convexnn_bench.cli.doctor import examine
from convexnn_bench.cli.forecast import duration
from convexnn_bench.harness.campaign import Campaign
from convexnn_bench.harness.cell_run import blank_record
from convexnn_bench.harness.execute import run_campaign
from convexnn_bench.harness.forecast import forecast_cells
from convexnn_bench.records.merging import merge
from convexnn_bench.records.records import RecordFile


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def campaign(*solvers, **changes):
    return Campaign(**{"datasets": ["spiral[n=9]"], "solvers": list(solvers), "time_limit": 60.0, **changes})


@pytest.mark.process
def test_a_forecast_runs_nothing_and_knows_what_has_been_measured(tmp_path):
    out = tmp_path / "out"
    asked = campaign("fista", "cvxpy_scs", seeds=2, gap=1e-2)
    before = forecast_cells(asked, out)
    assert not out.exists()
    assert [one.known for one in before] == [False] * 4
    assert {one.limit for one in before} == {60.0}
    run_campaign(campaign("fista", gap=1e-2), out, Watcher())
    after = forecast_cells(asked, out)
    assert [one.known for one in after] == [True, False, False, False]
    assert after[1].seconds == after[0].seconds > 0  # another seed of the same solver and problem
    assert after[2].seconds is None
    assert [one.known for one in forecast_cells(asked, out, rerun=["gap_reached"])] == [False] * 4


def test_dry_run_prints_the_cells_and_leaves_nothing_behind(tmp_path):
    out = tmp_path / "out"
    asked = ("run", "--dataset", "spiral[n=[9,12]]", "--solver", "fista", "--time-limit", 30, "--out", out, "--dry-run")
    done = command(*asked)
    assert done.exit_code == 0, done.output
    assert "2 cells, 0 with a record, 2 to run" in done.output
    assert "solving takes at most 60 s" in done.output
    lines = [json.loads(line) for line in command(*asked, "--json").output.splitlines()]
    assert [line["problem_name"] for line in lines] == ["spiral[n=9]", "spiral[n=12]"]
    assert not out.exists()


def test_dry_run_says_what_would_be_skipped(monkeypatch):
    monkeypatch.setattr(cnn.SOLVERS.get("fista"), "requires", ("no_such_package",))
    done = command("run", "--dataset", "spiral[n=9]", "--solver", "fista", "--dry-run")
    assert "fista would be skipped" in done.output
    assert "no_such_package" in done.output


@pytest.mark.process
def test_rerun_takes_the_cells_with_that_status_only(tmp_path):
    out = tmp_path / "out"
    with solvers_from(tmp_path / "bad", "raises", "segfaults") as folder:
        asked = campaign("raises", "segfaults", "fista", gap=1e-2, solvers_dir=folder)
        first = run_campaign(asked, out, Watcher())
        assert [record["status"] for record in first.records] == ["failed", "crashed", "gap_reached"]
        watcher = Watcher()
        run_campaign(asked, out, watcher, rerun=["crashed"])
        assert watcher.ran == ["segfaults"]
        assert watcher.known == 2
    arguments = ("run", "--dataset", "spiral[n=9]", "--solver", "fista", "--out", out)
    done = command(*arguments, "--rerun", "crash")
    assert done.exit_code == 2
    assert "'crash'" in done.output
    assert "gap_reached" in done.output


def record(key, status, started, **more):
    return {**blank_record(spiral_cell("fista")), "key": key, "status": status, "started": started, **more}


def test_merging_keeps_one_record_a_cell_the_best_one(tmp_path):
    for name, records in {
        "a": [record("1", "failed", "2026-01-03"), record("2", "solved", "2026-01-01")],
        "b": [
            record("1", "solved", "2026-01-02"),
            record("2", "solved", "2026-01-04"),
            record("3", "crashed", "2026-01-05"),
        ],
    }.items():
        (tmp_path / name).mkdir()
        for one in records:
            RecordFile(tmp_path / name / "records.jsonl").append(one)
    with (tmp_path / "b" / "records.jsonl").open("a") as file:
        file.write('{"key": "4", "sta')
    out = tmp_path / "all"
    found, complaints = merge([tmp_path / "a", tmp_path / "b"], out)
    assert [(one["key"], one["status"], one["started"]) for one in found] == [
        ("1", "solved", "2026-01-02"), ("2", "solved", "2026-01-04"), ("3", "crashed", "2026-01-05"),
    ]  # fmt: skip
    assert len(complaints) == 2, complaints
    assert "2 of 5 records were left out" in complaints[-1]
    assert list(RecordFile(out / "records.jsonl").read()[0]) == ["1", "2", "3"]
    assert (out / "records.parquet").exists()
    again, _ = merge([tmp_path / "a"], out)  # what is there already takes part
    assert again == found
    with pytest.raises(cnn.InputError, match="nowhere"):
        merge([tmp_path / "nowhere"], out)
    done = command("merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "other")
    assert done.exit_code == 0
    assert "3 records" in done.output


@pytest.mark.slow
def test_doctor_finds_what_works_what_is_missing_and_what_is_broken(tmp_path, monkeypatch):
    names = ["fista", "column_generation", "raises", "cvxpy_scs"]
    with solvers_from(tmp_path / "bad", "raises") as folder:
        monkeypatch.setattr(cnn.SOLVERS, "names", lambda: names)
        monkeypatch.setattr(cnn.SOLVERS.get("cvxpy_scs"), "requires", ("no_such_package",))
        found = {finding.solver: finding for finding in examine(folder)}
        done = command("doctor", "--solvers-dir", folder)
    assert {name: finding.state for name, finding in found.items()} == {
        "fista": "works", "column_generation": "works", "raises": "broken", "cvxpy_scs": "missing",
    }  # fmt: skip
    assert "the step size is wrong" in found["raises"].words
    assert "no_such_package" in found["cvxpy_scs"].words
    assert done.exit_code == 1
    for word in ("machine", "python", "threads", "BLAS", "GPU", "broken"):
        assert word in done.output
    assert "raises printed, at its end:" in done.output  # the place in the file, and not the message alone
    assert "raises.py" in done.output


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.0, "3 s"), (89.0, "89 s"), (150.0, "2 min"), (12000.0, "3 h 20 min")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words
