"""An invalid record gives one row with its reason, and report, merge and resume still work."""

import json

import pytest
from harness_fixtures import spiral_cell
from typer.testing import CliRunner

from convexnn_bench.cli import app
from convexnn_bench.harness.cell_run import blank_record
from convexnn_bench.records.fields import FIELDS, SCHEMA, blank
from convexnn_bench.records.merging import merge
from convexnn_bench.records.reading import UnreadableError, checked, parsed
from convexnn_bench.records.records import RecordFile
from convexnn_bench.report.make import read_folder

PROBLEM = {
    **dict.fromkeys(("n", "d", "c", "N", "p", "q", "P"), 3),
    **{
        "architecture": "mlp",
        "activation": "relu",
        "loss": "squared",
        "scope": "sampled",
        "beta": 0.1,
        "beta_max": 1.0,
    },
}
ODD = [  # the fields that differ from a good record, and what is said of them
    ({"status": ["solved"]}, "status must be text, not a list"),
    ({"status": "excellent"}, "'excellent' is no status"),
    ({"status": None}, "status must be text, not null"),
    ({"started": None}, "started must be text, not null"),
    ({"started": 20261130}, "started must be text, not 20261130"),
    ({"objective": "small"}, "objective must be a number, not text"),
    ({"gap": {"certified": 1e-3}}, "gap must be a number, not an object"),
    ({"gap": True}, "gap must be a number, not true or false"),
    ({"lower_bound": 10**400}, "lower_bound must be a number, not 1"),
    ({"curve": [[0.1, 2.0]]}, "curve must be a list of [seconds, objective, gap]"),
    ({"curve": {"0.1": 2.0}}, "curve must be a list of [seconds, objective, gap]"),
    ({"curve": [[None, 2.0, 1.0]]}, "curve must be a list of [seconds, objective, gap]"),
    ({"limits": None}, "limits must be an object, not null"),
    ({"limits": {"gap": "1e-6"}}, "limits.gap must be a number, not text"),
    ({"machine": "mine"}, "machine must be an object, not text"),
    ({"machine": {"cores": [1, 2]}}, "machine.cores must be text or a number, not a list"),
    ({"problem": [1, 2]}, "problem must be an object, not a list"),
    ({"problem": {**PROBLEM, "P": "many"}}, "problem.P must be a whole number, not text"),
    ({"reason": None}, "reason must be text, not null"),
    ({"seed": None}, "seed must be a whole number, not null"),
    ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
    ({"solver_name": None}, "solver_name must be text, not null"),
    ({"solver_parameters": [1]}, "solver_parameters must be an object, not a list"),
    ({"key": 7}, "key must be text, not 7"),
]


BLANK = blank_record(spiral_cell("fista"), PROBLEM)


def good(key="good", **fields):
    measured = {"objective": 2.0, "lower_bound": 1.0, "gap": 1.0, "status": "solved", "curve": [[0.1, 2.0, 1.0]]}
    return {**BLANK, **measured, "key": key, **fields}


def written(folder, *records):
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_a_good_record_stays_as_it_is():
    assert checked(good()) == (good(), [])
    assert checked(good(curve=[[0.1, 2.0, None]], gap=None, scope=None, more={"of": "another program"}))[1] == []


@pytest.mark.parametrize(("fields", "said"), ODD)
def test_an_odd_record_is_a_row_without_results_that_says_what_is_odd(tmp_path, fields, said):
    (record,), complaints = read_folder(written(tmp_path / "out", good(**fields)))
    assert record["status"] == "failed"
    assert record["reason"].startswith("invalid record: ")
    assert said in record["reason"]
    assert said in complaints[0]
    assert (record["objective"], record["lower_bound"], record["gap"], record["curve"]) == (None, None, None, [])


def test_a_problem_is_described_as_a_whole_or_not_at_all():
    record, faults = checked(good(problem={"P": 3, "p": 2, "q": 1}))
    assert (record["problem"], record["objective"], faults) == ({}, 2.0, [])


@pytest.mark.parametrize("name", [field.name for field in FIELDS if field.report])
def test_a_record_without_a_field_is_an_odd_row(name):
    record, faults = checked({key: value for key, value in good().items() if key != name})
    assert faults == [f"{name} is missing"]
    assert type(record[name]) in (str, int, float, dict, list) or blank()[name] is None


@pytest.mark.parametrize("line", [b"[" * 200_000, b'{"key": null}', b"7", b"\xff\xfe", b'{"key": "a", "gap": 1e9'])
def test_a_line_that_is_no_record_is_unreadable(line):
    with pytest.raises(UnreadableError, match="not a whole record"):
        parsed(line)


def json_lines(*arguments, code=0):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.process
def test_report_and_merge_and_resume_take_all_odd_records_at_once(tmp_path):
    run = ["run", "--dataset", "spiral[n=9]", "--solver", "fista", "--seeds", "2", "--gap", "1e-3", "--json"]
    first, _ = json_lines(*run, "--dry-run", "--out", str(tmp_path / "none"))
    fields = [{"key": f"odd {number}", **fields} for number, (fields, _) in enumerate(ODD)]
    folder = written(tmp_path / "out", *(good(**one) for one in fields), good(first["key"], solver_name=None))
    with (folder / "records.jsonl").open("a") as stream:
        stream.write("[" * 200_000 + "\n")
    done = CliRunner().invoke(app, ["report", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (folder / "report.html").read_text().count("invalid record: ") >= len(ODD) + 1
    records, complaints = merge([folder], tmp_path / "merged")
    assert len(records) == len(ODD) + 1
    assert len(complaints) == len(ODD) + 2
    ended = [record["status"] for record in json_lines(*run, "--out", str(folder), code=1)]
    assert ended == ["failed", "gap_reached"]


def test_merging_a_folder_into_itself_keeps_every_line_that_it_cannot_read(tmp_path):
    later = {**good("later"), "schema": SCHEMA + 1, "news": [1, 2]}
    folder = written(tmp_path / "out", later, good(), good("odd", machine="mine"))
    with (folder / "records.jsonl").open("a") as stream:
        stream.write('{"key": "cut sh')
    before = (folder / "records.jsonl").read_bytes().splitlines()
    _, complaints = merge([folder], folder)
    assert sorted((folder / "records.jsonl").read_bytes().splitlines()) == sorted(before)
    assert sum("kept as it is" in line for line in complaints) == 3
    again = merge([folder, written(tmp_path / "other", later)], folder)[0]
    assert sorted((folder / "records.jsonl").read_bytes().splitlines()) == sorted(before)  # no line twice
    assert [record["key"] for record in again] == ["good", "odd"]
    records, _ = RecordFile(folder / "records.jsonl").read()
    assert list(records) == ["good", "odd"]
