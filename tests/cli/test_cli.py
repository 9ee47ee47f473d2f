"""The command line: what it prints, its exit codes, and how quickly it answers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness_fixtures import solvers_from
from typer.testing import CliRunner

import convexnn_bench
from convexnn_bench.cli import app

COMMAND = [sys.executable, "-m", "convexnn_bench.cli"]


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def cpu_seconds(*arguments):
    """(seconds of a processor, standard output) of a Python process; time spent waiting does not count."""
    before = os.times()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system, done.stdout


@pytest.mark.process
@pytest.mark.parametrize("module", ["convexnn_bench", "convexnn_bench.cli"])
def test_help_answers_at_once(module):
    """Half a second of a processor more than Python needs to start."""
    start = min(cpu_seconds("-c", "pass")[0] for _ in range(3))
    measured = [cpu_seconds("-m", module, "--help") for _ in range(3)]
    assert min(seconds for seconds, _ in measured) < start + 0.5, measured
    for command in ("run", "list", "report", "certify"):
        assert f"\n  {command} " in measured[0][1]
    assert f"python -m {module} " in measured[0][1]


def test_help_of_run_and_version():
    text = " ".join(command("run", "--help").output.split())
    for option in (
        "--solver",
        "--dataset",
        "--solvers-dir",
        "--time-limit",
        "--gap",
        "--seeds",
        "--out",
        "--json",
    ):
        assert option in text
    assert command("--version").output == f"convexnn-bench {convexnn_bench.__version__}\n"


def test_list_says_what_is_here_and_what_is_missing():
    done = command("list")
    assert done.exit_code == 0
    for name in ("fista", "bm_lbfgs", "network_adam", "spiral", "file", "cross_entropy", "gated_relu", "mlp"):
        assert name in done.output
    assert "quickstart" in done.output
    assert "file[path=data.csv" in done.output  # brackets are text, not markup


@pytest.mark.parametrize(
    ("arguments", "there", "gone"),
    [
        (["solvers"], ["fista", "bm_gd"], ["spiral", "huber", "quickstart"]),
        (["datasets", "losses"], ["spiral", "huber"], ["fista", "quickstart"]),
        (["bm_"], ["bm_gd", "bm_newton"], ["fista", "spiral", "campaigns"]),
        (["solvers", "datasets", "di"], ["diabetes"], ["spiral", "bm_gd"]),
        (["campaigns"], ["quickstart", "ladder"], ["fista"]),
        (["executors", "dask"], ["dask"], ["slurm", "local"]),
    ],
)
def test_list_shows_what_is_asked_for(arguments, there, gone):
    done = command("list", *arguments)
    assert done.exit_code == 0, done.output
    assert [name for name in there if name not in done.output] == []
    assert [name for name in gone if name in done.output] == []


def test_list_can_leave_out_what_is_missing(monkeypatch):
    monkeypatch.setattr(convexnn_bench.SOLVERS.get("cvxpy_scs"), "requires", ("no_such_package",))
    assert "cvxpy_scs" in command("list", "solvers").output
    assert "cvxpy_scs" not in command("list", "solvers", "--here").output
    assert "nothing matches solvers nosuch" in command("list", "solvers", "nosuch").stderr
    assert command("list", "nosuch").exit_code == 2


def test_completion_can_be_installed(monkeypatch, tmp_path):
    """What typer offers: the script of a shell, and its installation into the user's own files."""
    text = command("--help").output
    assert "--install-completion" in text
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_CONVEXNN_BENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "convexnn-bench re")
    monkeypatch.setenv("COMP_CWORD", "1")
    done = CliRunner().invoke(app, [], prog_name="convexnn-bench")
    assert done.output.split() == ["report"]


@pytest.mark.process
def test_json_is_one_object_a_record_and_nothing_else(tmp_path):
    with solvers_from(tmp_path / "bad", "chatters", "skips") as folder:
        asked = ["run", "--dataset", "spiral[n=9]", "--solvers-dir", folder, "--time-limit", "60", "--json"]
        asked += ["--solver", "chatters", "--solver", "skips", "--out", str(tmp_path / "out")]
        done = subprocess.run([*COMMAND, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["solver"] for record in records] == ["chatters", "skips"]
    assert records[1]["status"] == "skipped"
    assert all(record["problem"]["n"] == 9 for record in records)
    assert done.stderr == ""


@pytest.mark.process
def test_run_prints_tables_and_leaves_records_and_a_figure(tmp_path):
    out = tmp_path / "out"
    done = command(
        "run", "--dataset", "spiral[n=9,beta_fraction=0.1]", "--solver", "fista", "--solver", "bm_gd",
        "--time-limit", 10, "--gap", 1e-4, "--seeds", 2, "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "spiral[beta_fraction=0.1,n=9]" in done.stdout
    assert "fista #1" in done.stdout
    assert "4 cells: " in done.stdout
    assert "[4/4] spiral[beta_fraction=0.1,n=9] bm_gd #1: " in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "finished.json",
        "gap_against_time.png",
        "records.jsonl",
        "records.parquet",
    ]
    again = command(
        "run", "--dataset", "spiral[n=9,beta_fraction=0.1]", "--solver", "fista", "--solver", "bm_gd",
        "--time-limit", 10, "--gap", 1e-4, "--seeds", 2, "--out", out,
    )  # fmt: skip
    assert again.exit_code == 0
    assert "4 of 4 cells have a record already" in again.stderr
    # One line in the place of all tables, and no line for cells that were not run.
    assert "all have records, and nothing was run. Tables: convexnn-bench report" in again.stdout
    assert again.stdout.count("\n") == 1
    assert "[4/4]" not in again.stderr


@pytest.mark.process
def test_a_crashed_cell_gives_exit_code_1(tmp_path):
    with solvers_from(tmp_path / "bad", "exits", "zero") as folder:
        done = command(
            "run", "--dataset", "spiral[n=9]", "--solvers-dir", folder, "--solver", "exits", "--solver", "zero",
            "--time-limit", 60, "--out", tmp_path / "out",
        )  # fmt: skip
    assert done.exit_code == 1
    assert "exits crashed: the process exited with code 7" in done.stdout
    assert "zero" in done.stdout


@pytest.mark.process
def test_a_failing_solver_shows_where_it_failed(tmp_path):
    """The end of the traceback in the terminal, in the report and on the page, and where there is more of it."""
    out = tmp_path / "out"
    with solvers_from(tmp_path / "bad", "raises") as folder:
        done = command(
            "run", "--dataset", "spiral[n=9]", "--solvers-dir", folder, "--solver", "raises", "--time-limit", 60,
            "--seeds", 2, "--out", out,
        )  # fmt: skip
    assert done.exit_code == 1
    printed = done.stdout.replace("\n", " ")
    assert "raises failed on spiral[n=9] and on 1 other cell; it printed, at its end:" in printed
    assert re.search(r'  File ".*raises.py", line \d+, in run', printed)
    assert f"in the field `output` of {out / 'records.jsonl'}" in printed
    report = command("report", out)
    assert re.search(r'File ".*raises.py", line \d+, in run', report.stdout)
    assert "Traceback (most recent call last)" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quickstrat"], "unknown campaign 'quickstrat': did you mean 'quickstart'"),
        (["missing.toml"], "there is no campaign file 'missing.toml'"),
        (["--solver", "bm_lbfgz"], "unknown solver 'bm_lbfgz': did you mean 'bm_lbfgs'"),
        (["--solver", "bm_lbfgs[k=2]"], "has no parameter 'k'; it has: m, finish, history"),
        (["--dataset", "spirel"], "unknown data set 'spirel': did you mean 'spiral'"),
        (["--dataset", "spiral[m=2]"], "data set 'spiral' has no parameter 'm'"),
        (["--dataset", "spiral[n=2]"], "spiral[n=2] cannot be built: n must be a whole number, at least 3, got 2"),
        (["--dataset", "spiral[beta=-1]"], "spiral[beta=-1]: beta must be a positive finite number, got -1"),
        (["--solver", "bm_lbfgs[m=0]"], "bm_lbfgs[m=0]: solver 'bm_lbfgs': m must be a whole number"),
        (["."], "'.' is a directory, not a campaign file"),
        (["--dataset", "spiral[loss=hinge]"], "unknown loss 'hinge'"),
        (["--dataset", "teacher[n=20,loss=logistic]"], "labels -1 and 1, or any two labels"),
        (["--dataset", "spiral[n=9"], "cannot read 'spiral[n=9'"),
        (["--dataset", "file[path=none.csv]"], "there is no file 'none.csv'"),
        (["--dataset", "digits[patterns=all]"], "cannot be built"),
        (["--time-limit", "0"], "time_limit must be positive and finite, got 0.0"),
        (["--gap", "-1"], "gap must be positive and finite, got -1.0"),
        (["--gap", "small"], "Invalid value for '--gap'"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--solvers-dir", "nowhere"], "'nowhere' is not a directory"),
        (["--no-such-option"], "No such option: --no-such-option"),
    ],
)
def test_bad_arguments_are_one_clear_line_and_exit_code_2(tmp_path, arguments, words):
    if "--solver" not in arguments and arguments[0].startswith("--"):
        arguments = ["--solver", "fista", *arguments]
    done = command("run", *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "--solver" not in arguments or not (tmp_path / "out" / "records.jsonl").exists()


@pytest.mark.process
def test_a_file_is_solved_and_what_was_decided_is_said(tmp_path):
    path = tmp_path / "iris.data"
    path.write_text("".join(f"{k % 7}.5,{k * k % 5}.25,{'abc'[k % 3]}\n" for k in range(12)) + "\n")
    options = ["--dataset", f"file[path={path},patterns=3]", "--solver", "cvxpy_clarabel", "--out", tmp_path / "out"]
    done = command("run", *options)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    order = "The target has 3 classes, in the order of the outputs: 'a', 'b', 'c'."
    assert f"No header was found, so that line 1 is a sample (header=yes makes it the header). {order}" in said
    record = json.loads((tmp_path / "out" / "records.jsonl").read_text())
    assert (record["problem"]["n"], record["problem"]["loss"]) == (12, "cross_entropy")
    assert record["problem"]["notes"].endswith(order)


def test_an_output_folder_that_cannot_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper", Path("/proc/nothing/here")):
        done = command("run", "--dataset", "spiral[n=9]", "--solver", "fista", "--out", out)
        assert done.exit_code == 2
        assert f"error: --out: '{out}' cannot be the folder for the records" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("named", "options", "name"),
    [
        ([], ["--time-limit", "1"], "quickstart"),
        ([], ["--dataset", "spiral[n=9]"], r"custom-spiral-[0-9a-f]{8}"),
        ([], ["--solver", "fista", "--dataset", "file[path=/a/b.csv]"], r"custom-file-fista-[0-9a-f]{8}"),
        (["quickstart"], ["--solver", "bm_gd[m=[1,2]]"], r"quickstart-bm_gd-[0-9a-f]{8}"),
    ],
)
def test_other_cells_get_a_name_and_a_folder_of_their_own(monkeypatch, named, options, name):
    """The same command finds its folder again; any other option leads to another one."""
    seen = []

    def stop(job, *rest):
        seen.append((job.campaign.name, str(job.folder)))
        raise KeyboardInterrupt

    monkeypatch.setattr("convexnn_bench.cli.run._run", stop)
    monkeypatch.setattr("convexnn_bench.harness.process.start_server", lambda threads: None)
    for more in ([], [], ["--seeds", "2"]):
        assert command("run", *named, *options, *more).exit_code == 130
    assert all(re.fullmatch(name, campaign) and folder == f"results/{campaign}" for campaign, folder in seen)
    assert seen[0] == seen[1]
    assert (seen[0] == seen[2]) == (name == "quickstart")


def test_the_server_is_started_after_the_limits_are_checked(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("convexnn_bench.harness.process.start_server", started.append)
    (tmp_path / "none.toml").write_text('datasets = ["spiral"]\nsolvers = ["fista"]\nthreads = 0\n')
    done = command("run", tmp_path / "none.toml")
    assert (done.exit_code, started) == (2, [])
    assert "line 3: threads must be at least 1, got 0" in done.stderr


@pytest.mark.process
def test_missing_packages_for_table_and_figure_are_a_line_each(tmp_path, monkeypatch):
    for package in ("pandas", "matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, package, None)
    with solvers_from(tmp_path / "bad", "zero") as folder:
        done = command(
            "run", "--dataset", "spiral[n=9]", "--solvers-dir", folder, "--solver", "zero", "--time-limit", 60,
            "--out", tmp_path / "out",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert "pip install pandas pyarrow" in warnings[0]
    assert "pip install matplotlib" in warnings[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["records.jsonl"]
    assert "1 cell: " in done.stdout
