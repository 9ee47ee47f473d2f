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
    # the report shows the same path from its record
    (tmp_path / "new" / "path.png").unlink()
    again = command("report", tmp_path / "new")
    assert again.exit_code == 0, again.output
    assert again.output.splitlines()[:-1] == [
        line for line in done.output.splitlines() if not line.startswith(("record ", "table ", "figure "))
    ]
    assert (tmp_path / "new" / "path.png").is_file()
    record = json.loads((tmp_path / "new" / "path.json").read_text())
    assert record["status"] == "gap_reached"
    assert 0 < record["solves"] < 20
    assert all(low <= high for _, low, high in record["enclosure"])
    assert [row["beta"] for row in record["networks"]] == [float(row["beta"]) for row in rows]
    assert list(csv.DictReader(command("report", tmp_path / "new", "--csv").stdout.splitlines())) == rows
    assert command("report", tmp_path / "new", "--latex").exit_code == 2
    (tmp_path / "new" / "path.json").write_text("{}")
    assert "is not the record of a path" in command("report", tmp_path / "new").output


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
