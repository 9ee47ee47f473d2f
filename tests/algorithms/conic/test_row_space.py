"""Conic programs of wide data are stated in the coordinates of the row space, and their points are mapped back."""

import numpy as np
import pytest
from problems import targets

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic.program import build_program
from convexnn_bench.certificates import certify


def wide(activation: str, c: int, loss: str = "squared", n: int = 6, d: int = 14) -> "cnn.Problem":
    rng = np.random.default_rng(0)
    Y = targets(loss, n, c, rng)
    return cnn.Problem(
        rng.standard_normal((n, d)), Y, activation=activation, loss=loss, beta_fraction=0.1, patterns=3,
        output_bias="free" if loss == "logistic" else None, sample_weight=np.arange(1.0, n + 1),
    )  # fmt: skip


CASES = [("linear", 2, "huber"), ("gated_relu", 1, "logistic"), ("gated_relu", 3, "squared"), ("relu", 1, "squared")]


@pytest.mark.parametrize(("activation", "c", "loss"), [*CASES, ("relu", 2, "squared")])
def test_the_problem_in_the_row_space_has_the_same_objective_cones_and_norms(activation, c, loss):
    problem = wide(activation, c, loss)
    small, Q = problem.in_row_space()
    assert small.p == problem.N == small.N
    np.testing.assert_allclose(Q.T @ Q, np.eye(6), atol=1e-14)
    np.testing.assert_allclose(small.Phi @ Q.T, problem.Phi, atol=1e-14)
    assert small.beta_max == pytest.approx(problem.beta_max, rel=1e-6 if problem.vector_cone else 1e-12)
    U, V = np.random.default_rng(1).standard_normal((small.P, 6, 2)), np.ones((small.P, small.q, 2))
    if problem.cones is not None:
        U = small.cones.project(U)
        assert problem.cones.violation(Q @ U) <= 1e-12
    assert small.factored_objective(U, V) == pytest.approx(problem.factored_objective(Q @ U, V), rel=1e-13)


def test_only_wide_data_of_networks_without_pooling_are_reduced():
    tall = wide("relu", 1, n=14, d=14)
    assert tall.in_row_space() == (tall, None)
    rng = np.random.default_rng(2)
    images = cnn.Problem(
        rng.standard_normal((2, 1, 4, 4)), rng.standard_normal(2), cnn.CNN(4), beta_fraction=0.1, patterns=2
    )
    assert images.in_row_space() == (images, None)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "c", "loss"), CASES)
def test_the_point_is_the_optimum_of_the_wide_problem(activation, c, loss):
    pytest.importorskip("clarabel")
    problem = wide(activation, c, loss)
    result = cnn.solve(problem, "cvxpy_clarabel", gap=None, time_limit=None, show_progress=False)
    assert result.certificate.gap <= 1e-7
    assert result.certificate.infeasibility == 0.0
    program = build_program(problem)  # in all 14 coordinates
    program.program.solve(solver="CLARABEL", canon_backend="SCIPY")
    assert result.objective == pytest.approx(certify(problem, program.point()).primal, rel=1e-6)


@pytest.mark.slow
def test_vector_outputs_and_column_generation_take_the_same_way():
    pytest.importorskip("clarabel")
    problem = wide("relu", 2, d=9, n=4)
    result = cnn.solve(problem, "cvxpy_clarabel", gap=None, time_limit=None, show_progress=False)
    assert result.point.cone_factors[0].shape[:2] == (problem.P, 9)
    assert result.certificate.infeasibility == 0.0
    assert 0 <= result.certificate.gap <= 0.1
    problem = wide("relu", 1, d=300)
    result = cnn.solve(problem, "column_generation", gap=1e-6, time_limit=600, show_progress=False)
    assert result.certificate.gap <= 1e-6


def test_the_program_has_as_many_variables_as_the_row_space_has_coordinates():
    pytest.importorskip("clarabel")
    problem = wide("relu", 1, d=300)
    solver = cnn.SOLVERS.make("cvxpy_clarabel")
    solver.set_problem(problem)
    assert sum(variable.size for variable in solver.conic.program.variables()) == 6 + 2 * problem.P * 6
