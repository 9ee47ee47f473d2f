"""interior_point: against CVXPY's optimum and a closed form, its pieces against explicit matrices."""

import numpy as np
import pytest
import torch
from problems import LOSS_NAMES, random_problem
from textbook import textbook_optimum

import convexnn_bench as cnn
from convexnn_bench.algorithms.interior_point import route
from convexnn_bench.algorithms.interior_point.chain import ChainSystem, find_chain
from convexnn_bench.algorithms.interior_point.cones import LONGEST, Scaling, off_diagonal, off_diagonal_matrix, slacks
from convexnn_bench.algorithms.interior_point.dense import DenseSystem
from convexnn_bench.algorithms.interior_point.method import InteriorPoint
from convexnn_bench.algorithms.interior_point.rows import rows_of


def solve(problem: cnn.Problem, gap: float | None = 1e-8, **options) -> cnn.Result:
    return cnn.solve(problem, "interior_point", gap=gap, time_limit=600, show_progress=False, **options)


def cases() -> list[tuple[str, str, int]]:
    """Every loss with linear and gated activations, scalar and vector outputs where the loss has them."""
    return [
        (loss, activation, c)
        for loss in LOSS_NAMES
        for activation in ("linear", "gated_relu")
        for c in (1, 3)
        if not (loss == "cross_entropy" and c == 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "activation", "c"), cases())
def test_the_optimum_is_that_of_cvxpy(loss, activation, c):
    problem = random_problem(3, loss, activation, n=14, d=3, c=c, beta_fraction=0.03, patterns=8)
    result = solve(problem, iterations=60)
    assert result.status == "gap_reached", result.reason
    assert result.objective == pytest.approx(textbook_optimum(problem), rel=3e-8)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_data_in_the_plane_at_a_small_weight_decay(loss):
    """All patterns of the plane, where most blocks are active, along the chain; against Clarabel."""
    problem = random_problem(3, loss, n=14, d=2, c=3, beta_fraction=0.001, patterns="all")
    result = solve(problem, iterations=100)
    assert result.status == "gap_reached", result.reason
    assert "chain" in InteriorPoint(problem, "cpu", None).summary()
    optimum = cnn.solve(problem, "cvxpy_clarabel", show_progress=False).certificate
    assert optimum.dual * (1 - 3e-8) <= result.objective <= optimum.primal * (1 + 3e-8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 25])
def test_logistic_losses_at_a_small_weight_decay(seed):
    """Where labels can nearly be fitted F'' nearly vanishes; without a limit on changes of z these runs diverge."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((27, 3)), np.sign(rng.standard_normal(27))
    problem = cnn.Problem(X, y, activation="gated_relu", loss="logistic", patterns=10, beta_fraction=1e-4)
    result = solve(problem, gap=1e-6, iterations=190)
    assert result.status == "gap_reached", result.reason


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (3, 1), (3, 3)])
def test_orthonormal_data_have_a_closed_form(shape):
    """min 1/2 ||Z - Y||^2 + beta ||Z||_* shrinks the singular values of Y by beta."""
    rows, c = shape
    rng = np.random.default_rng(rows + c)
    Q, _ = np.linalg.qr(rng.standard_normal((rows, rows)))
    Y = rng.standard_normal((rows, c))
    values = np.linalg.svd(Y, compute_uv=False)
    beta = 0.5 * values[0]
    result = solve(cnn.Problem(Q, Y, activation="linear", beta=beta), gap=1e-10)
    optimum = np.where(values > beta, beta * values - beta**2 / 2, values**2 / 2).sum()
    assert result.objective == pytest.approx(optimum, rel=1e-9)
    assert np.linalg.matrix_rank(result.blocks[0], tol=1e-4) == (values > beta).sum()


@pytest.mark.parametrize("fraction", [1.0, 2.0])
def test_the_zero_network_is_optimal_above_beta_max(fraction):
    problem = random_problem(1, n=8, d=2, c=2, beta_fraction=fraction, patterns="all")
    result = solve(problem, gap=1e-7)
    assert result.objective == pytest.approx(0.5 * (problem.Y**2).sum(), rel=2e-7)


def test_without_a_target_it_ends_by_itself_below_its_tolerance():
    problem = random_problem(2, n=10, d=2, c=2, beta_fraction=0.01, patterns="all")
    result = solve(problem, gap=None)
    assert result.status == "solved"
    assert result.gap <= 1e-8
    assert "interior-point steps" in result.reason


def test_ends_at_its_limit_of_iterations_with_a_certified_point():
    problem = random_problem(2, n=10, d=2, c=2, beta_fraction=0.01, patterns="all")
    result = solve(problem, gap=1e-12, iterations=3)
    assert result.certificate.dual <= result.objective
    assert np.isfinite(result.gap)


def test_it_refuses_cones_and_normal_matrices_that_are_too_large(monkeypatch):
    relu = random_problem(0, activation="relu")
    assert "no barrier of the ReLU cones" in cnn.solve(relu, "interior_point").reason
    monkeypatch.setattr(route, "MOST_DUAL", 10)
    space, plane = random_problem(0, n=9, d=3), random_problem(0, n=9, d=2, patterns="all")
    assert "n_out c = 18 rows" in cnn.solve(space, "interior_point").reason
    assert solve(plane, gap=1e-6).status == "gap_reached"
    monkeypatch.setattr(route, "MOST_SLACKS", 10)
    assert "P (p + q)^2" in cnn.solve(plane, "interior_point").reason


# -- the scaling -------------------------------------------------------------------------------------------------------


def random_pair(P: int, p: int, q: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Slacks and multipliers, both positive definite."""
    rng = np.random.default_rng(seed)
    G = torch.as_tensor(rng.standard_normal((P, p, q)))
    S = slacks(G, 1.1 * float(torch.linalg.matrix_norm(G, 2).max()))
    root = torch.as_tensor(rng.standard_normal((P, p + q, p + q)))
    return S, root @ root.transpose(1, 2)


@pytest.mark.parametrize(("p", "q"), [(2, 3), (3, 2), (4, 1), (1, 3)])
def test_scaling_of_nesterov_and_todd(p, q):
    S, X = random_pair(7, p, q)
    scaling = Scaling.of(S, X)
    torch.testing.assert_close(scaling.W @ S @ scaling.W, X, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scaling.scaled(S), torch.diag_embed(scaling.values))
    torch.testing.assert_close(scaling.restored(torch.diag_embed(scaling.values)), X)
    assert scaling.mu * 7 * (p + q) == pytest.approx(float((X * S).sum()))
    # the longest step ends where an eigenvalue is zero
    D = slacks(torch.as_tensor(np.random.default_rng(1).standard_normal((7, p, q))), 0.0)
    length = scaling.longest(scaling.scaled(20 * D))
    least = torch.linalg.eigvalsh(S + length * 20 * D).min()
    assert abs(float(least)) <= 1e-9
    assert scaling.longest(scaling.scaled(1e-3 * D)) == LONGEST


@pytest.mark.parametrize(("p", "q"), [(2, 3), (3, 2), (4, 1), (1, 3)])
def test_weights_as_a_matrix(p, q):
    S, X = random_pair(5, p, q)
    W = Scaling.of(S, X).W
    G = torch.as_tensor(np.random.default_rng(2).standard_normal((5, p, q)))
    expected = (W @ slacks(G, 0.0) @ W)[:, :p, p:]
    torch.testing.assert_close(off_diagonal(W, G), expected)
    torch.testing.assert_close((off_diagonal_matrix(W, p) @ G.reshape(5, -1, 1)).view_as(G), expected)


# -- the normal matrix -------------------------------------------------------------------------------------------------


def explicit(problem: cnn.Problem, weights: torch.Tensor, root: torch.Tensor | None) -> torch.Tensor:
    """I + R^T A W A^* R, column by column from the operator."""
    operator, size = problem.operator(), problem.n_out * problem.c
    unit = torch.eye(size, dtype=torch.float64).view(size, problem.n_out, problem.c)

    def product(t: torch.Tensor) -> torch.Tensor:
        L = t if root is None else (root @ t[:, :, None])[:, :, 0]
        G = operator.adjoint(L)
        z = operator.apply((weights @ G.reshape(problem.P, -1, 1)).view_as(G))
        return t + (z if root is None else (root.transpose(1, 2) @ z[:, :, None])[:, :, 0])

    return torch.stack([product(t).flatten() for t in unit], dim=1)


def structured(name: str) -> cnn.Problem:
    rng = np.random.default_rng(8)
    if name == "cnn":
        X, Y = rng.standard_normal((8, 2, 4, 4)), rng.standard_normal((8, 2))
        return cnn.Problem(X, Y, architecture=cnn.CNN(patch=2, pool=2), beta_fraction=0.05, patterns=4)
    if name == "attention":
        X, Y = rng.standard_normal((5, 3, 2)), rng.standard_normal((5, 3, 2))
        return cnn.Problem(X, Y, architecture="attention", beta_fraction=0.05, patterns=4)
    loss, d, c = name.split("-")
    return random_problem(2, loss, n=12, d=int(d), c=int(c), beta_fraction=0.05, patterns=6 if d != "2" else "all")


NAMES = ["squared-3-1", "squared-3-2", "cross_entropy-4-3", "squared-2-3", "cross_entropy-2-3", "logistic-2-1", "cnn"]


@pytest.mark.parametrize("name", [*NAMES, pytest.param("attention", marks=pytest.mark.slow)])
def test_factorisations_solve_the_explicit_system(name):
    problem = structured(name)
    operator = problem.operator()
    S, X = random_pair(problem.P, problem.p, problem.q)
    W = Scaling.of(S, X).W
    weights = off_diagonal_matrix(W, problem.p)
    rows = rows_of(problem.loss, operator.Y)
    rows.linearise(torch.zeros_like(operator.Y), 0.3 * torch.ones_like(operator.Y))
    matrix = explicit(problem, weights, rows.root)
    b = torch.as_tensor(np.random.default_rng(3).standard_normal(operator.Y.shape))
    expected = torch.linalg.solve(matrix, b.flatten()).view_as(b)
    systems = [DenseSystem(operator)]
    chain = route.chain_of(problem)
    assert (chain is not None) == (problem.p == 2)
    if chain is not None:
        systems.append(ChainSystem(chain, operator.Phi, operator.c))
    for system in systems:
        found = system.factor(W, weights, rows.root).solve(b)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rows", [1, 2, 5, 64])
def test_the_chain_in_chunks_of_any_size(rows, monkeypatch):
    problem = random_problem(4, n=13, d=2, c=2, patterns="all")
    operator = problem.operator()
    monkeypatch.setattr("convexnn_bench.algorithms.interior_point.chain.CHUNK", 2 * rows)
    system = ChainSystem(route.chain_of(problem), operator.Phi, operator.c)
    W = Scaling.of(*random_pair(problem.P, 2, 2)).W
    weights = off_diagonal_matrix(W, 2)
    b = torch.as_tensor(np.random.default_rng(3).standard_normal(operator.Y.shape))
    found = system.factor(W, weights, None).solve(b)
    expected = torch.linalg.solve(explicit(problem, weights, None), b.flatten()).view_as(b)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def plane(kind: str) -> cnn.Problem:
    """Problems in the plane with rows of zeros, equal and opposite rows, few patterns, or a bias."""
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((11, 2)), rng.standard_normal((11, 2))
    if kind == "zeros":
        X[[2, 7]] = 0.0
    if kind == "parallel":
        X[3], X[4], X[9] = 2 * X[0], -X[0], X[5]
    if kind == "axes":
        X[:4] = [[1, 0], [-1, 0], [0, 1], [0, -2]]
    if kind == "line":
        X = np.outer(X[:, 0], [1.0, 2.0])
    if kind == "bias":
        X[:, 1] = 1.0
    return cnn.Problem(X, Y, beta_fraction=0.05, patterns=5 if kind == "few" else "all")


@pytest.mark.parametrize("kind", ["plain", "zeros", "parallel", "axes", "line", "bias", "few"])
def test_products_along_the_chain_are_those_of_the_operator(kind):
    problem = plane(kind)
    chain = route.chain_of(problem)
    assert chain is not None
    operator, rng = problem.operator(), np.random.default_rng(6)
    system = ChainSystem(chain, operator.Phi, operator.c)
    L = torch.as_tensor(rng.standard_normal(operator.Y.shape))
    Z = torch.as_tensor(rng.standard_normal((problem.P, 2, 2)))
    torch.testing.assert_close(system.adjoint(L), operator.adjoint(L), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(system.apply(Z), operator.apply(Z), rtol=1e-12, atol=1e-12)


def test_masks_that_no_gate_has_are_no_chain():
    rng = np.random.default_rng(7)
    Phi = rng.standard_normal((9, 2))
    masks = np.stack([Phi @ rng.standard_normal(2) >= 0 for _ in range(4)], axis=1)
    assert find_chain(Phi, masks) is not None
    order = np.argsort(np.arctan2(Phi[:, 1], Phi[:, 0]) % np.pi)
    masks[order[[2, 6]], 0] ^= True
    assert find_chain(Phi, masks) is None
    problem = cnn.Problem(Phi, rng.standard_normal((9, 2)), beta_fraction=0.05, patterns=masks)
    assert solve(problem).objective == pytest.approx(textbook_optimum(problem), rel=3e-8)
