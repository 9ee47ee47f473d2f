"""A finished campaign is recognised by a file, which is valid only as long as nothing has changed."""

import json
from dataclasses import replace

import pytest

from convexnn_bench.harness import Campaign, execute, finished
from convexnn_bench.harness.campaign import Source
from convexnn_bench.harness.cell_run import skipped_record
from convexnn_bench.harness.plan import plan
from convexnn_bench.records import RecordFile, to_parquet

CAMPAIGN = Campaign("small", datasets=["spiral[n=[9,12]]"], solvers=["fista", "bm_lbfgs[m=[1,2]]"], seeds=2)


class Watcher:
    def __init__(self):
        self.known, self.records = None, []

    def planned(self, cells, known):
        self.known = (known, len(cells))

    def note(self, text):
        pass

    def finished(self, record):
        self.records.append(record)

    started = message = note


@pytest.fixture
def folder(tmp_path):
    """A folder in which every cell has a record."""
    cells, file = plan(CAMPAIGN), RecordFile(tmp_path / "records.jsonl")
    records = [skipped_record(cell, "not today", {}) for cell in cells]
    for record in records:
        file.append(record)
    to_parquet(records, tmp_path / "records.parquet")
    finished.remember(CAMPAIGN, Source(), cells, tmp_path)
    return tmp_path


def test_nothing_is_planned_and_the_outcome_is_the_same(folder, monkeypatch):
    (folder / finished.NAME).rename(folder / "aside")
    planned = Watcher()
    first = execute.run_campaign(CAMPAIGN, folder, planned)
    assert (folder / finished.NAME).read_text() == (folder / "aside").read_text()
    monkeypatch.setattr(execute, "plan", None)
    known = Watcher()
    again = execute.run_campaign(CAMPAIGN, folder, known)
    assert (again.records, again.known, again.complaint) == (first.records, 12, None)
    assert (known.records, known.known) == (planned.records, (12, 12))


@pytest.mark.parametrize(
    "change", [{"seeds": 3}, {"gap": 1e-3}, {"time_limit": 5.0}, {"solvers": ["fista"]}, {"problem": {"beta": 0.1}}]
)
def test_another_campaign_is_not_recognised(folder, change):
    assert finished.recall(CAMPAIGN, Source(), folder) is not None
    assert finished.recall(replace(CAMPAIGN, **change), Source(), folder) is None
    assert finished.recall(CAMPAIGN, Source(replaced=["datasets"]), folder) is None


def test_other_code_or_a_damaged_file_is_not_believed(folder, tmp_path_factory, monkeypatch):
    mine = tmp_path_factory.mktemp("mine")
    monkeypatch.setattr(finished.SOLVERS, "_folders", [*finished.SOLVERS.folders, mine])
    cells = plan(CAMPAIGN)
    finished.remember(CAMPAIGN, Source(), cells, folder)
    assert [cell.key for cell in finished.recall(CAMPAIGN, Source(), folder)] == [cell.key for cell in cells]
    (mine / "new.py").write_text("")
    assert finished.recall(CAMPAIGN, Source(), folder) is None
    for text in ("[", "3", json.dumps({"campaign": 1}), json.dumps({"campaign": None, "cells": [{}]})):
        (folder / finished.NAME).write_text(text)
        assert finished.recall(CAMPAIGN, Source(), folder) is None


def test_a_cell_without_a_record_or_one_to_run_again_is_planned(folder):
    cells = finished.recall(CAMPAIGN, Source(), folder)
    assert execute._nothing_to_do(cells, folder, Watcher(), []) is not None
    assert execute._nothing_to_do(cells, folder, Watcher(), ["skipped"]) is None
    lines = (folder / "records.jsonl").read_text().splitlines(keepends=True)
    (folder / "records.jsonl").write_text("".join(lines[1:]))
    to_parquet([json.loads(line) for line in lines[1:]], folder / "records.parquet")
    assert execute._nothing_to_do(cells, folder, Watcher(), []) is None


def test_a_campaign_on_a_file_of_data_is_never_remembered(tmp_path):
    (tmp_path / "data.csv").write_text("a,y\n1,2\n2,1\n3,4\n")
    campaign = Campaign("mine", datasets=[f"file[path={tmp_path / 'data.csv'},target=y]"], solvers=["fista"])
    finished.remember(campaign, Source(), plan(campaign), tmp_path)
    assert not (tmp_path / finished.NAME).exists()
