"""A, its adjoint and the factored gradients against the dense n x Pd matrix, loops and finite differences."""

import numpy as np
import pytest
import torch
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.errors import ChangedProblemError
from convexnn_bench.formulations import burer_monteiro, network
from convexnn_bench.operator import chunks
from convexnn_bench.operator.lifted import Operator
from convexnn_bench.operator.products import pooled as pooled_module
from convexnn_bench.running.untouched import Untouched


def dense(problem) -> np.ndarray:
    """[D_1 Phi .. D_P Phi], n x Pp, the textbook matrix that the package never forms."""
    return np.concatenate([problem.masks[:, [k]] * problem.Phi for k in range(problem.P)], axis=1)


def test_apply_and_adjoint_equal_the_dense_matrix(combination):
    loss, activation = combination
    problem = random_problem(1, loss, activation)
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((problem.P, problem.p, problem.q))
    L = rng.standard_normal((problem.n_out, problem.c))
    A = dense(problem)
    np.testing.assert_allclose(problem.predict(Z), A @ Z.reshape(-1, problem.q), atol=1e-12)
    G = problem.operator().adjoint(torch.as_tensor(L)).numpy()
    np.testing.assert_allclose(G.reshape(-1, problem.q), A.T @ L, atol=1e-12)


def test_written_out_gradient_by_differences_and_autograd(combination):
    loss, activation = combination
    problem = random_problem(4, loss, activation)
    rng = np.random.default_rng(2)
    U = torch.as_tensor(rng.standard_normal((problem.P, problem.p, 2)), dtype=torch.float64).requires_grad_(True)
    V = torch.as_tensor(rng.standard_normal((problem.P, problem.q, 2)), dtype=torch.float64).requires_grad_(True)
    operator = problem.operator()
    z = operator.apply_factors(U, V)
    total = problem.loss.value(z, operator.Y) + problem.beta / 2 * (U.square().sum() + V.square().sum())
    expected = torch.autograd.grad(total, [U, V])
    U, V = U.detach(), V.detach()
    value, left, right = burer_monteiro.value_and_gradient(problem, operator, U, V)
    assert float(value) == pytest.approx(problem.factored_objective(U, V), rel=1e-12)
    torch.testing.assert_close(left, expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(right, expected[1], rtol=1e-9, atol=1e-9)
    step = torch.as_tensor(rng.standard_normal(U.shape))
    h = 1e-6
    slope = (problem.factored_objective(U + h * step, V) - problem.factored_objective(U - h * step, V)) / (2 * h)
    assert slope == pytest.approx(float((left * step).sum()), rel=1e-5, abs=1e-5)


def test_network_by_a_loop_over_neurons(combination):
    """C(phi(X W1) W2^T) straight from the definition."""
    loss, activation = combination
    problem = random_problem(5, loss, activation)
    rng = np.random.default_rng(3)
    W1, W2 = rng.standard_normal((problem.p, 5)), rng.standard_normal((problem.q, 5))
    expected = np.zeros((problem.n_out, problem.c))
    for j in range(5):
        h = problem.Phi @ W1[:, j]
        if activation == "relu":
            h = np.maximum(h, 0)
        elif activation == "gated_relu":
            h = h * (problem.Phi @ problem.gates[:, j % problem.P] >= 0)
        expected += np.outer(h, W2[:, j])
    found = network.predict(problem, torch.as_tensor(W1), torch.as_tensor(W2)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


class Strided(cnn.BaseArchitecture):
    """An architecture with a genuine C, to hold the general paths to: pairs of rows are summed with weights."""

    name = "strided"

    def check_data(self, X):
        pass

    def phi_rows(self, X):
        return X.reshape(-1, X.shape[-1])

    def width_out(self, X, c):
        return 2 * c

    def second_layer(self, M, X, c):
        parts = M.reshape(X.shape[0], X.shape[1], 2, c)
        weights = torch.arange(1.0, 2 * X.shape[1] + 1, dtype=M.dtype).reshape(X.shape[1], 2)
        return torch.einsum("ijkc,jk->ic", parts, weights)


def test_a_genuine_second_layer_and_its_derived_adjoint_and_matrix():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((4, 3, 2)), rng.standard_normal((4, 2))
    problem = cnn.Problem(X, Y, architecture=Strided(), beta=0.1, patterns=5)
    assert (problem.N, problem.p, problem.q) == (12, 2, 4)
    operator = problem.operator()
    Z = torch.as_tensor(rng.standard_normal((problem.P, problem.p, problem.q)))
    L = torch.as_tensor(rng.standard_normal((4, 2)))
    assert float((operator.apply(Z) * L).sum()) == pytest.approx(float((Z * operator.adjoint(L)).sum()), rel=1e-10)
    M = torch.as_tensor(rng.standard_normal((12, 4)))
    matrix = operator.second_layer_matrix()
    np.testing.assert_allclose(matrix @ M.numpy().reshape(-1), operator.second_layer(M).numpy().reshape(-1), atol=1e-12)


def test_operator_norm_is_that_of_the_dense_matrix():
    problem = random_problem(6, n=12, patterns=6)
    expected = np.linalg.norm(dense(problem), 2) ** 2
    assert problem.operator().norm_squared(200) == pytest.approx(expected, rel=1e-6)


def test_the_way_with_fewer_numbers_is_taken():
    """p q = 8 numbers a sample through the blocks, P m through the columns."""
    few, many = (random_problem(0, n=40, d=4, c=2, patterns=patterns).operator() for patterns in (2, 30))
    assert not few.through_blocks(2)
    assert few.through_blocks(16)
    assert many.through_blocks(1)


POOLINGS = ["global", 2, 3, np.random.default_rng(7).standard_normal((5, 25))]


@pytest.mark.parametrize("pool", POOLINGS, ids=["global", "uneven", "other", "matrix"])
@pytest.mark.parametrize("patterns", [6, "one"])
def test_pooled_rows_give_what_masked_rows_give(pool, patterns, monkeypatch):
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((7, 2, 6, 6)), rng.standard_normal((7, 3))
    given = np.ones((7 * 25, 1), dtype=bool) if patterns == "one" else patterns
    architecture = cnn.CNN(patch=2, pool=pool, bias=True)
    problem = cnn.Problem(X, Y, architecture=architecture, activation="gated_relu", beta=0.1, patterns=given)
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 3 * 25 * problem.P * problem.p)  # three samples at a time
    pooled = Operator(architecture, X, problem.Y, problem.masks)
    assert pooled.is_pooled
    assert pooled.product_rows == 7
    monkeypatch.setattr(pooled_module, "POOLED_ELEMENTS", 0)
    masked = Operator(architecture, X, problem.Y, problem.masks)
    assert not masked.is_pooled
    # the linear map is pooled in a way of its own
    pooled.__dict__["_linear_map"] = masked.__dict__["_linear_map"] = (
        None  # the linear map is pooled in a way of its own
    )
    P, p, q = problem.P, problem.p, problem.q
    Z, L = torch.as_tensor(rng.standard_normal((P, p, q))), torch.as_tensor(rng.standard_normal((7, 3)))
    torch.testing.assert_close(pooled.apply(Z), masked.apply(Z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pooled.adjoint(L), masked.adjoint(L), rtol=1e-12, atol=1e-12)
    some = torch.as_tensor([P - 1, 0, P // 2])
    torch.testing.assert_close(
        pooled.on_blocks(some).apply(Z[some]), masked.on_blocks(some).apply(Z[some]), rtol=1e-12, atol=1e-12
    )
    for m in (1, min(p, q)):  # through columns, through blocks
        U = torch.as_tensor(rng.standard_normal((P, p, m)))
        V = torch.as_tensor(rng.standard_normal((P, q, m)))
        assert pooled.through_blocks(m) == (m > 1)
        expected, pull = masked.factored(U, V)
        found, own = pooled.factored(U, V)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(pooled.apply_factors(U, V), expected, rtol=1e-12, atol=1e-12)
        for one, other in zip(own(L), pull(L), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    owner = torch.as_tensor([0, P - 1, 0, P // 2])
    E = torch.as_tensor(rng.standard_normal((4, p, q)))
    for place, block in enumerate(owner):
        alone = torch.zeros(P, p, q, dtype=torch.float64)
        alone[block] = E[place]
        torch.testing.assert_close(pooled.images(E, owner)[:, :, place], masked.apply(alone))


def test_rows_that_are_not_pooled_and_those_too_many_stay_rows(monkeypatch):
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((5, 1, 4, 4)), rng.standard_normal(5)
    problem = cnn.Problem(X, Y, architecture=cnn.CNN(patch=2, pool="identity"), beta=0.1, patterns=4)
    assert not problem.operator().is_pooled
    problem = cnn.Problem(X, Y, architecture=cnn.CNN(patch=2, pool="global"), beta=0.1, patterns=4)
    monkeypatch.setattr(pooled_module, "POOLED_ELEMENTS", 5 * problem.P * problem.p - 1)
    assert not problem.operator().is_pooled


def test_pooled_rows_that_were_changed_are_told():
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((5, 1, 4, 4)), rng.standard_normal(5)
    problem = cnn.Problem(X, Y, architecture=cnn.CNN(patch=2, pool="global"), beta=0.1, patterns=4)
    untouched = Untouched(problem)
    problem.predict(np.zeros((4, 4, 1)))
    untouched.check("nobody")
    problem.operator().tensors()["pooled"].mul_(0.5)
    with pytest.raises(ChangedProblemError, match="somebody changed the problem it was given: pooled of problem"):
        untouched.check("somebody")
