"""The clock, the verdicts and the callback, with solvers made for the purpose."""

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.deadline import cut_short
from convexnn_bench.running import monitor


class Fake(cnn.BaseSolver):
    """Does nothing for `pause` seconds a step; its point is what a test makes it."""

    name = "fake"
    formulation = "convex"
    parameters = {"steps": [10**9], "pause": [0.0], "value": [0.0]}

    def set_problem(self, problem):
        self.Z = np.full((problem.P, problem.p, problem.q), float(self.value))

    def run(self, callback):
        while callback():
            time.sleep(self.pause)
            self.steps -= 1
            if self.steps <= 0:
                self.message = "done"
                return

    def get_result(self):
        return cnn.Point(blocks=self.Z)


def zero_problem():
    """beta above beta_max, so that the fake solver's zero is the optimum."""
    base = random_problem(0)
    return cnn.Problem(base.X, base.Y, beta=2 * base.beta_max, patterns=base.masks)


def test_gap_reached():
    result = cnn.solve(zero_problem(), Fake(), gap=1e-8)
    assert result.status == "gap_reached"
    assert len(result.curve) == 1
    assert result.gap <= 1e-8


def test_time_limit_counts_the_solver_alone(monkeypatch):
    """Steps take 5 ms and scorings 40 ms on a clock that the test moves; the limit is 1 s."""
    genuine, now = monitor.certify, [0.0]

    def slow(problem, point):
        now[0] += 0.04
        return genuine(problem, point)

    class Steps(Fake):
        name = "steps"

        def run(self, callback):
            while callback():
                now[0] += 0.005

    monkeypatch.setattr(monitor, "certify", slow)
    monkeypatch.setattr(monitor, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    result = cnn.solve(random_problem(1), Steps(value=0.5), time_limit=1.0)
    assert result.status == "time_limit"
    assert "1 s passed" in result.reason
    assert result.solve_seconds == pytest.approx(1.0, abs=0.0051)
    seconds = [point[0] for point in result.curve]
    assert seconds == sorted(seconds)
    # points are scored in geometric progression, and for no longer than the solver itself has run
    assert 8 <= len(seconds) <= 20
    assert 0.04 * (len(seconds) - 1) <= 1.0


def test_stalled_and_solved_by_its_own_test():
    stalled = cnn.solve(random_problem(2), Fake(steps=3, value=0.5), gap=1e-6)
    assert stalled.status == "stalled"
    assert "fake said: done" in stalled.reason
    assert math.isfinite(stalled.objective)
    ended = cnn.solve(zero_problem(), Fake(steps=3), gap=None)
    assert ended.status == "solved"
    assert "within its tolerance 1e-06; fake said: done" in ended.reason


def test_an_end_by_its_own_test_is_solved_only_within_the_solvers_tolerance():
    """The point is the same; what the solver states decides."""

    class Loose(Fake):
        name = "loose"

        def gap_tolerance(self):
            return 1e9

    strict = cnn.solve(random_problem(2), Fake(steps=3, value=0.5), gap=None)
    loose = cnn.solve(random_problem(2), Loose(steps=3, value=0.5), gap=None)
    assert (strict.status, loose.status) == ("stalled", "solved")
    assert strict.gap == loose.gap
    assert "above its tolerance 1e-06" in strict.reason
    assert cnn.compare(random_problem(2), [Fake(steps=3, value=0.5)], gap=None).records[0]["reason"] == strict.reason


@pytest.mark.parametrize("gap", [None, 1e-6])
def test_iterations_are_the_steps_that_a_solver_takes(gap):
    """Both the clock and the target are out of reach, so that only the count can end the run."""
    solver = Fake(steps=1000, value=0.5)
    result = cnn.solve(random_problem(2), solver, gap=gap, iterations=7, time_limit=None)
    assert solver.steps == 1000 - 7
    assert result.iterations == 7
    assert result.status == "stalled"
    assert result.reason.startswith("stopped after 7 iterations at certified gap ")
    assert result.curve[-1][1] == result.objective
    fewer = Fake(steps=3, value=0.5)
    ended = cnn.solve(random_problem(2), fewer, gap=1e-6, iterations=7)
    assert "fake said: done" in ended.reason
    assert ended.iterations == 3


@pytest.mark.slow
def test_iterations_make_runs_equal_and_leave_one_shot_solvers_alone():
    problem = random_problem(5)
    first, second = (cnn.solve(problem, "bm_gd", gap=None, iterations=20, time_limit=None) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.factors, second.factors, strict=True))
    assert "20 iterations" in first.reason
    assert cnn.solve(problem, "cvxpy_clarabel", iterations=1).status == "gap_reached"
    rows = cnn.compare(problem, ["bm_gd", "fista"], gap=1e-12, iterations=2, time_limit=600).records
    assert [row["reason"].split(" at ")[0] for row in rows] == ["stopped after 2 iterations"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["bm_lbfgs[m=2]", "fista", "network_sgd"])
def test_with_a_limit_in_iterations_no_clock_decides_which_points_are_scored(monkeypatch, solver):
    """So that also the point at which the gap is reached, and the bound, are the same on every run."""
    problem = random_problem(5)

    def outcome(gap):
        result = cnn.solve(problem, solver, gap=gap, iterations=40, time_limit=None)
        return result.status, [point[1:] for point in result.curve]

    first = outcome(1e-12)
    target = first[1][len(first[1]) // 2][1]  # the gap of a point in the middle
    reached = outcome(target)
    clock = time.perf_counter
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: 1e4 * clock())
    assert outcome(1e-12) == first
    assert outcome(target) == reached
    assert len(first[1]) > 10
    assert reached[0] == "gap_reached"


def test_diverged_keeps_the_curve():
    class Diverging(Fake):
        name = "diverging"

        def run(self, callback):
            assert callback()
            self.Z = self.Z + np.nan
            while callback():
                time.sleep(0.001)

    result = cnn.solve(random_problem(3), Diverging(value=0.5), time_limit=600)
    assert result.status == "diverged"
    assert len(result.curve) == 1
    assert result.point is not None


def test_skipped_says_why():
    class Missing(Fake):
        name = "missing"
        requires = ("a_package_that_is_not_there",)

    class Picky(Fake):
        name = "picky"

        def skip(self, problem):
            return "only for Tuesdays"

    missing = cnn.solve(random_problem(4), Missing())
    assert missing.status == "skipped"
    assert "pip install a_package_that_is_not_there" in missing.reason
    assert missing.blocks is None
    assert missing.factors is None
    assert missing.network is None
    assert math.isnan(missing.objective)
    assert cnn.solve(random_problem(4), Picky()).reason == "only for Tuesdays"


def test_errors_inside_a_solver_are_raised():
    class Broken(Fake):
        name = "broken"

        def run(self, callback):
            raise ZeroDivisionError("inside")

    with pytest.raises(ZeroDivisionError, match="inside"):
        cnn.solve(random_problem(5), Broken())


def test_a_point_of_the_wrong_shape_is_an_error():
    class Wrong(Fake):
        name = "wrong"

        def get_result(self):
            return cnn.Point(blocks=np.zeros((1, 2, 3)))

    with pytest.raises(cnn.InputError, match="P x p x q"):
        cnn.solve(random_problem(6), Wrong())


def test_a_one_shot_solver_is_scored_once():
    class Once(Fake):
        name = "once"
        one_shot = True

        def run(self, callback):
            self.message = "optimal"
            callback()

    result = cnn.solve(random_problem(7), Once(value=0.5), gap=1e-6)
    assert result.status == "stalled"
    assert len(result.curve) == 1
    assert "above its tolerance 1e-06, above the target 1.0e-06; once said: optimal" in result.reason


def test_scores_are_passed_on():
    seen = []
    cnn.solve(random_problem(8), "fista", gap=1e-4, on_score=lambda seconds, score: seen.append((seconds, score.gap)))
    assert seen
    assert seen[-1][1] <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["fista", "bm_gd", "bm_lbfgs", "network_lbfgs", "network_adam", "network_sgd"])
def test_same_seed_same_numbers(solver):
    """The iterates, not only the answers: the objective after a fixed number of steps, to the last bit."""

    def objective_after(steps, seed):
        problem = random_problem(9)
        algorithm = cnn.SOLVERS.make(solver)
        algorithm.seed = seed
        algorithm.set_problem(problem)
        left = iter(range(steps))
        algorithm.run(lambda: next(left, None) is not None)
        return cnn.certify(problem, algorithm.get_result()).primal

    assert objective_after(25, 3) == objective_after(25, 3)
    if solver != "fista":
        assert objective_after(25, 3) != objective_after(25, 4)


@pytest.mark.parametrize(("cut", "status"), [(True, "time_limit"), (False, "stalled")])
def test_a_certificate_that_the_clock_cuts_short_is_no_stall_of_the_solver(monkeypatch, cut, status):
    """The target lies below what rounding allows, so that the solver ends by its own test above it."""
    certify = monitor.certify

    def certified(*arguments):
        if cut:
            cut_short()
        return certify(*arguments)

    monkeypatch.setattr(monitor, "certify", certified)
    X = np.random.default_rng(0).standard_normal((12, 2))
    problem = cnn.Problem(X, np.abs(X[:, 0]), activation="gated_relu", beta_fraction=0.1, patterns=5)
    result = cnn.solve(problem, "bm_newton", gap=1e-17)
    assert result.status == status
    assert ("the time limit cut short the last certificate" in result.reason) is cut
