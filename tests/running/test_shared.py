"""Burer-Monteiro solvers of several processes against one: products, steps, certificates, and who decides when."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shared_task
from shared_task import NEWTON, SOLVERS, factors, hessian_products, numbers, problems, stepped

import convexnn_bench as cnn
from convexnn_bench.harness.cell import Cell, Limits
from convexnn_bench.harness.cell_run import run_cell
from convexnn_bench.operator.products.linear_map import LinearMap

pytestmark = pytest.mark.process

TASK = Path(shared_task.__file__)
SECONDS = 900


def torchrun(processes, *arguments):
    """The exit code, and what was printed."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    paths = os.pathsep.join(filter(None, [str(TASK.parents[2]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*start, *map(str, arguments)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:  # they wait for each other
        process.terminate()  # and with it those that it has started
        said, _ = process.communicate()
    return process.returncode, said


def of_all(processes, folder, *arguments):
    code, said = torchrun(processes, TASK, folder, *arguments)
    assert code == 0, said
    assert "Warning" not in said, said
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(processes)]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return of_all(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def given():
    return problems()


def agree(shared, alone):
    for name, number in alone.items():
        scale = np.abs(number).max()
        np.testing.assert_allclose(shared[name], number, rtol=1e-10, atol=1e-10 * scale, err_msg=name)


@pytest.mark.parametrize("name", problems())
def test_products_gradients_and_certificates_are_those_of_one_process(both, given, name):
    alone = numbers(given[name])
    for rank in both:
        agree(rank["numbers"][name], alone)
        for number in alone:
            assert np.array_equal(rank["numbers"][name][number], both[0]["numbers"][name][number])


def test_three_processes_as_well(given, tmp_path):
    for rank in of_all(3, tmp_path, "numbers"):
        for name, problem in given.items():
            agree(rank["numbers"][name], numbers(problem))


def test_the_problems_take_every_way_through_the_operator(given):
    halves = {name: problem.operator().restricted(*3 * [slice(0, problem.N // 2)])
              for name, problem in given.items() if name.startswith("mlp")}  # fmt: skip
    assert halves["mlp_wide"].through_blocks(3)
    assert given["mlp_wide"].operator().through_blocks(3)
    assert not halves["mlp_narrow"].through_blocks(3)
    assert isinstance(given["cnn_linear"].operator().products, LinearMap)
    assert not given["attention"].operator().has_rows
    assert {len(problem.X) % 2 for problem in given.values()} == {1}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["mlp_narrow", "cnn"])
def test_steps_are_those_of_one_process(both, given, name, solver):
    alone, zero = stepped(given[name], solver), [0 * factor for factor in factors(given[name])]
    assert alone < 0.9 * given[name].factored_objective(*zero)
    for rank in both:
        assert rank["stepped"][name, solver] == pytest.approx(alone, rel=1e-10)
    assert both[0]["stepped"][name, solver] == both[1]["stepped"][name, solver]


@pytest.mark.parametrize("name", problems())
def test_hessian_products_are_those_of_one_process(both, given, name):
    double, single = hessian_products(given[name])
    for rank in both:
        np.testing.assert_allclose(rank["hessian"][name][0], double, rtol=1e-10, atol=1e-11 * np.abs(double).max())
        np.testing.assert_allclose(rank["hessian"][name][1], single, rtol=1e-4, atol=1e-5 * np.abs(double).max())
        assert all(map(np.array_equal, rank["hessian"][name], both[0]["hessian"][name]))


@pytest.mark.parametrize("name", NEWTON)
def test_newton_comes_to_the_certified_optimum_of_one_process(both, given, name):
    alone = cnn.solve(given[name], "bm_newton", gap=1e-8, time_limit=600)
    one, other = (rank["newton"][name] for rank in both)
    assert one["status"] == other["status"] == alone.status == "gap_reached"
    assert one["objective"] == pytest.approx(alone.objective, rel=1e-8)
    assert given[name].factored_objective(one["U"], one["V"]) == pytest.approx(one["objective"], rel=1e-10)
    assert cnn.certify(given[name], (one["U"], one["V"])).gap < 1.1e-8
    assert np.array_equal(one["U"], other["U"])
    assert np.array_equal(one["V"], other["V"])


@pytest.mark.parametrize("name", ["mlp_wide", "large"])
def test_a_start_is_certified_by_all_together(both, name):
    one, other = (rank["warm", name] for rank in both)
    assert one["status"] == other["status"] == "gap_reached"
    assert one["curve"] == other["curve"]
    assert len(one["curve"]) == 1
    assert one["objective"] == pytest.approx(both[0]["newton"][name]["objective"], rel=1e-10)


def test_the_first_process_has_the_clock(both):
    one, other = (rank["limited"] for rank in both)
    assert one["status"] == other["status"] == "time_limit"
    assert one["curve"] == other["curve"]
    assert len(one["curve"]) > 1
    assert one["solve_seconds"] == other["solve_seconds"] >= 1
    assert np.array_equal(one["U"], other["U"])


def test_what_is_not_shared_waits_for_nobody(both):
    assert both[1]["alone"] == {"fista": "gap_reached", "clarabel": "gap_reached", "relu": "gap_reached"}
    assert both[0]["certified"] == both[1]["newton"]["cnn"]["objective"]


REFUSED = {
    "few": "InputError: n = 1, fewer samples than the 2 processes that share them",
    "other": "InputError: the processes that share a solve were not all given the same problem",
    "start": "InputError: the processes that share a solve were not all given the same problem, solver, start",
    "settings": "InputError: the processes that share a solve were not all given the same problem",
    "wanders": "ConvexNNError: the processes that share 'wanders' came to different points",
    "spoils": "ChangedProblemError: solver 'wanders' changed the problem it was given: mask_matrix",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_shared_is_refused_in_words(both, what):
    for rank in both:
        assert rank["told"][what].startswith(REFUSED[what])


def test_commands_that_are_one_process_are_refused(tmp_path):
    for command in ("run", "doctor", "report .", "merge . --out ."):
        own = [sys.executable, "-m", "convexnn_bench.cli", *command.split()]
        environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
        done = subprocess.run(own, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {own[3]} runs in one process, but torchrun has started 2 (WORLD_SIZE)")
        assert done.stderr.count("\n") == 1
        other = subprocess.run(own, cwd=tmp_path, env={**environment, "RANK": "1"}, capture_output=True, check=False)
        assert (other.returncode, other.stderr) == (2, b"")
    assert not list(tmp_path.iterdir())


def test_a_cell_is_alone_whatever_started_its_worker(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    cell = Cell("teacher", {"n": 30, "d": 3}, {"patterns": 5, "beta_fraction": 0.1}, "bm_newton", {},
                limits=Limits(10.0, 1e-6, 60.0))  # fmt: skip
    record = run_cell(cell)
    assert record["status"] == "gap_reached", record["reason"]
