"""Names and meanings that code outside this repository relies on."""

import ast
import doctest
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import combinations, random_problem
from textbook import textbook_optimum

import convexnn_bench as cnn

STATUSES = {
    *("gap_reached", "solved", "stalled", "time_limit", "memory_limit"),
    *("crashed", "diverged", "skipped", "failed"),
}
SOLVERS = {
    "semismooth_newton": "convex",
    "interior_point": "convex",
    "fista": "convex",
    "bm_newton": "burer_monteiro",
    "bm_gd": "burer_monteiro",
    "bm_scaled_gd": "burer_monteiro",
    "bm_adam": "burer_monteiro",
    "bm_lbfgs": "burer_monteiro",
    "network_gd": "network",
    "network_sgd": "network",
    "network_adam": "network",
    "network_lbfgs": "network",
}

NO_CONES = ("semismooth_newton", "interior_point", "bm_scaled_gd")  # these skip ReLU
SEEDLESS = ("fista", "semismooth_newton", "interior_point", "bm_newton")  # these start at zero whatever the seed


def loss_by_numpy(problem, z: np.ndarray) -> float:
    """F(z) written out once more."""
    Y = problem.Y
    if problem.loss.name == "squared":
        return 0.5 * ((z - Y) ** 2).sum()
    if problem.loss.name == "cross_entropy":
        return float((np.log(np.exp(z).sum(axis=1)) - (Y * z).sum(axis=1)).sum())
    if problem.loss.name == "logistic":
        return np.log1p(np.exp(-Y * z)).sum()
    if problem.loss.name == "squared_hinge":
        return 0.5 * (np.maximum(1 - Y * z, 0) ** 2).sum()
    r = np.abs(z - Y)
    return np.where(r <= 1, r**2 / 2, r - 0.5).sum()


# -- the package ---------------------------------------------------------------------------------------------


def test_every_exported_name_is_there_and_has_a_docstring():
    for name in cnn.__all__:
        assert getattr(cnn, name) is not None
        if not name.startswith("__") and not name.isupper():
            assert getattr(cnn, name).__doc__, name
    for name in (
        "Problem",
        "make_problem",
        "solve",
        "certify",
        "compare",
        "BaseSolver",
        "BaseLoss",
        "BaseArchitecture",
    ):
        assert name in dir(cnn)
    assert not hasattr(cnn, "no_such_name")


def test_the_stub_that_editors_and_mypy_read_names_what_is_exported():
    tree = ast.parse(Path(cnn.__file__).with_suffix(".pyi").read_text())
    stub = {node.names[0].name: node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert sorted(["__version__", *stub]) == sorted(cnn.__all__)
    for name, module in stub.items():
        assert getattr(importlib.import_module(f"convexnn_bench.{module}"), name) is getattr(cnn, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(cnn.__all__) - {"__version__"}))
def test_examples_in_docstrings_run(name):
    value = getattr(cnn, name)
    value = type(value) if name.isupper() else value  # a registry documents its class
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    module = importlib.import_module(value.__module__)
    for example in doctest.DocTestFinder().find(value, name, module=module, globs=dict(vars(module))):
        assert runner.run(example).failed == 0, example.name


def test_the_former_address_of_the_registries_warns():
    sys.modules.pop("convexnn_bench.registry", None)
    with pytest.warns(DeprecationWarning, match="import from convexnn_bench.plugins"):
        registry = importlib.import_module("convexnn_bench.registry")
    assert registry.LOSSES is cnn.LOSSES


@pytest.mark.process
def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, json, convexnn_bench; print(json.dumps([m for m in sys.modules if '.' not in m]))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert not {"torch", "cvxpy", "sklearn", "matplotlib", "pandas", "scipy", "numpy"} & set(loaded)


@pytest.mark.process
def test_problem_and_below_import_neither_cvxpy_nor_the_harness():
    code = "import sys, json, convexnn_bench.problem; print(json.dumps(list(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    heavy = {"cvxpy", "sklearn", "matplotlib", "pandas", "convexnn_bench.harness", "convexnn_bench.solver"}
    assert not heavy & set(loaded)


# -- the problem ---------------------------------------------------------------------------------------------


def test_attributes_of_a_problem(combination):
    problem = random_problem(0, *combination, n=9, d=3)
    n, d, c = 9, 3, problem.Y.shape[1]
    assert (problem.N, problem.p, problem.q, problem.c, problem.n_out) == (n, d, c, c, n)
    assert problem.masks.dtype == bool
    assert problem.masks.shape == (n, problem.P)
    assert problem.X.dtype == problem.Y.dtype == np.float64
    assert type(problem.beta) is type(problem.beta_max) is float
    assert problem.beta == pytest.approx(0.1 * problem.beta_max, rel=1e-12)
    assert (problem.loss.name, problem.activation.name) == combination
    assert problem.architecture.name == "mlp"
    assert problem.scope == ("complete" if combination[1] == "linear" else "sampled")
    assert problem.has_cone == (combination[1] == "relu")
    for word in combination:
        assert word in repr(problem)


def test_objective_and_predict_are_those_of_the_formula(combination):
    """F(sum_k D_k X Z_k) + beta sum_k ||Z_k||, the nuclear norm by numpy; sums, never means."""
    problem = random_problem(1, *combination, n=9, d=3)
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((problem.P, problem.p, problem.q))
    norms = None
    if problem.has_cone:  # vectors in the cone, whose norm is their own
        Z = problem.cones.project(rng.standard_normal((problem.P, problem.p, 1)))
        norms = np.linalg.norm(Z, axis=1).sum()
    z = sum(problem.masks[:, [k]] * (problem.X @ Z[k]) for k in range(problem.P))
    norms = np.linalg.svd(Z, compute_uv=False).sum() if norms is None else norms
    expected = loss_by_numpy(problem, z) + problem.beta * norms
    np.testing.assert_allclose(problem.predict(Z), z, atol=1e-12)
    value = problem.objective(Z)
    assert type(value) is float
    # the cone norm of a vector in its cone is its length, which the splitting finds to its own accuracy
    assert value == pytest.approx(expected, rel=1e-8 if problem.has_cone else 1e-12)
    assert problem.objective(list(Z)) == problem.objective(torch.as_tensor(Z)) == value


@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
def test_explicit_patterns_are_kept_in_their_order(activation):
    base = random_problem(2, "squared", activation, n=10, d=2, patterns="all")
    order = np.random.default_rng(0).permutation(base.P)
    twice = np.concatenate([order, order[:2]])  # repeated columns are the caller's affair
    for masks in (base.masks[:, order], base.masks[:, twice], base.masks[:, order].astype(int).tolist()):
        problem = cnn.Problem(base.X, base.Y, activation=activation, beta=0.1, patterns=masks)
        np.testing.assert_array_equal(problem.masks, np.asarray(masks, dtype=bool))
        assert problem.scope == "sampled"
    mine = base.masks.copy()
    problem = cnn.Problem(base.X, base.Y, activation=activation, beta=0.1, patterns=mine)
    mine[:] = False
    np.testing.assert_array_equal(problem.masks, base.masks)


def test_complementary_patterns_are_distinct_blocks():
    problem = random_problem(3, n=12, d=2, patterns="all")
    names = {column.tobytes() for column in problem.masks.T}
    assert len(names) == problem.P
    full = {(~column).tobytes() for column in problem.masks.T if not column.all()}
    assert full <= names
    assert problem.scope == "complete"


def test_the_same_seed_samples_the_same_patterns():
    one, same, other = (random_problem(4, n=20, patterns=6).X for _ in range(3))
    masks = [cnn.Problem(X, X, beta=0.1, patterns=6, seed=seed).masks for X, seed in ((one, 0), (same, 0), (other, 1))]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()


@pytest.mark.slow
@pytest.mark.parametrize("pair", combinations(), ids="-".join)
def test_beta_max_is_where_the_zero_network_becomes_optimal(pair):
    base = random_problem(5, *pair, n=8, d=2, patterns="all", beta_fraction=1.0)
    zero = np.zeros((base.P, base.p, base.q))
    above = cnn.Problem(base.X, base.Y, activation=pair[1], loss=pair[0], beta_fraction=1.001, patterns=base.masks)
    assert above.beta == pytest.approx(1.001 * base.beta_max, rel=1e-12)
    assert cnn.certify(above, zero).gap <= 1e-9
    result = cnn.solve(above, "fista", gap=1e-9, time_limit=600)
    assert result.objective == pytest.approx(above.objective(zero), rel=1e-8)
    below = cnn.Problem(base.X, base.Y, activation=pair[1], loss=pair[0], beta_fraction=0.9, patterns=base.masks)
    assert textbook_optimum(below) < below.objective(zero) * (1 - 1e-7)


@pytest.mark.slow
def test_make_problem():
    problem = cnn.make_problem("spiral", n=45)
    assert problem.X.shape == (45, 2)
    assert problem.Y.shape == (45, 3)
    assert (problem.P, problem.scope) == (90, "complete")
    assert problem.beta == pytest.approx(0.01 * problem.beta_max)
    # the published optimum of this problem lies between bound and objective
    certificate = cnn.solve(problem, "bm_lbfgs", gap=1e-3, time_limit=600).certificate
    assert certificate.dual <= 6.4407344 + 5e-8
    assert certificate.primal >= 6.4407344 - 5e-8
    assert certificate.gap <= 1e-3


# -- results -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
def test_a_result(solver, activation):
    problem = random_problem(6, "squared", activation, n=8, d=2, patterns="all")
    P, p, q = problem.P, problem.p, problem.q
    result = cnn.solve(problem, solver, gap=1e-4, iterations=100, time_limit=None, seed=3)
    if activation == "relu" and solver in NO_CONES:
        assert result.status == "skipped"
        assert "ReLU" in result.reason
        return
    assert result.status in STATUSES
    assert result.reason
    assert (result.solver, result.seed, result.device) == (solver, 3, "cpu")
    assert set(result.parameters) == set(cnn.SOLVERS.get(solver).parameters)
    assert type(result.objective) is type(result.setup_seconds) is type(result.solve_seconds) is float
    assert result.setup_seconds >= 0
    assert result.solve_seconds >= 0
    seconds = [point[0] for point in result.curve]
    assert all(len(point) == 3 and all(type(number) is float for number in point) for point in result.curve)
    assert seconds == sorted(seconds)
    assert result.curve[-1][1:] == (result.objective, result.certificate.gap)

    assert isinstance(result.blocks, np.ndarray)
    assert result.blocks.shape == (P, p, q)
    blocks_value = problem.objective(result.blocks)
    assert blocks_value <= result.objective * (1 + 1e-9)  # the map into the convex program never raises it
    if SOLVERS[solver] == "convex":
        assert blocks_value == pytest.approx(result.objective, rel=1e-7 if problem.has_cone else 1e-12)

    if SOLVERS[solver] == "burer_monteiro":
        U, V = result.factors
        m = U.shape[2]
        assert U.shape == (P, p, m)
        assert V.shape == (P, q, m)
        np.testing.assert_allclose(U @ V.transpose(0, 2, 1), result.blocks, atol=1e-12)
        assert problem.factored_objective(U, V) == pytest.approx(result.objective, rel=1e-12)
    else:
        assert result.factors is None

    W1, W2 = result.network
    assert W1.shape == (p, W1.shape[1])
    assert W2.shape == (q, W1.shape[1])
    network_value = problem.network_objective(W1, W2)
    if SOLVERS[solver] == "network":
        assert network_value == pytest.approx(result.objective, rel=1e-12)
    else:
        assert network_value <= result.objective * (1 + 1e-6)
    hidden = problem.X @ W1
    if activation == "gated_relu":
        hidden = hidden * problem.masks[:, np.arange(W1.shape[1]) % P]  # neuron j carries gate j mod P
    hidden = np.maximum(hidden, 0) if activation == "relu" else hidden
    value = loss_by_numpy(problem, hidden @ W2.T) + problem.beta / 2 * ((W1**2).sum() + (W2**2).sum())
    assert network_value == pytest.approx(value, rel=1e-12)


@pytest.mark.slow
def test_number_of_columns_and_neurons_are_parameters():
    problem = random_problem(7, n=8, d=3, c=2)
    for m in (1, 3):
        U, V = cnn.solve(problem, "bm_gd", m=m, iterations=3).factors
        assert U.shape[2] == V.shape[2] == m
    for width in (1, 7):
        W1, W2 = cnn.solve(problem, f"network_gd[width={width}]", iterations=3).network
        assert W1.shape[1] == W2.shape[1] == width


def after(problem, solver: str, steps: int, seed: int) -> list[np.ndarray]:
    """The raw point of a solver after so many calls of its callback."""
    algorithm = cnn.SOLVERS.make(solver)
    algorithm.seed = seed
    algorithm.set_problem(problem)
    left = [steps]

    def callback() -> bool:
        left[0] -= 1
        return left[0] > 0

    algorithm.run(callback)
    point = algorithm.get_result()
    arrays = [point.blocks] if point.blocks is not None else [*(point.factors or point.network)]
    return [torch.as_tensor(array).numpy(force=True).copy() for array in arrays]


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_seed_gives_the_same_numbers(solver, activation):
    if activation == "relu" and solver in NO_CONES:
        return  # skipped, as test_a_result sees
    problem = random_problem(8, "squared", activation, n=40, d=2, patterns="all", beta_fraction=0.02)
    one, same, other = (after(problem, solver, 30, seed) for seed in (5, 5, 6))
    for first, second in zip(one, same, strict=True):
        np.testing.assert_array_equal(first, second)
    if solver not in SEEDLESS:
        assert any((first != second).any() for first, second in zip(one, other, strict=True))


@pytest.mark.slow
def test_a_run_to_its_own_end_repeats_itself():
    problem = random_problem(9, n=6, d=2, patterns=3)
    one, other = (cnn.solve(problem, "bm_lbfgs", gap=None, time_limit=600, seed=1) for _ in range(2))
    assert one.status == other.status == "solved"
    assert one.objective == other.objective
    np.testing.assert_array_equal(one.blocks, other.blocks)


@pytest.mark.slow
def test_limits_are_kept_and_statuses_mean_what_they_say():
    problem = random_problem(10, n=30, d=3, patterns=20, beta_fraction=0.01)
    reached = cnn.solve(problem, "bm_lbfgs", gap=0.5, time_limit=600)
    assert reached.status == "gap_reached"
    assert reached.certificate.gap <= 0.5
    limited = cnn.solve(problem, "bm_gd", gap=1e-12, time_limit=0.05)
    assert limited.status == "time_limit"
    assert limited.solve_seconds >= 0.05
    assert "0.05 s" in limited.reason


@pytest.mark.slow
def test_on_score_is_told_every_point_of_the_curve():
    told = []
    result = cnn.solve(
        random_problem(11),
        "bm_gd",
        iterations=200,
        on_score=lambda seconds, certificate: told.append((seconds, certificate)),
    )
    assert [(seconds, c.primal, c.gap) for seconds, c in told] == result.curve


# -- certificates --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("pair", combinations(), ids="-".join)
def test_certificates_of_every_kind_of_point(pair):
    problem = random_problem(12, *pair, n=8, d=2, patterns="all")
    result = cnn.solve(problem, "bm_gd", gap=1e-5, iterations=300, time_limit=None)
    points = [
        result,
        result.blocks,
        list(result.blocks),
        torch.as_tensor(result.blocks),
        result.factors,
        result.network,
    ]
    optimum = textbook_optimum(problem)
    for point in points:
        certificate = cnn.certify(problem, point)
        assert isinstance(certificate, cnn.Certificate)
        assert certificate.dual <= optimum * (1 + 1e-8)
        assert certificate.primal >= optimum * (1 - 1e-8)
        assert certificate.gap == pytest.approx((certificate.primal - certificate.dual) / abs(certificate.dual))
        assert certificate.stationarity_bound >= 0
        assert math.isfinite(certificate.stationarity_error)
        assert certificate.scope == problem.scope == "complete"
        assert 0 <= certificate.infeasibility <= 1e-8
        assert certificate.primal == pytest.approx(result.objective, rel=1e-2)
    assert cnn.certify(problem, result) == result.certificate
    assert "proven lower bound" in str(result.certificate)


@pytest.mark.slow
def test_a_torch_module_of_the_users_own():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((15, 2)), rng.standard_normal(15)
    problem = cnn.Problem(X, y, activation="relu", beta=0.5)
    module = torch.nn.Sequential(
        torch.nn.Linear(2, 5, bias=False), torch.nn.ReLU(), torch.nn.Linear(5, 1, bias=False)
    ).double()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01, weight_decay=0.5)
    for _ in range(200):
        optimiser.zero_grad()
        (0.5 * (module(torch.as_tensor(X))[:, 0] - torch.as_tensor(y)).square().sum()).backward()
        optimiser.step()
    certificate = cnn.certify(problem, module)
    exact = cnn.solve(problem, "fista", gap=1e-6, time_limit=600)
    assert certificate.dual <= exact.objective
    assert certificate.primal >= exact.certificate.dual
    weights = (module[0].weight.detach().numpy().T, module[2].weight.detach().numpy())
    assert cnn.certify(problem, weights) == certificate


# -- compare -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compare_has_a_row_a_solver():
    problem = random_problem(13)
    table = cnn.compare(problem, ["fista", "bm_lbfgs[m=1]", "network_gd"], gap=1e-3, iterations=300)
    frame = table.to_frame()
    assert len(frame) == 3
    assert set(frame["status"]) <= STATUSES
    assert {"solver", "objective", "lower_bound", "gap", "setup_seconds", "solve_seconds"} <= set(frame.columns)
    assert (frame["objective"] >= frame["lower_bound"].max() * (1 - 1e-9)).all()
    assert type(table.plot()).__name__ == "Figure"
