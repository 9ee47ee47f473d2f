"""Pickles and deep copies of problems, results, certificates, comparisons and reports."""

import copy
import pickle

import numpy as np
import pytest
import torch
from kept import CASES, check_kept, outcome, same, solved
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.running import monitor


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_result_survives_pickle_and_deepcopy(case):
    result = solved(case)
    check_kept(result, pickle.loads(pickle.dumps(result)))
    check_kept(result, copy.deepcopy(result))


def test_a_problem_is_pickled_without_what_is_computed_again():
    """The bytes are those of the data, however much was computed from them; a copy goes on to be solved."""
    problem = random_problem(2, activation="relu", n=30, d=4, patterns=20)
    before = len(pickle.dumps(problem))
    result = cnn.solve(problem, "bm_newton", iterations=3)
    assert problem.cones is not None
    assert problem.all_patterns is not None
    assert len(pickle.dumps(problem)) <= before + 100  # beta_max, a number
    again = pickle.loads(pickle.dumps(problem))
    assert same(outcome(cnn.solve(again, "bm_newton", iterations=3)), outcome(result))


def test_a_shallow_copy_shares_the_arrays():
    problem = random_problem(1)
    other = copy.copy(problem)
    assert other.X is problem.X
    assert other.operator() is problem.operator()


def test_a_result_without_a_point_is_pickled():
    """A solver that skips its problem, and one whose point is not finite."""
    skipped = cnn.solve(random_problem(1), "column_generation")
    assert skipped.status == "skipped"
    again = pickle.loads(pickle.dumps(skipped))
    assert (again.status, again.reason, again.point, again.certificate) == ("skipped", skipped.reason, None, None)
    assert np.isnan(again.objective)


def test_a_comparison_is_pickled():
    problem = random_problem(3)
    table = cnn.compare(problem, ["bm_lbfgs[m=2]", "fista", "column_generation"], iterations=3)
    for again in (pickle.loads(pickle.dumps(table)), copy.deepcopy(table)):
        assert repr(again) == repr(table)
        assert again.to_frame().equals(table.to_frame())
        assert list(again.results) == list(table.results)
        for name, result in table.results.items():
            if result.point is not None:
                check_kept(result, again.results[name])
        assert again.results["fista"].problem is again.problem  # one problem, as before


@pytest.mark.parametrize("bias", [False, True])
def test_a_report_on_a_module_is_pickled(bias):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4, bias), torch.nn.ReLU(), torch.nn.Linear(4, 2, bias))
    rng = np.random.default_rng(0)
    report = cnn.certify_module(module, rng.standard_normal((8, 3)), rng.integers(2, size=8), "cross_entropy", 0.1)
    for again in (pickle.loads(pickle.dumps(report)), copy.deepcopy(report)):
        assert again.to_dict() == report.to_dict()
        assert str(again) == str(report)
        assert same(again.certificate, report.certificate)
        assert repr(again.problem) == repr(report.problem)


def test_points_in_odd_places_of_memory_are_certified_alike():
    """Arrays that begin at odd multiples of eight bytes, as numpy's own may: the copies of a point are aligned."""
    problem = random_problem(1, n=40, d=7, patterns=12)
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((problem.P, problem.p, problem.q))
    for offset in (1, 3):
        memory = np.empty(Z.size + offset)
        shifted = memory[offset:].reshape(Z.shape)
        shifted[...] = Z
        point = pickle.loads(pickle.dumps(cnn.Point(blocks=shifted)))
        assert point.blocks.ctypes.data % 64 == 0
        assert monitor.Point.copy(cnn.Point(blocks=shifted)).blocks.ctypes.data % 64 == 0
        assert same(cnn.certify(problem, point), cnn.certify(problem, cnn.Point(blocks=Z).copy()))
