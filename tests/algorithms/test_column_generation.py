"""Column generation: against the program with every pattern, and without what it would like to have."""

import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.algorithms.column_generation import PatternSet
from convexnn_bench.norms.all_patterns.ascent import attained
from convexnn_bench.norms.scalar_outputs import dual_norms


def problem_of(n: int, d: int, patterns: object, seed: int = 0, loss: str = "squared") -> cnn.Problem:
    rng = np.random.default_rng(seed)
    Y = np.sign(rng.standard_normal(n)) if loss == "logistic" else rng.standard_normal(n)
    return cnn.Problem(
        rng.standard_normal((n, d)), Y, activation="relu", loss=loss, beta_fraction=0.1, patterns=patterns
    )


@pytest.mark.slow
def test_the_working_set_stays_small():
    pytest.importorskip("clarabel")
    solver = cnn.SOLVERS.make("column_generation")
    every = problem_of(20, 3, "all", seed=2)
    assert cnn.solve(every, solver, gap=1e-8, show_progress=False).certificate.gap <= 1e-8
    assert 1 <= solver.method.patterns.masks.shape[1] < every.P / 4


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_sampled_patterns_end_at_the_optimum_over_all(loss):
    pytest.importorskip("clarabel")
    few = problem_of(16, 3, 4, loss=loss)
    every = cnn.Problem(few.X, few.Y, activation="relu", loss=loss, beta=few.beta)
    found = cnn.solve(few, "column_generation", gap=1e-8, show_progress=False)
    exact = cnn.solve(every, "cvxpy_clarabel", gap=None, show_progress=False)
    assert found.certificate.scope == "complete"
    assert found.certificate.gap <= 1e-8
    assert found.objective == pytest.approx(exact.objective, rel=1e-7)
    assert found.certificate.dual <= exact.objective * (1 + 1e-12)


@pytest.mark.slow
def test_iterative_masters_stand_in_for_the_conic_solver(monkeypatch):
    monkeypatch.setattr(cnn.SOLVERS.get("column_generation"), "masters", {False: ("fista",), True: ("bm_lbfgs",)})
    problem = problem_of(10, 2, "all", seed=3)
    found = cnn.solve(problem, "column_generation", gap=1e-5, time_limit=600, show_progress=False)
    assert found.certificate.gap <= 1e-5


def test_priced_patterns_are_attained_new_and_above_beta():
    problem = problem_of(20, 3, 5, seed=1)
    patterns, operator = PatternSet(problem, 0), problem.operator()
    Lambda = problem.loss.gradient(0 * operator.Y, operator.Y)
    R = operator.second_layer_adjoint(Lambda).numpy()
    first = patterns.price(Lambda, problem.beta, 6)
    patterns.add(first)
    second = patterns.price(Lambda, problem.beta, 6)
    together = np.hstack([first, second])
    assert len({mask.tobytes() for mask in together.T}) == together.shape[1] >= 2
    for mask in together.T:
        cones = cnn.Problem(problem.X, problem.Y, activation="relu", beta=1.0, patterns=mask[:, None]).cones
        direction = cones.interior(0)
        assert (problem.Phi @ direction >= 0).tolist() == mask.tolist()
        assert dual_norms(cones, (problem.Phi.T @ (mask[:, None] * R)).T)[0][0] >= 0.99 * problem.beta
        assert attained(problem.Phi, R, direction) <= problem.all_patterns.bound(R).value


@pytest.mark.slow
def test_other_activations_are_passed_over_with_the_reason():
    problem = cnn.Problem(np.eye(3), np.ones(3), activation="gated_relu", beta=0.1)
    assert "ReLU patterns" in cnn.solve(problem, "column_generation").reason
