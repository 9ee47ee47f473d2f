"""cvxpy_qoco and SCS's linear solvers: the same optimum as Clarabel, and one line where they cannot run.

QOCO is an extra (pip install 'convexnn-bench[qoco]'). Its runs skip without it, and what it skips is tested anyway.
"""

import numpy as np
import pytest
from problems import combinations, random_problem

import convexnn_bench as cnn

qoco = cnn.SOLVERS.get("cvxpy_qoco")
needs_qoco = pytest.mark.skipif(qoco.unavailable() is not None, reason=str(qoco.unavailable()))


@needs_qoco
@pytest.mark.slow
@pytest.mark.parametrize(("loss", "activation"), combinations(), ids=lambda value: value)
def test_qoco_reaches_the_optimum_of_clarabel_or_says_which_cones_it_lacks(loss, activation):
    problem = random_problem(4, loss, activation, n=14, d=4, c=1, patterns=6, beta_fraction=0.03)
    reason = cnn.SOLVERS.make("cvxpy_qoco").skip(problem)
    assert (reason is not None) == (loss in ("logistic", "cross_entropy"))
    if reason is None:
        result = cnn.solve(problem, "cvxpy_qoco", gap=None)
        exact = cnn.solve(problem, "cvxpy_clarabel", gap=None)
        assert result.status == "solved"
        assert result.gap <= 1e-7
        assert result.certificate.dual <= exact.objective
        assert result.objective == pytest.approx(exact.objective, rel=1e-7)


@needs_qoco
def test_a_time_limit_becomes_a_number_of_iterations():
    problem = random_problem(1, n=60, d=6, c=1, patterns=15)
    result = cnn.solve(problem, "cvxpy_qoco", time_limit=1e-3, gap=None)
    assert result.status == "time_limit"
    assert result.gap > 1e-8
    solver = cnn.SOLVERS.make("cvxpy_qoco", max_iter=3)
    cnn.solve(problem, solver, gap=None)
    assert ", 3 iterations" in solver.message


@pytest.mark.parametrize(
    ("loss", "activation", "d", "c", "words"),
    [
        ("squared", "gated_relu", 3, 2, "blocks of 3 x 2 need matrix inequalities"),
        ("squared", "relu", 1, 2, "blocks of 1 x 2 need matrix inequalities"),
        ("logistic", "gated_relu", 3, 1, "the loss logistic needs exponential cones"),
    ],
)
def test_programs_with_other_cones_are_skipped_with_the_reason(loss, activation, d, c, words):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((8, d)), np.sign(rng.standard_normal((8, c)))
    problem = cnn.Problem(X, Y, loss=loss, activation=activation, beta=0.1, patterns=2)
    reason = qoco().skip(problem)
    assert reason.startswith("QOCO has second-order cones only, and ")
    assert words in reason


def test_an_absent_package_is_one_line(monkeypatch):
    monkeypatch.setattr(qoco, "requires", ("cvxpy", "no_such_package"))
    assert qoco.unavailable() == "package no_such_package is not installed: pip install no_such_package"


@pytest.mark.slow
@pytest.mark.parametrize("linear_solver", ["qdldl", "cpu_dense", "cpu_indirect"])
def test_linear_solvers_of_scs_reach_one_optimum(linear_solver):
    problem = random_problem(1, n=30, d=4, c=1, patterns=8, beta_fraction=0.05)
    solver = cnn.SOLVERS.make("cvxpy_scs", linear_solver=linear_solver)
    if solver.skip(problem) is not None:
        pytest.skip(solver.skip(problem))
    result = cnn.solve(problem, solver, gap=None, time_limit=600)
    exact = cnn.solve(problem, "cvxpy_clarabel", gap=None)
    assert result.gap <= 1e-5
    assert result.objective == pytest.approx(exact.objective, rel=1e-5)


def test_a_build_of_scs_without_a_linear_solver_is_skipped_in_one_line(monkeypatch):
    problem = random_problem(1, n=30, d=4, c=1, patterns=8)
    solver = cnn.SOLVERS.make("cvxpy_scs", linear_solver="cudss")
    # the file of a solver is loaded under a name of the registry's own
    monkeypatch.setitem(type(solver).skip.__globals__, "importable", lambda name: False)
    reason = solver.skip(problem)
    assert "has no linear solver cudss" in reason
    assert "\n" not in reason
    assert cnn.SOLVERS.make("cvxpy_scs").skip(problem) is None
