"""The folder benchopt_bridge is a valid benchopt benchmark, and what it reports is what the package reports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import convexnn_bench as cnn

pytest.importorskip("benchopt", reason="the bridge needs it: pip install benchopt")
BRIDGE = Path(__file__).parents[1] / "benchopt_bridge"


@pytest.fixture
def benchopt(tmp_path):
    """Runs benchopt on a copy of the folder, which it writes to; returns (what it printed, the copy)."""
    copy = tmp_path / "benchopt_bridge"
    shutil.copytree(BRIDGE, copy, ignore=shutil.ignore_patterns("outputs", "__cache__", "__pycache__"))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "benchopt.yml").touch()
    environment.update(OMP_NUM_THREADS="1", BENCHOPT_CONFIG=str(tmp_path / "benchopt.yml"))

    def run(command, *arguments):
        line = [sys.executable, "-m", "benchopt", command, str(copy), *arguments]
        done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, copy

    return run


def test_benchopt_s_own_test_command_passes(benchopt):
    printed, _ = benchopt("test", "--skip-install")
    assert "8 passed, 2 skipped" in printed  # the two install into a conda environment


def test_every_solver_runs_or_is_skipped_with_its_reason_and_the_gap_is_ours(benchopt):
    names = ",".join(cnn.SOLVERS.names())
    printed, copy = benchopt(
        "run", "-d", "convexnn[n=9]", "-s", f"convexnn[solver=[{names}]]", "--timeout", "1", "--max-runs", "300",
        "--n-repetitions", "1", "--no-plot",
    )  # fmt: skip
    (written,) = (copy / "outputs").glob("*.parquet")
    table = pd.read_parquet(written)
    ran = set(table["p_solver_solver"])
    problem = cnn.make_problem("spiral[n=9]")
    for name in cnn.SOLVERS.names():
        reason = cnn.SOLVERS.make(name).unavailable() or cnn.SOLVERS.make(name).skip(problem)
        assert (name in ran) == (reason is None), name
        assert reason is None or " ".join(reason.split())[:40] in " ".join(printed.split())
    optimum = cnn.solve(problem, "cvxpy_clarabel").objective
    for name, curve in table.groupby("p_solver_solver"):
        assert (curve["objective_lower_bound"] <= optimum * (1 + 1e-7)).all(), name
        assert (curve["objective_value"] >= optimum * (1 - 1e-7)).all(), name
    last = table.groupby("p_solver_solver").last()
    for name in ("bm_newton", "cvxpy_clarabel", "semismooth_newton"):
        assert last["objective_gap"][name] <= 1e-6
        assert last["objective_value"][name] == pytest.approx(optimum, rel=2e-6)
