"""Solvers that lie, break what they were given, or leave something behind: every one ends in a definite record."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import worse_solvers
from harness_fixtures import solvers_from, spiral_cell

import convexnn_bench as cnn
from convexnn_bench.harness.cell_run import probe, run_cell
from convexnn_bench.records.records import RecordFile, to_json

pytestmark = pytest.mark.process


@pytest.fixture(scope="module", autouse=True)
def bad_solvers(tmp_path_factory):
    names = {*worse_solvers.BODIES, *worse_solvers.ENDS, "zero", "skips"}
    with solvers_from(tmp_path_factory.mktemp("plugins") / "bad", *names) as path:
        yield path


@pytest.fixture(scope="module")
def zero(bad_solvers):
    """The honest record of the point zero, which most of these solvers return."""
    return run_cell(spiral_cell("zero", bad_solvers))


def cell_of(name, folder, **limits):
    return spiral_cell(name, folder, **{"time_limit": 2.0, "deadline": 200.0, **limits})


def processes(text):
    """Pids of processes with `text` on their command line that are not dead yet."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended
                continue
            if text in line:
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("solver", "status", "words"),
    [
        # lies about the problem: what was changed is named, and the points of another problem are not certified
        (
            "replaces_the_objective",
            "failed",
            "changed the problem it was given: problem.objective(), problem.operator()",
        ),
        ("lowers_beta", "failed", "changed the problem it was given: problem.beta"),
        ("weakens_the_loss", "failed", "changed the problem it was given: problem.loss"),
        ("zeroes_the_targets", "failed", "changed the problem it was given: problem.Y"),
        ("changes_the_problem_in_a_copy", "failed", "changed the problem it was given: problem.Y"),
        ("undoes_its_change", "failed", "changed the problem it was given: problem.Y"),
        ("shuffles_the_rows", "failed", "changed the problem it was given: problem.X"),
        ("flips_a_mask", "failed", "changed the problem it was given: problem.masks"),
        ("changes_a_tensor", "failed", "problem.Y, Y of problem.operator('cpu')"),
        ("changes_the_mask_matrix", "failed", "mask_matrix of problem.operator('cpu')"),
        # points that are none
        ("another_point_every_time", "failed", "no point on call 21"),
        ("raises_on_a_second_call", "failed", "RuntimeError: no second point"),
        ("complex_point", "failed", "Z must be a numeric array, got dtype complex128"),
        ("point_of_objects", "failed", "object"),
        ("point_of_text", "failed", "TypeError"),
        ("masked_point", "failed", "Z has 108 masked entries"),
        ("huge_point", "failed", "Z must be P x p x q = 18 x 2 x 3, got shape (1000000, 1000000, 1000)"),
        ("huge_factors", "memory_limit", "llocate"),
        ("no_point_at_all", "failed", "get_result of solver 'no_point_at_all' must return a Point, got None"),
        ("array_for_a_point", "failed", "must return a Point, got array("),
        # exceptions of all kinds
        ("raises_in_setup", "failed", "ValueError: cannot be set up"),
        ("long_reason", "failed", "RuntimeError: xxx"),
        ("reason_of_all_kinds", "failed", r"RuntimeError: \x1b[2Ja b\x00c\udc80d\u202ee"),
        ("reason_that_raises", "failed", "Silent: (its message cannot be shown)"),
        ("interrupts", "failed", "KeyboardInterrupt"),
        ("recurses", "failed", "RecursionError: maximum recursion depth exceeded"),
        ("recurses_in_c", "crashed", "signal 11 (SIGSEGV)"),
        ("skip_raises", "failed", "LookupError: what a problem"),
        ("skip_says_true", "failed", "must return None or the reason in words, got True"),
        ("skip_says_nothing", "failed", "must return None or the reason in words, got ''"),
        ("unavailable_raises", "failed", "LookupError: no licence server"),
        # processes and files
        ("forks_and_dies", "crashed", "the process exited with code 5 without an answer, while: solving"),
        ("stops_its_parent_and_dies", "crashed", "the process exited with code 9 without an answer, while: solving"),
        ("closes_all_files", "crashed", "the solver closed the pipe that carries its results"),
        ("closes_all_files_and_waits", "crashed", "the solver closed the pipe that carries its results"),
        ("writes_everywhere", "crashed", "the solver wrote into the pipe that carries its results"),
        ("prints_garbage", "failed", "ValueError: after the garbage"),
        ("starts_a_daemon_and_crashes", "crashed", "exited with code 3"),
        ("starts_a_daemon_and_hangs", "time_limit", "killed at its deadline of 3 s"),
    ],
)
def test_what_goes_wrong_becomes_status_and_reason(bad_solvers, tmp_path, solver, status, words):
    record = run_cell(cell_of(solver, bad_solvers, **({"deadline": 3.0} if solver.endswith("hangs") else {})))
    assert record["wall_seconds"] < 150  # the others are not waited for until their deadline of 200 s
    assert (record["status"], words in record["reason"]) == (status, True), record["reason"]
    assert record["reason"].isprintable()
    assert len(record["reason"]) <= 1000
    file = RecordFile(tmp_path / "records.jsonl")
    file.append(record)
    assert json.loads(file.path.read_text())["reason"] == file.read()[0][record["key"]]["reason"] == record["reason"]
    assert not processes(f"sleep {worse_solvers.DAEMON_SECONDS}")


@pytest.mark.parametrize(
    "solver",
    [
        "says_it_is_optimal", "changes_a_tensor_of_its_own_dtype", "starts_a_pool", "starts_a_daemon",
        "leaves_a_thread", "hangs_at_exit", "calls_from_threads", "closes_its_output", "changes_settings",
        "stops_its_parent", "message_of_all_kinds",
    ],
)  # fmt: skip
def test_what_is_none_of_our_business_changes_no_number(bad_solvers, zero, solver):
    record = run_cell(cell_of(solver, bad_solvers))
    assert record["wall_seconds"] < 150
    assert record["status"] == "stalled", record["reason"]
    for name in ("objective", "lower_bound", "gap", "scope", "stationarity_bound", "problem"):
        assert record[name] == zero[name]
    assert record["gap"] > 0.1
    assert record["curve"][-1][1:] == [zero["objective"], zero["gap"]]
    assert not processes(f"sleep {worse_solvers.DAEMON_SECONDS}")
    assert to_json(record).encode()


def test_the_curve_up_to_a_change_of_the_problem_is_kept(bad_solvers, zero):
    for solver in ("lowers_beta", "flips_a_mask"):
        record = run_cell(cell_of(solver, bad_solvers))
        assert [point[1:] for point in record["curve"]] == [[zero["objective"], zero["gap"]]]
        assert (record["objective"], record["lower_bound"]) == (zero["objective"], zero["lower_bound"])
    assert run_cell(cell_of("zeroes_the_targets", bad_solvers))["curve"] == []


def test_a_change_in_this_process_is_an_error_and_the_next_solvers_are_not_run(bad_solvers):
    def problem():
        return cnn.make_problem("spiral", n=9, targets="one_hot")

    for solver in ("zeroes_the_targets", "changes_a_tensor", "weakens_the_loss"):
        with pytest.raises(cnn.ConvexNNError, match=f"solver '{solver}' changed the problem it was given"):
            cnn.solve(problem(), solver)
    table = cnn.compare(problem(), ["zero", "flips_a_mask", "fista"])
    assert [record["status"] for record in table.records] == ["stalled", "failed", "failed"]
    assert "a solver before this one changed the problem it was given: problem.masks" in table.records[2]["reason"]


def test_a_solver_that_goes_on_does_not_change_its_result(bad_solvers):
    problem = cnn.make_problem("spiral", n=9, targets="one_hot")
    result = cnn.solve(problem, "goes_on_after_the_end", gap=1e9)
    assert (result.status, len(result.curve)) == ("gap_reached", 1)
    assert np.all(result.blocks == 0)
    assert result.objective == cnn.certify(problem, result).primal
    assert result.objective == pytest.approx(problem.objective(result.blocks), rel=1e-12)
    record = run_cell(cell_of("goes_on_after_the_end", bad_solvers, gap=1e9))
    assert (record["status"], record["active_blocks"]) == ("gap_reached", 0)


def test_settings_of_a_solver_end_with_it(bad_solvers, zero):
    usual = run_cell(cell_of("tells_its_settings", bad_solvers))
    run_cell(cell_of("changes_settings", bad_solvers))
    again = run_cell(cell_of("tells_its_settings", bad_solvers))
    assert usual["reason"] == again["reason"]
    assert "torch.float32, 1, True, 'ignore'" in usual["reason"]
    before = torch.get_default_dtype(), torch.get_num_threads(), np.geterr(), os.getcwd()
    problem = cnn.make_problem("spiral", n=9, targets="one_hot", noise=0.1)
    table = cnn.compare(problem, ["changes_settings", "fista"])
    assert (torch.get_default_dtype(), torch.get_num_threads(), np.geterr(), os.getcwd()) == before
    assert torch.is_grad_enabled()
    assert table.records[0]["objective"] == zero["objective"]
    assert table.records[1]["status"] == "gap_reached"
    assert table.results["fista"].blocks.dtype == np.float64


def test_a_forked_child_that_comes_back_sends_no_second_answer(bad_solvers):
    told = []
    record = run_cell(cell_of("forks_and_goes_on", bad_solvers), on_message=lambda kind, content: told.append(kind))
    assert record["status"] == "stalled"
    assert (told.count("result"), told.count("point")) == (1, len(record["curve"]))
    assert record["curve"][-1][1:] == [record["objective"], record["gap"]]


def test_output_without_end_is_neither_kept_nor_waited_for(bad_solvers):
    record = run_cell(cell_of("prints_without_end", bad_solvers, deadline=4.0))
    assert record["status"] == "time_limit", record["reason"]  # stopped by `solve`, or killed where that comes too late
    assert record["wall_seconds"] < 60
    garbage = run_cell(cell_of("prints_garbage", bad_solvers))
    assert len(garbage["output"]) <= 2000
    assert "after the garbage" in garbage["output"]


@pytest.mark.parametrize("solver", ["calls_a_million_times", "one_shot_a_hundred_thousand_times"])
def test_a_curve_stays_short_however_often_the_callback_is_called(bad_solvers, solver):
    record = run_cell(cell_of(solver, bad_solvers, time_limit=3.0))
    assert record["status"] in ("stalled", "solved", "time_limit")
    assert 1 < len(record["curve"]) <= 300
    assert len(to_json(record)) < 50_000


def test_a_probe_asks_the_others_when_one_skip_raises(bad_solvers):
    names = ["skip_raises", "skip_says_true", "zero", "skips"]
    found = probe([spiral_cell(name, bad_solvers) for name in names])
    assert (found.skips, found.error) == ({3: "made for other problems than P = 18"}, None)
    assert found.problem["P"] == 18


def test_every_case_of_the_table_is_run():
    """A solver that is written and not used by any test would be a case that nobody sees."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in (*worse_solvers.BODIES, *worse_solvers.ENDS) if f'"{name}"' not in text] == []
