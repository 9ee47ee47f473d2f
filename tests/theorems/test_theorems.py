"""The theorems as checks: curvature against autograd and closed forms, the staircase, and random starts."""

import numpy as np
import pytest
import torch
from problems import LOSS_NAMES, random_problem

import convexnn_bench as cnn
from convexnn_bench.theorems.checks import check_full_rank, check_rank_deficient
from convexnn_bench.theorems.curvature import smallest_curvature
from convexnn_bench.theorems.random_starts import spurious_minima
from convexnn_bench.theorems.rank_staircase import descent_columns, staircase
from convexnn_bench.theorems.trust_region import Hessian, flatten, spread_start, trust_region_newton, unflatten

SMOOTH = ("linear", "gated_relu")


def attention_problem(seed: int = 0, n: int = 6, s: int = 3, d: int = 2, c: int = 1, beta_fraction: float = 0.05):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, s, d)), rng.standard_normal((n * s, c))
    return cnn.Problem(X, Y, architecture="attention", activation="linear", beta_fraction=beta_fraction)


def random_factors(problem, m: int, seed: int = 0, scale: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    U = torch.randn(problem.P, problem.p, m, generator=generator, dtype=torch.float64)
    return scale * U, scale * torch.randn(problem.P, problem.q, m, generator=generator, dtype=torch.float64)


def plain_objective(problem, U, V):
    """The factored objective block by block, from the data, the masks and the definitions of the losses."""
    Phi, Y = torch.as_tensor(problem.Phi), torch.as_tensor(problem.Y)
    M = sum(torch.as_tensor(mask)[:, None] * (Phi @ u @ v.T) for mask, u, v in zip(problem.masks.T, U, V, strict=True))
    z = problem.architecture.second_layer(M, torch.as_tensor(problem.X), problem.c)
    r = z - Y
    loss = {
        "squared": lambda: 0.5 * r.square().sum(),
        "huber": lambda: torch.nn.functional.huber_loss(z, Y, reduction="sum"),
        "cross_entropy": lambda: torch.nn.functional.cross_entropy(z, Y, reduction="sum"),
        "logistic": lambda: torch.nn.functional.softplus(-Y * z).sum(),
        "squared_hinge": lambda: 0.5 * torch.relu(1 - Y * z).square().sum(),
    }[problem.loss.name]()
    return loss + 0.5 * problem.beta * (U.square().sum() + V.square().sum())


def dense_hessian(problem, U, V) -> torch.Tensor:
    x = torch.as_tensor(flatten(U, V)).clone()
    return torch.autograd.functional.hessian(
        lambda y: plain_objective(problem, y[: U.numel()].view(U.shape), y[U.numel() :].view(V.shape)), x
    )


def largest_dual_norm(problem, U, V) -> float:
    """max_k ||G_k||_2 by autograd in Z: a zero column has the gradient of the blocks."""
    Z = (U @ V.transpose(1, 2)).requires_grad_(True)
    value = problem.loss.value(problem.operator().apply(Z), problem.operator().Y)
    return float(torch.linalg.matrix_norm(torch.autograd.grad(value, Z)[0], 2).max())


# -- curvature -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("c", [2, 3])
def test_curvature_is_the_smallest_eigenvalue_of_the_dense_hessian(loss, activation, c):
    problem = random_problem(c, loss, activation, n=8, d=3, c=c)
    U, V = random_factors(problem, 2)
    matrix = dense_hessian(problem, U, V)
    hessian = Hessian(problem, U, V)
    v = np.random.default_rng(0).standard_normal(len(matrix))
    np.testing.assert_allclose(hessian.flat_product(v), matrix.numpy() @ v, atol=1e-10)
    found = smallest_curvature(problem, (U, V))
    values = torch.linalg.eigvalsh(matrix)
    assert found.eigenvalue == pytest.approx(float(values[0]), abs=1e-11 * float(values[-1]))
    assert found.residual <= 1e-11 * float(values[-1])
    assert found.generalised == (loss in ("huber", "squared_hinge"))
    assert float(found.dU.square().sum() + found.dV.square().sum()) == pytest.approx(1.0)


def test_hessian_products_of_attention_against_finite_differences():
    problem = attention_problem(c=2)
    U, V = random_factors(problem, 3)
    direction = np.random.default_rng(1).standard_normal(flatten(U, V).size)
    step = 1e-5

    def gradient(t: float) -> np.ndarray:
        return Hessian(problem, *unflatten(flatten(U, V) + t * direction, U, V)).flat_gradient()

    expected = (gradient(step) - gradient(-step)) / (2 * step)
    product = Hessian(problem, U, V).flat_product(direction)
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.slow
def test_lanczos_agrees_with_the_dense_eigenvalue():
    problem = random_problem(3, "logistic", "gated_relu", n=15, d=5, c=3, patterns=10)
    U, V = random_factors(problem, 3)  # 240 variables
    found = smallest_curvature(problem, (U, V))
    values = torch.linalg.eigvalsh(dense_hessian(problem, U, V))
    assert found.method == "Lanczos"
    assert found.eigenvalue == pytest.approx(float(values[0]), abs=1e-9 * float(values[-1]))
    assert found.residual <= 1e-6 * float(values[-1])
    # at an optimum the smallest eigenvalue is zero, which ARPACK's relative tolerance alone would never accept
    end = trust_region_newton(problem, U, V)
    assert abs(smallest_curvature(problem, (end.U, end.V)).relative) < 1e-8


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("activation", SMOOTH)
def test_curvature_at_zero_is_beta_minus_the_largest_dual_norm(loss, activation):
    for fraction in (0.1, 2.0):
        problem = random_problem(1, loss, activation, beta_fraction=fraction)
        zero = random_factors(problem, 1, scale=0.0)
        found = smallest_curvature(problem, zero)
        assert found.eigenvalue == pytest.approx(problem.beta - largest_dual_norm(problem, *zero), rel=1e-9)
        assert found.is_second_order() == (fraction > 1)


@pytest.mark.slow
def test_curvature_for_whitened_data_in_closed_form():
    """X = I, squared loss: the optimum of one column keeps the largest singular value of Y, and the zero column beside
    it sees the second one, which is left in the residual: curvature beta - s_2."""
    values = np.array([5.0, 3.0, 1.0])
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((size, 3)))[0] for size in (4, 3))
    problem = cnn.Problem(np.eye(4), left * values @ right.T, activation="linear", beta=0.5)
    steps = staircase(problem).steps
    assert [step.rank for step in steps] == [0, 1, 2, 3]
    np.testing.assert_allclose([step.curvature for step in steps[:3]], 0.5 - values, rtol=1e-8)
    # every kept value is lowered by beta
    best = [0.5 * (values[m:] ** 2).sum() + 0.5 * m * 0.25 + 0.5 * (values[:m] - 0.5).sum() for m in range(4)]
    np.testing.assert_allclose([step.objective for step in steps], best, rtol=1e-12)


# -- Theorem 3.3 and the staircase ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("activation", SMOOTH)
def test_rank_deficient_second_order_points_are_global(seed, activation):
    problem = random_problem(seed, LOSS_NAMES[seed], activation, n=10, d=3, c=2, beta_fraction=0.1, patterns=3)
    check = check_rank_deficient(problem, seed=seed)
    best = cnn.solve(problem, "fista", gap=1e-6).certificate
    assert check.holds is True
    assert problem.factored_objective(*check.point) <= best.primal * (1 + 1e-9)
    assert "verdict: holds" in str(check)
    assert list(check.to_frame()["met"]) == [True] * 4


@pytest.mark.slow
def test_a_saddle_is_no_violation_and_its_curvature_is_predicted():
    problem = random_problem(0, "squared", "linear", n=12, d=4, c=3, beta_fraction=0.02)
    end = trust_region_newton(problem, *spread_start(problem, 1, 0))
    padded = tuple(torch.nn.functional.pad(factor, (0, 1)) for factor in (end.U, end.V))
    check = check_rank_deficient(problem, point=padded)
    predicted = problem.beta - largest_dual_norm(problem, *padded)
    assert check.holds is None
    assert check.verdict.startswith("hypothesis not met: second order")
    assert "saddle" in check.verdict
    assert check.conclusion.met is False
    assert predicted < 0
    assert check.curvature.eigenvalue == pytest.approx(predicted, rel=1e-8)
    # the column that is appended lowers the objective, by what the quadratic model promises
    dU, dV = descent_columns(problem, *padded)
    lower = problem.factored_objective(torch.cat([padded[0], dU], dim=2), torch.cat([padded[1], dV], dim=2))
    assert lower <= end.objective + 0.5 * float(dU.square().sum()) * predicted * (1 - 1e-9)


@pytest.mark.slow
def test_too_few_columns_are_reported_as_such():
    problem = random_problem(0, "squared", "linear", n=12, d=4, c=3, beta_fraction=0.02)
    check = check_rank_deficient(problem, m=1)
    assert check.holds is None
    assert [condition.met for condition in check.hypotheses] == [True, True, False]
    unfinished = check_rank_deficient(problem, point=random_factors(problem, 4))
    assert unfinished.holds is None
    assert not unfinished.hypotheses[0].met


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("activation", SMOOTH)
def test_the_staircase_ends_certified(loss, activation):
    problem = random_problem(4, loss, activation, n=10, d=3, c=2, beta_fraction=0.05, patterns=3)
    stairs = staircase(problem, gap=1e-8)
    objectives = [step.objective for step in stairs]
    assert stairs.certified
    assert [step.m for step in stairs] == list(range(len(stairs)))
    assert len(stairs) <= min(problem.p, problem.q) + 1
    assert objectives == sorted(objectives, reverse=True)
    for step in stairs.steps[:-1]:
        assert step.curvature == pytest.approx(step.predicted, rel=1e-6)
        assert step.curvature < 0
    assert stairs.steps[-1].curvature > -1e-6 * problem.beta
    assert cnn.certify(problem, stairs.point).gap <= 1e-8


@pytest.mark.slow
def test_the_staircase_stays_at_zero_where_zero_is_optimal():
    stairs = staircase(random_problem(0, "squared", "gated_relu", beta_fraction=1.5))
    assert [(step.m, step.rank) for step in stairs] == [(0, 0)]
    assert stairs.certified


# -- Theorem 3.5 ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_full_rank_stationary_points_are_global(seed):
    loss = ("squared", "logistic", "huber")[seed]
    problem = random_problem(seed, loss, "linear", n=30, d=4, c=3, beta_fraction=1e-3)
    check = check_full_rank(problem, seed=seed)
    best = cnn.solve(problem, "fista", gap=1e-6).certificate
    assert check.holds is True
    assert check.certificate.ranks == (3,)
    assert problem.factored_objective(*check.point) <= best.primal * (1 + 1e-8)


@pytest.mark.slow
def test_partial_rank_is_reported_as_such():
    problem = random_problem(1, "squared", "linear", n=30, d=4, c=3, beta_fraction=0.7)
    check = check_full_rank(problem)
    assert check.holds is None
    # rows of the gradient sum to zero, and with them those of V: never of rank c
    classes = check_full_rank(random_problem(1, "cross_entropy", "linear", n=30, d=4, c=3, beta_fraction=1e-3))
    assert classes.certificate.ranks == (2,)
    assert classes.holds is None
    assert "blocks of partial rank" in check.verdict
    zero = check_full_rank(problem, point=random_factors(problem, 1, scale=0.0))
    assert zero.holds is None
    assert [condition.met for condition in zero.hypotheses] == [True, True, True, False]
    assert "||G_k||" in zero.verdict
    large = random_problem(1, "squared", "linear", n=30, d=4, c=3, beta_fraction=1.5)
    assert check_full_rank(large, point=random_factors(large, 1, scale=0.0)).holds is True


# -- random starts -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_linear_attention_has_no_spurious_minimum_with_enough_heads():
    problem = attention_problem()  # min(d^2, d c) = 2
    found = spurious_minima(problem, columns=[1, 2, 3], starts=4)
    optimum = cnn.solve(problem, "fista", gap=1e-9).certificate
    frame = found.to_frame()
    assert found.covered_from == 2
    assert found.holds
    assert found.column_name == "heads"
    enough = frame[frame.m >= 2]
    assert set(enough.kind) == {"global"}
    np.testing.assert_allclose(enough.objective, optimum.primal, rtol=1e-6)
    assert found.lower_bound <= optimum.primal * (1 + 1e-12)
    assert optimum.dual <= found.upper_bound * (1 + 1e-12)
    one = found.widths[0]
    # seen with one head: above p*, second order, and several values, so that some are spurious for this width
    assert one.global_ends == 0
    assert one.second_order == 4
    assert one.above_own_best > 0
    assert "spurious for this width" in str(found)
    assert [width.verdict for width in found.widths[1:]] == ["holds", "holds"]


@pytest.mark.slow
def test_a_width_below_the_rank_is_not_called_spurious():
    """X = I: Eckart and Young; one column has one least value, above p*."""
    Y = np.diag([5.0, 3.0, 1.0])
    found = spurious_minima(cnn.Problem(np.eye(3), Y, activation="linear", beta=0.5), columns=(1, 3), starts=4)
    narrow, enough = found.widths
    assert narrow.second_order == 4
    assert narrow.above_own_best == 0
    assert narrow.global_ends == 0
    assert narrow.verdict == "not covered; no start reached p*; all ends at the best of this width"
    # 0.5 (9 + 1) + beta 5 - beta^2 / 2 against beta (5 + 3 + 1) - 3 beta^2 / 2
    assert narrow.best_excess == pytest.approx((7.375 - 4.125) / 4.125, rel=1e-9)
    assert enough.global_ends == 4
    assert found.optimal_rank == 3


@pytest.mark.slow
def test_unfinished_training_is_no_violation():
    problem = random_problem(0, "squared", "linear", n=12, d=4, c=3, beta_fraction=0.02)
    found = spurious_minima(problem, columns=[3], starts=3, steps=1)
    assert set(found.to_frame().kind) == {"unfinished"}
    assert found.holds
    assert "unfinished" in found.widths[0].verdict


@pytest.mark.slow
def test_figures_show_every_end_and_step():
    problem = random_problem(0, "squared", "linear", n=12, d=4, c=3, beta_fraction=0.05)
    found, stairs = spurious_minima(problem, columns=[1, 2], starts=2), staircase(problem)
    drawn = sum(len(collection.get_offsets()) for collection in found.plot().axes[0].collections)
    assert drawn == len(found.ends) == 4
    left, right = stairs.plot().axes
    assert [len(axis.lines[0].get_xdata()) for axis in (left, right)] == [len(stairs)] * 2
    assert right.get_yscale() == "log"
    assert len(str(stairs).splitlines()) == len(stairs) + 3
    assert list(stairs.to_frame().m) == list(range(len(stairs)))


# -- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", [smallest_curvature, check_rank_deficient, check_full_rank, staircase, spurious_minima]
)
def test_relu_is_refused_with_the_reason(call):
    problem = random_problem(0, "squared", "relu")
    arguments = [cnn.Point(factors=random_factors(problem, 2))] if call is smallest_curvature else []
    with pytest.raises(cnn.UnsupportedError, match="cones") as refused:
        call(problem, *arguments)
    assert "linear and gated" in str(refused.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: smallest_curvature("mnist", p), "problem must be a Problem, got str"),
        (lambda p: smallest_curvature(p, (np.zeros((1, 2, 1)), np.zeros((1, 2, 1)))), "factors must be U: P x p x m"),
        (lambda p: smallest_curvature(p, random_factors(p, 1), seed=-1), "seed must be a whole number"),
        (lambda p: check_rank_deficient(p, m=0), "m must be a whole number, at least 1"),
        (lambda p: check_rank_deficient(p, tolerance=0), "tolerance must be a positive finite number"),
        (lambda p: check_rank_deficient(p, m=3, point=random_factors(p, 2)), "m = 3 does not fit the point"),
        (lambda p: check_full_rank(p, steps=1.5), "steps must be a whole number"),
        (lambda p: staircase(p, gap="small"), "gap must be a positive finite number"),
        (lambda p: spurious_minima(p, columns=[]), "columns must be a list of whole numbers"),
        (lambda p: spurious_minima(p, columns=[0]), "columns must be a whole number, at least 1"),
        (lambda p: spurious_minima(p, starts=0), "starts must be a whole number"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(cnn.InputError, match=words) as raised:
        call(random_problem(0, "squared", "linear"))
    assert "got" in str(raised.value) or "columns" in str(raised.value)


@pytest.mark.slow
def test_points_of_every_formulation_are_taken():
    problem = random_problem(2, "squared", "gated_relu", n=10, d=3, c=2, beta_fraction=0.1, patterns=3)
    result = cnn.solve(problem, "bm_lbfgs", gap=1e-8, time_limit=600)
    from_blocks = smallest_curvature(problem, cnn.solve(problem, "fista", gap=1e-8))
    network = cnn.Point(network=random_factors_as_network(problem, *result.point.factors))
    assert smallest_curvature(problem, result).is_second_order(1e-3)
    assert from_blocks.is_second_order(1e-3)
    assert check_rank_deficient(problem, point=network, tolerance=1e-3).certificate.gap < 1e-7


def random_factors_as_network(problem, U, V):
    from convexnn_bench.formulations import burer_monteiro

    return burer_monteiro.to_network(problem, U, V)
