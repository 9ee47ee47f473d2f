"""Burer-Monteiro and network solvers on true ReLU: cones kept, optima reached, wrong stationary points left."""

import functools

import numpy as np
import pytest
import torch

import convexnn_bench as cnn
from convexnn_bench.algorithms.descent.bm_objective import BMObjective
from convexnn_bench.algorithms.descent.cone_penalty import AllRows, ConePenalty, FacetRows
from convexnn_bench.algorithms.relu.directions import NetworkPricing
from convexnn_bench.algorithms.relu.faces import projected_gradient
from convexnn_bench.algorithms.relu.finish import finish_factors, finish_network
from convexnn_bench.algorithms.relu.neurons import NeuronObjective
from convexnn_bench.algorithms.relu.pricing import BlockPricing
from convexnn_bench.algorithms.relu.reduction import reduce_sizes
from convexnn_bench.formulations import burer_monteiro, network


def gaussian(n: int, d: int, c: int, seed: int = 0, **options) -> "cnn.Problem":
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((n, c))
    return cnn.Problem(X, Y, activation="relu", beta_fraction=0.05, **options)


@functools.cache
def scalar_problem(d: int) -> "cnn.Problem":
    return gaussian(10, d, 1, seed=d)


@functools.cache
def vector_problem(c: int) -> "cnn.Problem":
    return gaussian(8, 2, c, seed=c)


@functools.cache
def conic(problem: "cnn.Problem") -> "cnn.Result":
    return cnn.solve(problem, "cvxpy_clarabel", gap=1e-9)


# -- the augmented Lagrangian --------------------------------------------------------------------------------


@pytest.fixture(params=[(3, 2), (9, 1)], ids=["facets", "all rows"])
def penalty(request):
    d, c = request.param
    problem = gaussian(12, d, c, patterns=4)
    operator = problem.operator()
    U = torch.randn(problem.P, problem.p, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    term = ConePenalty(problem, operator, U, rho=0.7)
    assert isinstance(term.rows, FacetRows if d == 3 else AllRows)
    term.update(U)  # multipliers above zero
    assert float(term.multipliers.max()) > 0
    return problem, term, U


def test_the_gradient_of_the_penalty_by_finite_differences(penalty):
    _, term, U = penalty
    U = U + 0.3
    gradient = term.value_and_gradient(U)[1]
    rng = np.random.default_rng(1)
    for _ in range(5):
        step = 1e-6 * torch.as_tensor(rng.standard_normal(U.shape))
        difference = term.value_and_gradient(U + step)[0] - term.value_and_gradient(U - step)[0]
        assert float(difference) == pytest.approx(2 * float((gradient * step).sum()), rel=1e-6)


def test_the_penalty_vanishes_exactly_inside_the_cones(penalty):
    problem, term, U = penalty
    term.multipliers.zero_()
    inside = burer_monteiro.project(problem, U)
    assert float(term.value_and_gradient(inside)[0]) <= 1e-20
    signs = 2.0 * problem.masks.T[:, :, None] - 1
    outside = (signs * (problem.Phi @ U.numpy())).min() < 0  # by the rows of (2 D - I) Phi themselves
    assert outside == (float(term.value_and_gradient(U)[0]) > 0)


@pytest.mark.slow
def test_lagrangian_iterations_alone_come_close():
    problem = scalar_problem(2)
    result = cnn.solve(problem, "bm_lbfgs", finish=False, gap=1e-3, iterations=3000, time_limit=None)
    assert result.objective == pytest.approx(conic(problem).objective, rel=2e-3)
    assert result.certificate.infeasibility <= 1e-9


def test_the_start_has_both_signs_for_one_output_and_any_direction_for_several():
    for problem in (scalar_problem(3), vector_problem(3)):
        objective = BMObjective(problem, None, seed=0, device="cpu")
        U, V = objective.factors(objective.start)
        assert problem.cones.violation(U.numpy()) <= 1e-9
        if problem.q == 1:
            assert (V[:, 0, 0] > 0).all()
            assert (V[:, 0, 1] < 0).all()
        else:
            assert U.shape[2] == problem.p
            assert ((V > 0).double().mean() - 0.5).abs() < 0.2


# -- optima --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["bm_lbfgs", "network_lbfgs"])
@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_scalar_outputs_reach_the_conic_optimum(solver, d, seed):
    problem = scalar_problem(d)
    result = cnn.solve(problem, solver, gap=1e-8, time_limit=600, seed=seed)
    assert result.objective == pytest.approx(conic(problem).objective, rel=1e-6)
    assert result.certificate.gap <= 1e-6
    assert result.certificate.infeasibility <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["bm_lbfgs", "network_lbfgs"])
@pytest.mark.parametrize("c", [2, 3])
def test_vector_outputs_in_the_plane_reach_the_optimum(solver, c):
    """In the plane every cone has two facets, for which the conic relaxation is exact."""
    problem = vector_problem(c)
    results = [cnn.solve(problem, solver, gap=1e-8, time_limit=600, seed=seed) for seed in range(3)]
    relaxed = conic(problem)
    assert min(result.objective for result in results) == pytest.approx(relaxed.objective, rel=1e-6)
    for result in results:
        assert result.objective >= relaxed.certificate.dual * (1 - 1e-12)
        assert result.certificate.infeasibility <= 1e-9


@pytest.mark.slow
def test_the_binary_spiral_is_solved():
    problem = cnn.make_problem("spiral[targets=binary]", activation="relu")
    result = cnn.solve(problem, "bm_lbfgs", gap=1e-6, time_limit=600)
    assert result.status == "gap_reached", result.reason
    assert result.objective == pytest.approx(conic(problem).objective, rel=2e-6)


@pytest.mark.slow
def test_sampled_blocks_are_solved_over_themselves_and_networks_over_all_patterns():
    problem = gaussian(12, 4, 1, patterns=12)
    factored = cnn.solve(problem, "bm_lbfgs", gap=1e-8, time_limit=600)
    trained = cnn.solve(problem, "network_adam", gap=1e-8, iterations=3000, time_limit=600)
    assert factored.objective == pytest.approx(conic(problem).objective, rel=1e-6)
    assert factored.certificate.scope == "sampled"
    assert trained.certificate.scope == "complete"
    assert trained.certificate.refused is None
    assert trained.objective <= factored.objective * (1 + 1e-6)
    assert trained.certificate.dual <= trained.objective


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["bm_lbfgs", "bm_adam", "network_lbfgs", "network_adam"])
def test_the_same_seed_gives_the_same_point(solver):
    problem = scalar_problem(2)
    first, second = (cnn.solve(problem, solver, gap=None, time_limit=600, seed=3) for _ in range(2))
    assert first.status == second.status == "solved", first.reason
    assert first.objective == second.objective
    np.testing.assert_array_equal(first.blocks, second.blocks)


# -- wrong stationary points ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("problem", [scalar_problem(3), vector_problem(2)], ids=["scalar", "vector"])
def test_the_staircase_leaves_the_origin(problem):
    """All columns zero is stationary whatever the data; the gradient there is zero."""
    U, V = torch.zeros(problem.P, problem.p, 1).double(), torch.zeros(problem.P, problem.q, 1).double()
    value, left, right = burer_monteiro.value_and_gradient(problem, problem.operator(), U, V)
    assert float(left.abs().max()) == float(right.abs().max()) == 0
    points = []
    said = finish_factors(problem, U.numpy(), V.numpy(), float(value), None, lambda p: points.append(p) or True)
    assert said.startswith("stationary")
    last = [point for point in points if point is not None][-1]
    reached = burer_monteiro.objective(problem, *map(torch.as_tensor, last.factors))
    assert reached == pytest.approx(conic(problem).objective, rel=1e-6)
    assert cnn.certify(problem, last).gap <= 1e-6


@pytest.mark.slow
def test_dead_neurons_are_put_to_use_and_the_width_is_kept():
    problem = scalar_problem(2)
    W1, W2 = np.zeros((problem.p, 40)), np.zeros((problem.q, 40))
    points = []
    finish_network(problem, W1, W2, np.inf, 0, lambda p: points.append(p) or True)
    kept = [point for point in points if point is not None]
    assert max(point.network[0].shape[1] for point in kept) <= 40
    reached = network.objective(problem, *map(torch.as_tensor, kept[-1].network))
    assert reached == pytest.approx(conic(problem).objective, rel=1e-6)


@pytest.mark.slow
def test_a_limit_on_columns_is_kept():
    problem = vector_problem(3)
    result = cnn.solve(problem, "bm_lbfgs", m=1, gap=1e-8, iterations=1000, time_limit=None)
    assert result.factors[0].shape[2] == 1
    assert result.objective >= conic(problem).certificate.dual * (1 - 1e-12)


@pytest.mark.parametrize("network", [False, True], ids=["blocks", "directions"])
@pytest.mark.parametrize("c", [1, 3])
def test_priced_directions_attain_their_norms_and_none_is_missed_in_the_plane(network, c):
    """Against ||R^T (Phi u)_+|| over a fine grid of the circle."""
    problem = gaussian(9, 2, c, seed=5)
    R = np.random.default_rng(2).standard_normal((problem.N, problem.q))
    prices = NetworkPricing(problem, 100, 0) if network else BlockPricing(problem, None)
    price = prices.price(R, 0.0, True)
    H = np.maximum(price.directions @ problem.Phi.T, 0)
    np.testing.assert_allclose(np.linalg.norm(H @ R, axis=1), price.norms, rtol=1e-8)
    angles = np.linspace(0, 2 * np.pi, 20001)
    circle = np.maximum(np.stack([np.cos(angles), np.sin(angles)], axis=1) @ problem.Phi.T, 0)
    assert price.norms[0] == pytest.approx(np.linalg.norm(circle @ R, axis=1).max(), rel=1e-6)


# -- pieces --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
def test_gradient_and_hessian_of_neurons_by_finite_differences(loss):
    rng = np.random.default_rng(4)
    Y = rng.standard_normal((9, 1))
    problem = cnn.Problem(
        rng.standard_normal((9, 3)), np.sign(Y) if loss == "logistic" else Y, activation="relu", loss=loss, beta=0.2
    )
    objective, prices = NeuronObjective(problem), NetworkPricing(problem, 9, 0)
    neurons = prices.start(rng.standard_normal((4, 3)), rng.standard_normal((4, problem.q)))
    R = objective.residual(neurons)
    slope = projected_gradient(neurons, *objective.gradient(neurons, R))
    for _ in range(4):
        dU, dV = 1e-6 * rng.standard_normal(neurons.U.shape), 1e-6 * rng.standard_normal(neurons.V.shape)
        ahead, behind = (neurons.moved(neurons.U + s * dU, neurons.V + s * dV) for s in (1, -1))
        expected = 2 * (np.sum(slope.left * dU) + np.sum(slope.right * dV))
        assert objective.value(ahead) - objective.value(behind) == pytest.approx(expected, rel=1e-5)


def test_reduced_sizes_keep_predictions_and_does_not_raise_the_sum():
    rng = np.random.default_rng(6)
    predictions, sizes = rng.standard_normal((5, 40)), rng.random(40)
    new = reduce_sizes(sizes, predictions)
    assert (new >= 0).all()
    assert (new > 0).sum() <= 5
    assert new.sum() <= sizes.sum()
    np.testing.assert_allclose(predictions @ new, predictions @ sizes, rtol=1e-9)


@pytest.mark.parametrize(
    ("size", "beta", "c"), [(1e-35, 7.5e-148, 1), (1e-38, 1e-200, 1), (1e-30, 1e-160, 1), (1e-35, 7.5e-148, 2)]
)
def test_neurons_whose_second_layer_underflows_are_not_added(size, beta, c):
    """With such a beta the residual of a solved problem has squares below the smallest numbers."""
    X = size * np.array([[-2.26], [-2.1], [0.93], [1.32]])
    Y = np.array([[-0.94, 1.0], [-0.54, 0.0], [-0.34, 1.0], [-0.72, 2.0]])[:, :c]
    problem = cnn.Problem(np.hstack([X, np.ones((4, 1))]), Y, activation="relu", beta=beta, patterns="all")
    result = cnn.solve(problem, "bm_newton", gap=1e-11, iterations=15, time_limit=None)
    assert result.certificate.dual <= result.certificate.primal <= float(np.sum(Y**2) / 2) * (1 + 1e-12)
