"""Bounds at extreme scales are compared with exact objectives, in rationals and in eighty digits."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from problems import combinations, random_problem

import convexnn_bench as cnn
from convexnn_bench.certificates import lower_bound

TWO_ROWS = [[1.0, 0.0, 0.0], [0.0, 1e-100, 0.0]]


def exact_objective(problem: cnn.Problem, W1: np.ndarray, W2: np.ndarray) -> Fraction:
    """The objective of a ReLU, linear or gated network with the squared loss, in rationals."""
    exact = np.vectorize(Fraction, otypes=[object])
    X, Y, first, second = (exact(np.asarray(array, dtype=float)) for array in (problem.X, problem.Y, W1, W2))
    H = X @ first
    if problem.activation.name == "relu":
        H = np.where(H > 0, H, Fraction(0))
    elif problem.activation.name == "gated_relu":
        H = np.where(problem.masks[:, np.arange(H.shape[1]) % problem.P], H, Fraction(0))
    squares = ((H @ second.T - Y) ** 2).sum() + Fraction(problem.beta) * ((first**2).sum() + (second**2).sum())
    return squares / 2


def neuron(u: list[float], size: float) -> tuple[np.ndarray, np.ndarray]:
    return np.sqrt(size) * np.array(u)[:, None], np.array([[np.sqrt(size)]])


@pytest.mark.parametrize(
    ("X", "Y", "beta", "better"),
    [
        (TWO_ROWS, [1.0, 1e-70], 1e-172, [neuron([1.0, 0, 0], 1.0), neuron([0, 1.0, 0], 1e30)]),
        ([[1.0, 0.0], [0.0, 1e-120]], [1.0, 1e-30], 1e-160, [neuron([1.0, 0], 1.0), neuron([0, 1.0], 1e90)]),
        ([[1e35, 0.0], [0.0, 1e-130]], [1e-5, 1e-39], 1e-171, [neuron([1.0, 0], 1e-40)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("activation", ["relu", "gated_relu", "linear"])
def test_squares_that_underflow_make_no_bound_too_large(X, Y, beta, better, activation):
    """The multiplier is so small that squares of its adjoint underflow. A bound from such norms would be too high."""
    problem = cnn.Problem(X, Y, activation=activation, beta=beta, patterns="all")
    points = [(np.zeros((problem.p, 1)), np.zeros((1, 1)))]
    points += [tuple(np.concatenate(parts, axis=1) for parts in zip(*better, strict=True)), *better]
    if activation == "gated_relu":  # one neuron for each gate; every row is active in some gate
        points = [(np.tile(W1[:, :1], problem.P), np.tile(W2[:, :1] / problem.P, problem.P)) for W1, W2 in points]
    certificates = [cnn.certify(problem, cnn.Point(network=point)) for point in points]
    exact = [exact_objective(problem, *point) for point in points]
    assert max(Fraction(certificate.dual) for certificate in certificates) <= min(exact)
    for certificate, objective in zip(certificates, exact, strict=True):
        assert Fraction(certificate.primal) >= objective


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e-160, 1e150, 1e300])
@pytest.mark.parametrize("pair", combinations(), ids="-".join)
def test_a_multiplier_of_any_size_gives_the_same_bound(pair, size):
    """Only the direction of a multiplier matters, as far as the domain of F* allows; subnormal numbers lose digits."""
    problem = random_problem(5, *pair)
    Y = torch.as_tensor(problem.Y)
    Lambda = problem.loss.gradient(torch.zeros_like(Y), Y)
    value, norm, _ = lower_bound(problem, Lambda)
    other, scaled, multiplier = lower_bound(problem, problem.loss.project_dual(size * Lambda, Y))
    assert bool(torch.isfinite(multiplier).all())
    if problem.loss.scale_range(Lambda, Y)[1] == math.inf:  # any multiple is a multiplier
        assert other == pytest.approx(value, rel=1e-12 if size > 1e-300 else 1e-3)
        if 1e-300 < size < 1e150:
            assert scaled.value == pytest.approx(size * norm.value, rel=1e-12)
    zero = problem.objective(np.zeros((problem.P, problem.p, problem.q)))
    assert other <= zero


def test_a_tiny_multiplier_of_a_users_is_scaled_before_its_adjoint_underflows():
    """X^T (1e-200 y) is zero in float64 for X of 1e-150 in the second column."""
    X = np.array([[1e-150, 1.0], [-1e-150, 1.0]])
    problem = cnn.Problem(X, [1.0, -1.0], activation="linear", beta=1e-151)
    Lambda = torch.tensor([[-1e-200], [1e-200]], dtype=torch.float64)
    value, norm, scaled = lower_bound(problem, Lambda)
    G = [
        sum(Fraction(float(x)) * Fraction(float(L)) for x, L in zip(column, scaled[:, 0], strict=True))
        for column in X.T
    ]
    assert sum(g * g for g in G) <= Fraction(problem.beta) ** 2
    assert 0 < value <= 1.0
    assert norm.value == 0.0 or norm.value >= 2e-350


@pytest.mark.parametrize("beta", [5e-324, 1e-300, 9.9e-291])
def test_a_beta_without_digits_is_refused_by_name(beta):
    with pytest.raises(cnn.InputError, match=f"beta must be at least 1e-290, got {beta:g}"):
        cnn.Problem(np.eye(2), [1.0, -1.0], beta=beta)
    problem = cnn.Problem(np.eye(2), [1.0, -1.0], beta=1.0)
    with pytest.raises(cnn.InputError, match="beta must be at least 1e-290"):
        problem.with_beta(beta)


def test_a_fraction_of_beta_max_without_digits_is_refused():
    with pytest.raises(cnn.InputError, match="beta must be at least 1e-290, got"):
        cnn.Problem(1e-40 * np.eye(2), [1e-40, -1e-40], beta_fraction=1e-250)


@pytest.mark.parametrize(("size", "beta"), [(1e40, 1e-280), (1e25, 1e-270), (1e38, 1e-255)])
def test_beta_far_below_the_gradient_is_refused_with_its_quotient(size, beta):
    problem = cnn.Problem(size * np.eye(2), [1.0, -1.0], activation="linear", loss="logistic", beta=beta)
    if beta / size < 1e-290:
        with pytest.raises(cnn.InputError, match=rf"beta = {beta:g} is too small .* at least 1e-290"):
            cnn.certify(problem, np.zeros((1, 2, 1)))
    else:
        assert cnn.certify(problem, np.zeros((1, 2, 1))).dual >= 0


OVERFLOWING = [
    # cross-entropy of logits that overflow against each other: the objective is nan
    ([[1e40], [1.0]], np.eye(2), "cross_entropy", [[1e150]], [[1.7e118], [-1.7e118]]),
    ([[1e40], [1.0]], [1.0, 2.0], "squared", [[1e100]], [[1e100]]),
    ([[1e20], [1.0]], [1.0, -1.0], "squared_hinge", [[1e100]], [[-1e100]]),
]


@pytest.mark.parametrize(("X", "Y", "loss", "W1", "W2"), OVERFLOWING)
@pytest.mark.filterwarnings("ignore:overflow")
def test_an_objective_that_is_not_finite_is_refused(X, Y, loss, W1, W2):
    problem = cnn.Problem(X, Y, loss=loss, beta=1e-3)
    with pytest.raises(cnn.InputError, match=r"not a finite number|overflow float64"):
        cnn.certify(problem, (np.array(W1), np.array(W2)))


def test_a_solver_whose_objective_overflows_has_diverged():
    class Overflowing(cnn.BaseSolver):
        name = "overflowing"
        formulation = "network"

        def set_problem(self, problem):
            self.size = 1e80

        def run(self, callback):
            while callback():
                pass

        def get_result(self):
            return cnn.Point(network=(np.array([[self.size]]), np.array([[self.size]])))

    problem = cnn.Problem([[1e40], [1.0]], [1.0, 2.0], beta=1e-3)
    cnn.SOLVERS.classes["overflowing"] = Overflowing
    try:
        result = cnn.solve(problem, "overflowing", iterations=10)
    finally:
        del cnn.SOLVERS.classes["overflowing"]
    assert result.status == "diverged"
    assert "not a finite number" in result.reason


def two_point_objective(problem: cnn.Problem, z: float) -> mpmath.mpf:
    """2 log(1 + exp(-z)) + beta |z| for x = (1, -1) with logistic loss, in eighty digits."""
    with mpmath.workdps(80):
        return 2 * mpmath.log1p(mpmath.e ** -mpmath.mpf(z)) + mpmath.mpf(problem.beta) * abs(mpmath.mpf(z))


@pytest.mark.parametrize("beta", [1e-2, 1e-12, 1e-60, 1e-150, 1e-280])
def test_primal_and_gap_are_rounded_up_where_losses_nearly_vanish(beta):
    problem = cnn.Problem([[1.0], [-1.0]], [1.0, -1.0], activation="linear", loss="logistic", beta=beta)
    best = float(-math.log(beta / (2 - beta)))
    for z in best * (1 + 1e-3 * np.arange(-3, 4)):
        certificate = cnn.certify(problem, np.array([[[z]]]))
        exact = two_point_objective(problem, z)
        assert mpmath.mpf(certificate.primal) >= exact
        assert certificate.primal <= float(exact) * (1 + 1e-10)
        assert mpmath.mpf(certificate.dual) <= two_point_objective(problem, best)
        with mpmath.workdps(80):
            assert mpmath.mpf(certificate.gap) >= (exact - mpmath.mpf(certificate.dual)) / mpmath.mpf(certificate.dual)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
def test_the_primal_is_never_below_the_exact_objective(seed, activation):
    """Networks with features, targets and weights of disparate scales, which cancel."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((6, 3)) * 10.0 ** rng.uniform(-8, 8, size=(1, 3))
    problem = cnn.Problem(X, rng.standard_normal(6), activation=activation, beta=10.0 ** rng.uniform(-9, 1), patterns=3)
    M = 2 * problem.P
    W1 = rng.standard_normal((3, M)) / np.abs(X).max(axis=0)[:, None]
    W2 = rng.standard_normal((1, M))
    certificate = cnn.certify(
        problem, cnn.Point(network=(W1, W2)), scope=None if activation == "relu" else problem.scope
    )
    exact = exact_objective(problem, W1, W2)
    assert Fraction(certificate.primal) >= exact
    assert certificate.primal <= float(exact) * (1 + 1e-11)
    if certificate.dual > 0:
        assert Fraction(certificate.gap) >= exact / Fraction(certificate.dual) - 1


class HalfConjugate(cnn.Squared):
    name = "half_conjugate"

    def conjugate(self, L, Y):
        return 0.5 * super().conjugate(L, Y)


class SmallConjugate(cnn.Logistic):
    name = "small_conjugate"

    def conjugate(self, L, Y):
        return super().conjugate(L, Y) - 1e-6


class OtherGradient(cnn.Huber):
    name = "other_gradient"

    def gradient(self, z, Y):
        return 1.001 * super().gradient(z, Y)


class LargeConjugate(cnn.CrossEntropy):
    name = "large_conjugate"

    def conjugate(self, L, Y):
        return super().conjugate(L, Y) + 1e-9


@pytest.mark.parametrize("loss", [HalfConjugate, SmallConjugate, OtherGradient, LargeConjugate])
def test_a_conjugate_that_does_not_belong_to_its_loss_is_refused(loss):
    base = random_problem(
        3, {"Squared": "squared", "CrossEntropy": "cross_entropy"}.get(loss.__base__.__name__, "logistic")
    )
    problem = cnn.Problem(base.X, base.Y, loss=loss(), beta=base.beta, patterns=base.masks)
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((problem.P, problem.p, 1)), rng.standard_normal((problem.P, problem.q, 1))
    with pytest.raises(cnn.InputError, match="value, gradient and conjugate do not belong together"):
        cnn.certify(problem, factors)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e12])
@pytest.mark.parametrize("name", ["squared", "logistic", "squared_hinge", "huber", "cross_entropy"])
def test_losses_of_the_package_pass_at_every_scale(name, scale):
    base = random_problem(4, name)
    rng = np.random.default_rng(1)
    U, V = rng.standard_normal((base.P, base.p, 2)), rng.standard_normal((base.P, base.q, 2))
    for size in (1e-12, 1.0, 1e5):
        certificate = cnn.certify(base, (math.sqrt(scale) * size * U, math.sqrt(scale) * V))
        assert certificate.dual <= certificate.primal


def network_of_zero(problem: cnn.Problem) -> cnn.Certificate:
    result = cnn.solve(problem, "bm_newton")
    assert result.network[0].shape[1] == 0 or not np.any(result.network[1])
    return cnn.certify(problem, result.network)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["global", "identity", 2])
def test_the_zero_network_of_a_cnn_is_certified(pool):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((4, 1, 4, 4)), rng.standard_normal(4)
    problem = cnn.Problem(X, Y, cnn.CNN(pool=pool), "relu", beta_fraction=4.0, patterns=3)
    certificate = network_of_zero(problem)
    assert certificate.primal == pytest.approx(0.5 * float(Y @ Y), rel=1e-12)
    assert 0 <= certificate.gap < 1e-12


@pytest.mark.slow
def test_zero_networks_of_other_architectures_are_certified():
    rng = np.random.default_rng(0)
    tokens = cnn.Problem(
        rng.standard_normal((4, 2, 2)), rng.standard_normal((4, 2, 1)), "attention", "relu", beta=1e3, patterns=3
    )
    assert network_of_zero(tokens).gap < 1e-12
    wide = cnn.Problem(
        rng.standard_normal((5, 3)), rng.standard_normal((5, 2)), activation="relu", beta=1e3, patterns=3
    )
    empty = cnn.certify(wide, (np.zeros((3, 0)), np.zeros((2, 0))))
    assert empty.primal == pytest.approx(0.5 * float(np.sum(wide.Y**2)), rel=1e-12)


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1, 3)), (1, (2, 2, 2)), (2, (1, 1, 4))])
def test_one_image_without_pooling_is_certified(n, shape):
    """For a single image, the adjoint of this second layer is not contiguous in memory."""
    X = np.random.default_rng(0).standard_normal((n, *shape))
    problem = cnn.Problem(X, np.ones(n), cnn.CNN(patch=2, padding=1, pool="identity"), "relu", beta=0.1, patterns=2)
    certificate = cnn.certify(problem, np.zeros((problem.P, problem.p, problem.q)))
    assert 0 <= certificate.dual <= certificate.primal


@pytest.mark.parametrize(("decay", "output_bias"), [(1e-3, "penalised"), (1e-9, "free"), (1.0, "penalised")])
def test_the_objective_of_a_module_is_rounded_up(decay, output_bias):
    """The objective of a network whose weights and biases cancel, with the squared loss, in rationals."""
    rng = np.random.default_rng(2)
    module = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.as_tensor(rng.standard_normal(weight.shape) * 1e4))
    X, Y = rng.standard_normal((7, 2)), rng.standard_normal(7)
    report = cnn.certify_module(module, X, Y, weight_decay=decay, output_bias=output_bias, progress=False)
    exact = np.vectorize(Fraction, otypes=[object])
    A, a, B, b = (exact(weight.detach().numpy()) for weight in module.parameters())
    H = exact(X) @ A.T + a
    z = np.where(H > 0, H, Fraction(0)) @ B[0] + b[0]
    squares = sum((weight**2).sum() for weight in (A, a, B, *([b] if output_bias == "penalised" else [])))
    objective = (((z - exact(Y)) ** 2).sum() + Fraction(report.beta) * squares) / 2
    assert Fraction(report.primal) >= objective
    assert report.primal <= float(objective) * (1 + 1e-10)
    assert report.gap * abs(report.dual) >= float(objective) - report.dual - 1e-14 * float(objective)
