"""cvxpy_clarabel and cvxpy_scs against closed forms, brute force and the textbook program."""

import cvxpy as cp
import numpy as np
import pytest
from problems import combinations, random_problem
from scipy.optimize import minimize
from textbook import textbook_optimum

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic import solver as conic_solver


def solver(name="cvxpy_clarabel", **attributes):
    made = cnn.SOLVERS.make(name)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def run(problem, name="cvxpy_clarabel", **attributes):
    """(point, certificate, solver) after one run."""
    made = solver(name, **attributes)
    assert made.skip(problem) is None
    made.set_problem(problem)
    calls = []
    made.run(lambda: calls.append(1) or False)
    assert len(calls) == 1
    point = made.get_result()
    return point, cnn.certify(problem, point), made


@pytest.mark.slow
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("name", ["cvxpy_clarabel", "cvxpy_scs"])
def test_linear_network_on_the_identity_soft_thresholds_singular_values(name, c):
    Y = np.random.default_rng(1).standard_normal((6, c))
    beta = 0.4 * np.linalg.norm(Y, 2)
    point, certificate, _ = run(cnn.Problem(np.eye(6), Y, activation="linear", beta=beta), name)
    left, values, right = np.linalg.svd(Y, full_matrices=False)
    shrunk = np.maximum(values - beta, 0)
    expected = 0.5 * np.sum((values - shrunk) ** 2) + beta * shrunk.sum()
    assert certificate.primal == pytest.approx(expected, rel=1e-7)
    assert certificate.dual <= expected * (1 + 1e-14)
    np.testing.assert_allclose(point.blocks[0], (left * shrunk) @ right, atol=1e-4)


@pytest.mark.slow
def test_one_feature_by_brute_force():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal(7), rng.standard_normal(7)
    problem = cnn.Problem(x[:, None], y, beta_fraction=0.2)

    def objective(z):
        return 0.5 * np.sum((problem.masks * x[:, None] @ z - y) ** 2) + problem.beta * np.abs(z).sum()

    starts = [minimize(objective, s, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13}) for s in np.eye(2)]
    _, certificate, _ = run(problem)
    assert problem.P == 2
    assert certificate.primal == pytest.approx(min(found.fun for found in starts), rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize(("loss", "activation"), combinations(), ids=lambda value: value)
def test_every_loss_and_activation_equals_the_textbook_program(loss, activation, c):
    if activation == "relu" and c > 1:
        c = 1
        problem = random_problem(5, loss, activation, n=14, d=4, c=c, patterns=6, beta_fraction=0.03)
    else:
        problem = random_problem(4, loss, activation, n=14, d=4, c=c, patterns=6)
    point, certificate, _ = run(problem)
    optimum = textbook_optimum(problem)
    assert certificate.gap <= 1e-6
    assert certificate.primal == pytest.approx(optimum, rel=2e-7)
    assert certificate.dual <= optimum * (1 + 1e-7)
    assert certificate.infeasibility <= 1e-8
    assert point.dual.shape == problem.Y.shape


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "activation"), combinations(), ids=lambda value: value)
def test_scs_reaches_the_same_optimum(loss, activation):
    problem = random_problem(4, loss, activation, n=14, d=3, c=2, patterns=5)
    _, certificate, made = run(problem, "cvxpy_scs", time_limit=600)
    reference = run(problem)[1]
    assert certificate.gap <= 1e-4
    assert certificate.primal >= reference.dual
    assert made.message.startswith("SCS: solved")


@pytest.mark.slow
@pytest.mark.parametrize(("n", "optimum"), [(45, 6.4407344), (150, 29.9153860), (600, 137.2926611)])
@pytest.mark.parametrize("name", ["cvxpy_clarabel", "cvxpy_scs"])
def test_spiral_optima_to_eight_digits(name, n, optimum):
    problem = cnn.make_problem("spiral", n=n, beta_fraction=0.01)
    _, certificate, _ = run(problem, name)
    assert 2 * n == problem.P
    assert certificate.gap <= 1e-6
    assert certificate.scope == "complete"
    if name == "cvxpy_clarabel":
        assert f"{certificate.primal:.8g}" == f"{optimum:.8g}"


@pytest.mark.slow
def test_spiral_of_thirty_points():
    problem = cnn.make_problem("spiral", n=30, noise=0.2, beta_fraction=0.02)
    assert run(problem)[1].primal == pytest.approx(5.1212, abs=5e-5)


@pytest.mark.slow
def test_relu_with_all_patterns_lies_above_gated_relu_and_holds_its_cones():
    rng = np.random.default_rng(7)
    X, y = rng.standard_normal((50, 2)), rng.standard_normal(50)
    relu = cnn.Problem(X, y, activation="relu", beta=0.5)
    gated = cnn.Problem(X, y, activation="gated_relu", beta=0.5)
    point, certificate, _ = run(relu)
    assert certificate.gap <= 1e-6
    assert run(gated)[1].dual <= certificate.primal
    split = np.asarray(point.split)
    signs = 2.0 * relu.masks - 1.0
    for k in range(relu.P):
        assert np.min(signs[:, k, None] * (X @ split[k])) >= -1e-8
    np.testing.assert_allclose(point.blocks[:, :, 0], split[:, :, 0] - split[:, :, 1])


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
@pytest.mark.parametrize(("scale_x", "scale_y"), [(1e5, 1.0), (1.0, 1e-5), (1e-4, 1e6)])
def test_scale_of_the_data_does_not_matter(activation, scale_x, scale_y):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 2)), rng.standard_normal(20)
    problem = cnn.Problem(X * scale_x, y * scale_y, activation=activation, beta_fraction=0.05)
    assert run(problem)[1].gap <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
def test_beta_above_beta_max_gives_zero(activation):
    problem = random_problem(1, activation=activation, beta_fraction=1.5)
    point, certificate, _ = run(problem)
    assert np.abs(point.blocks).max() <= 1e-6 * np.abs(problem.Y).max()
    assert certificate.primal == pytest.approx(0.5 * np.sum(problem.Y**2), rel=1e-6)


@pytest.mark.slow
def test_run_compiles_nothing(monkeypatch):
    made = solver()
    made.set_problem(random_problem(0))

    def refuse(*_, **__):
        raise AssertionError("compiled in run")

    monkeypatch.setattr(cp.Problem, "get_problem_data", refuse)
    monkeypatch.setattr("cvxpy.reductions.solvers.solving_chain.SolvingChain.apply", refuse)
    made.run(lambda: False)
    assert made.get_result().blocks is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cut", "word"),
    [
        ("cvxpy_clarabel", {"max_iter": 2}, "MaxIterations"),
        ("cvxpy_clarabel", {"time_limit": 1e-4}, "MaxTime"),
        ("cvxpy_scs", {"max_iters": 5}, "max_iters"),
        ("cvxpy_scs", {"time_limit": 1e-4}, "time_limit"),
    ],
)
def test_a_cut_off_run_says_so_and_leaves_the_verdict_to_the_certificate(name, cut, word, monkeypatch):
    monkeypatch.setattr(conic_solver, "LEAST_SECONDS", 1e-5)  # less than the first iteration takes on any machine
    problem = cnn.make_problem("spiral", n=90, beta_fraction=0.01)
    _, certificate, made = run(problem, name, **cut)
    assert word in made.message
    assert certificate.gap > 1e-6


@pytest.mark.slow
def test_a_solver_that_fails_raises_with_its_words(monkeypatch):
    made = solver()
    made.set_problem(random_problem(0))

    def fail(*_, **__):
        raise cp.SolverError("ran out\nof luck")

    monkeypatch.setattr("cvxpy.reductions.solvers.solving_chain.SolvingChain.solve_via_data", fail)
    with pytest.raises(cnn.ConvexNNError, match="cvxpy_clarabel: the solver failed: ran out of luck"):
        made.run(lambda: False)
    with pytest.raises(cnn.ConvexNNError, match="no point before it has run"):
        made.get_result()


def test_unknown_parameter_is_refused():
    with pytest.raises(cnn.InputError, match="tolerances"):
        cnn.SOLVERS.make("cvxpy_clarabel", tolerances=1e-3)
