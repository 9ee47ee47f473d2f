"""Records: one line each, whole or named as broken, and the Parquet file made of them."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from harness_fixtures import spiral_cell

from convexnn_bench.harness.cell_run import blank_record, skipped_record
from convexnn_bench.records.fields import FIELDS, SCHEMA
from convexnn_bench.records.records import RecordFile, beta_fraction, flat, make_key, plain, to_json, to_parquet


def whole(key, **fields):
    return {**blank_record(spiral_cell("fista")), "key": key, **fields}


def test_append_and_read_back(tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    assert file.read() == ({}, [])
    for key in "abc":
        file.append(whole(key, gap=1e-7, output="zwölf\nlines"))
    records, complaints = file.read()
    assert list(records) == ["a", "b", "c"]
    assert records["b"]["output"] == "zwölf\nlines"
    assert complaints == []
    assert len(file.path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_a_line_cut_short_is_named_and_the_file_goes_on(tmp_path, cut):
    file = RecordFile(tmp_path / "records.jsonl")
    file.append(whole("a"))
    kept = file.path.read_bytes()
    file.append(whole("lost"))
    file.path.write_bytes(kept + file.path.read_bytes()[len(kept) :][:cut])
    records, complaints = file.read()
    assert list(records) == ["a"]
    assert "line 2: not a whole record" in complaints[0]
    file.append(whole("b"))
    records, complaints = file.read()
    assert list(records) == ["a", "b"]
    assert len(complaints) == 1


def test_a_whole_last_line_without_its_end_still_counts(tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    file.path.write_text('{"key": "a"}')
    file.append(whole("b"))
    assert list(file.read()[0]) == ["a", "b"]


def test_foreign_lines_are_named(tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    file.path.write_text('[1, 2]\n"text"\n{"no": "key"}\n{"key": "a"}\n')
    records, complaints = file.read()
    assert (list(records), len(complaints)) == (["a"], 4)  # and the last one lacks nearly everything


def test_a_record_of_a_later_schema_is_named_and_left_out(tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    file.append(whole("a", schema=SCHEMA + 1))
    file.append(whole("b", schema=1))
    records, complaints = file.read()
    assert list(records) == ["b"]
    assert complaints == [
        f"{file.path}, line 1: of a later version (schema {SCHEMA + 1}, this version reads up to {SCHEMA}), left out"
    ]


def test_json_is_valid_whatever_the_numbers():
    text = to_json(
        {
            "a": math.nan,
            "b": [math.inf, 1.0],
            "c": np.float64(2),
            "d": np.arange(2),
            "e": (1, None),
            "f": {3: True},
        }
    )
    read = json.loads(text, parse_constant=pytest.fail)
    assert read == {"a": None, "b": [None, 1.0], "c": 2.0, "d": [0, 1], "e": [1, None], "f": {"3": True}}
    assert plain(object)[:6] == "<class"


def test_key_ignores_order_and_sees_values():
    assert make_key({"a": 1, "b": {"c": 2, "d": 3}}) == make_key({"b": {"d": 3, "c": 2}, "a": 1})
    assert make_key({"a": 1}) != make_key({"a": 2})
    assert len(make_key({})) == 64


def test_parquet_holds_every_record(tmp_path):
    cell = spiral_cell("fista")
    solved = {
        **blank_record(cell, {"n": 9, "P": 18}),
        "curve": [[0.1, 2.0, 1.0], [0.2, 1.0, None]],
        "gap": 1.0,
    }
    skipped = {**skipped_record(cell, "no licence"), "key": "other"}
    frame = pd.read_parquet(to_parquet([solved, skipped], tmp_path / "records.parquet"))
    assert list(frame["status"]) == ["failed", "skipped"]
    assert frame["problem_P"][0] == 18
    assert math.isnan(frame["gap"][1])
    assert frame["limits_time_limit"][0] == cell.limits.time_limit
    assert json.loads(frame["dataset_parameters"][0])["n"] == 9
    assert frame["curve"][0][0].tolist() == [0.1, 2.0, 1.0]
    assert not list(tmp_path.glob("*.partial"))
    assert to_parquet([skipped], tmp_path / "one.parquet").is_file()


@pytest.mark.parametrize(
    ("asked", "about", "fraction"),
    [
        ({"beta_fraction": 0.05}, {"beta": 1.0, "beta_max": 20.0}, 0.05),
        ({"beta": 1.0}, {"beta": 1.0, "beta_max": 8.0}, 0.125),
        ({}, {"beta": 1.0, "beta_max": 0.0}, math.nan),
        ({"beta": 1.0}, {}, math.nan),
        (None, None, math.nan),
        (["odd"], {"beta": "1", "beta_max": 2.0}, math.nan),
    ],
)
def test_the_weight_decay_has_a_column_of_its_own(asked, about, fraction, tmp_path):
    """What was asked for, or what follows from beta; the column is there for a cell that was never built."""
    record = {**blank_record(spiral_cell("fista")), "problem_parameters": asked, "problem": about}
    assert beta_fraction(record) == pytest.approx(fraction, nan_ok=True)
    frame = pd.read_parquet(to_parquet([record], tmp_path / "records.parquet"))
    assert frame["beta_fraction"].dtype == float
    assert frame["beta_fraction"][0] == pytest.approx(fraction, nan_ok=True)


def test_a_record_has_the_fields_of_the_table_and_the_docs_describe_each():
    record = blank_record(spiral_cell("fista"))
    assert list(record) == [field.name for field in FIELDS]
    page = (Path(__file__).parents[2] / "docs" / "campaigns.md").read_text()
    table = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert table == [(field.name, field.meaning.replace("|", "\\|"), field.unit) for field in FIELDS]
    assert f"Version {SCHEMA} of this table" in page


def test_flat_keeps_columns_the_same_for_skipped_cells():
    cell = spiral_cell("fista")
    assert set(flat(skipped_record(cell, "x"))) == set(flat(blank_record(cell)))


def test_appending_to_a_read_only_place_says_so(tmp_path):
    with pytest.raises(OSError, match="No such file or directory"):
        RecordFile(tmp_path / "missing" / "records.jsonl").append({"key": "a"})
