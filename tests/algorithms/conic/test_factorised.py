"""bm_ipopt and bm_uno, the Burer-Monteiro program in CVXPY, against the exact optimum.

Both solvers are extras (pip install 'convexnn-bench[nonlinear]'). Their runs skip without them; the program is tested
anyway.
"""

import numpy as np
import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic.factorised import factorised_program

NAMES = ("bm_ipopt", "bm_uno")
MISSING = {name: cnn.SOLVERS.get(name).unavailable() for name in NAMES}
INSTALLED = [pytest.param(n, marks=pytest.mark.skipif(MISSING[n] is not None, reason=str(MISSING[n]))) for n in NAMES]


def of(loss, activation, c):
    return random_problem(4, loss, activation, n=14, d=3, c=c, patterns=6, beta_fraction=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize(
    ("loss", "activation", "c"),
    [
        ("squared", "gated_relu", 1),
        ("squared", "gated_relu", 2),
        ("squared", "linear", 2),
        ("logistic", "gated_relu", 1),
        ("squared_hinge", "gated_relu", 1),
        ("huber", "gated_relu", 1),
        ("squared", "relu", 1),
    ],
)
def test_the_optimum_is_that_of_the_convex_program(name, loss, activation, c):
    """With the default number of columns no stationary point of second order is spurious without a cone."""
    problem = of(loss, activation, c)
    result = cnn.solve(problem, name, gap=None, time_limit=600)
    exact = cnn.solve(problem, "cvxpy_clarabel", gap=None)
    assert result.status == "solved"
    assert result.gap <= 1e-6
    assert result.objective == pytest.approx(exact.objective, rel=1e-6)
    assert result.certificate.dual <= exact.objective * (1 + 1e-12)


@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
def test_the_program_at_its_start_has_the_value_of_the_factored_objective(activation, c):
    """Objective, link and cones of the CVXPY program against our own functions at a random point."""
    problem, rng = of("squared", activation, c), np.random.default_rng(3)
    m = 2
    U, V = rng.standard_normal((problem.P, problem.p, m)), rng.standard_normal((problem.P, problem.q, m))
    if problem.has_cone:
        U = np.asarray(problem.cones.project(U))
    program, read = factorised_program(problem, U, V)
    assert program.is_dnlp()
    assert program.objective.value == pytest.approx(problem.factored_objective(U, V), rel=1e-12)
    for constraint in program.constraints:
        assert np.max(constraint.violation(), initial=0.0) <= 1e-9
    left, right = read().factors
    np.testing.assert_allclose(left, U, atol=1e-9)
    np.testing.assert_array_equal(right, V)


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_package_is_one_line(name, monkeypatch):
    cls = cnn.SOLVERS.get(name)
    monkeypatch.setattr(cls, "requires", ("cvxpy", "no_such_package"))
    assert "no_such_package" in cls.unavailable()
    assert "\n" not in cls.unavailable()


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_without_derivatives_in_cvxpy_is_skipped_in_one_line(name):
    reason = cnn.SOLVERS.make(name).skip(of("cross_entropy", "gated_relu", 3))
    assert "cross_entropy" in reason
    assert "\n" not in reason


@pytest.mark.parametrize("name", NAMES)
def test_options_silence_the_solver_and_keep_its_limit(name):
    solver = cnn.SOLVERS.make(name)
    solver.time_limit = 10.0
    assert 9.0 in solver.options().values()


@pytest.mark.parametrize("name", INSTALLED)
def test_iterations_that_run_out_leave_a_point(name, capfd):
    result = cnn.solve(of("squared", "gated_relu", 2), name, max_iter=2, gap=None, show_progress=False)
    assert np.isfinite(result.gap)
    assert result.gap > 1e-6
    assert capfd.readouterr().out == ""
