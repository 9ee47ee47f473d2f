"""The folder benchopt_bridge is a valid benchopt benchmark, and what it reports is what the package reports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import convexnn_bench as cnn
from convexnn_bench.errors import InputError

pytestmark = pytest.mark.process

pytest.importorskip("benchopt", reason="the bridge needs it: pip install 'convexnn-bench[benchopt]'")
BRIDGE = Path(__file__).parents[1] / "benchopt_bridge"
BRIEF = ("--n-repetitions", "1", "--no-plot", "--max-runs")  # the number of calls after which a solver is stopped
WITHOUT_IMPORTS = """
import sys
from benchopt.benchmark import Benchmark
from benchopt.utils.dynamic_modules import skip_import_ctx
with skip_import_ctx():
    benchmark = Benchmark(sys.argv[1])
    for found in (*benchmark.get_datasets(), *benchmark.get_solvers()):
        print(found.install_cmd_, found.install_script)
"""


@pytest.fixture
def benchopt(tmp_path):
    """Runs benchopt on a copy of the folder, which it writes to; returns (what it printed, the copy)."""
    copy = tmp_path / "benchopt_bridge"
    shutil.copytree(BRIDGE, copy, ignore=shutil.ignore_patterns("outputs", "__cache__", "__pycache__"))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "benchopt.yml").touch(mode=0o600)
    environment.update(OMP_NUM_THREADS="1", BENCHOPT_CONFIG=str(tmp_path / "benchopt.yml"))

    def run(*line):
        line = [sys.executable, *(str(copy) if word == "BRIDGE" else word for word in line)]
        done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return " ".join(done.stdout.split()), copy

    return run


def table_of(copy):
    (written,) = (copy / "outputs").glob("*.parquet")
    return pd.read_parquet(written)


def test_benchopt_s_own_test_command_passes(benchopt):
    printed, _ = benchopt("-m", "benchopt", "test", "BRIDGE", "--skip-install")
    assert "8 passed, 2 skipped" in printed  # the two install into a conda environment


def test_benchopt_finds_how_to_install_without_importing_anything(benchopt):
    printed, copy = benchopt("-c", WITHOUT_IMPORTS, "BRIDGE")
    assert printed == "shell checkout.sh shell checkout.sh"
    assert (copy / "install_scripts" / "checkout.sh").is_file()


def test_every_solver_runs_or_is_skipped_with_its_reason_and_the_gap_is_ours(benchopt):
    printed, copy = benchopt(
        "-m", "benchopt", "run", "BRIDGE", "-d", "convexnn[n=9]", "-s", "convexnn[solver=all]",
        "--timeout", "3", *BRIEF, "40",
    )  # fmt: skip
    table = table_of(copy)
    ran = set(table["p_solver_solver"])
    problem = cnn.make_problem("spiral[n=9]")
    for name in cnn.SOLVERS.names():
        reason = cnn.SOLVERS.make(name).unavailable() or cnn.SOLVERS.make(name).skip(problem)
        assert (name in ran) == (reason is None), name
        assert reason is None or " ".join(reason.split())[:40] in printed
    optimum = cnn.solve(problem, "cvxpy_clarabel").objective
    for name, curve in table.groupby("p_solver_solver"):
        assert (curve["objective_lower_bound"] <= optimum * (1 + 1e-7)).all(), name
        assert (curve["objective_value"] >= optimum * (1 - 1e-7)).all(), name
    last = table.groupby("p_solver_solver").last()
    for name in ("bm_newton", "cvxpy_clarabel", "semismooth_newton"):
        assert last["objective_gap"][name] <= 1e-6
        assert last["objective_value"][name] == pytest.approx(optimum, rel=2e-6)


def test_every_data_set_runs_or_is_skipped_with_its_reason(benchopt):
    printed, copy = benchopt(
        "-m", "benchopt", "run", "BRIDGE", "-d", "convexnn[dataset=all,n=20]", "-o", "*[patterns=4]",
        "-s", "convexnn[solver=bm_newton]", "--timeout", "60", *BRIEF, "300",
    )  # fmt: skip
    last = table_of(copy).groupby("p_dataset_dataset").last()
    for name in cnn.DATASETS.names():
        try:
            problem = cnn.make_problem(name, n=20, patterns=4)
        except InputError:
            assert name not in last.index
            assert f"data set '{name}'" in printed
            continue
        result = cnn.solve(problem, "bm_newton")
        assert last["objective_gap"][name] <= 1e-6, name
        assert last["objective_value"][name] == pytest.approx(result.objective, rel=2e-6), name


def test_a_loss_that_does_not_fit_and_repetitions(benchopt, tmp_path):
    """The first is skipped with its reason; repetitions start elsewhere; a user's own data set needs X and y alone."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom benchopt import BaseDataset\n\n\nclass Dataset(BaseDataset):\n    name = 'mine'\n\n"
        "    def get_data(self):\n        X = np.random.default_rng(0).standard_normal((12, 3))\n"
        "        return {'X': X, 'y': X[:, :1] * X[:, 1:2]}\n"
    )
    printed, copy = benchopt(
        "-m", "benchopt", "run", "BRIDGE", "-d", str(tmp_path / "mine.py"), "-s", "convexnn[solver=bm_lbfgs]",
        "-o", "*[activation=gated_relu,loss=[squared,logistic],beta_fraction=0.1,patterns=5]", "--timeout", "60",
        "--max-runs", "300", "--n-repetitions", "2", "--no-plot",
    )  # fmt: skip
    assert "labels -1 and 1, or any two labels, for the logistic loss" in printed
    table = table_of(copy)
    assert set(table["p_obj_loss"]) == {"squared"}
    first, second = (curve["objective_value"].to_numpy() for _, curve in table.groupby("idx_rep"))
    assert first[1] != second[1]
    assert first[-1] == pytest.approx(second[-1], rel=2e-6)
