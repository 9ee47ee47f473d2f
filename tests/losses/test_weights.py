"""Weighted losses, with and without an output bias: duplicated rows, finite differences, brute force and CVXPY."""

import numpy as np
import pytest
import torch
from problems import targets
from scipy.optimize import minimize

import convexnn_bench as cnn
from convexnn_bench.losses import OutputBias, WeightedLoss
from convexnn_bench.losses.base import BaseLoss
from convexnn_bench.plugins.registry import LOSSES

NAMES = LOSSES.names()
BIASES = ("none", "free", "penalised")
WHOLE = np.array([2.0, 1.0, 0.0, 3.0, 1.0, 0.0, 2.0])


def dressed(loss: BaseLoss, bias: str, beta: float = 0.7) -> BaseLoss:
    return loss if bias == "none" else OutputBias(loss, beta if bias == "penalised" else None)


def setup(name: str, seed: int, weights=WHOLE, bias: str = "none", scale: float = 1.0):
    rng = np.random.default_rng(seed)
    plain = LOSSES.make(name)
    Y = torch.as_tensor(plain.prepare_targets(targets(name, 7, 2, rng)))
    loss = dressed(WeightedLoss(plain, np.asarray(weights)), bias)
    return plain, loss, torch.as_tensor(scale * rng.standard_normal(Y.shape)), Y, rng


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", NAMES)
def test_whole_weights_count_copies_of_rows(name, bias):
    """Every number of F with weights is that of F on copies; a row of weight zero is not there."""
    plain, loss, z, Y, rng = setup(name, 1, bias=bias)
    copies = torch.as_tensor(np.repeat(np.arange(7), WHOLE.astype(int)))
    other, zs, Ys = dressed(plain, bias), z[copies], Y[copies]
    w = torch.as_tensor(WHOLE)[:, None]
    close = {"rtol": 1e-9, "atol": 1e-11}
    assert float(loss.value(z, Y)) == pytest.approx(float(other.value(zs, Ys)), rel=1e-12)
    gradient = loss.gradient(z, Y)
    torch.testing.assert_close(gradient[copies] / w[copies], other.gradient(zs, Ys), **close)
    assert (gradient[WHOLE == 0] == 0).all()
    D = torch.as_tensor(rng.standard_normal((7, 2, 3)))
    bent, expected = loss.curvature(z, Y)(D), other.curvature(zs, Ys)(D[copies])
    torch.testing.assert_close(bent[copies] / w[copies, :, None], expected, **close)
    L = loss.project_dual(0.9 * gradient, Y)
    apart = L[copies] / w[copies]
    assert float(loss.conjugate(L, Y)) == pytest.approx(float(other.conjugate(apart, Ys)), rel=1e-9)
    error = torch.full_like(z, 1e-3)
    rises = loss.rise(z, Y, gradient, error), other.rise(zs, Ys, other.gradient(zs, Ys), error[copies])
    assert float(rises[0]) == pytest.approx(float(rises[1]), rel=1e-9)
    lo, hi = (max(loss.scale_range(L, Y)[0], -3.0), min(loss.scale_range(L, Y)[1], 3.0))
    assert loss.best_scale(L, Y, lo, hi) == pytest.approx(other.best_scale(apart, Ys, lo, hi), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", NAMES)
def test_value_gradient_curvature_and_conjugate_belong_together(name, bias):
    """Finite differences, the splitting of the curvature, Fenchel-Young, and the conjugate as a supremum."""
    weights = np.array([0.3, 2.5, 1.0, 0.0, 7.0, 0.01, 1.5])
    _, loss, z, Y, rng = setup(name, 2, weights, bias, scale=0.7)
    # 1. Finite differences.
    d, h = torch.as_tensor(rng.standard_normal(z.shape)), 1e-5
    gradient = loss.gradient(z, Y)
    slope = (loss.value(z + h * d, Y) - loss.value(z - h * d, Y)) / (2 * h)
    assert float(slope) == pytest.approx(float((gradient * d).sum()), rel=1e-6)
    bent = (loss.gradient(z + h * d, Y) - loss.gradient(z - h * d, Y)) / (2 * h)
    found = loss.curvature(z, Y)(d[:, :, None])[:, :, 0]
    torch.testing.assert_close(found, bent, rtol=1e-5, atol=1e-6)
    assert torch.linalg.vector_norm(found) <= loss.smoothness * torch.linalg.vector_norm(d) * (1 + 1e-9)
    # 2. F'' = W - B B^T, with W row by row.
    rows, B = loss.row_curvature(z, Y)(d[:, :, None])[:, :, 0], loss.coupling(z, Y)
    assert (B is None) == (bias == "none")
    if B is not None:
        rows = rows - torch.einsum("icr,r->ic", B, torch.einsum("icr,ic->r", B, d))
    torch.testing.assert_close(rows, found, rtol=1e-9, atol=1e-12)
    # 3. The conjugate at the gradient, and at a multiplier that is none.
    L = loss.project_dual(gradient, Y)
    torch.testing.assert_close(L, gradient, rtol=1e-9, atol=1e-11)
    inner = float((L * z).sum())
    assert float(loss.value(z, Y) + loss.conjugate(L, Y)) == pytest.approx(inner, abs=1e-9)
    other = loss.project_dual(L + 0.05 * torch.as_tensor(rng.standard_normal(L.shape)), Y)

    def negative(w):
        w = torch.as_tensor(w.reshape(z.shape)).requires_grad_(True)
        value = loss.value(w, Y) - (other * w).sum()
        value.backward()
        return float(value.detach()), w.grad.numpy().ravel()

    best = minimize(negative, np.zeros(z.numel()), jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": 3000})
    assert -best.fun <= float(loss.conjugate(other, Y)) + 1e-9
    assert -best.fun == pytest.approx(float(loss.conjugate(other, Y)), abs=2e-4 if name in ("logistic",) else 1e-5)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", NAMES)
def test_cvxpy_states_the_same_values(name, bias):
    import cvxpy as cp

    _, loss, z, Y, _ = setup(name, 3, [0.3, 2.5, 1.0, 0.0, 7.0, 0.01, 1.5], bias)
    variable = cp.Variable(z.shape)
    expression, domain = loss.cvxpy_value(variable, Y.numpy())
    found = cp.Problem(cp.Minimize(expression), [*domain, variable == z.numpy()]).solve(solver=cp.CLARABEL)
    assert found == pytest.approx(float(loss.value(z, Y)), rel=1e-6)
    L = loss.project_dual(loss.gradient(z, Y), Y)
    expression, domain = loss.cvxpy_conjugate(variable, Y.numpy())
    assert expression.is_convex()
    variable.value = L.numpy()
    assert float(expression.value) == pytest.approx(float(loss.conjugate(L, Y)), rel=1e-8, abs=1e-10)
    assert all(float(np.max(constraint.violation())) < 1e-9 for constraint in domain)


@pytest.mark.parametrize("name", ["huber", "logistic", "cross_entropy", "squared_hinge"])
def test_multipliers_on_the_boundary_stay_in_the_domain(name):
    """Exact arithmetic: L_i / w_i is in the domain of f*, whatever the products round to."""
    from fractions import Fraction

    rng = np.random.default_rng(4)
    plain = LOSSES.make(name) if name != "huber" else cnn.Huber(delta=0.3)
    Y = torch.as_tensor(plain.prepare_targets(targets(name, 300, 2, rng)))
    weights = rng.lognormal(0, 5, 300)
    loss = WeightedLoss(plain, weights)
    z = -50.0 * Y * torch.as_tensor(rng.lognormal(0, 1, Y.shape))  # every entry is at the boundary
    for L in (loss.gradient(z, Y), 1.3 * loss.gradient(z, Y)):
        L = loss.project_dual(L, Y)
        assert torch.isfinite(loss.conjugate(L, Y))
        for row, w, y in zip(L.tolist(), weights, Y.tolist(), strict=True):
            exact = [Fraction(entry) / Fraction(w) for entry in row]
            if name == "huber":
                assert max(map(abs, exact)) <= Fraction(0.3)
            elif name == "cross_entropy":
                assert min(e + Fraction(label) for e, label in zip(exact, y, strict=True)) >= 0
                assert abs(sum(exact)) <= Fraction(1, 10**15)
            else:
                a = [-Fraction(label) * e for e, label in zip(exact, y, strict=True)]
                assert min(a) >= 0
                assert name == "squared_hinge" or max(a) <= 1


@pytest.mark.parametrize("name", ["cross_entropy", "logistic"])
def test_the_bias_of_a_class_that_does_not_occur_stays_moderate(name):
    """The best free bias is infinite; a large one would round the predictions that it is added to."""
    loss, rng = OutputBias(WeightedLoss(LOSSES.make(name), WHOLE), None), np.random.default_rng(6)
    labels = np.eye(3)[rng.integers(0, 2, 7)]
    Y = torch.as_tensor(labels if name == "cross_entropy" else 2 * labels - 1)
    z = torch.as_tensor(50.0 * rng.standard_normal(Y.shape))
    assert 50 < float(loss.best_bias(z, Y).abs().max()) < 1000
    L = loss.project_dual(loss.gradient(z, Y), Y)
    assert torch.equal(L.sum(dim=0), torch.zeros(3, dtype=torch.float64))
    assert float(loss.value(z, Y) + loss.conjugate(L, Y)) == pytest.approx(float((L * z).sum()), abs=1e-8)


class Branching(cnn.Squared):
    """A user's loss, twice the squared one, with branches on numbers and without terms of its own."""

    smoothness = 2.0

    def value(self, z, Y):
        return 2 * super().value(z, Y) if float((z - Y).abs().max()) > 0 else torch.zeros((), dtype=z.dtype)

    def conjugate(self, L, Y):
        return 2 * super().conjugate(L / 2, Y)

    def cvxpy_value(self, z, Y):
        return 2 * super().cvxpy_value(z, Y)[0], []

    def cvxpy_conjugate(self, L, Y):
        return 2 * super().cvxpy_conjugate(L / 2, Y)[0], []


def test_a_loss_that_defines_sums_alone_is_weighted_row_by_row():
    """The terms of its parent class are not those of the subclass."""
    import cvxpy as cp

    _, twice, z, Y, _ = setup("squared", 5, 2 * WHOLE)
    loss = WeightedLoss(Branching(), WHOLE)
    assert float(loss.value(z, Y)) == pytest.approx(float(twice.value(z, Y)), rel=1e-12)
    L = twice.gradient(z, Y)
    assert float(loss.conjugate(L, Y)) == pytest.approx(float(twice.conjugate(L, Y)), rel=1e-12)
    variable = cp.Variable(z.shape)
    for ours, theirs, at in (
        (loss.cvxpy_value, twice.cvxpy_value, z),
        (loss.cvxpy_conjugate, twice.cvxpy_conjugate, L),
    ):
        variable.value = at.numpy()
        values = [float(np.asarray(f(variable, Y.numpy())[0].value).sum()) for f in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_the_best_bias_of_saturated_predictions_is_found():
    """Probabilities are zero and one up to rounding, so that the curvature is none."""
    counts = [3, 3, 4, 1, 4, 3, 2, 4, 1]
    first, second = [2101, -997, -624, 57, 109, 267, 123, -1056, 488], [16, 5750, 563, 2156, 575, 722, -380, 6649, 2180]
    third = [-2117, -4752, 61, -2213, -684, -990, 256, -5593, -2668]
    z = torch.as_tensor(np.column_stack([first, second, third]).astype(np.float64).repeat(counts, axis=0))
    Y = torch.as_tensor(np.eye(3)[np.array([0, 1, 2, 1, 2, 2, 2, 1, 1]).repeat(counts)])
    value = float(OutputBias(cnn.CrossEntropy(), None).value(z, Y))
    import cvxpy as cp

    # the same minimum as a linear program, since logsumexp is the largest entry here
    shifts, scores = cp.Variable((1, 3)), z.numpy()
    moved = scores + np.ones((len(scores), 1)) @ shifts
    problem = cp.Problem(cp.Minimize(cp.sum(cp.max(moved, axis=1)) - cp.sum(cp.multiply(Y.numpy(), moved))))
    least = float(problem.solve(solver="CLARABEL"))
    assert least - 1e-6 * abs(least) <= value <= least + len(z) * np.log(3)
