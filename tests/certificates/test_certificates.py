"""A lower bound above the optimum is the worst bug there can be: bounds against closed forms, brute force, CVXPY."""

import itertools
import math

import numpy as np
import pytest
import torch
from problems import combinations, random_problem
from properties import given, settings
from properties import strategies as st
from textbook import textbook_optimum

import convexnn_bench as cnn
from convexnn_bench.certificates import lower_bound
from convexnn_bench.formulations import burer_monteiro, convex

PAIRS = st.sampled_from(combinations())


def identity_problem(seed: int = 0, n: int = 5, c: int = 3, beta: float = 0.7):
    """Linear MLP with X = I: min 1/2 ||Z - Y||^2 + beta ||Z||_*, solved by shrinking singular values."""
    Y = np.random.default_rng(seed).standard_normal((n, c))
    problem = cnn.Problem(np.eye(n), Y, activation="linear", beta=beta)
    left, values, right = np.linalg.svd(Y, full_matrices=False)
    shrunk = np.maximum(values - beta, 0)
    optimum = 0.5 * (np.minimum(values, beta) ** 2).sum() + beta * shrunk.sum()
    return problem, ((left * shrunk) @ right)[None], optimum


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 1)])
def test_soft_thresholded_singular_values_are_certified_optimal(seed, shape):
    problem, Z, optimum = identity_problem(seed, *shape)
    certificate = cnn.certify(problem, Z)
    assert certificate.primal == pytest.approx(optimum, rel=1e-13)
    assert 0 <= certificate.gap < 1e-12
    assert certificate.dual <= optimum
    assert certificate.scope == "complete"
    assert problem.beta_max == pytest.approx(np.linalg.norm(problem.Y, 2), rel=1e-12)


@pytest.mark.slow
@given(PAIRS, st.integers(0, 100_000), st.integers(1, 8), st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=300)
def test_no_network_is_ever_below_the_bound_of_another(pair, seed, M, size):
    """Random networks certify each other: any objective is at least any lower bound of the same program."""
    problem = random_problem(seed % 40, *pair, n=7, d=2, patterns="all", beta_fraction=0.05)
    rng = np.random.default_rng(seed)
    networks = [[size * rng.standard_normal((rows, M)) for rows in (problem.p, problem.q)] for _ in range(3)]
    certificates = [cnn.certify(problem, cnn.Point(network=network)) for network in networks]
    zero = problem.objective(np.zeros((problem.P, problem.p, problem.q)))
    least = min([certificate.primal for certificate in certificates] + [zero])
    assert max(certificate.dual for certificate in certificates) <= least
    assert all(certificate.gap >= 0 for certificate in certificates)


@pytest.mark.slow
@given(PAIRS, st.integers(0, 100_000), st.sampled_from([0.01, 0.3, 0.9, 1.5]))
@settings(max_examples=100)
def test_no_bound_is_ever_above_the_exact_optimum(pair, seed, fraction):
    """The optimum comes from the textbook program in CVXPY; points from random and from trained networks."""
    problem = random_problem(seed % 1000, *pair, n=6, d=2, patterns="all", beta_fraction=fraction)
    optimum = textbook_optimum(problem)
    slack = 1e-8 * (1 + optimum)  # what Clarabel's tolerance leaves open
    rng = np.random.default_rng(seed)
    network = rng.standard_normal((problem.p, 4)), rng.standard_normal((problem.q, 4))
    points = [cnn.Point(network=network), None]
    for point in points:
        certificate = (
            cnn.certify(problem, point)
            if point is not None
            else cnn.solve(problem, "network_lbfgs", iterations=40, time_limit=None, seed=seed % 7).certificate
        )
        assert certificate.dual <= optimum + slack
        assert certificate.primal >= optimum - slack
    if fraction > 1:  # beta above beta_max: the zero network is the optimum
        certificate = cnn.certify(problem, np.zeros((problem.P, problem.p, problem.q)))
        assert certificate.primal == pytest.approx(optimum, abs=slack)
        assert certificate.gap <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "logistic", "squared_hinge", "huber"])
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
def test_one_feature_by_brute_force(loss, activation):
    """d = 1, scalar output: at most two blocks of one number each, so a fine grid finds the optimum."""
    x = np.array([[1.0], [-2.0], [0.5], [1.5]])
    y = np.array([1.0, -1.0, -1.0, 1.0])
    problem = cnn.Problem(x, y, activation=activation, loss=loss, beta=0.4)
    assert problem.P <= 2
    radius, best, centre = 4.0, math.inf, np.zeros(problem.P)
    for _ in range(8):  # refine the grid around the best point
        axis = np.linspace(-radius, radius, 41)
        for offset in itertools.product(axis, repeat=problem.P):
            z = centre + np.array(offset)
            # a block's norm is |z| with or without the cone: the cone is a half line
            value = (
                problem.loss.value(torch.as_tensor((problem.masks * x) @ z[:, None]), torch.as_tensor(problem.Y))
                + 0.4 * np.abs(z).sum()
            )
            if value < best:
                best, found = float(value), z
        centre, radius = found, radius / 8
    result = cnn.solve(problem, "fista", gap=1e-9, time_limit=600)
    assert result.objective == pytest.approx(best, rel=1e-8)
    assert result.certificate.dual <= best


@pytest.mark.parametrize("pair", [pair for pair in combinations() if pair[1] != "relu"], ids="-".join)
def test_the_dual_point_behind_the_bound_is_feasible(pair):
    """||A_k^*(s Lambda)|| <= beta by dense products and numpy's SVD (test_cones has the constraint with cones)."""
    problem = random_problem(3, *pair, n=12, patterns=6)
    rng = np.random.default_rng(0)
    Lambda = torch.as_tensor(rng.standard_normal(problem.Y.shape) * 3)
    Lambda = problem.loss.project_dual(Lambda, torch.as_tensor(problem.Y))
    value, norm, _ = lower_bound(problem, Lambda)
    norms = [np.linalg.norm(problem.X.T @ (problem.masks[:, [k]] * Lambda.numpy()), 2) for k in range(problem.P)]
    assert norm.value == pytest.approx(max(norms), rel=1e-12)
    assert norm.value >= max(norms) * (1 - 1e-15)
    assert norm.block == int(np.argmax(norms))
    limit = problem.beta / max(norms)
    lo, hi = problem.loss.scale_range(Lambda, torch.as_tensor(problem.Y))
    grid = np.linspace(max(lo, -limit), min(hi, limit), 2001)
    best = max(-float(problem.loss.conjugate(float(s) * Lambda, torch.as_tensor(problem.Y))) for s in grid)
    assert value == pytest.approx(best, rel=1e-5, abs=1e-5)


def test_stationarity_error_is_that_of_theorem_3_4(combination):
    """eps = 1/2 (<U, grad_U> + <V, grad_V>), here by differences of the factored objective along (U, V)."""
    problem = random_problem(4, *combination)
    rng = np.random.default_rng(1)
    U = rng.standard_normal((problem.P, problem.p, 2))
    U = problem.cones.project(U) if problem.has_cone else U
    V = rng.standard_normal((problem.P, problem.q, 2))
    certificate = cnn.certify(problem, (U, V))
    h = 1e-6
    along = problem.factored_objective((1 + h) * U, (1 + h) * V) - problem.factored_objective((1 - h) * U, (1 - h) * V)
    assert certificate.stationarity_error == pytest.approx(along / (4 * h), rel=1e-5, abs=1e-6)


@pytest.mark.slow
@given(PAIRS, st.integers(0, 500))
@settings(max_examples=60)
def test_the_papers_bound_with_its_error_term_holds(pair, seed):
    """primal - p* <= stationarity_bound p* + stationarity_error, at points that are far from stationary too."""
    problem = random_problem(seed, *pair, n=6, d=2, patterns="all")
    optimum = textbook_optimum(problem)
    for steps in (2, 60):
        certificate = cnn.solve(problem, "bm_gd", iterations=steps, time_limit=None, seed=seed, m=1).certificate
        bound = certificate.stationarity_bound * optimum + certificate.stationarity_error
        assert certificate.primal - optimum <= bound + 1e-8 * (1 + optimum)


def test_full_rank_and_rank_deficient_stationary_points():
    problem, Z, _ = identity_problem(1, 4, 3, beta=0.1)
    exact = cnn.certify(problem, convex.to_factors(problem, torch.as_tensor(Z)))
    assert exact.full_rank
    assert exact.gradient_norm < 1e-12
    assert not exact.rank_deficient
    assert exact.ranks == (3,)
    wide = cnn.certify(problem, convex.to_factors(problem, torch.as_tensor(Z), m=5))
    assert wide.rank_deficient
    saddle = cnn.certify(problem, (np.zeros((1, 4, 3)), np.zeros((1, 3, 3))))
    assert saddle.gradient_norm == 0.0  # stationary ...
    assert not saddle.full_rank  # ... and told apart from a global optimum by ||G|| > beta
    assert saddle.gap > 0.1
    assert saddle.stationarity_bound > 0.1


def test_a_zero_block_inside_the_dual_ball_counts_as_full():
    problem, _, _ = identity_problem(2)
    above = cnn.Problem(problem.X, problem.Y, activation="linear", beta=1.1 * problem.beta_max)
    certificate = cnn.certify(above, (np.zeros((1, 5, 2)), np.zeros((1, 3, 2))))
    assert certificate.full_rank
    assert certificate.gap <= 1e-13


def test_a_gap_is_refused_outside_the_cones():
    problem = random_problem(5, "squared", "relu", n=12, patterns=5)
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((problem.P, 3, 2)), rng.standard_normal((problem.P, 1, 2))
    certificate = cnn.certify(problem, (U, V))
    assert math.isnan(certificate.gap)
    assert "violates the ReLU cones" in certificate.refused
    assert certificate.infeasibility > 1e-2
    assert "no gap" in str(certificate)
    K = (2 * problem.masks[:, 0] - 1)[:, None] * problem.X
    assert (K @ U[0]).min() < 0
    feasible = cnn.certify(problem, (problem.cones.project(U), V))
    assert feasible.refused is None
    assert feasible.infeasibility <= 1e-12
    assert feasible.gap >= 0


@pytest.mark.slow
def test_every_kind_of_point_gives_the_same_certificate():
    problem = random_problem(6, c=2)
    result = cnn.solve(problem, "bm_lbfgs", iterations=1000, time_limit=None, gap=1e-7)
    U, V = result.factors
    base = cnn.certify(problem, (U, V))
    assert cnn.certify(problem, [U, V]) == base
    assert base.dual <= cnn.certify(problem, result).dual == result.certificate.dual
    assert cnn.certify(problem, cnn.Point(factors=(torch.as_tensor(U), torch.as_tensor(V)))) == base
    blocks = cnn.certify(problem, result.blocks)
    listed = cnn.certify(problem, list(result.blocks))
    assert listed == blocks
    assert blocks.primal <= base.primal + 1e-12
    weights = cnn.certify(problem, result.network)
    assert weights.primal == pytest.approx(base.primal, rel=1e-12)
    assert weights.dual == pytest.approx(base.dual, rel=1e-9)


def test_a_torch_module_is_certified_as_the_network_it_is():
    rng = np.random.default_rng(0)
    problem = cnn.Problem(rng.standard_normal((20, 2)), rng.standard_normal(20), activation="relu", beta=0.3)
    module = torch.nn.Sequential(
        torch.nn.Linear(2, 6, bias=False), torch.nn.ReLU(), torch.nn.Linear(6, 1, bias=False)
    ).double()
    certificate = cnn.certify(problem, module)
    with torch.no_grad():
        error = module(torch.as_tensor(problem.X)) - torch.as_tensor(problem.Y)
        decay = sum(float(weight.square().sum()) for weight in module.parameters())
    assert certificate.primal == pytest.approx(0.5 * float(error.square().sum()) + 0.15 * decay, rel=1e-12)
    assert certificate.dual <= certificate.primal
    with pytest.raises(cnn.InputError, match="biases"):
        cnn.certify(problem, torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1)))
    with pytest.raises(cnn.UnsupportedError, match="supported are"):
        cnn.certify(problem, torch.nn.Linear(2, 1, bias=False))
    with pytest.raises(cnn.InputError, match="no network of this relu mlp"):
        cnn.certify(problem, torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False)))


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3, 1e8])
def test_certificates_follow_the_scale_of_the_data(scale):
    """X -> scale X with beta -> scale beta is the same problem in other units of Z: same objective, same gap."""
    base = random_problem(7, c=2)
    Z = np.random.default_rng(0).standard_normal((base.P, base.p, base.q)) * 0.1
    scaled = cnn.Problem(scale * base.X, base.Y, beta=scale * base.beta, patterns=base.masks)
    one, other = cnn.certify(base, Z), cnn.certify(scaled, Z / scale)
    assert other.primal == pytest.approx(one.primal, rel=1e-10)
    assert other.dual == pytest.approx(one.dual, rel=1e-8)


def test_a_solvers_multiplier_helps_and_can_do_no_harm():
    problem, Z, optimum = identity_problem(3)
    rough = Z + 0.01 * np.random.default_rng(0).standard_normal(Z.shape)
    alone = cnn.certify(problem, rough)
    exact = Z[0] - problem.Y  # grad F at the optimum
    helped = cnn.certify(problem, cnn.Point(blocks=rough, dual=exact))
    assert alone.dual < helped.dual <= optimum
    misled = cnn.certify(problem, cnn.Point(blocks=rough, dual=1e6 * np.ones_like(problem.Y)))
    broken = cnn.certify(problem, cnn.Point(blocks=rough, dual=np.full_like(problem.Y, np.nan)))
    assert misled.dual == broken.dual == alone.dual


def test_hard_gap_arithmetic():
    zero = cnn.Problem(np.eye(3), np.zeros((3, 1)), activation="linear", beta=0.1)
    certificate = cnn.certify(zero, np.zeros((1, 3, 1)))
    assert certificate.primal == certificate.dual == certificate.gap == 0.0
    away = cnn.certify(zero, np.ones((1, 3, 1)))
    assert away.gap == math.inf


@pytest.mark.parametrize("bad", ["a string", 3, (np.ones((2, 2, 2)), np.ones(3)), np.ones((1, 2, 3))])
def test_points_that_do_not_fit_are_refused(bad):
    problem = random_problem(8)
    with pytest.raises(cnn.InputError):
        cnn.certify(problem, bad)


def test_a_point_that_is_not_finite_is_refused():
    problem = random_problem(9)
    Z = np.zeros((problem.P, problem.p, problem.q))
    Z[0, 0, 0] = np.nan
    with pytest.raises(cnn.InputError, match="NaN"):
        cnn.certify(problem, Z)


def test_balanced_factors_of_the_optimum_have_no_stationarity_error():
    problem, Z, _ = identity_problem(4)
    U, V = convex.to_factors(problem, torch.as_tensor(Z))
    certificate = cnn.certify(problem, burer_monteiro.balance(U, V))
    assert abs(certificate.stationarity_error) < 1e-12
    assert certificate.stationarity_bound < 1e-12


@pytest.mark.slow
def test_the_multiplier_proves_the_bound(combination):
    """Anyone can check a certificate: the multiplier is feasible and its value is the bound, in plain numpy."""
    problem = random_problem(10, *combination, n=12, patterns=5)
    certificate = cnn.solve(problem, "fista", gap=1e-3, iterations=1000, time_limit=None).certificate
    multiplier = certificate.multiplier
    assert multiplier.shape == problem.Y.shape
    value = -float(problem.loss.conjugate(torch.as_tensor(multiplier), torch.as_tensor(problem.Y)))
    assert certificate.dual == pytest.approx(value, rel=1e-12)
    for k in range(problem.P):
        G = problem.X.T @ (problem.masks[:, [k]] * multiplier)
        if problem.has_cone:
            directions = problem.cones.project(np.random.default_rng(k).standard_normal((problem.P, problem.p, 200)))[k]
            norms = np.abs(G.T @ directions) / np.linalg.norm(directions, axis=0).clip(1e-300)
            assert norms.max() <= problem.beta * (1 + 1e-12)
        else:
            assert np.linalg.norm(G, 2) <= problem.beta * (1 + 1e-14)


@pytest.mark.slow
def test_a_bound_once_proven_is_kept():
    """The gap a solver is judged by never suffers from a later, worse multiplier."""
    problem = random_problem(11, n=20, patterns=8)
    result = cnn.solve(problem, "bm_adam", gap=1e-9, iterations=500, time_limit=None)
    duals = [objective / (1 + gap) for _, objective, gap in result.curve if np.isfinite(gap)]
    assert all(later >= earlier * (1 - 1e-12) for earlier, later in itertools.pairwise(duals))
