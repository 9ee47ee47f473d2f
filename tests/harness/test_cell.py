"""One cell in a process of its own: whatever happens inside becomes its status and reason."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from bad_solvers import BODIES
from command import wait_until
from harness_fixtures import killed_while, solvers_from, spiral_cell

import convexnn_bench as cnn
from convexnn_bench.harness.campaign import Campaign
from convexnn_bench.harness.cell_run import probe, run_cell
from convexnn_bench.harness.plan import plan
from convexnn_bench.harness.tree import descendants
from convexnn_bench.records.records import to_json
from convexnn_bench.report.numbers.time_to_gap import time_to_gap
from convexnn_bench.statuses import STATUSES

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def bad_solvers(tmp_path_factory):
    with solvers_from(tmp_path_factory.mktemp("plugins") / "bad", *BODIES) as path:
        yield path


def test_a_good_cell_leaves_a_complete_record():
    cell = spiral_cell("fista", n=30)
    record = run_cell(cell)
    assert record["status"] == "gap_reached"
    assert record["gap"] <= 1e-6
    assert record["objective"] >= record["lower_bound"] > 0
    assert record["curve"][-1][1:] == [record["objective"], record["gap"]]
    assert [point[0] for point in record["curve"]] == sorted(point[0] for point in record["curve"])
    assert record["setup_seconds"] >= 0
    assert record["wall_seconds"] >= record["solve_seconds"] > 0
    assert record["peak_memory_mb"] >= record["start_memory_mb"] > 50
    assert (record["problem"]["n"], record["problem"]["P"], record["problem"]["scope"]) == (
        30,
        60,
        "complete",
    )
    assert record["machine"]["torch"]
    assert record["limits"]["deadline"] == cell.limits.deadline
    assert to_json(record)
    result = cnn.solve(cnn.make_problem(cell.dataset, **cell.problem_arguments), "fista", gap=1e-6)
    values = np.linalg.svd(result.blocks, compute_uv=False)
    kept = (values > 1e-6 * values.max()).sum(axis=1)
    assert (record["active_blocks"], record["largest_rank"]) == ((kept > 0).sum(), kept.max())
    assert 0 < record["active_blocks"] <= record["total_rank"] == kept.sum()


def test_a_cell_is_scored_on_what_the_campaign_holds_out():
    asked = Campaign(datasets=["wine[n=60,patterns=4]"], solvers=["bm_lbfgs"], problem={"test": 0.25}, iterations=8)
    (cell,) = plan(asked)
    record = run_cell(cell)
    assert cell.problem_name == "wine[n=60,patterns=4,test=0.25]"
    problem = cnn.make_problem(cell.dataset, **cell.problem_arguments)
    score = cnn.solve(problem, "bm_lbfgs", iterations=8).held_out_score
    assert (record["status"], record["problem"]["n"], record["test_samples"]) == ("stalled", 45, 15)
    assert record["test_accuracy"] == score.accuracy
    assert record["test_loss"] == pytest.approx(score.loss, rel=1e-9)
    assert record["test_r2"] is None
    assert "15 of 60 samples" in record["problem"]["notes"]
    assert run_cell(spiral_cell("fista"))["test_samples"] is None


@pytest.mark.parametrize(
    ("solver", "status", "words"),
    [
        ("raises", "failed", "RuntimeError: the step size is wrong"),
        ("exits", "crashed", "exited with code 7"),
        ("exits_quietly", "failed", "SystemExit"),
        ("segfaults", "crashed", "signal 11 (SIGSEGV)"),
        ("is_killed", "crashed", "signal 9 (SIGKILL)"),
        ("not_finite", "diverged", "not finite"),
        ("wrong_shape", "failed", "Z must be P x p x q"),
        ("no_point", "failed", "exactly one of"),
        ("out_of_memory", "memory_limit", "MemoryError"),
    ],
)
def test_what_goes_wrong_becomes_status_and_reason(bad_solvers, solver, status, words):
    record = run_cell(spiral_cell(solver, bad_solvers))
    assert (record["status"], words in record["reason"]) == (status, True), record["reason"]
    assert status in STATUSES
    assert "\n" not in record["reason"]
    assert record["problem"]["n"] == 9


@pytest.mark.parametrize("solver", ["hangs", "spins"])
def test_a_hanging_solver_is_killed_and_its_curve_kept(bad_solvers, solver):
    record, deadline = killed_while("solving", solver, bad_solvers)
    assert deadline <= record["wall_seconds"] < 300  # the solver itself would take 600 s
    assert record["status"] == "time_limit"
    assert f"killed at its deadline of {deadline:g} s" in record["reason"]
    (point,) = record["curve"]
    assert point[1:] == [record["objective"], record["gap"]]
    assert record["lower_bound"] < record["objective"]
    assert record["reason"].endswith("while: solving")
    assert 0 <= record["setup_seconds"] < deadline  # known although it never came to its end
    assert time_to_gap(record, 1e3).seconds == record["setup_seconds"] + point[0]


def test_a_hang_in_setup_has_no_curve(bad_solvers):
    record, _ = killed_while("set-up", "hangs_in_setup", bad_solvers)
    assert (record["status"], record["curve"], record["objective"]) == ("time_limit", [], None)
    assert (record["setup_seconds"], record["reason"][-6:]) == (None, "set-up")


def test_memory_limit(bad_solvers):
    record = run_cell(spiral_cell("fills_memory", bad_solvers, memory_gb=0.8))
    assert record["status"] == "memory_limit"
    assert record["reason"].startswith("killed above 0.8 GiB")
    assert 0.8 * 1024 < record["peak_memory_mb"] < 3000
    assert record["curve"]


def test_memory_of_a_process_that_the_solver_starts_counts(bad_solvers):
    record = run_cell(spiral_cell("child_fills_memory", bad_solvers, memory_gb=1.2))
    assert record["status"] == "memory_limit"
    assert 1.2 * 1024 < record["peak_memory_mb"] < 4000


def test_descendants_of_a_process_and_of_one_that_has_ended(monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        assert child.pid in descendants(os.getpid())
        assert descendants(child.pid) == []
    finally:
        child.kill()
        child.wait()
    assert descendants(child.pid) == []

    def gone(path):  # it ends between one look and the next
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", gone)
    assert descendants(os.getpid()) == []


def test_output_of_a_solver_goes_nowhere_near_ours(bad_solvers, capfd):
    record = run_cell(spiral_cell("chatters", bad_solvers))
    assert record["status"] in ("stalled", "solved", "time_limit")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    failed = run_cell(spiral_cell("raises", bad_solvers))
    assert "Traceback" in failed["output"]
    assert len(failed["output"]) <= 2000


def test_what_a_solver_started_goes_with_it(bad_solvers):
    run_cell(spiral_cell("leaves_a_child", bad_solvers))

    def left():
        listing = subprocess.run(["ps", "-eo", "ppid,stat,args"], capture_output=True, text=True, check=True).stdout
        return [line for line in listing.splitlines() if "sleep 612.5" in line and line.split()[1][0] != "Z"]

    wait_until(lambda: not left())


def test_points_are_told_as_they_come():
    told = []
    run_cell(spiral_cell("fista", n=30), on_message=lambda kind, content: told.append(kind))
    assert told.count("point") >= 2
    assert told[0] == "start_memory_mb"
    assert told[-1] == "result"


def test_probe_finds_sizes_skips_and_impossible_problems(bad_solvers):
    found = probe([spiral_cell("zero", bad_solvers), spiral_cell("skips", bad_solvers)])
    assert (found.problem["P"], found.error) == (18, None)
    assert found.skips == {1: "made for other problems than P = 18"}
    assert "n must be a whole number, at least 3" in probe([spiral_cell("zero", bad_solvers, n=2)]).error


def test_key_depends_on_everything_that_changes_the_result(bad_solvers):
    base = spiral_cell("zero", bad_solvers)
    assert base.key == spiral_cell("zero", bad_solvers).key
    others = [
        spiral_cell("skips", bad_solvers),
        spiral_cell("zero", bad_solvers, n=12),
        replace(base, problem_parameters={"output_bias": "free"}),
        spiral_cell("zero", bad_solvers, time_limit=6.0),
        spiral_cell("fista"),
    ]
    assert len({base.key, *(cell.key for cell in others)}) == 6


def test_a_warm_cell_starts_quickly(bad_solvers):
    """Without the imports of a cold one, which are timed beside it: both are slower on a busy machine."""
    run_cell(spiral_cell("zero", bad_solvers))
    walls, imports = [], []
    for _ in range(3):
        walls.append(run_cell(spiral_cell("zero", bad_solvers))["wall_seconds"])
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch, scipy.optimize, scipy.sparse"], check=True)
        imports.append(time.perf_counter() - started)
    assert min(walls) < min(imports), (walls, imports)


def test_threads_are_pinned_and_ours_are_left_alone(bad_solvers):
    before = os.environ.get("OMP_NUM_THREADS")
    run_cell(spiral_cell("zero", bad_solvers))
    assert os.environ.get("OMP_NUM_THREADS") == before
