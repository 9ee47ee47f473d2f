"""The solver "auto": what it runs, how one solver hands its point to the next, and what the result says."""

import math
import time

import numpy as np
import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.algorithms.automatic import SolverModel
from convexnn_bench.errors import InputError

SEEN = {}


class Zero(cnn.BaseSolver):
    """Ends after some callbacks at the zero network."""

    name, formulation, start_formulation = "ends", "convex", "convex"
    steps, size = 3, 0.0

    def set_problem(self, problem):
        self.problem = problem
        self.Z = np.full((problem.P, problem.p, problem.q), self.size)
        SEEN[self.name] = self.start, self.time_limit, self.gap, self.seed

    def run(self, callback):
        for _ in range(self.steps):
            if not callback():
                break

    def get_result(self):
        return cnn.Point(blocks=self.Z)


class Idles(Zero):
    name, steps = "idles", 10**9


class Worse(Zero):
    """A one-shot solver that ends with a worse point than the zero network."""

    name, one_shot, start_formulation, steps, size = "worse", True, None, 1, 10.0


class Broken(Zero):
    name = "broken"

    def run(self, callback):
        raise cnn.UnsupportedError("its step is not defined here")


class NotReady(Zero):
    name = "not_ready"

    def set_problem(self, problem):
        raise cnn.UnsupportedError("it does not compile")


class Diverges(Zero):
    name, size = "diverges", math.nan


class Changes(Zero):
    name = "changes"

    def run(self, callback):
        self.problem.Y[:] = 0.0
        callback()


CLASSES = {cls.name: cls for cls in (Zero, Idles, Worse, Broken, NotReady, Diverges, Changes)}


@pytest.fixture
def order(monkeypatch):
    """Let auto have the named solvers in this order, the first predicted at a millisecond."""
    SEEN.clear()
    monkeypatch.setattr(cnn.SOLVERS, "_classes", {**cnn.SOLVERS.classes, **CLASSES})

    def use(*names, seconds=1e-3):
        models = {
            name: SolverModel({"constant": math.log10(seconds) + 0.01 * index}) for index, name in enumerate(names)
        }
        monkeypatch.setattr("convexnn_bench.algorithms.automatic.choice.load_model", lambda: models)

    return use


@pytest.fixture
def problem():
    return random_problem(0, n=12, patterns=5)


# -- the choice ------------------------------------------------------------------------------------------------------


def test_auto_is_the_default_and_names_what_it_ran(order, problem):
    order("bm_newton", "fista", seconds=1e4)  # no busy machine makes a solver overdue
    result = cnn.solve(problem)
    assert result.status == "gap_reached"
    assert result.solver != "auto"
    assert result.solver in cnn.SOLVERS.names()
    assert f"; auto chose {result.solver}, " in result.reason
    assert "1e+04 s predicted at N = 12, p = 3, q = 2, P = 5 and beta = 0.1 beta_max, against" in result.reason
    assert set(result.parameters) == set(cnn.SOLVERS.get(result.solver).parameters)
    same = cnn.solve(problem, result.solver)
    assert result.objective == same.objective
    assert cnn.solve(problem, "auto", seed=1).solver == result.solver


def test_parameters_are_refused(problem):
    with pytest.raises(InputError, match="solver 'auto' has no parameter 'm'; it has: none"):
        cnn.solve(problem, m=2)
    with pytest.raises(InputError, match="solver 'auto' has no parameter 'single'"):
        cnn.solve(problem, "auto[single=false]")


def test_settings_reach_the_solver(order, problem):
    order("ends", "bm_newton")
    cnn.solve(problem, gap=1e-3, seed=7, time_limit=600.0)
    start, limit, gap, seed = SEEN["ends"]
    assert (start, gap, seed) == (None, 1e-3, 7)
    assert 0 < limit <= 600.0


def test_a_problem_that_no_solver_takes_is_skipped_with_all_reasons(monkeypatch, problem):
    monkeypatch.setattr(
        cnn.SOLVERS,
        "_classes",
        {"auto": cnn.SOLVERS.get("auto"), "column_generation": cnn.SOLVERS.get("column_generation")},
    )
    result = cnn.solve(problem)
    assert (result.solver, result.status) == ("auto", "skipped")
    assert "column_generation: column generation looks for ReLU patterns" in result.reason


# -- starts and iterations -------------------------------------------------------------------------------------------


def test_a_start_goes_to_the_first_solver_that_takes_one(order, problem):
    rough = cnn.solve(problem, "fista", gap=1e-2)
    order("worse", "ends", "bm_newton")
    result = cnn.solve(problem, start=rough)
    assert "worse" not in SEEN
    assert np.allclose(SEEN["ends"][0].blocks, rough.blocks)
    assert result.solver == "bm_newton"
    assert result.objective <= rough.objective


def test_a_start_within_the_gap_needs_no_solver(problem):
    optimum = cnn.solve(problem, "semismooth_newton", gap=1e-9)
    result = cnn.solve(problem, start=optimum)
    assert (result.status, result.solver, result.solve_seconds) == ("gap_reached", "auto", 0.0)
    assert "no solver ran" in result.reason


def test_iterations_repeat_and_leave_one_shot_solvers_out(order, problem):
    order("worse", "fista", "bm_newton")
    first, again = (cnn.solve(problem, iterations=5, gap=1e-12) for _ in range(2))
    assert "worse" not in SEEN
    assert first.solver == "fista"
    assert first.iterations == 5
    assert first.status == "stalled"
    assert np.array_equal(first.blocks, again.blocks)


# -- handing over ----------------------------------------------------------------------------------------------------


def test_where_a_solver_ends_above_the_gap_the_next_one_goes_on(order, problem):
    order("ends", "fista", "bm_newton")
    result = cnn.solve(problem, gap=1e-5)
    assert (result.status, result.solver) == ("gap_reached", "fista")
    assert "auto chose ends, 0.001 s predicted" in result.reason
    assert ", and then fista, since ends ended at gap " in result.reason
    seconds = [point[0] for point in result.curve]
    assert seconds == sorted(seconds)
    assert result.curve[-1][2] == result.gap <= 1e-5
    # the clock counts both solvers
    assert result.solve_seconds >= seconds[-1]


def test_a_solver_that_does_not_come_closer_is_overtaken(order, problem, monkeypatch):
    monkeypatch.setattr("convexnn_bench.algorithms.automatic.stall.LEAST_SECONDS", 0.01)
    order("idles", "bm_newton")
    result = cnn.solve(problem, time_limit=600.0)
    assert (result.status, result.solver) == ("gap_reached", "bm_newton")
    assert ", since idles slowed down at gap " in result.reason


def test_the_next_solver_starts_at_the_last_point_with_its_bound(order, problem):
    order("fista", "ends")
    short = type("Short", (cnn.SOLVERS.get("fista"),), {"name": "fista"})
    run = short.run

    def few(self, callback):
        calls = iter(range(4))
        run(self, lambda: callback() and next(calls, None) is not None)

    short.run = few
    cnn.SOLVERS.classes["fista"] = short
    result = cnn.solve(problem, gap=1e-9)
    point, *_ = SEEN["ends"]
    assert point.formulation == "convex"
    assert bool((point.blocks != 0).any())
    # the zero network of the second solver is worse, so that the point of the first one is the result
    assert result.solver == "fista"
    assert np.allclose(result.blocks, point.blocks)
    assert "the best point is that of fista" in result.reason
    objectives = [objective for _, objective, _ in result.curve]
    assert result.objective == min(objectives) < objectives[0]


def test_a_worse_one_shot_point_does_not_replace_the_best_one(order, problem):
    order("ends", "worse")
    result = cnn.solve(problem)
    assert (result.status, result.solver) == ("stalled", "ends")
    assert not result.blocks.any()
    assert [round(value, 6) for _, value, _ in result.curve][-1] == pytest.approx(result.objective, abs=1e-5)


def test_errors_of_a_solver_end_its_part_only(order, problem):
    order("not_ready", "broken", "diverges", "bm_newton")
    result = cnn.solve(problem)
    assert (result.status, result.solver) == ("gap_reached", "bm_newton")
    for words in (
        "not_ready could not be set up (it does not compile)",
        "broken failed (its step is not defined here)",
        "diverges failed (the point's entries are not finite",
    ):
        assert words in result.reason


def test_the_error_of_the_last_solver_is_raised_unless_there_is_a_point(order, problem):
    order("broken")
    with pytest.raises(cnn.UnsupportedError, match="its step is not defined here"):
        cnn.solve(problem)
    order("broken", "not_ready")
    with pytest.raises(cnn.UnsupportedError, match="it does not compile"):
        cnn.solve(problem)
    for last in ("broken", "not_ready", "diverges"):
        order("ends", last)
        result = cnn.solve(problem)
        assert (result.solver, result.status) == ("ends", "stalled")


def test_a_solver_that_changes_the_problem_is_no_part_of_a_relay(order, problem):
    order("changes", "bm_newton")
    with pytest.raises(cnn.ConvexNNError, match=r"changed the problem"):
        cnn.solve(problem)


def test_without_a_gap_the_first_solver_runs_to_its_own_end(order, problem):
    order("ends", "bm_newton")
    assert cnn.solve(problem, gap=None).solver == "ends"


# -- the time limit --------------------------------------------------------------------------------------------------


def test_all_solvers_share_one_time_limit(order, problem, monkeypatch):
    """On a clock that goes a second further with each step."""
    real, added = time.perf_counter, 0.0
    steps = {"ends": 0, "idles": 0}

    def ticking(cls):
        class Ticks(cls):
            def run(self, callback):
                nonlocal added
                for _ in range(self.steps):
                    added += 1.0
                    steps[self.name] += 1
                    if not callback():
                        break

        return Ticks

    order("ends", "idles", seconds=1e4)
    for name in steps:
        cnn.SOLVERS.classes[name] = ticking(CLASSES[name])
    monkeypatch.setattr(time, "perf_counter", lambda: real() + added)
    result = cnn.solve(problem, time_limit=600.0)
    assert result.status == "time_limit"
    assert steps["ends"] == 3
    assert sum(steps.values()) == pytest.approx(600, abs=5)
    assert "600 s passed" in result.reason
    assert "ends ended at gap" in result.reason


# -- where else auto runs --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compare_records_what_was_chosen(problem):
    table = cnn.compare(problem, ["auto", "fista"], iterations=30, gap=1e-2)
    auto, fista = table.records
    assert (auto["solver"], auto["solver_name"]) == ("auto", "auto")
    assert auto["chosen_solver"] == table.results["auto"].solver != "auto"
    assert auto["formulation"] == cnn.SOLVERS.get(auto["chosen_solver"]).formulation
    assert fista["chosen_solver"] == "fista"


@pytest.mark.process
@pytest.mark.slow
def test_a_cell_records_what_was_chosen(tmp_path):
    from convexnn_bench.harness.campaign import Campaign
    from convexnn_bench.harness.cell_run import run_cell
    from convexnn_bench.harness.plan import plan

    (cell,) = plan(Campaign(datasets=["spiral[n=12]"], solvers=["auto"]))
    record = run_cell(cell)
    assert record["status"] == "gap_reached"
    assert (record["solver"], record["solver_name"]) == ("auto", "auto")
    assert record["chosen_solver"] in cnn.SOLVERS.names()
    assert record["formulation"] == cnn.SOLVERS.get(record["chosen_solver"]).formulation
    assert f"auto chose {record['chosen_solver']}" in record["reason"]


@pytest.mark.slow
def test_a_path_by_auto_holds_at_every_weight_decay():
    problem = random_problem(0, n=12, c=1, patterns=5)
    path = cnn.path(problem, smallest=0.05, tolerance=1e-2)
    assert path.status == "gap_reached"
    assert {result.solver for result in path.results} - {"auto"} <= set(cnn.SOLVERS.names())
    low, high = path.enclosure(0.1 * problem.beta_max)
    exact = cnn.solve(problem.with_beta(fraction=0.1), "cvxpy_clarabel").objective
    assert low <= exact * (1 + 1e-7)
    assert exact <= high * (1 + 1e-7)


@pytest.mark.slow
def test_the_estimators_choose_by_themselves():
    X = np.random.default_rng(0).standard_normal((30, 3))
    y = X[:, 0] * X[:, 1] > 0
    fitted = cnn.ConvexMLPClassifier(patterns=10, random_state=0, beta_fraction=0.1).fit(X, y)
    assert fitted.get_params()["solver"] == "auto"
    assert fitted.certificate_.gap <= 1e-4
    assert fitted.result_.solver != "auto"
    warm = cnn.ConvexMLPClassifier(patterns=10, random_state=0, beta_fraction=0.1, warm_start=True).fit(X, y).fit(X, y)
    assert warm.n_iter_ == 1


def test_a_problem_can_be_set_up_without_asking_skip():
    """As harnesses do that ask another instance whether it skips the problem."""
    made = cnn.SOLVERS.make("auto")
    made.gap = 1e-6
    made.set_problem(random_problem(1))
    made.run(lambda: True)
    assert cnn.certify(random_problem(1), made.get_result()).gap < 1e-3
