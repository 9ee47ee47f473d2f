"""JointBound: bounds of moved multipliers and rules stay below optima that are known from all patterns."""

import numpy as np
import pytest
import torch

import convexnn_bench as cnn
from convexnn_bench.certificates import JointBound, joint_bound
from convexnn_bench.norms import MovingBound
from convexnn_bench.norms.all_patterns import bounds

LOSSES = ("squared", "huber", "logistic", "squared_hinge", "cross_entropy")


@pytest.fixture(autouse=True)
def _without_enumeration(monkeypatch):
    """Bound all patterns by decision rules in few directions, also where they could be enumerated."""
    monkeypatch.setattr(bounds, "ENUMERATION_SECONDS", -1.0)
    monkeypatch.setattr(joint_bound, "DIRECTIONS", (6,))


def problem_of(loss: str, c: int, seed: int, n: int = 6, d: int = 2, patterns="all", **more) -> cnn.Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    signs = loss in ("logistic", "squared_hinge")
    Y = rng.choice([-1.0, 1.0], (n, c)) if signs else rng.standard_normal((n, c))
    Y = rng.integers(c, size=n) if loss == "cross_entropy" else Y
    if loss == "cross_entropy":
        Y[:c] = np.arange(c)
    return cnn.Problem(X, Y, "mlp", "relu", loss, beta=0.3, patterns=patterns, seed=seed, **more)


def bound_at(problem: cnn.Problem, z: torch.Tensor, steps: int = 40) -> JointBound:
    joint = JointBound(problem, z, 600.0)
    joint.ascend(600.0, steps=steps)
    return joint


def cases():
    for loss in LOSSES:
        for c in (1, 2, 3):
            if loss != "cross_entropy" or c > 1:
                for seed in range(3):
                    yield loss, c, seed


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "c", "seed"), list(cases()))
def test_no_bound_is_above_the_optimum_of_all_patterns(loss, c, seed):
    """The optimum is that of the convex program on every pattern, whose objective no network undercuts."""
    problem = problem_of(loss, c, seed, output_bias=(None, "free", "penalised")[seed])
    optimum = cnn.solve(problem, "bm_newton", gap=1e-9, time_limit=600)
    z = problem.operator().apply(torch.as_tensor(optimum.blocks))
    noise = torch.as_tensor(np.random.default_rng(seed).standard_normal(tuple(z.shape)))
    joint = bound_at(problem, z + (0.0, 0.1, 1.0)[seed] * noise, steps=8)
    assert 0 < joint.dual <= optimum.objective * (1 + 1e-9)


@pytest.mark.slow
def test_moving_the_multiplier_raises_the_bound():
    problem = problem_of("logistic", 1, 0, n=40, d=5, patterns=3)
    z = torch.zeros(problem.n_out, problem.c, dtype=torch.float64)
    first, later = bound_at(problem, z, steps=1), bound_at(problem, z, steps=60)
    assert later.dual > 1.05 * first.dual


@pytest.mark.slow
def test_the_multiplier_is_feasible_in_random_directions():
    problem = problem_of("squared", 3, 1, n=30, d=4, patterns=3)
    joint = bound_at(problem, torch.zeros(problem.n_out, problem.c, dtype=torch.float64))
    U = np.random.default_rng(0).standard_normal((problem.p, 2000))
    U /= np.linalg.norm(U, axis=0)
    images = joint.multiplier.numpy().T @ np.maximum(problem.Phi @ U, 0.0)
    assert np.linalg.norm(images, axis=0).max() <= problem.beta
    assert joint.dual == pytest.approx(-float(problem.loss.conjugate(joint.multiplier, problem.operator().Y)), rel=1e-9)


@pytest.mark.parametrize("q", [1, 2, 3])
def test_rules_hold_for_weights_whose_signs_have_changed(q):
    """A rule that was made for some weights bounds the norm of any others."""
    rng = np.random.default_rng(q)
    rows, R = rng.standard_normal((25, 4)), rng.standard_normal((25, q))
    moving = MovingBound(rows, R, 8)
    U = rng.standard_normal((4, 4000))
    hidden = np.maximum(rows @ (U / np.linalg.norm(U, axis=0)), 0.0)
    for other in (R, R + rng.standard_normal(R.shape), -R, rng.standard_normal(R.shape)):
        reached = np.linalg.norm(other.T @ hidden, axis=0).max()
        assert moving.above(other) >= reached
        # the smooth function is slightly above the bound for weights in the span of the start
        if q < 3 or other is R:
            squares = moving.squares((torch.as_tensor(other) @ moving.directions).T)
            assert float(moving.norm(squares)) >= moving.above(other) * (1 - 1e-9)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_derivative_by_the_multiplier_is_that_of_the_value(outputs):
    problem = problem_of("squared", outputs, 2, n=25, d=4, patterns=3)
    joint = JointBound(problem, torch.zeros(problem.n_out, problem.c, dtype=torch.float64), 600.0)
    parameters = [tensor.requires_grad_(True) for tensor, _ in joint.moving.parameters]
    start, size = joint.z.clone(), 1e-5
    direction = torch.as_tensor(np.random.default_rng(0).standard_normal(joint.z.shape))
    slope = joint._evaluate(parameters)[1]
    values = []
    for sign in (1.0, -1.0):
        joint.z = start + sign * size * direction
        values.append(joint._evaluate(parameters)[0])
    # the slope is that of F*, and the value its negative
    assert (values[1] - values[0]) / (2 * size) == pytest.approx(float((slope * direction).sum()), rel=1e-5)


def test_rules_without_any_positive_weight():
    rows = np.random.default_rng(0).standard_normal((6, 3))
    moving = MovingBound(rows, -np.ones((6, 1)), 8)
    assert moving.above(np.zeros((6, 1))) == 0.0
    assert moving.above(np.ones((6, 1))) >= np.linalg.norm(np.maximum(rows @ np.ones(3) / 3**0.5, 0.0).sum())


def test_an_ascent_that_leaves_float64_keeps_its_bounds(monkeypatch):
    problem = problem_of("squared", 1, 0)
    joint = JointBound(problem, torch.zeros(problem.n_out, problem.c, dtype=torch.float64), 600.0)
    joint.ascend(600.0, steps=2)
    before = joint.dual

    def fails(self, parameters):
        raise torch.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(JointBound, "_evaluate", fails)
    joint.ascend(600.0, steps=2)
    assert joint.dual == before > 0
