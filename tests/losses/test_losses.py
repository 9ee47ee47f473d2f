"""Losses against finite differences, Fenchel's (in)equality, and CVXPY; runs over whatever is registered."""

import numpy as np
import pytest
import torch
from problems import targets
from properties import given
from properties import strategies as st

import convexnn_bench as cnn
from convexnn_bench.losses._output_bias import OutputBias
from convexnn_bench.losses.base import BaseLoss
from convexnn_bench.plugins.registry import LOSSES

NAMES = LOSSES.names()


def setup(name: str, seed: int, scale: float = 2.0, c: int = 3):
    rng = np.random.default_rng(seed)
    loss = LOSSES.make(name)
    Y = torch.as_tensor(loss.prepare_targets(targets(name, 7, c, rng)))
    return loss, torch.as_tensor(scale * rng.standard_normal(Y.shape)), Y, rng


def test_the_five_losses_of_the_design_are_there():
    assert {"squared", "cross_entropy", "logistic", "squared_hinge", "huber"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.1, 2.0, 30.0])
def test_gradient_by_central_differences(name, scale):
    loss, z, Y, rng = setup(name, 1, scale)
    gradient = loss.gradient(z, Y)
    for _ in range(5):
        direction = torch.as_tensor(rng.standard_normal(z.shape))
        h = 1e-6 * scale
        slope = (loss.value(z + h * direction, Y) - loss.value(z - h * direction, Y)) / (2 * h)
        expected = float((gradient * direction).sum())
        assert float(slope) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_lipschitz_with_the_stated_constant(name):
    loss, z, Y, rng = setup(name, 2)
    for scale in (1e-3, 0.3, 5.0):
        for _ in range(20):
            w = z + scale * torch.as_tensor(rng.standard_normal(z.shape))
            change = torch.linalg.vector_norm(loss.gradient(w, Y) - loss.gradient(z, Y))
            assert change <= loss.smoothness * torch.linalg.vector_norm(w - z) * (1 + 1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_curvature_by_central_differences_and_by_the_default(name, scale):
    loss, z, Y, rng = setup(name, 3, scale)
    D = torch.as_tensor(rng.standard_normal((*z.shape, 4)))
    found, h = loss.curvature(z, Y)(D), 1e-6 * scale
    for j in range(4):
        slope = (loss.gradient(z + h * D[:, :, j], Y) - loss.gradient(z - h * D[:, :, j], Y)) / (2 * h)
        np.testing.assert_allclose(found[:, :, j], slope, atol=1e-8)
    np.testing.assert_allclose(BaseLoss.curvature(loss, z, Y)(D), found, atol=1e-14)
    assert (torch.einsum("icr,icr->r", D, found) >= -1e-12).all()


@pytest.mark.parametrize("name", ["squared", "cross_entropy", "logistic"])
@pytest.mark.parametrize("beta", [0.3, None])
def test_curvature_with_an_output_bias_by_central_differences(name, beta):
    """The bias moves with the predictions."""
    plain, z, Y, rng = setup(name, 3, 1.0)
    loss = OutputBias(plain, beta)
    D = torch.as_tensor(rng.standard_normal((*z.shape, 2)))
    found, h = loss.curvature(z, Y)(D), 1e-4
    for j in range(2):
        slope = (loss.gradient(z + h * D[:, :, j], Y) - loss.gradient(z - h * D[:, :, j], Y)) / (2 * h)
        np.testing.assert_allclose(found[:, :, j], slope, atol=1e-6)


@pytest.mark.slow
@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 10.0]))
def test_fenchel_young(name, seed, scale):
    """F(z) + F*(L) >= <z, L>, with equality at L = grad F(z)."""
    loss, z, Y, rng = setup(name, seed, scale)
    L = loss.project_dual(loss.gradient(z, Y), Y)
    inner = float((z * L).sum())
    size = 1 + abs(inner) + float(loss.value(z, Y))
    assert float(loss.value(z, Y) + loss.conjugate(L, Y)) == pytest.approx(inner, abs=1e-9 * size)
    w = torch.as_tensor(scale * rng.standard_normal(z.shape))
    assert float(loss.value(w, Y) + loss.conjugate(L, Y)) >= float((w * L).sum()) - 1e-9 * size


@pytest.mark.parametrize("unit", [2.0**20, 2.0**-9])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_rescaled_loss_is_the_same_loss_in_other_units(name, bias, unit):
    """F(unit z, unit Y) = w F'(z, Y) to the last bit, and so the gradient and the conjugate; labels have no unit."""
    loss, z, Y, _ = setup(name, 6)
    loss = OutputBias(loss, 0.5) if bias else loss
    found = loss.rescaled(unit)
    if name in ("cross_entropy", "logistic", "squared_hinge"):
        assert found is None
        return
    other, weight = found
    if not bias:  # the best bias is found by iterations
        assert loss.value(unit * z, unit * Y) == weight * other.value(z, Y)
        assert torch.equal(loss.gradient(unit * z, unit * Y), weight / unit * other.gradient(z, Y))
    L = other.gradient(z, Y)
    assert float(loss.value(unit * z, unit * Y)) == pytest.approx(weight * float(other.value(z, Y)), rel=1e-12)
    conjugate = float(loss.conjugate(weight / unit * L, unit * Y))
    assert conjugate == pytest.approx(weight * float(other.conjugate(L, Y)), rel=1e-12)
    assert other.smoothness == loss.smoothness


@given(st.sampled_from(NAMES), st.integers(0, 10_000))
def test_projection_lands_in_the_domain_and_keeps_its_points(name, seed):
    loss, z, Y, rng = setup(name, seed)
    anywhere = torch.as_tensor(3 * rng.standard_normal(z.shape))
    projected = loss.project_dual(anywhere, Y)
    assert torch.isfinite(loss.conjugate(projected, Y))
    inside = loss.gradient(z, Y)
    torch.testing.assert_close(loss.project_dual(inside, Y), inside, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@given(st.sampled_from(NAMES), st.integers(0, 10_000))
def test_scaling_stays_in_the_domain_and_the_best_scale_is_best(name, seed):
    loss, z, Y, _ = setup(name, seed)
    L = loss.project_dual(loss.gradient(z, Y), Y)
    lo, hi = loss.scale_range(L, Y)
    lo, hi = max(lo, -3.0), min(hi, 3.0)
    grid = np.linspace(lo, hi, 41)
    values = [-float(loss.conjugate(float(s) * L, Y)) for s in grid]
    assert np.isfinite(values).all()
    best = loss.best_scale(L, Y, lo, hi)
    assert lo <= best <= hi
    assert -float(loss.conjugate(best * L, Y)) >= max(values) - 1e-12 * (1 + abs(max(values)))


@pytest.mark.parametrize("name", ["cross_entropy", "logistic", "squared_hinge", "huber"])
def test_conjugate_is_infinite_outside_its_domain(name):
    loss, z, Y, _ = setup(name, 3)
    outside = 5.0 * torch.sign(Y + 0.5) + loss.gradient(z, Y)
    assert torch.isinf(loss.conjugate(outside, Y))


@pytest.mark.parametrize("name", NAMES)
def test_conjugate_is_the_supremum(name):
    """sup_z <L, z> - F(z) by a numerical search shares no code with the formula."""
    from scipy.optimize import minimize

    loss, z, Y, _ = setup(name, 4, scale=0.7)
    L = loss.project_dual(loss.gradient(z, Y), Y)

    def negative(w):
        w = torch.as_tensor(w.reshape(z.shape))
        return float(loss.value(w, Y) - (L * w).sum())

    found = minimize(negative, np.zeros(z.numel()), method="BFGS", options={"gtol": 1e-7})
    assert -found.fun == pytest.approx(float(loss.conjugate(L, Y)), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_cvxpy_expressions_have_the_same_values(name):
    import cvxpy as cp

    loss, z, Y, _ = setup(name, 5)
    variable = cp.Variable(z.shape)
    expression, constraints = loss.cvxpy_value(variable, Y.numpy())
    assert expression.is_convex()
    variable.value = z.numpy()
    assert float(expression.value) == pytest.approx(float(loss.value(z, Y)), rel=1e-12)
    assert all(float(np.max(constraint.violation())) < 1e-12 for constraint in constraints)
    L = loss.project_dual(loss.gradient(z, Y), Y)
    expression, constraints = loss.cvxpy_conjugate(variable, Y.numpy())
    assert expression.is_convex()
    variable.value = L.numpy()
    assert float(expression.value) == pytest.approx(float(loss.conjugate(L, Y)), rel=1e-12, abs=1e-12)
    assert all(float(np.max(constraint.violation())) < 1e-9 for constraint in constraints)


def test_textbook_values():
    """Numbers worked out by hand."""
    z, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [-1.0]])
    assert float(cnn.Squared().value(z, y)) == pytest.approx(0.5 + 4.5)
    assert float(cnn.SquaredHinge().value(z, y)) == pytest.approx(0.5 + 4.5)
    assert float(cnn.Huber(delta=1.0).value(z, y)) == pytest.approx(0.5 + 2.5)
    assert float(cnn.Logistic().value(z, y)) == pytest.approx(np.log(2) + np.log1p(np.exp(2)))
    zero = torch.zeros(1, 3, dtype=torch.float64)
    assert float(cnn.CrossEntropy().value(zero, torch.tensor([[1.0, 0, 0]]))) == pytest.approx(np.log(3))


def test_extreme_predictions_stay_finite():
    for name in ("logistic", "cross_entropy"):
        loss, z, Y, _ = setup(name, 6, scale=1e4)
        assert torch.isfinite(loss.value(z, Y))
        assert torch.isfinite(loss.conjugate(loss.project_dual(loss.gradient(z, Y), Y), Y))
