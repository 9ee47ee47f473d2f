"""A campaign that is killed again and again ends as one that was left alone: nothing lost, double or half-written."""

import json
import random
import re
import signal
import time

import pandas as pd
import pytest
import worse_solvers
from bad_solvers import write_solvers
from command import Command, run, wait_until

from convexnn_bench.records.records import RecordFile

pytestmark = pytest.mark.process

# Kills that come while the command starts, while problems are built, and while cells run. `benchmarks/kills.py` sends
# many more, and to every kind of process.
STARTING, BUILDING, RUNNING = 1, 1, 2
CELLS = 20
CAMPAIGN = """
datasets = ["spiral[n=[9,10],noise=0.1]"]
solvers = ["zero", "raises", "skips", "bm_newton", "cvxpy_clarabel"]
seeds = 2
time_limit = 600
solvers_dir = "{folder}"
"""


def numbers(record):
    """What does not depend on the clock, which decides which points of an iterative solver are scored."""
    names = ["status", "problem_name", "solver_name", "seed"]
    if record["solver"] != "bm_newton":
        names += ["reason", "objective", "lower_bound", "gap", "active_blocks"]
    return {name: record[name] for name in names}


def whole_lines(path):
    """The lines of the file of records, each of which must be a record, and every key once."""
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    assert lines.pop() == b"", "the last line is cut short"
    keys = [json.loads(line)["key"] for line in lines]
    assert len(keys) == len(set(keys)), "a cell has two records"
    return lines


@pytest.mark.slow
def test_a_campaign_killed_again_and_again_is_the_same_as_one_left_alone(tmp_path):
    """The kills come at random moments, most of them while cells run. The cells of a killed command die with it."""
    folder = write_solvers(tmp_path / "solvers", "zero", "raises", "skips")
    (tmp_path / "tiny.toml").write_text(CAMPAIGN.format(folder=folder))
    alone, out = tmp_path / "alone", tmp_path / "out"
    code, _, err = run("run", tmp_path / "tiny.toml", "--out", alone)
    assert code == 1, err  # a solver raises
    expected = RecordFile(alone / "records.jsonl").read()[0]
    assert len(whole_lines(alone / "records.jsonl")) == CELLS
    usual = sorted(record["wall_seconds"] for record in expected.values())[CELLS // 2]

    rng, seen, running = random.Random(20), [], 0
    moments = ["starting"] * STARTING + ["building"] * BUILDING + ["running"] * RUNNING
    rng.shuffle(moments)
    for moment in moments:
        command = Command("run", tmp_path / "tiny.toml", "--out", out)
        if moment == "starting":
            time.sleep(rng.uniform(0.0, 2.0))
        else:
            next(line for line in command.process.stderr if line.startswith("building"))
            more = len(seen) + (rng.choice([1, 2]) if moment == "running" else 0)
            wait_until(lambda: len(_lines(out)) >= more, seconds=600)  # noqa: B023
            time.sleep(rng.uniform(0.0, max(usual, 0.2)))
        assert command.process.poll() is None, "the campaign has ended before the last kill"
        command.process.send_signal(signal.SIGKILL)
        command.process.communicate(timeout=600)  # a process server that still imports ends after that
        assert command.gone(), f"left behind: {command.left()}"
        lines = whole_lines(out / "records.jsonl")
        assert lines[: len(seen)] == seen, "a record that was there is lost or changed"
        running += len(lines) > len(seen)
        seen = lines
    assert running >= RUNNING
    assert len(seen) < CELLS

    code, shown, err = run("run", tmp_path / "tiny.toml", "--out", out)
    assert (code, len(seen)) == (1, int(re.search(rf"(\d+) of {CELLS} cells have a record already", err)[1])), err
    assert f"{CELLS} cells: " in shown
    lines = whole_lines(out / "records.jsonl")
    assert lines[: len(seen)] == seen
    records = {record["key"]: record for record in map(json.loads, lines)}
    assert {key: numbers(record) for key, record in records.items()} == {
        key: numbers(record) for key, record in expected.items()
    }
    for key, record in records.items():
        if record["objective"] is not None:
            assert record["objective"] == pytest.approx(expected[key]["objective"], rel=2e-6)  # twice the target gap
    _same_as_parquet(records, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in alone.iterdir())


def _lines(out):
    path = out / "records.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _same_as_parquet(records, out):
    table = pd.read_parquet(out / "records.parquet").set_index("key")
    assert sorted(table.index) == sorted(records)
    for key, record in records.items():
        row = table.loc[key]
        for name in ("status", "reason", "solver_name", "seed"):
            assert row[name] == record[name]
        for name in ("objective", "gap", "wall_seconds"):
            assert (None if pd.isna(row[name]) else row[name]) == record[name]
        assert len(row["curve"]) == len(record["curve"])


def test_what_a_solver_started_dies_with_a_command_that_is_killed(tmp_path):
    folder = worse_solvers.write_worse(tmp_path / "solvers", "starts_a_daemon_and_hangs")
    command = Command(
        "run", "--dataset", "spiral[n=9]", "--solvers-dir", folder, "--solver", "starts_a_daemon_and_hangs",
        "--time-limit", 60, "--out", tmp_path / "out",
    )  # fmt: skip
    wait_until(lambda: any(f"sleep {worse_solvers.DAEMON_SECONDS}" in line for line in command.left().values()))
    command.process.send_signal(signal.SIGKILL)
    command.process.communicate(timeout=600)  # a process server that still imports ends after that
    assert command.gone(), command.left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_campaign_leaves_its_records_and_no_process(tmp_path, number):
    folder = write_solvers(tmp_path / "solvers", "zero", "hangs", "leaves_a_child")
    arguments = ["run", "--dataset", "spiral[n=9]", "--solvers-dir", folder, "--time-limit", "60"]
    arguments += ["--solver", "zero", "--solver", "hangs", "--out", tmp_path / "out"]
    command = Command(*arguments)
    wait_until(lambda: _lines(tmp_path / "out"))
    code, _, err = run(*arguments)  # a second one at the same time
    assert (code, err.count("\n")) == (2, 1)
    assert f"error: another campaign is writing to '{tmp_path / 'out'}' at this moment" in err
    time.sleep(0.5)
    command.process.send_signal(number)
    code, _, err = command.finish()
    assert (code, f"interrupted: finished cells are kept in {tmp_path / 'out'}" in err) == (130, True), err
    assert "Traceback" not in err
    assert command.gone(), command.left()
    assert [json.loads(line)["solver"] for line in whole_lines(tmp_path / "out" / "records.jsonl")] == ["zero"]
