"""Solvers of other packages as candidates of "auto": rivals with parameters, and MOSEK, on stand-ins for both."""

import math
import sys

import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.algorithms.automatic import Request, SolverModel, choose, load_model
from convexnn_bench.solver import Number

REQUEST = Request(gap=1e-6, time_limit=600.0)
SPEC = "outside[tolerance=1e-09]"


class Outside(cnn.BaseSolver):
    """A stand-in for a rival: it solves once, with a tolerance of its own."""

    name, formulation, one_shot = "outside", "convex", True
    parameters = {"tolerance": [1e-2]}
    allowed = {"tolerance": Number()}
    missing = None

    @classmethod
    def unavailable(cls):
        return cls.missing

    def skip(self, problem):
        return "it has one output only" if problem.q > 1 else None

    def set_problem(self, problem):
        self.problem = problem

    def run(self, callback):
        self.Z = cnn.solve(self.problem, "semismooth_newton", gap=self.tolerance).blocks
        callback()

    def get_result(self):
        return cnn.Point(blocks=self.Z)


@pytest.fixture
def outside(monkeypatch):
    monkeypatch.setattr(cnn.SOLVERS, "_classes", {**cnn.SOLVERS.classes, "outside": Outside})

    def predict(**seconds):
        models = {name: SolverModel({"constant": math.log10(value)}) for name, value in seconds.items()}
        if "outside" in models:
            models[SPEC] = models.pop("outside")
        monkeypatch.setattr("convexnn_bench.algorithms.automatic.choice.load_model", lambda: models)

    return predict


def test_a_rival_that_is_predicted_to_be_the_quickest_runs_with_its_parameters(outside):
    outside(outside=0.1, bm_newton=1e3)
    result = cnn.solve(random_problem(0, c=1), gap=1e-6)
    assert (result.status, result.solver, result.parameters) == ("gap_reached", "outside", {"tolerance": 1e-9})
    assert f"auto chose {SPEC}, 0.1 s predicted at " in result.reason


def test_a_rival_that_does_not_reach_the_gap_hands_its_point_on(outside, monkeypatch):
    monkeypatch.setattr(f"{__name__}.SPEC", "outside[tolerance=0.1]")
    outside(outside=0.1, fista=1e3)
    result = cnn.solve(random_problem(0, c=1), gap=1e-6)
    assert (result.status, result.solver) == ("gap_reached", "fista")
    assert ", and then fista, since outside[tolerance=0.1] ended at gap " in result.reason


def test_a_rival_is_left_out_where_it_is_missing_skips_or_is_not_the_quickest(outside, monkeypatch):
    outside(outside=0.1, bm_newton=1.0)
    several, one = random_problem(0, c=2), random_problem(0, c=1)
    assert [found.name for found in choose(one, REQUEST)[0]] == [SPEC, "bm_newton"]
    candidates, refused = choose(several, REQUEST)
    assert [found.name for found in candidates] == ["bm_newton"]
    assert refused == {SPEC: "it has one output only"}
    monkeypatch.setattr(Outside, "missing", "no environment with outside")
    assert choose(one, REQUEST)[1] == {SPEC: "no environment with outside"}
    monkeypatch.setattr(Outside, "missing", None)
    outside(outside=1.0, bm_newton=0.1)
    assert choose(one, REQUEST)[0][0].name == "bm_newton"


def test_the_start_of_a_process_counts_at_each_solve():
    """A rival needs no package in this process, so that none can be loaded already."""
    from convexnn_bench.algorithms.automatic.choice import loading

    model = SolverModel({"constant": -1.0}, loading=2.0)
    assert loading(cnn.SOLVERS.make("rival_celer"), model) == 2.0


def test_mosek_is_a_candidate_where_it_has_a_licence(monkeypatch):
    """The stand-in is the class itself with a package and a licence that it believes to have."""
    problem, mosek = random_problem(0, c=1), cnn.SOLVERS.get("cvxpy_mosek")
    assert load_model()["cvxpy_mosek"].coefficients == load_model()["cvxpy_clarabel"].coefficients
    monkeypatch.setattr(mosek, "unavailable", classmethod(lambda cls: "no licence"))
    assert choose(problem, REQUEST)[1]["cvxpy_mosek"] == "no licence"
    monkeypatch.setattr(mosek, "unavailable", classmethod(lambda cls: None))
    for package in ("cvxpy", "clarabel", "mosek"):
        monkeypatch.setitem(sys.modules, package, sys)
    times = {found.name: found.seconds for found in choose(problem, REQUEST)[0]}
    assert times["cvxpy_mosek"] == times["cvxpy_clarabel"] < math.inf
    quicker = {**load_model(), "cvxpy_mosek": SolverModel({"constant": -3.0})}
    assert choose(problem, REQUEST, quicker)[0][0].name == "cvxpy_mosek"
