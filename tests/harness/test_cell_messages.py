"""A record takes only measured fields, with values of the right type, from the process of its cell."""

import pytest
from harness_fixtures import spiral_cell

from convexnn_bench.harness import cell_run
from convexnn_bench.harness.cell import SCORING
from convexnn_bench.harness.cell_run import blank_record, run_cell
from convexnn_bench.harness.process import ProcessOutcome
from convexnn_bench.records import MEASURED

PROVEN = {"objective": 2.0, "lower_bound": 1.0, "gap": 1.0, "scope": "sampled"}


def record_of(monkeypatch, *messages, exit_code=0):
    """The record of a cell whose process sent these messages."""
    outcome = ProcessOutcome(list(messages), exit_code, seconds=1.0, peak_mb=100.0)
    monkeypatch.setattr(cell_run, "run_process", lambda *arguments, **options: outcome)
    return run_cell(spiral_cell("fista"))


@pytest.mark.parametrize("kind", ["result", "error", "point"])
def test_no_field_but_what_a_cell_measures_is_taken(monkeypatch, kind):
    forged = {name: "forged" for name in blank_record(spiral_cell("fista")) if name not in MEASURED}
    content = {**forged, **PROVEN, "status": "solved", "reason": "", "unheard_of": 1}
    record = record_of(monkeypatch, (kind, (0.5, content) if kind == "point" else content))
    expected = blank_record(spiral_cell("fista"))
    for name in set(forged) - {"started", "wall_seconds", "cpu_seconds", "peak_memory_mb", "output"}:
        assert record[name] == expected[name], name
    assert "unheard_of" not in record
    assert "forged" not in record.values()
    assert record["objective"] == 2.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gap": "tiny"}, "gap must be a number, not text"),
        ({"curve": "steep"}, "curve must be a list"),
        ({"lower_bound": [1.0]}, "lower_bound must be a number, not a list"),
        ({"scope": 3}, "scope must be text, not 3"),
    ],
)
def test_a_value_of_another_kind_costs_the_cell_its_results(monkeypatch, fields, said):
    record = record_of(monkeypatch, ("result", {**PROVEN, "status": "solved", "reason": "", **fields}))
    assert (record["status"], said in record["reason"]) == ("failed", True), record["reason"]
    assert (record["objective"], record["gap"], record["curve"]) == (None, None, [])


@pytest.mark.parametrize(
    "message", [("point", 3), ("point", (0.1, {"gap": 1.0})), ("result", None), ("error", "text"), ("result", [1, 2])]
)
def test_a_message_that_is_none_of_ours_is_a_crash(monkeypatch, message):
    record = record_of(monkeypatch, message, ("result", {**PROVEN, "status": "solved", "reason": ""}))
    assert record["status"] == "crashed"
    assert record["reason"] == "the solver wrote into the pipe that carries its results"


SOLVED = ("result", {**PROVEN, "status": "solved", "reason": "done"})
SCORES = ("scores", {"test_samples": 5, "test_loss": 2.5, "test_accuracy": 0.8, "wall_seconds": 99.0})


def test_test_scores_come_after_the_result_and_change_nothing_else(monkeypatch):
    record = record_of(monkeypatch, SOLVED, ("stage", SCORING), SCORES)
    assert (record["test_samples"], record["test_loss"], record["test_accuracy"]) == (5, 2.5, 0.8)
    assert (record["status"], record["reason"], record["objective"]) == ("solved", "done", 2.0)
    assert record["wall_seconds"] == 1.0


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ({"stopped": "deadline"}, "killed at its deadline of 300 s on the wall clock"),
        ({"exit_code": -15}, "the process was ended by signal 15 (SIGTERM)"),
    ],
)
def test_a_process_that_dies_while_it_scores_keeps_its_result(monkeypatch, ending, said):
    outcome = ProcessOutcome([SOLVED, ("stage", SCORING)], seconds=1.0, **ending)
    monkeypatch.setattr(cell_run, "run_process", lambda *arguments, **options: outcome)
    record = run_cell(spiral_cell("fista"))
    assert (record["status"], record["objective"], record["test_loss"]) == ("solved", 2.0, None)
    assert record["reason"] == f"done; no test scores: {said}, while: {SCORING}"
