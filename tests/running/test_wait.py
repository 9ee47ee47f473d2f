"""A time limit bounds the wait of the caller for set-up, scores and the last certificate; tests move the clocks."""

import contextlib
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.deadline import deadline, seconds_left, time_is_up
from convexnn_bench.running import monitor
from convexnn_bench.running.wait import Interrupter, OutOfTime, Wait


class Stuck(cnn.BaseSolver):
    """A solver that never returns from the method that `stuck` names, and catches every Exception in it."""

    name = "stuck"
    formulation = "convex"
    parameters = {"stuck": ["run"], "first": [True]}

    def set_problem(self, problem):
        self.problem, self.Z = problem, np.zeros((problem.P, problem.p, problem.q))
        if self.stuck == "set_problem":
            self.work_for_ever()

    def run(self, callback):
        if self.first:
            callback()
        self.Z = self.Z + 1e-3  # a later point, which was not scored
        self.work_for_ever()

    def work_for_ever(self):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.005)

    def get_result(self):
        if self.stuck == "nothing":
            raise AttributeError("no point yet")
        return cnn.Point(blocks=self.Z)


@pytest.mark.parametrize("time_limit", [0.05, 5.0, 600.0])
def test_the_parts_of_a_wait_end_in_order_and_within_the_allowance(time_limit):
    wait = Wait(time_limit)
    ends = [time_limit, wait.solver_stops, wait.solver_is_interrupted, wait.certificate_ends]
    assert ends == sorted(set(ends))
    assert ends[-1] < 1.2 * time_limit + 1
    assert Wait(time_limit, imports=1e9).solver_stops == pytest.approx(wait.solver_stops - 0.5 * time_limit)
    assert Wait(None).solver_stops is Wait(None).certificate_ends is None


@pytest.mark.slow
def test_a_solver_that_does_not_come_back_is_interrupted_and_its_point_certified():
    # Set-up and first score take milliseconds, so that the limit is wide for them.
    result = cnn.solve(random_problem(1), Stuck(), time_limit=3.0)
    assert result.status == "time_limit"
    assert len(result.curve) == 2
    assert np.all(result.blocks == 1e-3)
    assert result.certificate is not None
    assert "3 s passed at certified gap" in result.reason


@pytest.mark.slow
def test_a_solver_that_has_no_point_when_it_is_interrupted_keeps_the_last_one_that_was_scored():
    class Later(Stuck):
        name = "later"

        def run(self, callback):
            callback()
            self.stuck = "nothing"
            self.work_for_ever()

    result = cnn.solve(random_problem(1), Later(), time_limit=3.0)
    assert result.status == "time_limit"
    assert "no point yet" in result.reason
    assert len(result.curve) == 1
    assert not result.blocks.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stuck", "words"), [("set_problem", "set-up was not finished"), ("nothing", "no point to certify")]
)
def test_a_result_without_a_point_says_so(stuck, words):
    result = cnn.solve(random_problem(1), Stuck(stuck=stuck, first=False), time_limit=0.01)
    assert result.status == "time_limit"
    assert words in result.reason
    assert result.certificate is None
    assert result.point is None
    assert np.isnan(result.objective)
    assert result.setup_seconds > 0


def test_a_solver_that_gives_up_before_a_long_call_says_why():
    class GivesUp(Stuck):
        name = "gives_up"

        def set_problem(self, problem):
            raise OutOfTime("the factorisation would take a year")

    result = cnn.solve(random_problem(1), GivesUp(), time_limit=600.0)
    assert result.status == "time_limit"
    assert result.reason == "the factorisation would take a year: no point to certify"
    assert result.setup_seconds < 300


def test_set_up_and_scores_count_for_the_wait(monkeypatch):
    """Set-up takes nothing on the monitor's clock, every score 2 s, every step 1 s; the limit is 10 s."""
    genuine, now = monitor.certify, [0.0]

    def slow(problem, point):
        now[0] += 2.0
        return genuine(problem, point)

    class Steps(Stuck):
        name = "steps"

        def run(self, callback):
            while callback():
                now[0] += 1.0

    monkeypatch.setattr(monitor, "certify", slow)
    monkeypatch.setattr(monitor, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    result = cnn.solve(random_problem(1), Steps(), time_limit=10.0)
    assert result.status == "time_limit"
    assert result.solve_seconds < 10.0
    assert now[0] <= 1.2 * 10.0 + 1.0
    # The first score took more than the scores' part of the limit, so that the others follow at longer intervals.
    assert len(result.curve) <= 3


def test_every_certificate_gets_a_deadline_and_the_last_one_the_latest(monkeypatch):
    genuine, budgets = monitor.certify, []

    def watched(problem, point):
        budgets.append(seconds_left())
        return genuine(problem, point)

    class Steps(Stuck):
        name = "steps"

        def run(self, callback):
            assert callback()

    monkeypatch.setattr(monitor, "certify", watched)
    cnn.solve(random_problem(1), Steps(), time_limit=1000.0, gap=None)
    assert budgets[0] <= 100.0  # a tenth of the limit
    assert 1000.0 < budgets[-1] < 1201.0
    budgets.clear()
    cnn.solve(random_problem(1), Steps(), time_limit=None, gap=None)
    assert budgets == [float("inf")] * 2


class Searching(Stuck):
    """A solver that makes its point by a search in `get_result`, which ends at the deadline."""

    name = "searching"

    def run(self, callback):
        callback()
        self.now[0] += self.takes
        callback()

    def get_result(self):
        self.budgets.append(seconds_left())
        if len(self.budgets) == 1:
            return cnn.Point(blocks=self.Z)
        while not time_is_up():
            self.now[0] += 0.1
        return cnn.Point(blocks=self.Z + self.shift)


@pytest.mark.parametrize("takes", [3.0, 11.0, 14.0])
@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_the_making_of_a_point_has_a_deadline_and_a_better_point_of_before_stands(takes, shift, monkeypatch):
    """The limit is 10 s. The solver goes on for some seconds after a point at zero, until it is over, or too late."""
    from convexnn_bench import deadline as deadlines

    now, problem = [0.0], random_problem(1)
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(monitor, "time", clock)
    genuine = deadlines.deadline
    monkeypatch.setattr(monitor, "deadline", lambda seconds: genuine(seconds, clock.perf_counter))
    solver = Searching()
    solver.now, solver.takes, solver.shift, solver.budgets = now, takes, shift, []
    result = cnn.solve(problem, solver, time_limit=10.0, gap=None)
    assert solver.budgets[0] <= 0.5  # half of the scores' part of the limit
    assert all(budget < 1.2 * 10.0 + 1.0 - takes for budget in solver.budgets[1:])
    assert now[0] <= max(1.2 * 10.0 + 1.0, takes + 0.2)
    assert not result.blocks.any() or shift == 0
    zero = problem.objective(np.zeros_like(result.blocks))
    assert result.objective == pytest.approx(zero)
    assert result.certificate.gap < 1e3


def test_a_deadline_of_the_caller_counts_too():
    with deadline(2.0, lambda: 0.0):
        wait = Wait(600.0)
    assert wait.solver_stops == wait.certificate_ends == 2.0
    assert Wait(600.0).solver_stops > 600.0


def test_a_solver_is_told_the_time_that_set_up_left(monkeypatch):
    from convexnn_bench.running import runner, timed_run

    told, now = [], [0.0]

    class Slow(Stuck):
        name = "slow"

        def set_problem(self, problem):
            told.append(self.time_limit)
            super().set_problem(problem)
            now[0] += 8.0

        def run(self, callback):
            told.append(self.time_limit)

    for module in (runner, timed_run):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    solver = Slow()
    result = cnn.solve(random_problem(1), solver, time_limit=10.0)
    assert told == [10.0, pytest.approx(Wait(10.0).solver_stops - 8.0)]
    assert solver.time_limit == 10.0
    assert result.setup_seconds == 8.0


def test_an_interruption_waits_for_a_held_block_and_for_imports(monkeypatch):
    ended = []

    def work():
        with interrupter.held():
            end = time.perf_counter() + 0.05
            while time.perf_counter() < end:
                pass
            ended.append("held")
        while True:
            pass

    interrupter = Interrupter(0.001)
    assert not interrupter.run(work)
    assert ended == ["held"]

    class Finder:
        """Import a module slowly that does not exist."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "a_module_that_takes_long_to_find":
                end = time.perf_counter() + 0.1
                while time.perf_counter() < end:
                    pass
                ended.append("import")
            return None

    def work_of_imports():
        try:
            __import__("a_module_that_takes_long_to_find")
        except ImportError:
            while True:
                pass

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert not Interrupter(0.001).run(work_of_imports)
    assert ended == ["held", "import"]


@pytest.mark.slow
def test_an_interruption_never_reaches_the_caller():
    """Work that ends just when it would be interrupted, many times."""
    for k in range(200):
        interrupter = Interrupter(1e-4)
        end = time.perf_counter() + 1e-6 * (k % 200)

        def work(end=end):
            while time.perf_counter() < end:
                pass

        interrupter.run(work)
        assert not interrupter._lock.locked()
    assert issubclass(OutOfTime, BaseException)
    assert not issubclass(OutOfTime, Exception)
    names = [thread.name for thread in threading.enumerate()]
    end = time.perf_counter() + 60
    while "convexnn-bench time limit" in names and time.perf_counter() < end:
        names = [thread.name for thread in threading.enumerate()]
    assert "convexnn-bench time limit" not in names


def test_errors_of_the_work_are_raised():
    def work():
        raise ArithmeticError("its own")

    with pytest.raises(ArithmeticError, match="its own"):
        Interrupter(60.0).run(work)


def test_a_bound_that_was_proven_once_outlives_certificates_that_run_out_of_time(monkeypatch):
    from convexnn_bench.deadline import deadline

    genuine, calls = monitor.certify, []

    def hurried(problem, point):
        """The first certificate has unlimited time; the others have none, and no multiplier to start from."""
        calls.append(point)
        point.dual = None
        with deadline(None if len(calls) == 1 else 0.0):
            return genuine(problem, point)

    class Steps(Stuck):
        name = "steps"

        def run(self, callback):
            assert callback()

    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    problem = cnn.Problem(X, Y, activation="relu", beta_fraction=0.3, patterns=8)
    monkeypatch.setattr(monitor, "certify", hurried)
    result = cnn.solve(problem, Steps(), gap=None, time_limit=None)
    (_, _, first), (_, last, gap) = result.curve
    proven = genuine(problem, calls[0])
    hurriedly = genuine(problem, calls[1], time_limit=1e-9)
    assert result.certificate.dual == proven.dual > hurriedly.dual
    assert result.certificate.primal == last
    assert gap == pytest.approx((last - proven.dual) / abs(proven.dual), rel=1e-12)
    assert first == pytest.approx(proven.gap, rel=1e-12)
    assert np.array_equal(result.certificate.multiplier, proven.multiplier)
