"""`solve` in several threads at once does not change settings of the whole process."""

import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from kept import CASES, outcome, same
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.modules import load_state
from convexnn_bench.running import settings

# Functions that set something of the whole process, by the object that has them.
GLOBAL = [
    (torch, "set_default_dtype"),
    (torch, "set_default_device"),
    (torch, "set_num_threads"),
    (torch, "set_num_interop_threads"),
    (torch, "manual_seed"),
    (torch, "use_deterministic_algorithms"),
    (np.random, "seed"),
    (warnings, "catch_warnings"),
    (warnings, "filterwarnings"),
    (warnings, "simplefilter"),
    (os, "chdir"),
    (os, "putenv"),
    (os, "umask"),
]


@pytest.fixture
def nothing_global(monkeypatch):
    """Raise if the package or a solver calls a function in GLOBAL, which other packages may call."""

    def refusing(name, genuine):
        def call(*args, **named):
            frame = sys._getframe(1)
            while frame.f_globals["__name__"].startswith("contextlib"):
                frame = frame.f_back
            file = frame.f_code.co_filename
            if "convexnn_bench" in frame.f_globals["__name__"] or f"{os.sep}solvers{os.sep}" in file:
                raise AssertionError(f"{file}, line {frame.f_lineno} calls {name}")
            return genuine(*args, **named)

        return call

    for owner, name in GLOBAL:
        monkeypatch.setattr(owner, name, refusing(name, getattr(owner, name)))


@pytest.mark.parametrize("case", CASES)
def test_no_solve_sets_what_belongs_to_the_process(case, nothing_global):
    make, solver, iterations = CASES[case]
    assert cnn.solve(make(), solver, time_limit=None, iterations=iterations).certificate is not None


def test_no_decomposition_sets_what_belongs_to_the_process(nothing_global):
    """Vector-output ReLU blocks, whose norm comes from a conic program."""
    problem = random_problem(3, "cross_entropy", "relu", n=5)
    result = cnn.solve(problem, "cvxpy_clarabel")
    assert problem.objective(result.blocks) <= result.objective * (1 + 1e-6)


@pytest.fixture
def default_dtype():
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_default_dtype_changes_nothing(case, default_dtype):
    """Every constant names its dtype: points and certificates have the same bits with a default of half precision."""
    make, solver, iterations = CASES[case]
    results = []
    for dtype in (torch.float16, torch.float32, torch.float64):
        default_dtype(dtype)
        results.append(outcome(cnn.solve(make(), solver, time_limit=None, iterations=iterations)))
        assert torch.get_default_dtype() == dtype
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def both_at_once(*calls):
    """Return the results of calls that all begin before any of them ends."""
    gate = threading.Barrier(len(calls))

    def begin(call):
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


@pytest.mark.slow
def test_pairs_of_threads_get_what_one_alone_gets():
    """Problems with one operator each, solved twice at the same time, and two problems at the same time."""
    one, other, cones = (
        random_problem(1, "logistic", n=20),
        random_problem(2, n=12),
        random_problem(3, "huber", "relu"),
    )
    image = CASES["images"][0]()
    before = torch.get_default_dtype(), torch.get_num_threads(), warnings.filters[:], os.getcwd()

    def run(problem, solver):
        return cnn.solve(problem, solver, time_limit=None, iterations=15)

    for problem, solver in ((one, "bm_lbfgs"), (other, "fista"), (image, "bm_gd")):
        alone = run(problem, solver)
        for result in both_at_once(*[lambda p=problem, s=solver: run(p, s)] * 2):
            assert same(outcome(result), outcome(alone))
    # The cones of a problem learn their facets, after which projections round otherwise.
    alone = run(cones, "fista")
    for result in both_at_once(*[lambda: run(cones, "fista")] * 2):
        assert result.objective == pytest.approx(alone.objective, rel=1e-9)
    pair = both_at_once(lambda: run(one, "fista"), lambda: run(other, "bm_newton"))
    assert same(outcome(pair[0]), outcome(run(one, "fista")))
    assert same(outcome(pair[1]), outcome(run(other, "bm_newton")))
    assert (torch.get_default_dtype(), torch.get_num_threads(), warnings.filters[:], os.getcwd()) == before


class Changing(cnn.BaseSolver):
    """A solver that sets the default dtype, changes the directory, and waits for another thread where a test says."""

    name = "changing"
    formulation = "convex"
    wait_before = wait_after = staticmethod(lambda: None)

    def set_problem(self, problem):
        self.wait_before()
        torch.set_default_dtype(torch.float16)
        torch.set_num_threads(3)
        os.chdir("/")
        self.wait_after()
        self.Z = np.zeros((problem.P, problem.p, problem.q))

    def run(self, callback):
        callback()

    def get_result(self):
        return cnn.Point(blocks=self.Z)


@pytest.mark.parametrize("raises", [False, True])
def test_what_a_solver_sets_is_restored_by_the_last_solve(raises, default_dtype, tmp_path, monkeypatch):
    """The other solve begins before the change and ends after it, and the other way round."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_default_dtype(), torch.get_num_threads(), os.getcwd()
    begun, changed, ended = threading.Event(), threading.Event(), threading.Event()
    seen = {}

    class Early(Changing):
        name = "early"
        wait_before = staticmethod(lambda: begun.wait(60))

        def wait_after(self):
            changed.set()
            if raises:
                raise ZeroDivisionError

    class Late(Changing):
        name = "late"

        def set_problem(self, problem):
            begun.set()
            assert changed.wait(60)
            assert ended.wait(60)
            seen["while the last one runs"] = torch.get_default_dtype()
            self.Z = np.zeros((problem.P, problem.p, problem.q))

    def early():
        try:
            cnn.solve(random_problem(1), Early())
        except ZeroDivisionError:
            seen["raised"] = True
        ended.set()
        return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        last = pool.submit(cnn.solve, random_problem(2), Late())
        first = pool.submit(early)
        assert first.result(120) == before[1]
        assert last.result(120).certificate is not None
    assert seen.get("raised", False) == raises
    assert seen["while the last one runs"] == torch.float16
    assert (torch.get_default_dtype(), torch.get_num_threads(), os.getcwd()) == before
    assert settings._PROCESS._running == 0


def test_files_are_loaded_in_turn(tmp_path, monkeypatch):
    """Filters of warnings are as before, although each of two threads changes them while it loads a file."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    before, inside, most = warnings.filters[:], [0], [0]
    genuine = torch.load

    def slow(*args, **named):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        try:
            return genuine(*args, **named)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(torch, "load", slow)
    states = both_at_once(*[lambda: load_state(tmp_path / "m.pt")] * 4)
    assert all(same(list(state.values()), list(states[0].values())) for state in states)
    assert most == [1]
    assert warnings.filters == before
