"""The choice of "auto": which solvers can take a problem, in which order, and at what cost."""

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
from problems import LOSS_NAMES, combinations, random_problem

import convexnn_bench as cnn
from convexnn_bench.algorithms.automatic import MODEL_FILE, Request, SolverModel, choose, features_of, load_model
from convexnn_bench.algorithms.automatic.features import FEATURES, largest_beta
from convexnn_bench.errors import ConvexNNError
from convexnn_bench.plugins import parse_spec
from convexnn_bench.solver import reason_to_skip

REQUEST = Request(gap=1e-6, time_limit=60.0)


def names(problem, request=REQUEST, models=None):
    return [one.name for one in choose(problem, request, models)[0]]


def constant(**seconds):
    """A model by which each solver takes so many seconds on every problem."""
    return {name: SolverModel({"constant": math.log10(value)}) for name, value in seconds.items()}


# -- the features and the model --------------------------------------------------------------------------------


def test_features_of_a_problem_by_hand():
    problem = random_problem(0, n=10, d=3, c=2, beta_fraction=0.01, patterns=4)
    features = features_of(problem, 1e-4)
    assert list(features) == list(FEATURES)
    expected = {"constant": 1, "rows": 1, "inputs": math.log10(3), "outputs": math.log10(2), "blocks": math.log10(4)}
    expected |= {
        "decay": 2,
        "accuracy": 4,
        "decay_blocks": 2 * math.log10(4),
        "several": 1,
        "plane": 0,
        "mixing": 0,
        "curved": 0,
        "bias": 0,
        "relu": 0,
    }
    assert {name: features[name] for name in expected} == pytest.approx(expected)


def test_a_loss_with_weights_and_a_bias_is_judged_by_what_it_is():
    X, y = np.random.default_rng(0).standard_normal((8, 2)), np.arange(8.0)
    problem = cnn.Problem(X, y, beta=0.1, patterns=3, sample_weight=np.ones(8), output_bias="free")
    features = features_of(problem, 1e-6)
    assert (features["curved"], features["bias"]) == (0, 0)
    labels = np.where(y > 3, 1.0, -1.0)
    for bias in (None, "free"):
        problem = cnn.Problem(X, labels, loss="logistic", beta=0.1, patterns=3, output_bias=bias)
        features = features_of(problem, 1e-6)
        assert (features["curved"], features["bias"]) == (1, bias is not None)


def test_the_largest_beta_of_a_relu_problem_is_an_upper_bound():
    problem = random_problem(1, activation="relu", n=12, patterns=6)
    assert problem.beta_max <= largest_beta(problem) * (1 + 1e-12)


@pytest.mark.parametrize("beta", [1e-9, 1e9])
def test_extreme_weight_decays_have_finite_predictions(beta):
    problem = random_problem(0).with_beta(beta)
    candidates, _ = choose(problem, REQUEST)
    assert all(0 < one.seconds < 1e7 for one in candidates)


def test_the_shipped_model_names_solvers_and_where_it_comes_from():
    text = MODEL_FILE.read_text()
    assert "commit" in text
    assert "machine" in text
    assert {parse_spec(spec)[0] for spec in load_model()} <= set(cnn.SOLVERS.names())
    assert all(model.coefficients for model in load_model().values())


def test_an_unknown_feature_in_a_model_is_an_error(tmp_path):
    path = tmp_path / "times.toml"
    path.write_text("[solvers.fista]\ncoefficients = { colour = 1.0 }\n")
    with pytest.raises(ConvexNNError, match="fista has the unknown feature 'colour'"):
        load_model(path)


# -- the order ---------------------------------------------------------------------------------------------------


def test_the_quickest_comes_first_and_says_so_in_numbers():
    models = constant(bm_newton=2.0, fista=0.25, semismooth_newton=1.0)
    candidates, _ = choose(random_problem(0), REQUEST, models)
    assert [(one.name, one.seconds) for one in candidates] == [
        ("fista", pytest.approx(0.25)),
        ("semismooth_newton", pytest.approx(1.0)),
        ("bm_newton", pytest.approx(2.0)),
    ]
    assert candidates[0].reason.startswith("0.25 s predicted at N = 9, p = 3, q = 2, P = 4 and beta = 0.1 beta_max")
    assert candidates[0].reason.endswith("against 1 s for semismooth_newton")


def test_the_choice_is_the_same_each_time_and_for_a_copy():
    problem = random_problem(0, c=3, n=20, patterns=8)
    first = choose(problem, REQUEST)
    assert choose(problem, REQUEST) == first
    assert choose(pickle.loads(pickle.dumps(problem)), REQUEST) == first


def test_a_one_shot_solver_that_may_not_finish_comes_last():
    models = constant(cvxpy_clarabel=1.0, bm_newton=3.0, fista=9.0)
    problem = random_problem(0)
    assert names(problem, Request(1e-6, 60.0), models)[0] == "cvxpy_clarabel"
    assert names(problem, Request(1e-6, None), models)[0] == "cvxpy_clarabel"
    assert names(problem, Request(1e-6, 1.5), models) == ["bm_newton", "fista", "cvxpy_clarabel"]


def test_packages_that_are_not_loaded_count(monkeypatch):
    models = {**constant(bm_newton=1.0), "cvxpy_clarabel": SolverModel({"constant": -1.0}, loading=1.4)}
    problem = random_problem(0)
    for package in ("cvxpy", "clarabel"):
        monkeypatch.setitem(sys.modules, package, sys)
    assert names(problem, REQUEST, models)[0] == "cvxpy_clarabel"
    monkeypatch.delitem(sys.modules, "clarabel")
    assert names(problem, REQUEST, models)[0] == "bm_newton"


# -- who may be chosen -------------------------------------------------------------------------------------------


def test_relu_sparse_data_devices_and_limits_rule_solvers_out():
    gated, relu = random_problem(0), random_problem(0, activation="relu")
    assert "semismooth_newton" in names(gated)
    assert "column_generation" not in names(gated)
    assert "semismooth_newton" not in names(relu)
    assert "column_generation" not in names(relu)  # the blocks are a sample of all patterns
    assert "column_generation" in names(random_problem(0, activation="relu", n=6, d=2, patterns="all"))
    sparse = cnn.Problem(scipy.sparse.random(20, 5, 0.5, "csr", rng=0), np.arange(20.0), beta=0.1, patterns=4)
    assert "cvxpy_clarabel" not in names(sparse)
    assert names(sparse)
    for request in (Request(device="cuda:0"), Request(iterative=True), Request(shared=True)):
        assert "cvxpy_clarabel" not in names(gated, request)
        assert names(gated, request)
    shared = names(gated, Request(shared=True))
    assert all(cnn.SOLVERS.get(name).formulation == "burer_monteiro" for name in shared)


def test_a_missing_package_rules_a_solver_out(monkeypatch):
    monkeypatch.setattr("convexnn_bench.solver.importable", lambda package: package != "cvxpy")
    candidates, refused = choose(random_problem(0), REQUEST)
    assert "cvxpy_clarabel" not in [one.name for one in candidates]
    assert refused["cvxpy_clarabel"].startswith("package cvxpy is not installed")
    assert cnn.solve(random_problem(0)).status == "gap_reached"


def test_solvers_without_a_prediction_are_tried_if_no_other_can(monkeypatch):
    problem = random_problem(0)
    candidates, refused = choose(problem, REQUEST, constant(column_generation=1.0))
    assert "column_generation" in refused
    assert candidates[0].seconds == math.inf
    assert candidates[0].start_formulation is not None
    assert "auto" not in [one.name for one in candidates]


CASES = [
    *combinations(),
    ("cross_entropy", "relu"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "activation"), CASES)
def test_every_loss_and_activation_has_a_solver_that_runs(loss, activation):
    if (loss, activation) == ("cross_entropy", "relu"):
        rng = np.random.default_rng(0)
        problem = cnn.Problem(rng.standard_normal((9, 3)), np.arange(9) % 3, "mlp", "relu", loss, 1.0, 4)
    else:
        problem = random_problem(0, loss, activation)
    candidates, _ = choose(problem, Request(1e-6, 60.0, iterative=True))
    assert candidates
    assert all(reason_to_skip(cnn.SOLVERS.make(one.name), problem) is None for one in candidates)
    result = cnn.solve(problem, gap=1e-2, iterations=200)
    assert result.certificate is not None
    assert result.solver in [one.name for one in candidates]


def test_every_registered_loss_and_activation_is_among_the_cases():
    assert {loss for loss, _ in CASES} == set(LOSS_NAMES) == set(cnn.LOSSES.names())
    assert {activation for _, activation in CASES} == set(cnn.ACTIVATIONS.names())


@pytest.mark.process
def test_choosing_imports_no_solver_package():
    code = (
        "import sys, convexnn_bench as cnn\n"
        "from convexnn_bench.algorithms.automatic import Request, choose\n"
        "problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)\n"
        "assert choose(problem, Request(1e-6, 60.0))[0]\n"
        "print([name for name in ('cvxpy', 'clarabel', 'mosek', 'scs') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
