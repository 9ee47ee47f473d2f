"""Problems with sample weights and output biases: every number against copies of rows, CVXPY, and a limit."""

import pickle

import cvxpy as cp
import numpy as np
import pytest
import torch
from problems import LOSS_NAMES, targets
from textbook import textbook_optimum

import convexnn_bench as cnn
from convexnn_bench.losses import OutputBias, WeightedLoss
from convexnn_bench.running.scaling import Scaling
from convexnn_bench.running.untouched import Untouched

BIASES = (None, "free", "penalised")
WHOLE = np.array([2.0, 1.0, 3.0, 1.0, 1.0, 2.0, 1.0, 2.0])
ACTIVATIONS = ("linear", "gated_relu", "relu")


def make(loss="squared", activation="gated_relu", seed=0, **arguments):
    """A problem of eight samples, with weights and sampled patterns."""
    rng = np.random.default_rng(seed)
    c = 1 if activation == "relu" and loss != "cross_entropy" else 2
    X, Y = rng.standard_normal((8, 2)), targets(loss, 8, c, rng)
    arguments = {"beta": 0.3, "patterns": 5, "sample_weight": WHOLE, **arguments}
    return cnn.Problem(X, Y, loss=loss, activation=activation, **arguments)


def plain(problem: "cnn.Problem", rows, **arguments) -> "cnn.Problem":
    """The problem of some rows without weights, with the masks of these rows."""
    loss = problem.loss.loss if isinstance(problem.loss, OutputBias) else problem.loss
    arguments = {"beta": problem.beta, "patterns": problem.masks[rows], "output_bias": problem.output_bias, **arguments}
    Y = problem.Y[rows]
    return cnn.Problem(problem.X[rows], Y, activation=problem.activation, loss=loss.loss, **arguments)


# -- weights are copies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_a_whole_weight_counts_copies_of_a_sample(loss, activation, bias):
    """The same objective, lower bound and beta_max at the same point, which is far from the optimum."""
    problem = make(loss, activation, output_bias=bias)
    copies = plain(problem, np.repeat(np.arange(8), WHOLE.astype(int)))
    assert problem.beta_max == pytest.approx(copies.beta_max, rel=1e-9)
    rng = np.random.default_rng(1)
    U, V = rng.standard_normal((problem.P, 2, 2)), 0.3 * rng.standard_normal((problem.P, problem.q, 2))
    if problem.has_cone:
        U = np.asarray(problem.cones.project(U))
    found, expected = (cnn.certify(p, (U, V)) for p in (problem, copies))
    assert found.primal == pytest.approx(expected.primal, rel=1e-12)
    assert found.dual == pytest.approx(expected.dual, rel=1e-8)
    assert found.stationarity_error == pytest.approx(expected.stationarity_error, rel=1e-9)
    Z = U @ V.transpose(0, 2, 1)
    last = np.cumsum(WHOLE).astype(int) - 1
    np.testing.assert_allclose(problem.predict(Z), copies.predict(Z)[last], rtol=1e-9, atol=1e-11)
    assert np.any(problem.output_bias_at(problem.operator().apply(torch.as_tensor(Z))) != 0) == (bias is not None)


CASES = (
    ("squared", "linear", "free"), ("squared", "relu", None), ("cross_entropy", "gated_relu", "free"),
    ("cross_entropy", "linear", "penalised"), ("logistic", "relu", "free"), ("logistic", "gated_relu", None),
    ("squared_hinge", "gated_relu", "free"), ("huber", "relu", "penalised"), ("huber", "gated_relu", "free"),
)  # fmt: skip
GAPS = {
    "bm_newton": 1e-6, "bm_lbfgs": 1e-4, "semismooth_newton": 1e-6, "interior_point": 1e-6,
    "fista": 1e-4, "cvxpy_clarabel": 1e-6, "cvxpy_scs": 1e-4,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "activation", "bias"), CASES)
def test_solvers_reach_the_textbook_optimum(loss, activation, bias):
    """With fractional weights and a weight of zero, against a program that states weights and bias row by row."""
    weights = np.array([0.25, 3.0, 0.0, 1.0, 0.6, 2.0, 1.0, 0.1])
    problem = make(loss, activation, 2, sample_weight=weights, output_bias=bias)
    optimum = textbook_optimum(problem)
    assert problem.beta < 0.5 * problem.beta_max
    for solver, gap in GAPS.items():
        result = cnn.solve(problem, solver, gap=gap, iterations=4000, time_limit=120, show_progress=False)
        if result.status == "skipped":
            assert activation == "relu", result.reason
            continue
        assert result.certificate.gap <= gap, (solver, result.reason)
        assert result.objective == pytest.approx(optimum, rel=3 * gap), solver
        assert result.certificate.dual <= optimum * (1 + 1e-8), solver


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["network_adam", "network_lbfgs", "network_gd", "network_sgd", "column_generation"])
@pytest.mark.parametrize("bias", ["free", "penalised"])
def test_network_solvers_train_with_weights_and_bias(solver, bias):
    kind = {"activation": "relu", "patterns": "all"} if solver == "column_generation" else {"activation": "linear"}
    problem = make("squared", seed=5, beta=1.0, output_bias=bias, **kind)
    parameters = {"batch": 4} if solver == "network_sgd" else {}
    result = cnn.solve(problem, solver, gap=1e-3, iterations=3000, time_limit=120, show_progress=False, **parameters)
    assert result.status in ("gap_reached", "solved"), result.reason
    assert result.objective == pytest.approx(cnn.solve(problem, "cvxpy_clarabel").objective, rel=2e-3)


@pytest.mark.parametrize("bias", [None, "penalised"])
def test_minibatches_have_the_full_gradient_in_the_mean(bias):
    """Equal batches of an epoch, at the point where the epoch's output bias is best."""
    from convexnn_bench.algorithms.descent import Minibatches, NetworkObjective

    problem = make("logistic", "gated_relu", output_bias=bias)
    objective = NetworkObjective(problem, 6, 0, "cpu")
    batches = Minibatches(objective, 2).epoch(np.random.default_rng(0))
    x = objective.start
    mean = sum(gradient(x) for gradient in batches) / len(batches)
    torch.testing.assert_close(mean, objective(x)[1], rtol=1e-10, atol=1e-12)


# -- weight zero, and scales ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
def test_a_sample_of_weight_zero_is_left_out(activation, bias):
    """It changes no bound, and with all patterns no optimum of a ReLU network; it still has predictions."""
    weights = np.array([1.0, 2.0, 0.0, 1.0, 0.5, 0.0, 1.0, 1.0])
    patterns = "all" if activation == "relu" else 5
    problem = make("squared", activation, 4, sample_weight=weights, output_bias=bias, patterns=patterns)
    kept = np.flatnonzero(weights)
    fewer = plain(problem, kept, sample_weight=weights[kept], **({"patterns": "all"} if activation == "relu" else {}))
    results = [cnn.solve(p, "bm_newton", gap=1e-9, iterations=200, show_progress=False) for p in (problem, fewer)]
    assert results[0].objective == pytest.approx(results[1].objective, rel=1e-8)
    assert results[0].certificate.dual == pytest.approx(results[1].certificate.dual, rel=1e-8)
    assert (results[0].certificate.multiplier[weights == 0] == 0).all()
    if activation == "gated_relu":
        certificates = [cnn.certify(p, results[0].blocks) for p in (problem, fewer)]
        assert certificates[0].primal == pytest.approx(certificates[1].primal, rel=1e-12)
    W1, W2 = results[0].network
    b = problem.predict(results[0].blocks) - np.asarray(problem.operator().apply(torch.as_tensor(results[0].blocks)))
    np.testing.assert_allclose(b, np.broadcast_to(b[:1], b.shape), atol=1e-12)
    if activation == "relu":
        np.testing.assert_allclose(
            problem.predict(results[0].blocks), np.maximum(problem.X @ W1, 0) @ W2.T + b, atol=1e-8
        )


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_weights_and_beta_times_a_constant_are_the_same_problem(loss, bias):
    problem = make(loss, output_bias=bias)
    Z = np.random.default_rng(1).standard_normal((problem.P, problem.p, problem.q))
    certificate = cnn.certify(problem, Z)
    for factor, rel in ((2.0**20, 1e-13), (3.7, 1e-9)):
        other = make(loss, output_bias=bias, sample_weight=factor * WHOLE, beta=factor * 0.3)
        found = cnn.certify(other, Z)
        assert found.primal == pytest.approx(factor * certificate.primal, rel=rel)
        assert found.dual == pytest.approx(factor * certificate.dual, rel=max(rel, 1e-9))
        assert other.beta_max == pytest.approx(factor * problem.beta_max, rel=1e-9)
        np.testing.assert_allclose(other.predict(Z), problem.predict(Z), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_solvers_see_weights_of_ordinary_size():
    """Weights of 1e12 are divided by a power of two, and the points and multipliers come back in the user's units."""
    problem = make("squared", sample_weight=1e12 * WHOLE, beta=3e11, output_bias="penalised")
    scaling = Scaling.of(problem)
    assert 0.25 < scaling.problem.sample_weight.max() < 4
    Z = np.random.default_rng(1).standard_normal((problem.P, problem.p, problem.q))
    assert scaling.problem.objective(Z) * scaling.multiplier == pytest.approx(problem.objective(Z), rel=1e-13)
    result = cnn.solve(problem, "bm_newton", gap=1e-9, iterations=200, show_progress=False)
    expected = cnn.solve(make("squared", output_bias="penalised"), "bm_newton", gap=1e-9, iterations=200)
    assert result.objective == pytest.approx(1e12 * expected.objective, rel=1e-8)


def test_all_rows_of_a_sample_have_its_weight():
    """Attention over tokens: three outputs a sample."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((3, 3, 2)), rng.standard_normal((3, 3, 1))
    weights = np.array([2.0, 0.0, 1.0])
    settings = {"architecture": cnn.Attention(), "activation": "linear", "beta": 0.2}
    problem = cnn.Problem(X, Y, **settings, sample_weight=weights, output_bias="free")
    np.testing.assert_array_equal(problem.sample_weight, weights)
    copies = cnn.Problem(X[[0, 0, 2]], Y[[0, 0, 2]], **settings, output_bias="free")
    Z = rng.standard_normal((1, problem.p, problem.q))
    found, expected = cnn.certify(problem, Z), cnn.certify(copies, Z)
    assert found.primal == pytest.approx(expected.primal, rel=1e-12)
    assert found.dual == pytest.approx(expected.dual, rel=1e-9)


# -- a free bias is the limit of first-layer biases without decay -----------------------------------------------------


@pytest.mark.slow
def test_first_layer_biases_without_decay_are_a_free_output_bias():
    """theory: d = 1, n = 9. With a column t for the bias, its decay falls like 1 / t^2.

    On the line such a network is c + sum_j s_j (+-(x - k_j))_+ with the penalty beta sum |s_j| and a free constant c,
    with kinks at the data: a lasso, which CVXPY solves without anything of the package.
    """
    rng = np.random.default_rng(3)
    x, y = np.sort(rng.uniform(-1, 1, 9)), rng.standard_normal(9)
    hinges = np.maximum(np.concatenate([x[:, None] - x, x - x[:, None]], axis=1), 0)
    s, c, beta = cp.Variable(18), cp.Variable(), 0.1
    lasso = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(hinges @ s + c - y) + beta * cp.norm1(s)))
    limit = lasso.solve(solver=cp.CLARABEL, tol_gap_rel=1e-10, tol_gap_abs=1e-10)

    def optimum(t: float, output_bias: str | None) -> float:
        X = np.stack([x, np.full(9, t)], axis=1)
        problem = cnn.Problem(X, y, activation="relu", beta=beta, patterns="all", output_bias=output_bias)
        result = cnn.solve(problem, "bm_newton", gap=1e-8, iterations=300, show_progress=False)
        assert result.certificate.gap <= 1e-6, (t, output_bias, result.reason)
        return result.objective

    near, far = ({bias: optimum(t, bias) for bias in (None, "free")} for t in (1.0, 300.0))
    assert near["free"] < 0.99 * near[None]  # with decay the output bias matters
    assert limit * (1 - 1e-6) <= far["free"] <= far[None] <= limit * (1 + 1e-2)
    assert far["free"] <= limit * (1 + 1e-4)


# -- the interface --------------------------------------------------------------------------------------------------


def test_what_a_problem_says_of_weights_and_bias(tmp_path):
    problem = make(output_bias="penalised")
    assert (problem.output_bias, make().output_bias) == ("penalised", None)
    assert make(sample_weight=None).sample_weight is None
    assert "weighted squared with a penalised output bias" in repr(problem)
    Z = np.random.default_rng(0).standard_normal((problem.P, 2, 2))
    for again in (pickle.loads(pickle.dumps(problem)), cnn.load_problem(problem.save(tmp_path / "p.npz"))):
        np.testing.assert_array_equal(again.sample_weight, WHOLE)
        assert again.output_bias == "penalised"
        found, expected = cnn.certify(again, Z), cnn.certify(problem, Z)
        assert (found.primal, found.dual) == (expected.primal, expected.dual)
        assert Untouched(again).fingerprint() == Untouched(problem).fingerprint()
    others = (make(), make(output_bias="free"), make(sample_weight=2 * WHOLE, output_bias="penalised"))
    assert len({Untouched(p).fingerprint() for p in (problem, *others)}) == 4
    problem.sample_weight[:] = 0.0  # a copy
    np.testing.assert_array_equal(problem.sample_weight, WHOLE)


def test_with_beta_keeps_the_weights_and_the_penalty_of_the_bias():
    problem, direct = make(output_bias="penalised").with_beta(0.5), make(output_bias="penalised", beta=0.5)
    Z = np.random.default_rng(0).standard_normal((problem.P, 2, 2))
    assert problem.objective(Z) == direct.objective(Z)
    assert make(output_bias="free").with_beta(fraction=0.5).beta == pytest.approx(
        0.5 * make(output_bias="free").beta_max
    )
    z = problem.operator().apply(torch.as_tensor(Z))
    b = problem.output_bias_at(z)
    r = z.numpy() + b - problem.Y
    np.testing.assert_allclose((WHOLE[:, None] * r).sum(axis=0) + 0.5 * b, 0, atol=1e-12)
    norms = np.linalg.svd(Z, compute_uv=False).sum()
    value = 0.5 * (WHOLE[:, None] * r**2).sum() + 0.5 * (norms + 0.5 * (b**2).sum())
    assert problem.objective(Z) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(problem.predict(Z), z.numpy() + b)


def test_make_problem_takes_both():
    problem = cnn.make_problem("spiral[n=9,output_bias=free]", sample_weight=np.arange(9.0), patterns=4)
    assert problem.output_bias == "free"
    np.testing.assert_array_equal(problem.sample_weight, np.arange(9.0))
    assert isinstance(problem.loss.loss, WeightedLoss)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sample_weight": -WHOLE}, "sample_weight must not be negative; 8 entries are, the first is entry 0, -2"),
        ({"sample_weight": np.where(WHOLE > 2, np.nan, WHOLE)}, "sample_weight has 1 NaN .*index .?2"),
        ({"sample_weight": WHOLE[:5]}, r"sample_weight must be 8 numbers, one for each of the samples, got shape \(5,"),
        ({"sample_weight": WHOLE[:, None]}, r"sample_weight must be 8 numbers.* got shape \(8, 1\)"),
        ({"sample_weight": 2.0}, r"sample_weight must be 8 numbers.* got shape \(\)"),
        ({"sample_weight": 0 * WHOLE}, "sample_weight must have a positive entry; all of them are zero"),
        ({"sample_weight": 1e-50 * WHOLE}, "sample_weight: entries must be 0 or from 1e-40 to 1e"),
        ({"sample_weight": ["a"] * 8}, "sample_weight must be a numeric array"),
        ({"output_bias": "yes"}, "output_bias must be .*free.*penalised.* got 'yes'"),
        ({"output_bias": True}, "output_bias must be .* got True"),
        (
            {"output_bias": "penalised", "beta": None, "beta_fraction": 0.1},
            'beta_fraction: with output_bias="penalised"',
        ),
        ({"output_bias": "free", "loss": OutputBias(cnn.Squared(), None)}, "has an output bias already"),
        ({"loss": WeightedLoss(cnn.Squared(), WHOLE[:3])}, "sample_weight must be 8 numbers, one for each of the rows"),
        ({"loss": WeightedLoss(cnn.Squared(), WHOLE)}, "sample_weight multiplies the terms"),
    ],
)
def test_bad_weights_and_biases(arguments, words):
    if isinstance(arguments.get("loss"), WeightedLoss) and len(arguments["loss"].weights) < 8:
        arguments = {**arguments, "sample_weight": None}
    with pytest.raises(cnn.ConvexNNError, match=words):
        make(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "Y"), [("squared", np.full(8, 0.3)), ("logistic", -np.ones(8))])
def test_targets_that_the_bias_alone_fits(loss, Y):
    """The optimum is the zero network at zero loss, of which no relative gap can be stated; the solver ends there."""
    settings = {"loss": loss, "patterns": 5, "output_bias": "free"}
    problem = cnn.Problem(make().X, Y, beta=0.3, **settings)
    assert problem.beta_max == 0
    result = cnn.solve(problem, "bm_newton", iterations=2000, show_progress=False)
    assert (result.status, result.certificate.dual) == ("stalled", 0.0)
    assert result.objective < 1e-25
    with pytest.raises(cnn.InputError, match="constant under a free output bias"):
        cnn.Problem(make().X, Y, beta_fraction=0.3, **settings)


def test_rivals_do_not_know_weights_and_biases():
    for problem in (make(), make(sample_weight=None, output_bias="free")):
        words = cnn.SOLVERS.get("rival_scnn")().skip(problem)
        assert "scnn has the loss squared only, and this is" in words
        assert problem.loss.name in words


def test_a_fraction_of_beta_max_that_depends_on_beta_is_refused():
    with pytest.raises(cnn.InputError, match="penalised output bias beta_max depends on beta"):
        make(output_bias="penalised").with_beta(fraction=0.1)
