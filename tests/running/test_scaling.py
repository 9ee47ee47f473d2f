"""Problems in raw units: the scaled problem is the same problem, and solvers reach its optimum."""

import numpy as np
import pytest
import torch

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic import solver as conic
from convexnn_bench.running.scaling import Scaling

RNG = np.random.default_rng(0)
X, IMAGES, TOKENS = (RNG.standard_normal(shape) for shape in ((9, 3), (5, 1, 4, 4), (5, 3, 2)))
Y = RNG.standard_normal(9)
SIGNS = np.where(Y > 0, 1.0, -1.0)


def prices(loss="huber", n=30, **settings):
    """Square feet and a constant against prices without noise; the features differ by a factor of 5000."""
    feet = np.random.default_rng(1).integers(500, 5000, n).astype(float)
    choices = {"activation": "relu", "beta_fraction": 0.01, "patterns": 1, **settings}
    return cnn.Problem(np.c_[feet, np.ones(n)], 1e5 + 150 * feet, loss=loss, **choices)


RAW = {
    "Y in 1e9": lambda: cnn.Problem(X, 1e9 * Y, beta_fraction=0.05, patterns=4),
    "X in 1e-6": lambda: cnn.Problem(1e-6 * X, Y, beta_fraction=0.05, patterns=4),
    "huber in 1e5": lambda: cnn.Problem(X, 1e5 * Y, loss="huber[delta=3e4]", beta_fraction=0.05, patterns=4),
    "labels": lambda: cnn.Problem(1e4 * X, SIGNS, loss="logistic", beta_fraction=0.05, patterns=4),
    "relu": lambda: cnn.Problem(1e4 * X, 1e-5 * Y, activation="relu", beta_fraction=0.05, patterns=4),
    "images": lambda: cnn.Problem(1e3 * IMAGES, 1e4 * Y[:5], "cnn", beta_fraction=0.05, patterns=4),
    "images with a bias": lambda: cnn.Problem(1e3 * IMAGES, 1e4 * Y[:5], cnn.CNN(bias=True), beta=1e3, patterns=4),
    "tokens": lambda: cnn.Problem(1e3 * TOKENS, 1e4 * RNG.standard_normal((5, 3)), "attention", beta=1e8, patterns=4),
    "prices": prices,
}


@pytest.mark.parametrize("name", RAW)
def test_the_scaled_problem_is_the_same_problem(name):
    """Objectives of the restored points are those of the solver's points, times one weight; patterns stay."""
    problem = RAW[name]()
    scaling = Scaling.of(problem)
    scaled, rng = scaling.problem, np.random.default_rng(3)
    assert scaled is not problem
    for before, after in ((problem.X, scaled.X), (problem.Y, scaled.Y)):
        assert np.array_equal(before, after) or 0.25 <= np.abs(after).max() < 1
    assert not np.array_equal(problem.X, scaled.X) or name in ("Y in 1e9", "huber in 1e5", "images with a bias")
    weight = scaling.multiplier * problem.Y.max() / scaled.Y.max()
    assert scaled.beta / scaled.beta_max == pytest.approx(problem.beta / problem.beta_max, rel=1e-14)
    assert np.array_equal(scaled.masks, problem.masks)
    assert np.log2(scaling.blocks) % 2 == 0
    U, V = rng.standard_normal((problem.P, problem.p, 2)), rng.standard_normal((problem.P, problem.q, 2))
    if problem.cones is not None:
        U = problem.cones.project(U)
    points = [cnn.Point(factors=(U, V)), cnn.Point(network=(U[:, :, 0].T.copy(), V[:, :, 0].T.copy()))]
    if problem.cones is None:
        points.append(cnn.Point(blocks=torch.as_tensor(U @ V.transpose(0, 2, 1))))
    for point in points:
        point.dual = rng.standard_normal(problem.Y.shape)
        inside, outside = cnn.certify(scaled, point), cnn.certify(problem, scaling.restored(point))
        assert outside.primal == pytest.approx(weight * inside.primal, rel=1e-14)
        assert outside.dual == pytest.approx(weight * inside.dual, rel=1e-9)
        np.testing.assert_allclose(outside.multiplier, scaling.multiplier * inside.multiplier, rtol=1e-7)


def test_the_weight_of_a_loss_of_squares_is_exact():
    problem = RAW["huber in 1e5"]()
    scaling, Z = Scaling.of(problem), RNG.standard_normal((problem.P, 3, 1))
    unit = problem.Y[0, 0] / scaling.problem.Y[0, 0]
    assert problem.objective(scaling.blocks * Z) == unit**2 * scaling.problem.objective(Z)
    assert scaling.problem.loss.delta == 3e4 / unit


@pytest.mark.parametrize("factor", [1.0, 30.0, 1 / 30])
def test_ordinary_data_are_left_as_they_are(factor):
    problem = cnn.Problem(factor * X, Y / factor, beta_fraction=0.05, patterns=4)
    assert Scaling.of(problem).problem is problem


@pytest.mark.parametrize(("largest", "same"), [(256.0, True), (257.0, False), (1 / 256, True), (1 / 257, False)])
def test_ordinary_ends_at_256(largest, same):
    for x, y in ((largest, 1.0), (1.0, largest)):
        problem = cnn.Problem(x * X / np.abs(X).max(), y * Y / np.abs(Y).max(), beta_fraction=0.05, patterns=4)
        assert (Scaling.of(problem).problem is problem) is same


class Unknown(cnn.MLP):
    """A user's architecture whose rows are not homogeneous in X."""

    def phi_rows(self, X):
        return torch.cat([X, X.square()], dim=1)


def test_what_cannot_be_scaled_is_not():
    """X is not scaled without a degree, labels are not, and nothing is if beta would leave the range of float64."""
    squares = cnn.Problem(1e4 * X, 1e5 * Y, architecture=Unknown(), beta_fraction=0.1, patterns=3)
    assert np.array_equal(Scaling.of(squares).problem.X, squares.X)
    labels = cnn.Problem(1e4 * X, SIGNS, loss="squared_hinge", beta_fraction=0.1, patterns=3)
    assert np.array_equal(Scaling.of(labels).problem.Y, labels.Y)
    tiny = cnn.Problem(1e-30 * X, 1e-30 * Y, beta=1e-280, patterns=3)
    large = cnn.Problem(1e30 * X, 1e30 * Y, beta=1e-250, patterns=3)
    assert Scaling.of(tiny).problem is not tiny
    assert Scaling.of(large).problem is large
    with pytest.raises(cnn.InputError, match="cannot be measured in units"):
        labels.rescaled(1.0, 4.0)


# -- solving in raw units ------------------------------------------------------------------------------------


OPTIMUM = 1202989.236  # of `prices()`: a square-foot price of 150 in dollars, Huber's delta one dollar
EXACT = ["cvxpy_clarabel", "cvxpy_scs", "column_generation", "bm_newton"]
DESCENT = ["bm_gd", "bm_adam", "bm_lbfgs", "network_gd", "network_sgd", "network_adam", "network_lbfgs"]


@pytest.mark.slow
@pytest.mark.parametrize("solver", EXACT + DESCENT)
def test_all_solvers_agree_on_prices_in_dollars(solver):
    result = cnn.solve(prices(), solver, gap=1e-6, time_limit=None, iterations=20_000)
    assert result.objective == pytest.approx(OPTIMUM, rel=1e-6)
    assert result.status in ("gap_reached", "solved"), result.reason
    assert result.problem.objective(result.blocks) == pytest.approx(OPTIMUM, rel=1e-6)
    assert result.certificate.multiplier.shape == (30, 1)


@pytest.mark.slow
def test_minibatches_leave_a_start_point_that_is_much_smaller_than_the_optimum():
    """Entries at the optimum are more than a thousand times those of the start point."""
    result = cnn.solve(prices(), "network_sgd", finish=False, time_limit=None, iterations=3000)
    assert result.objective == pytest.approx(OPTIMUM, rel=1e-4)
    assert result.status == "stalled"
    assert result.gap > 1e-6


def noisy(x_unit, y_unit, loss="squared", activation="relu", n=20):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((n, 3))
    Y = np.maximum(X @ rng.standard_normal(3), 0) + 0.1 * rng.standard_normal(n)
    Y = np.where(Y > 0.5, 1.0, -1.0) if loss in ("logistic", "squared_hinge") else y_unit * Y
    return cnn.Problem(x_unit * X, Y, loss=loss, activation=activation, beta_fraction=0.01, patterns=5)


UNITS = {
    "delta of 1e4 dollars": lambda: prices("huber[delta=1e4]"),
    "gated": lambda: prices(activation="gated_relu", patterns=4),
    "squared": lambda: prices("squared", patterns=3),
    "grams and kilometres": lambda: noisy(np.array([1e3, 1e-3, 1.0]), 1e3),
    "X in 1e-6": lambda: noisy(1e-6, 1.0),
    "Y in 1e9": lambda: noisy(1.0, 1e9),
    "Y in 1e9 with a delta of 1": lambda: noisy(1.0, 1e9, "huber"),
    "Y in 1e-8": lambda: noisy(1e5, 1e-8, activation="gated_relu"),
    "labels, X in 1e6": lambda: noisy(1e6, 1.0, "logistic"),
    "labels, X in 1e-9": lambda: noisy(1e-9, 1.0, "squared_hinge", "gated_relu"),
}


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("solver", ["cvxpy_clarabel", "cvxpy_scs"])
def test_conic_solvers_in_raw_units(solver, name):
    """The program is never infeasible, and is not called solved at a large gap."""
    result = cnn.solve(UNITS[name](), solver, gap=1e-6, time_limit=None, tolerance=1e-9)
    assert result.status in ("gap_reached", "solved"), result.reason
    assert result.gap <= 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["delta of 1e4 dollars", "grams and kilometres"])
def test_iterative_solvers_in_raw_units(name):
    problem = UNITS[name]()
    optimum = cnn.solve(problem, "bm_newton", gap=1e-7).objective
    for solver in ("fista", "bm_lbfgs"):
        result = cnn.solve(problem, solver, gap=1e-6, time_limit=None, iterations=10_000)
        assert result.status == "gap_reached", (solver, result.reason)
        assert result.objective == pytest.approx(optimum, rel=2e-6)


@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_program_that_is_called_infeasible_has_the_point_zero(monkeypatch, activation, outputs):
    """If Clarabel wrongly reports infeasibility, the run has a point, which the certificate judges."""
    targets = np.random.default_rng(0).standard_normal((9, outputs))
    problem = cnn.Problem(X[:, :2], targets, activation=activation, beta=0.1, patterns=3)
    monkeypatch.setattr(conic, "unpack_answer", lambda program, *_: setattr(program, "_status", "infeasible"))
    result = cnn.solve(problem, "cvxpy_clarabel")
    assert result.status == "stalled"
    assert result.objective == pytest.approx(0.5 * np.sum(targets**2))
    assert result.certificate.dual <= result.objective
    assert "an error of its arithmetic" in result.reason
    assert "infeasible" not in result.reason
