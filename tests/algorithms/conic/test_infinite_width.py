"""The semidefinite relaxation of the infinite-width program: bounds below exact optima, and a second statement."""

import cvxpy as cp
import numpy as np
import pytest
from scipy.linalg import null_space

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic import infinite_width_program

SETS = [(seed, loss, c) for seed in range(2) for loss, c in (("squared", 1), ("squared", 2), ("logistic", 1))]


def relu_problem(seed, loss, c, n=6, beta_fraction=0.1):
    rng = np.random.default_rng(seed)
    Y = rng.standard_normal((n, c))
    Y = Y if loss == "squared" else np.sign(Y)
    options = {"activation": "relu", "loss": loss, "patterns": "all", "beta_fraction": beta_fraction}
    return cnn.Problem(rng.standard_normal((n, 2)), Y, **options)


def value_of(problem):
    conic = infinite_width_program(problem)
    conic.program.solve(solver="CLARABEL")
    return float(conic.remark(conic.point()).split("value is ")[1].split(",")[0])


def textbook(problem):
    """The relaxation as in the paper, in the 2 n + d + c coordinates (a, b, u, v).

    Its M W M^T = 0 leaves no positive definite W, so that solvers end inaccurate. A basis of the null space of M, found
    numerically, stands for it.
    """
    X, n, d, c = problem.X, problem.n_out, problem.p, problem.c
    basis = null_space(np.hstack([-np.eye(n), np.eye(n), X, np.zeros((n, c))]))
    W = basis @ cp.Variable((basis.shape[1], basis.shape[1]), PSD=True) @ basis.T
    loss = 0.5 * cp.sum_squares(W[:n, 2 * n + d :] - problem.Y)
    decay = 0.5 * problem.beta * cp.trace(W[2 * n :, 2 * n :])
    constraints = [cp.diag(W[:n, n : 2 * n]) == 0, W[: 2 * n, : 2 * n] >= 0]
    return cp.Problem(cp.Minimize(loss + decay), constraints).solve(solver="CLARABEL")


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "loss", "c"), SETS)
def test_the_bound_is_never_above_the_optimum(seed, loss, c):
    problem = relu_problem(seed, loss, c)
    exact = cnn.solve(problem, "cvxpy_clarabel", gap=None)
    result = cnn.solve(problem, "cvxpy_infinite_width", gap=None)
    value = value_of(problem)
    assert exact.gap <= 1e-6
    assert 0 < value <= exact.objective * (1 + 1e-6)
    # our own bound from the relaxation's multiplier: at least its value, up to the solver's error
    assert value * (1 - 1e-5) <= result.certificate.dual <= exact.objective


@pytest.mark.slow
def test_the_value_is_that_of_the_paper_in_its_own_coordinates():
    for seed in range(2):
        problem = relu_problem(seed, "squared", 2, n=4)
        assert value_of(problem) == pytest.approx(textbook(problem), rel=1e-5)


@pytest.mark.parametrize("activation", ["gated_relu", "linear"])
def test_other_activations_are_skipped_in_one_line(activation):
    problem = cnn.Problem(np.eye(3), np.ones(3), activation=activation, beta=0.1)
    reason = cnn.SOLVERS.make("cvxpy_infinite_width").skip(problem)
    assert activation in reason
    assert "\n" not in reason


def test_a_program_that_is_too_large_is_not_started():
    """One factorisation at n = 3000 takes days."""
    problem = cnn.Problem(np.ones((3000, 1)), np.ones(3000), activation="relu", beta=0.1, patterns=2)
    result = cnn.solve(problem, "cvxpy_infinite_width", time_limit=1.0)
    assert result.status == "time_limit"
    assert "to compile it and factorise" in result.reason
