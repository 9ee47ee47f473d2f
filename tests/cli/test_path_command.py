"""The command `convexnn-bench path`."""

import csv
import json

import pytest
from typer.testing import CliRunner

from convexnn_bench.cli import app


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.slow
def test_a_path_with_its_files(tmp_path):
    done = command(
        "path", "--dataset", "spiral[n=9,test=0.3]", "--smallest", 0.2, "--tolerance", 0.05, "--out", tmp_path / "new"
    )
    assert done.exit_code == 0, done.output
    assert "gap_reached: the relative gap is at most" in done.output
    with (tmp_path / "new" / "path.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["beta"]) > float(rows[-1]["beta"])
    assert "test_accuracy" in rows[0]
    assert (tmp_path / "new" / "path.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_one_object_and_a_limit_shows_in_the_exit_code():
    done = command("path", "--dataset", "spiral[n=9]", "--tolerance", 1e-9, "--time-limit", 0.05, "--json")
    assert done.exit_code == 1
    content = json.loads(done.stdout)
    assert content["status"] == "time_limit"
    assert content["gap"] > 1e-9
    assert content["networks"][0]["active_neurons"] == 0


def test_a_wrong_argument_is_one_line():
    done = command("path", "--dataset", "spiral[n=9]", "--smallest", 2)
    assert done.exit_code == 2
    assert "smallest must be a number above 0 and below 1" in done.output
