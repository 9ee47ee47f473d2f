"""Scaled gradient descent: its direction against the formula, its invariance, descent, and the textbook optimum."""

import numpy as np
import pytest
import torch
from problems import LOSS_NAMES, random_problem
from textbook import textbook_optimum

import convexnn_bench as cnn
from convexnn_bench.algorithms.descent.bm_objective import BMObjective
from convexnn_bench.algorithms.descent.methods import gradient_descent
from convexnn_bench.algorithms.descent.scaled_gradient import ScaledMetric, block_norms_squared, scaled
from convexnn_bench.formulations import burer_monteiro

PAIRS = [(loss, activation) for loss in LOSS_NAMES for activation in ("linear", "gated_relu")]


def factors(problem: "cnn.Problem", m: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    U, V = (torch.as_tensor(rng.standard_normal((problem.P, rows, m))) for rows in (problem.p, problem.q))
    return U, V


def basis_changes(P: int, m: int, orthogonal: bool) -> torch.Tensor:
    Q = np.random.default_rng(5).standard_normal((P, m, m)) + 2 * np.eye(m)
    return torch.as_tensor(np.linalg.qr(Q)[0] if orthogonal else Q)


def iterates(problem: "cnn.Problem", U: torch.Tensor, V: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """The blocks Z_k = U_k V_k^T of the first points of bm_scaled_gd from (U, V)."""
    objective = BMObjective(problem, U.shape[2], seed=0, device="cpu")
    blocks: list[torch.Tensor] = []

    def step_done(x: torch.Tensor) -> bool:
        blocks.append(burer_monteiro.to_blocks(*objective.factors(x)))
        return len(blocks) <= steps

    gradient_descent(objective, objective.flatten(U, V), step_done, precondition=ScaledMetric(objective))
    return blocks


@pytest.mark.parametrize(("P", "rows", "q", "m"), [(1, 4, 3, 3), (5, 3, 2, 1), (4, 2, 6, 5)])
def test_the_direction_is_gradient_times_inverse_block_by_block(P, rows, q, m):
    rng = np.random.default_rng(0)
    gradient, other = rng.standard_normal((P, rows, m)), rng.standard_normal((P, q, m))
    curvature, damping = rng.random(P), rng.random(P)
    found = scaled(*map(torch.as_tensor, (gradient, other, curvature, damping)))
    for k in range(P):
        metric = curvature[k] * other[k].T @ other[k] + damping[k] * np.eye(m)
        np.testing.assert_allclose(found[k], gradient[k] @ np.linalg.inv(metric), rtol=1e-10, atol=1e-12)


def test_without_damping_the_direction_follows_every_change_of_basis():
    """At (U Q, V Q^-T) the gradient of F is (G V Q^-T, G^T U Q), and the directions are (D_U Q, D_V Q^-T): the blocks
    U V^T move in the same way (Tong, Ma & Chi 2021, section 1.2)."""
    P, p, q, m = 3, 5, 4, 2
    rng = np.random.default_rng(1)
    G, U, V = (torch.as_tensor(rng.standard_normal(shape)) for shape in ((P, p, q), (P, p, m), (P, q, m)))
    Q = basis_changes(P, m, orthogonal=False)
    T = torch.linalg.inv(Q).transpose(1, 2)

    def moved(U: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
        one, none = torch.ones(P, dtype=torch.float64), torch.zeros(P, dtype=torch.float64)
        left, right = scaled(G @ V, V, one, none), scaled(G.transpose(1, 2) @ U, U, one, none)
        return (U - 0.1 * left) @ (V - 0.1 * right).transpose(1, 2)

    torch.testing.assert_close(moved(U @ Q, V @ T), moved(U, V), rtol=1e-9, atol=1e-11)
    # plain gradient steps do depend on the basis
    plain = (U - 0.1 * G @ V) @ (V - 0.1 * G.transpose(1, 2) @ U).transpose(1, 2)
    U, V = U @ Q, V @ T
    other = (U - 0.1 * G @ V) @ (V - 0.1 * G.transpose(1, 2) @ U).transpose(1, 2)
    assert (plain - other).abs().max() > 1e-2


def test_with_weight_decay_the_iterates_follow_every_rotation():
    """Weight decay and its damping are invariant under rotations (U Q, V Q) only."""
    problem = random_problem(2, n=12, d=4, c=3, patterns=3)
    U, V = factors(problem, m=3)
    Q = basis_changes(problem.P, 3, orthogonal=True)
    one, other = iterates(problem, U, V, 40), iterates(problem, U @ Q, V @ Q, 40)
    for Z, turned in zip(one, other, strict=True):
        torch.testing.assert_close(Z, turned, rtol=1e-7, atol=1e-8)
    assert (one[-1] - one[0]).abs().max() > 0.1


def test_units_of_the_data_do_not_matter():
    """X in units a and Y in units b scale beta by a b and the blocks by b / a: factors by (b / a)^1/2, same steps."""
    problem = random_problem(2, n=12, d=4, c=3, patterns=3)
    U, V = factors(problem, m=3)
    a, b = 1e4, 1e-3
    scaled_up = cnn.Problem(a * problem.X, b * problem.Y, beta=a * b * problem.beta, patterns=problem.masks)
    root = (b / a) ** 0.5
    one, other = iterates(problem, U, V, 30), iterates(scaled_up, root * U, root * V, 30)
    for Z, rescaled in zip(one, other, strict=True):
        torch.testing.assert_close(rescaled * (a / b), Z, rtol=1e-6, atol=1e-7)


def test_the_curvature_of_a_block_is_its_operators_norm():
    """||C||^2 ||D_k Phi||^2 by dense matrices, to what ten power iterations give; never below ||A_k||^2 by more."""
    problem = random_problem(3, n=14, d=4, c=2, patterns=6)
    exact = [np.linalg.norm(problem.masks[:, [k]] * problem.X, 2) ** 2 for k in range(problem.P)]
    found = block_norms_squared(problem.operator())
    np.testing.assert_allclose(found, exact, rtol=0.1)
    assert (found.numpy() <= np.array(exact) * (1 + 1e-12)).all()
    rng = np.random.default_rng(2)
    problem = cnn.Problem(rng.standard_normal((3, 2, 2)), np.ones(6), architecture="attention", beta=1.0, patterns=2)
    operator = problem.operator()
    for k, bound in enumerate(block_norms_squared(operator)):
        columns = []
        for j in range(problem.p * problem.q):
            Z = torch.zeros(problem.P, problem.p * problem.q, dtype=torch.float64)
            Z[k, j] = 1
            columns.append(operator.apply(Z.view(problem.P, problem.p, problem.q)).reshape(-1))
        assert torch.linalg.matrix_norm(torch.stack(columns), 2) ** 2 <= 1.05 * bound


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_step_descends_towards_the_textbook_optimum(pair):
    problem = random_problem(1, *pair, n=9, d=2, patterns="all")
    optimum = textbook_optimum(problem)
    result = cnn.solve(problem, "bm_scaled_gd", gap=1e-5, iterations=500, time_limit=None)
    slack = 1e-8 * (1 + optimum)  # what Clarabel's tolerance leaves open
    certificate = result.certificate
    assert result.status in ("gap_reached", "stalled")
    assert certificate.gap < 5e-2
    assert certificate.dual <= optimum + slack
    assert -slack <= result.objective - optimum <= certificate.gap * abs(certificate.dual) + slack
    objectives = np.array([objective for _, objective, _ in result.curve])
    assert len(objectives) >= 2
    assert (np.diff(objectives) <= 1e-12 * objectives[:-1]).all()


@pytest.mark.slow
def test_all_steps_lower_the_objective_not_only_those_that_are_scored():
    problem = random_problem(4, n=15, d=4, c=3, patterns=6)
    objective = BMObjective(problem, None, seed=0, device="cpu")
    values: list[float] = []

    def step_done(x: torch.Tensor) -> bool:
        values.append(float(objective(x)[0]))
        return len(values) <= 200

    gradient_descent(objective, objective.start, step_done, precondition=ScaledMetric(objective))
    assert (np.diff(values) <= 1e-14 * values[0]).all()
    assert values[-1] < 0.9 * values[0]


def test_an_ill_conditioned_optimum_slows_plain_steps_and_not_scaled_ones():
    """A linear network, X orthogonal, Y = X A diag(s) B^T with s from 1 to 1e-3: by soft-thresholding the optimum is
    A diag(s - beta) B^T. After as many steps from the same point."""
    rng = np.random.default_rng(0)
    d, beta, sizes = 6, 1e-6, np.logspace(0, -3, 6)
    X, A, B = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(3))
    problem = cnn.Problem(X, X @ A @ np.diag(sizes) @ B.T, activation="linear", beta=beta)
    optimum = A @ np.diag(sizes - beta) @ B.T
    distance = {}
    for name in ("plain", "scaled"):
        objective = BMObjective(problem, None, seed=0, device="cpu")
        points = [objective.start]

        def step_done(x: torch.Tensor, points=points) -> bool:
            points.append(x)
            return len(points) <= 100

        precondition = ScaledMetric(objective) if name == "scaled" else None
        gradient_descent(objective, objective.start, step_done, precondition=precondition)
        blocks = burer_monteiro.to_blocks(*objective.factors(points[-1]))
        distance[name] = np.linalg.norm(blocks[0].numpy() - optimum)
    assert distance["scaled"] < 1e-5
    assert distance["plain"] > 1e-3


@pytest.mark.slow
def test_any_number_of_columns():
    problem = random_problem(4, n=10, d=3, c=2, patterns=5)
    optimum = textbook_optimum(problem)
    for m in (2, 5):
        result = cnn.solve(problem, "bm_scaled_gd", m=m, gap=1e-5, time_limit=600)
        assert result.objective == pytest.approx(optimum, rel=1e-4)


@pytest.mark.slow
def test_architectures():
    for architecture, shape, rows in ((cnn.CNN(patch=2), (4, 1, 2, 3), 4), (cnn.Attention(), (2, 2, 2), 4)):
        rng = np.random.default_rng(7)
        problem = cnn.Problem(
            rng.standard_normal(shape),
            rng.standard_normal(rows),
            architecture=architecture,
            beta_fraction=0.1,
            patterns=5,
        )
        result = cnn.solve(problem, "bm_scaled_gd", gap=1e-2, time_limit=600)
        assert result.status == "gap_reached", result.reason


@pytest.mark.slow
def test_it_ends_by_itself_where_nothing_moves():
    problem = random_problem(6)
    still = cnn.Problem(problem.X, np.zeros_like(problem.Y), beta=0.1, patterns=problem.masks)
    result = cnn.solve(still, "bm_scaled_gd", gap=None, time_limit=600)
    # The optimum is zero, and no objective above zero is within a relative gap of it.
    assert result.status == "stalled" or result.objective == 0.0, result.reason
    assert "no longer moves the point" in result.reason
    assert 0 <= result.objective < 1e-20


def test_relu_is_skipped_with_a_way_out():
    reason = cnn.SOLVERS.make("bm_scaled_gd").skip(random_problem(0, activation="relu"))
    assert "use bm_gd" in reason


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")
def test_on_a_gpu():
    problem = random_problem(1, n=9, d=2, patterns="all")
    result = cnn.solve(problem, "bm_scaled_gd", gap=1e-4, time_limit=5, device="cuda")
    assert result.objective == pytest.approx(textbook_optimum(problem), rel=1e-3)
