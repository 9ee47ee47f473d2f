"""Paths: the bounds at all weight decays against exact solves, the network at any of them, limits and refusals."""

import pickle
import time
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.certificates import line, mixed, witness
from convexnn_bench.regularisation import search
from convexnn_bench.regularisation.mixing import mixed_point

EXACT = 1e-9  # gap of the solves that a path is compared with


def betas_in(path, count, seed=0):
    low, high = np.log(path.interval)
    return np.exp(np.random.default_rng(seed).uniform(low, high, count))


def check_against_exact_solves(path, solver, count):
    """The enclosure of every beta holds an exact optimum, is as narrow as promised, and `at` has a network there."""
    assert path.status == "gap_reached"
    assert path.gap <= path.tolerance
    for beta in betas_in(path, count):
        low, high = path.enclosure(beta)
        exact = cnn.solve(path.problem.with_beta(beta), solver, gap=EXACT).certificate
        assert low <= exact.primal
        assert exact.dual <= high
        assert (high - low) / low <= path.gap
        there = path.at(beta)
        assert there.problem.beta == beta
        assert there.certificate.scope == path.scope
        assert low <= there.certificate.dual <= exact.primal
        assert exact.dual <= there.objective <= high * (1 + 1e-12)
        assert there.gap <= path.gap


def attention_problem():
    rng = np.random.default_rng(3)
    return cnn.Problem(
        rng.standard_normal((6, 3, 2)), rng.standard_normal((6, 1)), cnn.Attention("mean"), "linear", beta=0.1
    )


PROBLEMS = {
    "linear, three outputs": (lambda: random_problem(activation="linear", c=3), "bm_newton", 1e-3),
    "gated, cross-entropy": (lambda: random_problem(loss="cross_entropy"), "semismooth_newton", 1e-2),
    "ReLU, one output": (lambda: random_problem(activation="relu", n=7, d=2, patterns="all"), "bm_newton", 2e-2),
    "attention": (attention_problem, "bm_newton", 1e-2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_enclosure_at_random_betas_holds_the_exact_optimum(name):
    make, solver, tolerance = PROBLEMS[name]
    check_against_exact_solves(cnn.path(make(), 1e-2, tolerance, solver), solver, 5)


@pytest.mark.slow
@pytest.mark.parametrize("x", [1.0, 0.3, 1e3])
def test_bounds_are_on_the_right_side_of_a_closed_form_in_exact_arithmetic(x):
    """One sample and one weight: p*(beta) = beta/x - beta^2/(2 x^2) for beta <= x, to the last digit."""
    path = cnn.path(cnn.Problem([[x]], [1.0], activation="linear", beta=0.1 * x), 1e-2, 1e-5)
    assert len(path.results) < 30  # mixtures are optimal here, since Z and the multiplier are linear in beta
    for beta in betas_in(path, 200):
        ratio = Fraction(beta) / Fraction(x)
        exact = ratio - ratio**2 / 2
        low, high = path.enclosure(beta)
        assert Fraction(low) <= exact <= Fraction(high)
        assert Fraction(high) - Fraction(low) <= exact * Fraction(path.gap) * (1 + Fraction(1e-8))
        there = path.at(beta).certificate
        assert Fraction(there.dual) <= exact <= Fraction(there.primal)


@pytest.mark.slow
@pytest.mark.parametrize("output_bias", ["free", "penalised"])
def test_weights_and_output_biases(output_bias):
    plain = random_problem(loss="logistic", c=1)
    weights = np.random.default_rng(1).uniform(0, 2, len(plain.Y))
    problem = cnn.Problem(
        plain.X, plain.Y, loss="logistic", beta=0.3, patterns=plain.masks, sample_weight=weights,
        output_bias=output_bias,
    )  # fmt: skip
    check_against_exact_solves(cnn.path(problem, 0.05, 2e-2), "bm_newton", 4)


def small_spiral():
    return cnn.make_problem("spiral", n=12, loss="cross_entropy", beta_fraction=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [small_spiral, attention_problem, lambda: random_problem(activation="relu", n=7, d=2, patterns="all")],
    ids=["gated", "attention", "ReLU"],
)
def test_a_hundred_random_betas_lie_in_the_enclosure(make):
    """Exact solves at a hundred random weight decays, each from the last, are inside bounds that three solves give."""
    problem = make()
    path = cnn.path(problem, 0.05, 0.2, "bm_newton")
    assert path.status == "gap_reached"
    start = None
    for beta in sorted(betas_in(path, 100, seed=1), reverse=True):
        start = cnn.solve(problem.with_beta(beta), "bm_newton", gap=1e-5, start=start)
        low, high = path.enclosure(beta)
        assert start.gap <= 1e-5
        assert low <= start.certificate.primal
        assert start.certificate.dual <= high
        assert (high - low) / low <= path.gap


def test_columns_of_a_path():
    problem = random_problem(c=1).with_held_out(*(random_problem(5, c=1).X, random_problem(5, c=1).Y))
    path = cnn.path(problem, 0.05, 1e-2)
    low, high = path.interval
    assert (low, high) == (0.05 * problem.beta_max, problem.beta_max)
    assert path.betas[0] == high
    assert path.betas[-1] == low
    assert (np.diff(path.betas) < 0).all()
    assert not path.results[0].blocks.any()
    # concave and non-decreasing, as far as the bounds say
    assert (path.bounds[:-1] * (1 + path.gap) >= path.bounds[1:]).all()
    slopes = -np.diff(path.objectives) / -np.diff(path.betas)
    assert (slopes > 0).all()
    for beta, objective, bound, result in zip(path.betas, path.objectives, path.bounds, path.results, strict=True):
        assert result.problem.beta == beta
        assert result.objective == objective
        assert result.certificate.dual <= bound <= objective
        assert path.at(beta).certificate.dual == bound
    frame = path.to_frame()
    assert list(frame["beta"]) == list(path.betas)
    assert list(frame["lower_bound"]) == list(path.bounds)
    assert frame["active_neurons"].iloc[0] == 0
    assert frame["active_neurons"].iloc[-1] == (np.linalg.norm(path.results[-1].blocks, axis=(1, 2)) > 1e-6).sum()
    assert frame["test_r2"].notna().all()
    figure = path.plot()
    assert [axis.get_ylabel() for axis in figure.axes] == ["objective", "relative gap", "active neurons", "test R2"]
    plt.close("all")
    again = pickle.loads(pickle.dumps(path))
    assert again.enclosure(0.5 * high) == path.enclosure(0.5 * high)
    assert "gap_reached" in repr(again)


@pytest.mark.slow
def test_mixed_bounds_are_on_the_safe_side_and_have_a_point():
    """The line is at least the objective of the mixed point; the bound at least the chord and at most the optimum."""
    for problem in (random_problem(c=2), random_problem(activation="relu", d=2, loss="huber")):
        ends = []
        for fraction in (0.1, 0.3):
            result = cnn.solve(problem.with_beta(fraction=fraction), "bm_newton", gap=1e-6)
            ends.append((result, witness(result.problem, result.point, result.certificate)))
        (first, about_first), (second, about_second) = ends
        middle = problem.with_beta(0.25 * about_first.beta + 0.75 * about_second.beta)
        above, bound = mixed(middle, about_first, about_second)
        point = mixed_point(middle, first.point, second.point, 0.75)
        exact = cnn.solve(middle, "bm_newton", gap=EXACT).certificate
        assert cnn.certify(middle, point).primal <= above.at(middle.beta) * (1 + 1e-12)
        chord = 0.25 * first.certificate.dual + 0.75 * second.certificate.dual
        assert chord * (1 - 1e-12) <= bound <= exact.primal
        assert exact.dual <= above.at(middle.beta)


def test_a_line_is_the_objective_of_its_point_at_other_betas():
    X, Y = np.random.default_rng(0).standard_normal((8, 3)), np.ones((8, 1))
    problem = cnn.Problem(X, Y, beta=0.5, patterns=3, output_bias="penalised")
    result = cnn.solve(problem, "bm_newton")
    about = witness(problem, result.point, result.certificate)
    above = line(problem, about.predictions, about.rounding, about.regulariser)
    assert above.at(0.5) == pytest.approx(result.objective, rel=1e-12)
    assert above.at(0.5) >= problem.objective(result.blocks)
    # at another beta the penalised bias stays, so that the line is not below the objective with the best bias there
    assert above.at(0.2) > problem.with_beta(0.2).objective(result.blocks)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["fista", "network_lbfgs", "column_generation", "cvxpy_clarabel", "bm_lbfgs"])
def test_other_solvers(solver):
    activation = "relu" if solver in ("network_lbfgs", "column_generation") else "gated_relu"
    problem = random_problem(activation=activation, n=6, d=2, c=1, patterns=3)
    path = cnn.path(problem, 0.1, 2e-2, solver)
    assert path.status == "gap_reached"
    # a network may have other patterns than the blocks at hand, so that its bound is about all of them
    assert path.scope == ("complete" if activation == "relu" else "sampled")
    assert all(result.certificate.scope == path.scope for result in path.results)
    exact = cnn.solve(problem.with_beta(fraction=0.2), solver, gap=1e-5).certificate
    low, high = path.enclosure(0.2 * problem.beta_max)
    assert low <= exact.primal
    assert exact.dual <= high
    assert path.at(0.2 * problem.beta_max).gap <= 2e-2


@pytest.mark.slow
def test_vector_output_relu():
    rng = np.random.default_rng(0)
    problem = cnn.Problem(
        rng.standard_normal((6, 2)), rng.standard_normal((6, 2)), activation="relu", beta=0.1, patterns="all"
    )
    check_against_exact_solves(cnn.path(problem, 0.2, 5e-2, "bm_newton"), "bm_newton", 2)


@pytest.mark.slow
def test_warm_and_cold_starts_prove_the_same(monkeypatch):
    problem, starts = random_problem(c=1), []

    def recording(*arguments, start=None, **options):
        starts.append(start)
        return cnn.solve(*arguments, start=start, **options)

    monkeypatch.setattr(search, "solve", recording)
    cold = cnn.path(problem, 0.1, 1e-2, warm_starts=False)
    assert set(starts) == {None}
    warm = cnn.path(problem, 0.1, 1e-2)
    assert any(isinstance(start, cnn.Result) for start in starts)
    for beta in betas_in(warm, 5):
        one, other = warm.enclosure(beta), cold.enclosure(beta)
        assert one[0] <= other[1]
        assert other[0] <= one[1]


def test_a_time_limit_returns_the_path_so_far():
    started = time.perf_counter()
    path = cnn.path(random_problem(), 1e-3, 1e-9, "bm_gd", time_limit=0.2)
    assert time.perf_counter() - started < 30
    assert path.status == "time_limit"
    assert path.gap > 1e-9
    beta = 0.1 * path.problem.beta_max
    exact = cnn.solve(path.problem.with_beta(beta), "bm_newton", gap=EXACT).certificate
    low, high = path.enclosure(beta)
    assert low <= exact.primal
    assert exact.dual <= high
    assert path.at(beta).certificate is not None


def test_an_interrupt_returns_the_path_so_far(monkeypatch):
    calls = []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return cnn.solve(*arguments, **options)

    monkeypatch.setattr(search, "solve", interrupted)
    path = cnn.path(random_problem(c=1), 1e-3, 1e-3)
    assert path.status == "interrupted"
    assert path.solves == 2
    assert len(path.results) == 4  # two solves, and the zero network at both ends
    low, high = path.enclosure(path.interval[0])
    assert low <= high


@pytest.mark.slow
def test_a_solver_that_comes_no_closer_stalls(monkeypatch):
    def limited(*arguments, **options):
        return cnn.solve(*arguments, **options, iterations=3)

    monkeypatch.setattr(search, "solve", limited)
    path = cnn.path(random_problem(c=1), 0.1, 1e-6, "fista")
    assert path.status == "stalled"
    assert "comes no closer" in path.reason
    assert path.gap > 1e-6


def test_refusals():
    problem = random_problem(c=1)
    path = cnn.path(problem, 0.5, 0.1)
    low, high = path.interval
    for beta in (0.99 * low, 1.01 * high):
        with pytest.raises(cnn.InputError, match="interval of the path"):
            path.enclosure(beta)
        with pytest.raises(cnn.InputError, match="interval of the path"):
            path.at(beta)
    with pytest.raises(cnn.InputError, match="beta must be a positive"):
        path.at(float("nan"))
    for name, value in (("smallest", 1.0), ("tolerance", 0.0), ("time_limit", -1.0), ("warm_starts", 1)):
        with pytest.raises(cnn.InputError, match=name):
            cnn.path(problem, **{name: value})
    with pytest.raises(cnn.InputError, match="tolerance"):
        cnn.path(problem, tolerance=None)
    with pytest.raises(cnn.UnsupportedError, match="no proximal map"):
        cnn.path(random_problem(activation="relu"), solver="semismooth_newton")
    with pytest.raises(cnn.InputError, match="beta_max is 0"):
        cnn.path(cnn.Problem(np.eye(3), np.zeros(3), beta=1.0, patterns=2))
    with pytest.raises(cnn.UnknownNameError):
        cnn.path(problem, solver="newton")


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(cnn.InputError, match="one process"):
        cnn.path(random_problem(c=1))


def test_the_default_dtype_of_torch_does_not_matter():
    problem = random_problem(c=1)
    before, path = torch.get_default_dtype(), cnn.path(problem, 0.2, 1e-2)
    torch.set_default_dtype(torch.float16)
    try:
        assert cnn.path(problem, 0.2, 1e-2).enclosure(0.5 * problem.beta_max) == path.enclosure(0.5 * problem.beta_max)
    finally:
        torch.set_default_dtype(before)


def test_points_before_the_last_are_seldom_scored_and_the_instance_stays_as_it_was(monkeypatch):
    """A path needs no curves. Its solves see the setting, and the caller's solver has its own again afterwards."""
    solver, seen = cnn.SOLVERS.make("bm_newton"), []
    monkeypatch.setattr(search, "solve", lambda problem, algorithm, *rest, **options: (
        seen.append((algorithm.ends_at_gap, algorithm.curve_wanted)), cnn.solve(problem, algorithm, *rest, **options)
    )[1])  # fmt: skip
    path = cnn.path(random_problem(c=1), 0.1, 1e-2, solver)
    assert path.status == "gap_reached"
    assert set(seen) == {(True, False)}
    assert solver.curve_wanted
