"""CNN and attention against torch modules and loops, their structured maps against dense products with Phi and C."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import convexnn_bench as cnn
from convexnn_bench.architectures.attention import Attention
from convexnn_bench.architectures.cnn import CNN
from convexnn_bench.architectures.mlp import MLP
from convexnn_bench.formulations import burer_monteiro, network
from convexnn_bench.operator.lifted import Operator
from convexnn_bench.operator.rounding import _absolute_adjoint, adjoint_rounding
from convexnn_bench.operator.rows import Rows
from convexnn_bench.patterns.sampling import sample_patterns

POOL = np.random.default_rng(1).standard_normal((2, 12))
CASES = {
    "mlp": (MLP(), (5, 3), 5),
    "cnn-global": (CNN(3, stride=2, padding=1), (4, 2, 5, 4), 4),
    "cnn-grid-bias": (CNN(2, pool=2, bias=True), (4, 2, 5, 4), 4),
    "cnn-identity": (CNN(2, pool="identity"), (3, 1, 3, 4), 3),
    "cnn-matrix": (CNN(2, pool=POOL), (3, 1, 5, 4), 3),
    "attention-tokens": (Attention(), (3, 4, 2), 12),
    "attention-mean": (Attention("mean"), (3, 4, 3), 3),
}
ACTIVATIONS = ("linear", "gated_relu", "relu")


def problem_of(case: str, activation: str = "gated_relu", c: int = 2, seed: int = 0, patterns=4) -> "cnn.Problem":
    architecture, shape, rows = CASES[case]
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal(shape), rng.standard_normal((rows, c))
    return cnn.Problem(X, Y, architecture, activation, beta=0.1, patterns=patterns, seed=seed)


def dense_second_layer(problem) -> np.ndarray:
    """C as an (n_out c) x (N q) matrix, column by column from `second_layer` alone."""
    X, size = torch.as_tensor(problem.X), problem.N * problem.q
    columns = [
        problem.architecture.second_layer(unit.view(problem.N, problem.q), X, problem.c).reshape(-1)
        for unit in torch.eye(size, dtype=torch.float64)
    ]
    return torch.stack(columns, dim=1).numpy()


def rows_of(problem) -> np.ndarray:
    return problem.architecture.phi_rows(torch.as_tensor(problem.X)).numpy()


# -- against plain torch and loops -------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("channels", "side", "patch", "stride", "padding", "pool", "torch_pool"),
    [
        (1, 6, 3, 1, 0, 2, torch.nn.AvgPool2d(2)),
        (2, 6, 3, 1, 1, 3, torch.nn.AvgPool2d(2)),
        (3, 7, 3, 2, 1, "global", torch.nn.AvgPool2d(4)),
        (2, 6, 2, 1, 0, 3, torch.nn.AdaptiveAvgPool2d(3)),  # a grid of 5: the windows overlap
        (1, 5, 2, 2, 0, "identity", torch.nn.Identity()),
    ],
)
def test_cnn_is_conv2d_relu_avgpool_linear(channels, side, patch, stride, padding, pool, torch_pool, bias):
    torch.manual_seed(0)
    n, M, c = 4, 5, 3
    X = torch.randn(n, channels, side, side, dtype=torch.float64)
    convolution = torch.nn.Conv2d(channels, M, patch, stride, padding, bias=bias, dtype=torch.float64)
    front = torch.nn.Sequential(convolution, torch.nn.ReLU(), torch_pool, torch.nn.Flatten())
    a = front(X).shape[1] // M
    last = torch.nn.Linear(a * M, c, bias=False, dtype=torch.float64)
    architecture = CNN(patch, stride, padding, pool, bias)
    problem = cnn.Problem(X, np.zeros((n, c)), architecture, "relu", beta=1.0, patterns=3)
    W1 = convolution.weight.reshape(M, -1).T
    if bias:
        W1 = torch.cat([W1, convolution.bias[None]])
    W2 = last.weight.view(c, M, a).permute(2, 0, 1).reshape(a * c, M)  # q index (alpha, c')
    found = network.predict(problem, W1.detach(), W2.detach())
    torch.testing.assert_close(found, last(front(X)).detach(), rtol=1e-12, atol=1e-12)


def attention_by_loops(X, W1, W2, c, activation, output, gates) -> np.ndarray:
    """Heads phi(X_i U_j X_i^T) X_i V_j, token by token."""
    n, s, d = X.shape
    found = np.zeros((n, s, c))
    for i, j in itertools.product(range(n), range(W1.shape[1])):
        U, V = W1[:, j].reshape(d, d), W2[:, j].reshape(d, c)
        for row, column in itertools.product(range(s), range(s)):
            score = X[i, row] @ U @ X[i, column]
            if activation == "relu":
                score = max(score, 0.0)
            elif activation == "gated_relu":
                H = gates[:, j % gates.shape[1]].reshape(d, d)
                score *= X[i, row] @ H @ X[i, column] >= 0
            found[i, row] += score * (X[i, column] @ V)
    return found.mean(axis=1) if output == "mean" else found.reshape(n * s, c)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("output", ["tokens", "mean"])
def test_attention_is_the_loop_over_heads_and_tokens(output, activation):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2, 3, 2))
    Y = np.zeros((2, 3, 2) if output == "tokens" else (2, 2))
    problem = cnn.Problem(X, Y, Attention(output), activation, beta=1.0, patterns=3)
    W1, W2 = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))
    expected = attention_by_loops(X, W1, W2, 2, activation, output, problem.gates)
    found = network.predict(problem, torch.as_tensor(W1), torch.as_tensor(W2))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_cnn_second_layer_index_is_alpha_then_output():
    problem = problem_of("cnn-matrix", c=3)
    n, K, a, c = 3, 12, 2, 3
    M = np.random.default_rng(0).standard_normal((n * K, a * c))
    expected = np.zeros((n, c))
    for i, kappa, alpha, output in itertools.product(range(n), range(K), range(a), range(c)):
        expected[i, output] += POOL[alpha, kappa] * M[i * K + kappa, alpha * c + output]
    found = problem.operator().second_layer(torch.as_tensor(M))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


# -- the structured maps against dense ones ---------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", CASES)
def test_structured_maps_equal_dense_products(case, activation):
    problem, m = problem_of(case, activation), 3
    Phi, C, masks = rows_of(problem), dense_second_layer(problem), problem.masks
    rng = np.random.default_rng(2)
    U, V = rng.standard_normal((problem.P, problem.p, m)), rng.standard_normal((problem.P, problem.q, m))
    L = rng.standard_normal((problem.n_out, problem.c))
    R = (C.T @ L.reshape(-1)).reshape(problem.N, problem.q)
    G = np.stack([Phi.T @ (masks[:, [k]] * R) for k in range(problem.P)])

    def applied(Z: np.ndarray) -> np.ndarray:
        M = sum(masks[:, [k]] * (Phi @ Z[k]) for k in range(problem.P))
        return (C @ M.reshape(-1)).reshape(problem.n_out, problem.c)

    operator, tU, tV, tL = problem.operator(), *(torch.as_tensor(array) for array in (U, V, L))
    H = operator.hidden(tU)
    z, pullback = operator.factored(tU, tV)
    Z = rng.standard_normal((problem.P, problem.p, problem.q))
    product = applied(U @ V.transpose(0, 2, 1))
    slopes = (G @ V, G.transpose(0, 2, 1) @ U)
    W1, W2 = U[0], V[0]
    single = (C @ (np.tanh(Phi @ W1) @ W2.T).reshape(-1)).reshape(problem.n_out, problem.c)
    pairs = [
        (operator.apply(torch.as_tensor(Z)), applied(Z)),
        (operator.adjoint(tL), G),
        (H, np.stack([masks[:, [k]] * (Phi @ U[k]) for k in range(problem.P)], axis=1)),
        (operator.combine(H, tV), product),
        (operator.apply_factors(tU, tV), product),
        (z, product),
        *zip(operator.factor_gradients(H, tL, tV), slopes, strict=True),
        *zip(pullback(tL), slopes, strict=True),
        (operator.first_layer(torch.as_tensor(W1)), Phi @ W1),
        (operator.first_layer_adjoint(torch.as_tensor(Phi @ W1)), Phi.T @ Phi @ W1),
        (operator.combine_neurons(torch.tanh(torch.as_tensor(Phi @ W1)), torch.as_tensor(W2)), single),
        (operator.second_layer_matrix().toarray(), C),
        (operator.Phi, Phi),
    ]
    for found, expected in pairs:
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("activation", ["linear", "gated_relu"])
@pytest.mark.parametrize("case", CASES)
def test_adjoint_identity_without_gradients_and_at_changing_widths(case, activation):
    """<A(Z), L> = <Z, A^*(L)>, also inside no_grad, and factored with few and many columns."""
    problem = problem_of(case, activation, seed=3)
    operator, generator = problem.operator(), torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for m in (1, 2, 5, 1, 4, 3, 2):
            Z, L = normal(problem.P, problem.p, problem.q), normal(problem.n_out, problem.c)
            left, right = (operator.apply(Z) * L).sum(), (Z * operator.adjoint(L)).sum()
            assert float(left) == pytest.approx(float(right), rel=1e-10, abs=1e-10)
            U, V = normal(problem.P, problem.p, m), normal(problem.P, problem.q, m)
            first, second = operator.factor_gradients(operator.hidden(U), L, V)
            slope = float((operator.apply_factors(U, V) * L).sum())
            assert float((first * U).sum()) == pytest.approx(slope, rel=1e-10, abs=1e-10)
            assert float((second * V).sum()) == pytest.approx(slope, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_agree_with_autograd_and_the_formulations_with_each_other(case, activation):
    problem = problem_of(case, activation, seed=4)
    operator, rng = problem.operator(), np.random.default_rng(0)
    U = torch.as_tensor(rng.standard_normal((problem.P, problem.p, 2))).requires_grad_(True)
    V = torch.as_tensor(rng.standard_normal((problem.P, problem.q, 2))).requires_grad_(True)
    total = problem.loss.value(operator.apply_factors(U, V), operator.Y)
    total = total + problem.beta / 2 * (U.square().sum() + V.square().sum())
    expected = torch.autograd.grad(total, [U, V])
    value, *found = burer_monteiro.value_and_gradient(problem, operator, U.detach(), V.detach())
    assert float(value) == pytest.approx(float(total.detach()), rel=1e-12)
    torch.testing.assert_close(tuple(found), expected, rtol=1e-9, atol=1e-9)
    if problem.has_cone:
        U = burer_monteiro.project(problem, U.detach())
        inside = operator.apply_factors(U, V.detach())
        weights = (factor.detach().permute(1, 0, 2).reshape(factor.shape[1], -1) for factor in (U, V))
        torch.testing.assert_close(network.predict(problem, *weights), inside, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("activation", ["linear", "gated_relu"])
@pytest.mark.parametrize("case", CASES)
def test_a_minibatch_is_the_operator_of_the_subset(case, activation):
    problem = problem_of(case, activation)
    operator = problem.operator()
    operator.apply(torch.zeros(problem.P, problem.p, problem.q, dtype=torch.float64))  # what is kept of all samples
    operator.adjoint(operator.Y)
    n = len(problem.X)
    samples = np.array([2, 0])
    rows, outputs = (
        torch.as_tensor((samples[:, None] * (total // n) + np.arange(total // n)).reshape(-1))
        for total in (problem.N, problem.n_out)
    )
    part = operator.restricted(torch.as_tensor(samples), rows, outputs)
    fresh = Operator(problem.architecture, problem.X[samples], problem.Y[outputs.numpy()], problem.masks[rows.numpy()])
    Z = torch.as_tensor(np.random.default_rng(0).standard_normal((problem.P, problem.p, problem.q)))
    torch.testing.assert_close(part.apply(Z), fresh.apply(Z))
    torch.testing.assert_close(part.adjoint(part.Y), fresh.adjoint(fresh.Y))
    torch.testing.assert_close(part.hidden(Z), fresh.hidden(Z))
    torch.testing.assert_close(part.Phi, fresh.Phi)
    assert adjoint_rounding(part, part.Y) == pytest.approx(adjoint_rounding(fresh, fresh.Y))


# -- rounding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["linear", "gated_relu"])
@pytest.mark.parametrize("case", CASES)
def test_adjoint_rounding_is_the_sum_of_magnitudes_and_bounds_the_error(case, activation):
    problem = problem_of(case, activation)
    operator, rng = problem.operator(), np.random.default_rng(5)
    L = rng.standard_normal((problem.n_out, problem.c)) * 10.0 ** rng.integers(-3, 4, (problem.n_out, problem.c))
    Phi, C = rows_of(problem), dense_second_layer(problem)
    magnitude = np.abs(Phi).T @ (np.abs(C).T @ np.abs(L).reshape(-1)).reshape(problem.N, problem.q)
    found = adjoint_rounding(operator, torch.as_tensor(L))
    unit = np.finfo(float).eps * np.linalg.norm(magnitude)
    assert problem.N * unit <= found <= (problem.N + problem.q + 100) * unit
    # the path for architectures of which nothing is known
    general = np.abs(Phi).T @ _absolute_adjoint(operator, torch.as_tensor(np.abs(L))).numpy()
    np.testing.assert_allclose(general, magnitude, rtol=1e-12)
    if case != "mlp" and not case.startswith("attention"):
        return
    wide = np.longdouble(problem.X)  # Phi exactly enough
    if case != "mlp":
        s, d = wide.shape[1:]
        wide = np.einsum("isa,itb->istab", wide, wide).reshape(-1, d * d)
        tokens = np.longdouble(L).reshape(len(problem.X), -1, problem.c)
        tokens = np.repeat(tokens / s, s, axis=1) if problem.architecture.output == "mean" else tokens
        R = np.einsum("itl,isc->istlc", np.longdouble(problem.X), tokens).reshape(problem.N, problem.q)
    else:
        R = np.longdouble(L)
    G = operator.adjoint(torch.as_tensor(L)).numpy()
    for k in range(problem.P):
        error = np.linalg.norm((G[k] - wide.T @ (problem.masks[:, [k]] * R)).astype(float))
        assert error <= found


# -- patterns --------------------------------------------------------------------------------------------------


def test_sampled_convolutional_gates_are_convolutions_of_the_images():
    problem = problem_of("cnn-grid-bias", patterns=6)
    X = torch.as_tensor(problem.X)
    gates = torch.as_tensor(problem.gates[:-1].T.reshape(-1, 2, 2, 2).copy())
    responses = torch.nn.functional.conv2d(X, gates, torch.as_tensor(problem.gates[-1].copy()))
    expected = (responses >= 0).permute(0, 2, 3, 1).reshape(problem.N, -1)
    np.testing.assert_array_equal(problem.masks, expected)


def test_sampled_attention_gates_are_bilinear_forms():
    problem = problem_of("attention-mean", patterns=6)
    H = problem.gates.T.reshape(-1, 3, 3)
    scores = np.einsum("isa,kab,itb->istk", problem.X, H, problem.X)
    np.testing.assert_array_equal(problem.masks, (scores >= 0).reshape(problem.N, -1))
    assert problem.scope == "sampled"


@pytest.mark.parametrize(
    ("architecture", "shape", "rows"),
    [(CNN(2, pool=1), (2, 1, 2, 3), 2), (Attention(), (2, 2, 2), 4), (CNN(1, bias=True), (2, 1, 2, 2), 2)],
)
@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
def test_complete_patterns_hold_every_pattern_that_is_drawn(architecture, shape, rows, activation):
    rng = np.random.default_rng(3)
    problem = cnn.Problem(rng.standard_normal(shape), rng.standard_normal(rows), architecture, activation, beta=1.0)
    assert problem.scope == "complete"
    drawn = rows_of(problem) @ rng.standard_normal((problem.p, 20_000)) >= 0
    drawn = np.unique(drawn[:, drawn.any(axis=0)], axis=1)
    known = {column.tobytes() for column in problem.masks.T}
    assert {column.tobytes() for column in drawn.T} <= known
    assert len(known) == problem.P


def test_rows_behave_as_the_matrix_and_know_their_zero_rows():
    X = np.random.default_rng(0).standard_normal((3, 3, 2))
    X[1, 2] = 0.0
    rows = Rows(Attention(), X)
    Phi = Attention().phi_rows(torch.as_tensor(X)).numpy()
    W = np.random.default_rng(1).standard_normal((4, 3))
    np.testing.assert_allclose(rows @ W, Phi @ W, atol=1e-14)
    np.testing.assert_allclose(rows @ W[:, 0], Phi @ W[:, 0], atol=1e-14)
    np.testing.assert_array_equal(rows.nonzero(), np.any(Phi != 0, axis=1))
    first, second = sample_patterns(rows, 5, seed=2), sample_patterns(Phi, 5, seed=2)
    np.testing.assert_array_equal(first.masks, second.masks)
    assert not rows.formed
    np.testing.assert_array_equal(np.asarray(rows), Phi)
    np.testing.assert_array_equal(rows[2], Phi[2])
    np.testing.assert_array_equal(rows.T, Phi.T)
    assert (rows.shape, len(rows), rows.largest()) == (Phi.shape, 27, np.abs(Phi).max())


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["linear", "gated_relu"])
def test_attention_is_trained_and_certified_without_forming_phi(monkeypatch, activation):
    whole = Attention.phi_rows

    def one_sample(self, X):
        assert len(X) == 1, "the n s^2 x d^2 matrix was formed"
        return whole(self, X)

    monkeypatch.setattr(Attention, "phi_rows", one_sample)
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 3, 3)), rng.standard_normal((6, 3))
    problem = cnn.Problem(X, Y, Attention("mean"), activation, beta_fraction=0.1, patterns=4)
    for solver in ("bm_lbfgs", "network_lbfgs"):
        result = cnn.solve(problem, solver, gap=1e-5, time_limit=200)
        assert result.gap <= 1e-5


@pytest.mark.slow
def test_linear_attention_reaches_the_optimum_from_either_formulation():
    problem = problem_of("attention-tokens", "linear", c=1)
    results = [cnn.solve(problem, solver, gap=1e-8, time_limit=200) for solver in ("bm_lbfgs", "network_lbfgs")]
    assert results[0].objective == pytest.approx(results[1].objective, rel=1e-6)


# -- targets, layouts, and what is refused ------------------------------------------------------------------


def test_targets_of_tokens_come_in_every_natural_shape():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 3, 4))
    flat = cnn.Problem(X, Y.reshape(6, 4), "attention", "linear", beta=1.0)
    np.testing.assert_array_equal(cnn.Problem(X, Y, "attention", "linear", beta=1.0).Y, flat.Y)
    scalars = cnn.Problem(X, Y[:, :, 0], "attention", "linear", beta=1.0)
    np.testing.assert_array_equal(scalars.Y, Y.reshape(6, 4)[:, :1])
    pooled = cnn.Problem(X, Y[:, 0], "attention[output=mean]", "linear", beta=1.0)
    assert (pooled.n_out, pooled.c) == (2, 4)


IMAGES, TOKENS = np.ones((2, 1, 4, 5)), np.ones((2, 3, 2))


@pytest.mark.parametrize(
    ("X", "Y", "architecture", "words"),
    [
        (IMAGES, [0, 1], "cnn[patch=0]", "patch must be a whole number, at least 1, got 0"),
        (IMAGES, [0, 1], "cnn[patch=2.5]", "patch must be a whole number"),
        (IMAGES, [0, 1], "cnn[stride=0]", "stride must be a whole number, at least 1"),
        (IMAGES, [0, 1], "cnn[padding=-1]", "padding must be a whole number, at least 0"),
        (IMAGES, [0, 1], "cnn[bias=2]", "bias must be True or False, got 2"),
        (IMAGES, [0, 1], "cnn[pool=mean]", "a matrix a x K, got 'mean'"),
        (IMAGES, [0, 1], "cnn[pool=0]", "a matrix a x K, got 0"),
        (IMAGES, [0, 1], "cnn[pool=true]", "a matrix a x K, got True"),
        (IMAGES, [0, 1], "cnn[pool=[1,2]]", "got an array of shape (2,)"),
        (IMAGES, [0, 1], "cnn[pool=[[1,2]]]", "a column for each of the 2 x 3 = 6 patches, got shape (1, 2)"),
        (IMAGES, [0, 1], "cnn[pool=[[1,nan]]]", "pool must be a numeric array"),
        (IMAGES, [0, 1], "cnn[pool=3]", "pool must be at most the 2 x 3 grid of patches, got pool=3"),
        (IMAGES, [0, 1], "cnn[patch=5]", "patch must fit into the images, 4 x 5, got patch=5"),
        (IMAGES, [0, 1], "cnn[patch=9,padding=2]", "4 x 5 padded by 2, got patch=9"),
        (IMAGES[0], [0, 1], "cnn", "shape n x channels x height x width, got shape (1, 4, 5)"),
        (IMAGES, [0, 1, 2], "cnn", "X has 2 samples but Y has 3 rows"),
        (IMAGES, [0, 1], "cnn[kernel=3]", "has no parameter 'kernel'; it has: patch, stride, padding, pool, bias"),
        (TOKENS, [0, 1], "attention[output=sum]", 'output must be "tokens" or "mean", got \'sum\''),
        (TOKENS[0], [0, 1], "attention", "shape n x tokens x features, got shape (3, 2)"),
        (TOKENS, [0, 1], "attention", "a target for each of the 3 tokens of the 2 samples: 2 x 3, 2 x 3 x c or 6 x c"),
        (TOKENS, np.ones((2, 2, 3)), "attention", "got shape (2, 2, 3)"),
        (TOKENS, np.ones((2, 3, 1, 1)), "attention", "got shape (2, 3, 1, 1)"),
        (TOKENS, np.ones(6), "attention[output=mean]", "X has 2 samples but Y has 6 rows"),
        (1e30 * TOKENS, np.ones((2, 3)), "attention", "the largest magnitude is 1e+60"),
        (1e-50 * IMAGES, [0, 1], "cnn", "the largest magnitude is 1e-50"),
    ],
)
def test_bad_input_is_named(X, Y, architecture, words):
    with pytest.raises(cnn.InputError) as caught:
        cnn.Problem(X, np.asarray(Y, dtype=float), architecture, "linear", beta=1.0)
    assert words in str(caught.value)


def test_layouts_of_the_digits():
    flat, image, tokens = (
        cnn.DATASETS.get("digits")(n=20, layout=layout).data().X for layout in ("flat", "image", "tokens")
    )
    assert (image.shape, tokens.shape) == ((20, 1, 8, 8), (20, 8, 8))
    np.testing.assert_array_equal(flat, image.reshape(20, -1))
    np.testing.assert_array_equal(tokens, image[:, 0])
    assert cnn.DATASETS.get("digits")(n=20, layout="image", pool=2).data().X.shape == (20, 1, 4, 4)
    problem = cnn.make_problem("digits[layout=image,n=20]", architecture="cnn[patch=3,pool=2]", patterns=3)
    assert (problem.p, problem.q, problem.N) == (9, 40, 720)
    problem = cnn.make_problem("digits[layout=tokens,n=20]", architecture="attention[output=mean]", patterns=3)
    assert (problem.p, problem.q, problem.N) == (64, 80, 1280)
    for parameters, words in (
        ({"layout": "image", "bias": True}, "bias=True needs layout=\"flat\", got layout='image'"),
        ({"layout": "rows"}, "layout must be one of 'flat', 'image', 'tokens', got 'rows'"),
        ({"layout": "image"}, "shape n x d"),
    ):
        with pytest.raises(cnn.InputError) as caught:
            cnn.make_problem("digits", **parameters)
        assert words in str(caught.value)


def test_the_cost_benchmark_compares_equal_networks():
    path = Path(__file__).parents[2] / "benchmarks" / "operator_cost.py"
    spec = importlib.util.spec_from_file_location("operator_cost", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rng, compared = np.random.default_rng(0), 0
    for _, architecture, shape, c in module.cases(0.01):
        rows = shape[0] * (shape[1] if getattr(architecture, "output", "") == "tokens" else 1)
        for activation in ("linear", "gated_relu"):
            X, Y = rng.standard_normal(shape), rng.standard_normal((rows, c))
            problem = cnn.Problem(X, Y, architecture, activation, beta=1.0, patterns=module.BLOCKS)
            compared += len(module.pair(problem, rng))  # raises where the two sides differ
    assert compared == 54


@pytest.mark.parametrize("case", CASES)
def test_the_degree_is_the_power_of_the_data_in_the_operator(case):
    problem = problem_of(case)
    degree, Z = problem.architecture.degree, np.random.default_rng(3).standard_normal((problem.P, problem.p, problem.q))
    if case == "cnn-grid-bias":  # the constant of a bias does not grow with X
        assert degree is None
        return
    larger = cnn.Problem(8.0 * problem.X, problem.Y, problem.architecture, beta=0.1, patterns=problem.masks)
    assert np.array_equal(larger.predict(Z), 8.0**degree * problem.predict(Z))


def test_an_architecture_of_ones_own_has_no_degree_unless_it_says_so():
    class Subclass(MLP):
        pass

    class Says(MLP):
        degree = 1

    assert Subclass().degree is None
    assert Says().degree == 1
