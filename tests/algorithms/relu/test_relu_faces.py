"""Newton on the faces of the ReLU cones: derivatives by differences, what steps keep, where they end."""

import numpy as np
import pytest
import torch
from problems import targets

import convexnn_bench as cnn
from convexnn_bench.algorithms.descent.methods import spectral_projected_gradient
from convexnn_bench.algorithms.relu.faces import descend, null_space, projected_gradient
from convexnn_bench.algorithms.relu.neurons import NeuronObjective, ReluNeurons
from convexnn_bench.algorithms.relu.pricing import BlockPricing


def relu_problem(seed: int, loss: str = "squared", c: int = 2, d: int = 3, n: int = 8) -> "cnn.Problem":
    rng = np.random.default_rng(seed)
    Y = targets(loss, n, c, rng)
    return cnn.Problem(rng.standard_normal((n, d)), Y, activation="relu", loss=loss, beta_fraction=0.1, patterns=12)


def random_neurons(problem: "cnn.Problem", seed: int, count: int = 5) -> ReluNeurons:
    """Balanced neurons in the cones of different blocks, some of them on facets."""
    rng = np.random.default_rng(seed)
    U, V = rng.standard_normal((count, problem.p)), rng.standard_normal((count, problem.q))
    return BlockPricing(problem, None).start(U, V, rng.permutation(problem.P)[:count]).balanced()


@pytest.mark.parametrize("loss", ["squared", "cross_entropy", "logistic"])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_that_of_the_factored_objective(loss, seed):
    problem = relu_problem(seed, loss)
    neurons, objective, h = random_neurons(problem, seed), NeuronObjective(problem), 1e-6
    left, right = objective.gradient(neurons, objective.residual(neurons))
    rng = np.random.default_rng(seed + 10)
    for _ in range(4):
        dU, dV = rng.standard_normal(left.shape), rng.standard_normal(right.shape)
        ends = [objective.value(neurons.moved(neurons.U + s * dU, neurons.V + s * dV)) for s in (h, -h)]
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(
            np.sum(left * dU) + np.sum(right * dV), rel=1e-6, abs=1e-6
        )
    # and the value is that of the Burer-Monteiro point with the same columns
    U, V = np.zeros((problem.P, problem.p, 1)), np.zeros((problem.P, problem.q, 1))
    U[neurons.blocks, :, 0], V[neurons.blocks, :, 0] = neurons.U, neurons.V
    assert objective.value(neurons) == pytest.approx(problem.factored_objective(U, V), rel=1e-12)


def reparametrised(objective: NeuronObjective, neurons: ReluNeurons) -> float:
    """F + beta sum ||u_j|| ||v_j||, from the value of f."""
    squares = np.sum(neurons.U**2) + np.sum(neurons.V**2)
    return objective.value(neurons) - objective.beta * (0.5 * float(squares) - float(np.sum(neurons.sizes)))


@pytest.mark.parametrize("loss", ["squared", "cross_entropy", "logistic"])
@pytest.mark.parametrize("c", [1, 3])
def test_hessian_is_the_second_difference_along_the_faces(loss, c):
    problem = relu_problem(4, loss, c)
    neurons, objective = random_neurons(problem, 4), NeuronObjective(problem)
    q, h = problem.q, 1e-3
    bases = [null_space((u / np.linalg.norm(u))[None]) if q > 1 else np.eye(problem.p) for u in neurons.U]
    H = objective.hessian(neurons, objective.residual(neurons), bases)
    widths = [basis.shape[1] for basis in bases]
    assert H.shape[0] == sum(widths) + (neurons.V.size if q > 1 else 0)
    np.testing.assert_allclose(H, H.T, atol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(4):
        d = rng.standard_normal(H.shape[0])
        parts = np.split(d[: sum(widths)], np.cumsum(widths)[:-1])
        dU = np.stack([basis @ part for basis, part in zip(bases, parts, strict=True)])
        dV = d[sum(widths) :].reshape(neurons.V.shape) if q > 1 else np.zeros_like(neurons.V)
        values = [
            reparametrised(objective, neurons.moved(neurons.U + s * dU, neurons.V + s * dV))
            for s in (-2 * h, -h, 0, h, 2 * h)
        ]
        second = np.dot([-1, 16, -30, 16, -1], values) / (12 * h**2)
        assert d @ H @ d == pytest.approx(second, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("architecture", [cnn.CNN(2, pool=2), cnn.CNN(2, pool="identity"), "attention"])
@pytest.mark.parametrize("c", [1, 3])
def test_the_jacobian_is_that_of_the_predictions(architecture, c, monkeypatch):
    """By pooled rows, or by some columns at a time, against a difference of the predictions, which are bilinear."""
    monkeypatch.setattr("convexnn_bench.algorithms.relu.neurons.CHUNK_ELEMENTS", 2000)
    rng = np.random.default_rng(5)
    shape, rows = ((6, 3, 2), (6, 3, c)) if architecture == "attention" else ((6, 1, 4, 4), (6, c))
    problem = cnn.Problem(
        rng.standard_normal(shape), rng.standard_normal(rows), architecture, "relu", beta_fraction=0.1, patterns=9
    )
    neurons, objective = random_neurons(problem, 5), NeuronObjective(problem)
    owner = np.repeat(np.arange(len(neurons)), problem.p)
    T = np.tile(problem.Phi, len(neurons)) * neurons.masks.T[:, owner]
    jacobian = objective._jacobian(neurons, T, owner)
    dU, dV = rng.standard_normal(neurons.U.shape), rng.standard_normal(neurons.V.shape)
    ends = [objective.predictions(neurons.moved(neurons.U + s * dU, neurons.V)) for s in (0.5, -0.5)]
    expected = (ends[0] - ends[1]).numpy()
    np.testing.assert_allclose(jacobian[:, :, : len(owner)] @ dU.ravel(), expected, rtol=1e-12, atol=1e-12)
    if problem.q > 1:
        moved = objective.predictions(neurons.moved(neurons.U, dV)).numpy()
        np.testing.assert_allclose(jacobian[:, :, len(owner) :] @ dV.ravel(), moved, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_descent_falls_inside_the_cones_to_a_stationary_point(c, seed):
    problem = relu_problem(seed, "squared", c)
    objective, values = NeuronObjective(problem), []
    start = random_neurons(problem, seed)

    def tick(neurons: ReluNeurons) -> bool:
        values.append(objective.value(neurons))
        assert neurons.slack(neurons.U).min() >= -1e-12 * np.linalg.norm(neurons.U, axis=1).max()
        return True

    end, going = descend(objective, start, 1e-10, 300, tick)
    assert going
    assert (np.diff([objective.value(start), *values]) <= 1e-12 * values[0]).all()
    # no small feasible move of the columns that are left lowers f by more than its second order allows
    rng = np.random.default_rng(seed)
    for _ in range(50):
        dU, dV = rng.standard_normal(end.U.shape), rng.standard_normal(end.V.shape)
        moved = end.moved(end.project(end.U + 1e-5 * dU), end.V + 1e-5 * dV)
        assert objective.value(moved) >= values[-1] - 1e-8 * values[-1]


def test_the_slope_leaves_facets_only_inwards():
    problem = relu_problem(1)
    neurons, objective = random_neurons(problem, 1, count=10), NeuronObjective(problem)
    slope = projected_gradient(neurons, *objective.gradient(neurons, objective.residual(neurons)))
    assert neurons.active().any()
    inward = neurons.slack(-slope.down)[neurons.active()]
    assert inward.min() >= -1e-9 * np.abs(slope.left).max()
    # the projection is the steepest: no other feasible direction of length one has a larger slope
    rng = np.random.default_rng(0)
    for _ in range(200):
        j = int(rng.integers(len(neurons)))
        d = neurons.project(neurons.U + 1e-7 * rng.standard_normal(neurons.U.shape))[j] - neurons.U[j]
        assert -slope.left[j] @ d <= np.linalg.norm(slope.down[j]) * np.linalg.norm(d) * (1 + 1e-6) + 1e-14


def test_merging_keeps_predictions_and_never_raises_the_objective():
    problem = relu_problem(2, c=2)
    neurons, objective = random_neurons(problem, 2), NeuronObjective(problem)
    twin = neurons.moved(3.0 * neurons.U, neurons.V + 1.0)  # parallel u in the same cones
    both = neurons.joined(twin).balanced()
    merged = both.merged()
    assert len(merged) == len(neurons)
    torch.testing.assert_close(objective.predictions(merged), objective.predictions(both))
    assert objective.value(merged) <= objective.value(both) * (1 + 1e-14)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_spectral_projected_gradient_ends_at_the_constrained_minimum(unit):
    """min 1/2 x^T A x - b^T x over x >= 0, A of condition 10^4, against the multipliers of the solution."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    A = torch.as_tensor((basis * np.logspace(-4, 0, 20)) @ basis.T)
    b = torch.as_tensor(rng.standard_normal(20))
    seen: list[torch.Tensor] = []

    def step_done(x: torch.Tensor) -> bool:
        seen.append(x.clone())
        return len(seen) < 3000

    spectral_projected_gradient(
        lambda x: (unit * (0.5 * x @ A @ x - b @ x), unit * (A @ x - b)),
        torch.ones(20, dtype=torch.float64),
        step_done,
        lambda x: x.clamp_min(0),
        first_step=1.0 / unit,
    )
    x, values = seen[-1], [float(0.5 * y @ A @ y - b @ y) for y in seen]
    gradient = A @ x - b
    assert (np.diff(values) <= 1e-12 * np.abs(values[:-1])).all()  # of the best points so far
    assert x.min() >= 0
    assert gradient[x > 0].abs().max() <= 1e-5
    assert gradient[x == 0].min() >= -1e-5
