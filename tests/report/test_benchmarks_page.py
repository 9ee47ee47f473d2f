"""The page of benchmarks: its text and numbers are those of the records, which are of one commit and one machine."""

import importlib
import json
from pathlib import Path

import pytest
from test_ladder import ITERATIVE, ONE_SHOT, record

import convexnn_bench as cnn

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"commit": "abc1234", "processor": "A fine one", "cores": 2, "torch": "2.13", "system": "Linux"}
LIMITS = {"time_limit": 4.0, "gap": 1e-6}


@pytest.fixture
def page_module(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("page")


def folder_of(records, path, loads=()):
    path.mkdir(exist_ok=True)
    (path / "records.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    if loads:
        (path / "load.csv").write_text("".join(f"{k},{load}\n" for k, load in enumerate(loads)))
    return path


def made(*changes):
    skipped = record("rival_celer", 0, [], status="skipped", reason="no environment in /there")
    skipped["solver"] = "rival_celer"
    records = [
        {**one, "machine": MACHINE, "limits": {**one["limits"], **LIMITS}} for one in (*ITERATIVE, *ONE_SHOT, skipped)
    ]
    for index, machine in enumerate(changes):
        records[index]["machine"] = {**MACHINE, **machine}
    return records


def test_text_and_numbers_are_those_of_the_records(page_module, tmp_path):
    folder = folder_of(made(), tmp_path / "records", loads=(1.0, 6.25, 7.5))
    page, picture = page_module.write(folder, tmp_path / "docs")
    text = page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "12 cells of 1 problems, 3\ndraws" in text
    assert "commit abc1234, on one machine (A fine one, 2 cores, torch 2.13)" in text
    assert "The load of the machine was 1.0 to 7.5, in the median 6.2, of which the campaign itself" in text
    assert "- spiral[n=9]: `cvxpy_scs` reached 1e-06 in 6.25 s, and no other solver did." not in text  # bm_gd had 4.5 s
    assert "`bm_gd`, took more than" in text
    assert "- `rival_celer` was skipped in 1 cell: no environment." in text
    assert "| bm_gd | 2.50 [2.00, 5.00] | 7.50 [5.50, -] 2/3 | > 4.50 | 0.500 | 101 |" in text
    assert text.count("<details>") == text.count("</details>") == 1
    assert "{{" not in text


def test_a_quiet_machine_and_one_that_was_not_watched(page_module, tmp_path):
    assert page_module.load_text(tmp_path / "none.csv") == "The load of the machine was not noted."
    (tmp_path / "load.csv").write_text("0,0.9\n10,1.1\n")
    assert page_module.load_text(tmp_path / "load.csv").endswith(
        "in the median 1.0; the campaign itself makes about 1."
    )


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"commit": "def"}, "several values of commit: abc1234, def"),
        ({"processor": "Another"}, "several values of processor: A fine one, Another"),
    ],
)
def test_records_of_several_commits_or_machines_are_refused(page_module, tmp_path, machine, words):
    with pytest.raises(cnn.InputError, match=words):
        page_module.write(folder_of(made(machine), tmp_path / "records"), tmp_path / "docs")


def test_records_of_code_with_changes_are_refused(page_module, tmp_path):
    records = made(*[{"commit": "abc1234-dirty"}] * 13)
    with pytest.raises(cnn.InputError, match="a commit without changes, got abc1234-dirty"):
        page_module.write(folder_of(records, tmp_path / "records"), tmp_path / "docs")
