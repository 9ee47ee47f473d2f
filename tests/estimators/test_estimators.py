"""The estimators keep scikit-learn's conventions, and their fits solve the problems that their docstrings state."""

import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import convexnn_bench as cnn

LOSSES = ("cross_entropy", "logistic", "squared_hinge", "squared", "huber")
FEW = {"patterns": 10, "beta_fraction": 0.1}
# For the hundreds of fits of scikit-learn's checks, which compare predictions to seven digits.
QUICK = {"patterns": 5, "beta_fraction": 0.3, "gap": 1e-4}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([cnn.ConvexMLPClassifier(**QUICK), cnn.ConvexMLPRegressor(**QUICK)])
def test_the_conventions_of_scikit_learn(estimator, check):
    check(estimator)


def blobs(n: int = 40, d: int = 2, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian samples, and numbers of classes that depend on them."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, (X @ rng.standard_normal((d, classes)) + 0.3 * rng.standard_normal((n, classes))).argmax(axis=1)


def with_constant(X: np.ndarray) -> np.ndarray:
    return np.column_stack([X, np.ones(len(X))])


def classifier(**arguments) -> cnn.ConvexMLPClassifier:
    return cnn.ConvexMLPClassifier(**{**FEW, "random_state": 0, **arguments})


def regressor(**arguments) -> cnn.ConvexMLPRegressor:
    return cnn.ConvexMLPRegressor(**{**FEW, "random_state": 0, **arguments})


# -- the problem that is solved --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fit_is_the_solution_of_the_problem_that_the_docstring_states():
    X, index = blobs()
    words = np.array(["ash", "beech", "cedar"])[index]
    weights = np.linspace(0.5, 2.0, len(X))
    fitted = classifier(gap=1e-9).fit(X, words, sample_weight=weights)
    problem = cnn.Problem(
        with_constant(X),
        words,
        loss="cross_entropy",
        beta_fraction=0.1,
        patterns=10,
        sample_weight=weights,
        output_bias="free",
    )
    result = cnn.solve(problem, "bm_newton", gap=1e-9, iterations=10_000, time_limit=None)
    assert fitted.result_.objective == pytest.approx(result.objective, rel=1e-10)
    assert fitted.certificate_.gap <= 1e-9
    assert fitted.certificate_ == cnn.certify(fitted.result_.problem, fitted.result_)
    assert fitted.result_.problem.classes == ("ash", "beech", "cedar")
    new = blobs(seed=1)[0]
    np.testing.assert_array_equal(fitted.predict(new), result.predict_labels(with_constant(new)))


def test_without_intercept_the_problem_is_that_of_the_data_as_they_are():
    X, index = blobs(classes=2)
    y = X[:, 0] ** 2
    fitted = regressor(fit_intercept=False, gap=1e-9, beta=0.3, solver="bm_newton").fit(X, y)
    result = cnn.solve(cnn.Problem(X, y, beta=0.3, patterns=10), "bm_newton", gap=1e-9, iterations=10_000)
    assert fitted.result_.objective == pytest.approx(result.objective, rel=1e-10)
    np.testing.assert_array_equal(fitted.result_.problem.X, X)
    np.testing.assert_allclose(fitted.predict(X), result.predict(X)[:, 0], atol=1e-10)
    two = classifier(fit_intercept=False, loss="logistic", gap=1e-9).fit(X, index == 1)
    plain = cnn.Problem(X, index == 1, loss="logistic", beta_fraction=0.1, patterns=10)
    assert two.result_.problem.beta == pytest.approx(plain.beta, rel=1e-12)
    np.testing.assert_array_equal(two.result_.problem.Y, plain.Y)


@pytest.mark.slow
def test_integer_weights_are_repeated_samples_and_weight_zero_is_no_sample():
    X, y = blobs(n=24)
    counts = np.random.default_rng(1).integers(0, 4, size=len(X))
    weighted = classifier().fit(X, y, sample_weight=counts)
    repeated = classifier().fit(X.repeat(counts, axis=0), y.repeat(counts))
    assert weighted.result_.problem.X.shape[0] == (counts > 0).sum()
    assert weighted.certificate_ == repeated.certificate_
    np.testing.assert_array_equal(weighted.predict_proba(X), repeated.predict_proba(X))
    # The optimum is also that of a problem in which every copy is a sample.
    problem = repeated.result_.problem
    copies = cnn.Problem(
        with_constant(X.repeat(counts, axis=0)),
        np.eye(3)[y.repeat(counts)],
        loss="cross_entropy",
        beta=problem.beta,
        patterns=10,
        output_bias="free",
    )
    optimum = cnn.solve(copies, "bm_newton", gap=1e-8).objective
    assert optimum * (1 - 1e-8) <= repeated.result_.objective <= optimum * (1 + 1e-4)


@pytest.mark.slow
def test_class_weights_are_weights_of_the_samples_with_the_decay_that_they_have_without():
    X, y = blobs()
    factors = {0: 1.0, 1: 3.0, 2: 0.5}
    by_class = classifier(class_weight=factors).fit(X, y)
    beta = by_class.result_.problem.beta
    assert beta == classifier().fit(X, y).result_.problem.beta
    by_sample = classifier(beta=beta).fit(X, y, sample_weight=np.array([factors[label] for label in y]))
    assert by_class.certificate_ == by_sample.certificate_
    balanced = classifier(class_weight="balanced", beta=1.0).fit(X, y)
    equal = classifier(beta=1.0).fit(X, y, sample_weight=len(y) / (3 * np.bincount(y)[y]))
    assert balanced.certificate_.primal == pytest.approx(equal.certificate_.primal, rel=1e-10)
    # a sample of weight two counts as two samples, also for the balance
    counts = np.where(y == 0, 2, 1)
    repeated = classifier(class_weight="balanced").fit(X.repeat(counts, axis=0), y.repeat(counts))
    weighted = classifier(class_weight="balanced").fit(X, y, sample_weight=counts)
    assert weighted.certificate_ == repeated.certificate_


# -- scores and labels -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_separates_classes_and_some_give_probabilities(loss, classes):
    X, y = blobs(classes=classes)
    fitted = classifier(loss=loss, beta_fraction=0.02).fit(X, y)
    assert fitted.score(X, y) > 0.85
    scores = fitted.decision_function(X)
    assert scores.shape == ((len(X),) if classes == 2 else (len(X), classes))
    labels = (scores > 0).astype(int) if classes == 2 else scores.argmax(axis=1)
    np.testing.assert_array_equal(fitted.predict(X), labels)
    if loss not in ("cross_entropy", "logistic"):
        assert not hasattr(fitted, "predict_proba")
        assert not hasattr(fitted, "predict_log_proba")
        return
    probabilities = fitted.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(fitted.predict_log_proba(X), np.log(probabilities), atol=1e-12)
    outputs = fitted.result_.predict(with_constant(X))
    if loss == "cross_entropy":
        expected = softmax(outputs, axis=1)
    else:
        against_rest = expit(outputs) if classes > 2 else expit(np.column_stack([-outputs, outputs]))
        expected = against_rest / against_rest.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    "labels",
    [
        np.array(["no", "yes"]),
        np.array([False, True]),
        np.array([7, 12]),
        np.array([-1, 1]),
        np.array(["no", "yes"], dtype=object),
    ],
    ids=["words", "booleans", "numbers", "signs", "objects"],
)
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_hinge"])
def test_labels_of_any_kind(labels, loss):
    X, index = blobs(classes=2)
    plain = classifier(loss=loss).fit(X, index)
    fitted = classifier(loss=loss).fit(X, labels[index])
    np.testing.assert_array_equal(fitted.classes_, labels)
    predicted = fitted.predict(X)
    assert predicted.dtype == labels.dtype
    np.testing.assert_array_equal(predicted, labels[plain.predict(X)])


def test_categories_and_frames_keep_their_names():
    X, index = blobs(classes=2)
    frame = pd.DataFrame(X, columns=["height", "width"])
    y = pd.Series(pd.Categorical.from_codes(index, ["small", "large"]))
    pipeline = make_pipeline(StandardScaler(), classifier()).set_output(transform="pandas")
    pipeline.fit(frame, y)
    assert pipeline[-1].feature_names_in_.tolist() == ["height", "width"]
    assert pipeline[-1].n_features_in_ == 2
    assert pipeline[-1].classes_.tolist() == ["large", "small"]
    assert set(pipeline.predict(frame)) == {"large", "small"}
    with pytest.raises(ValueError, match="feature names should match"):
        pipeline[-1].predict(frame[["width", "height"]])


@pytest.mark.slow
def test_several_outputs_and_one_column():
    X, _ = blobs()
    Y = np.column_stack([X[:, 0] ** 2, X[:, 1], X.sum(axis=1)])
    both = regressor().fit(X, Y)
    assert both.predict(X).shape == Y.shape
    assert both.score(X, Y) > 0.5
    assert regressor().fit(X, Y[:, 0]).predict(X).shape == (len(X),)
    assert regressor().fit(X, Y[:, :1]).predict(X).shape == (len(X), 1)


@pytest.mark.slow
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
def test_modules_of_torch_have_the_outputs_of_the_estimator(activation, fit_intercept):
    X, index = blobs(classes=2)
    new = blobs(seed=1)[0]
    given = {"activation": activation, "fit_intercept": fit_intercept, "loss": "logistic"}
    fitted = classifier(**given).fit(X, index)
    module = fitted.to_torch()
    assert next(module.parameters()).dtype == torch.float64
    with torch.no_grad():
        outputs = module(torch.as_tensor(new)).numpy()
        single = module.float()(torch.as_tensor(new, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(outputs[:, 0], fitted.decision_function(new), rtol=0, atol=1e-12)
    np.testing.assert_allclose(single, outputs, atol=1e-5 * np.abs(outputs).max())
    if activation == "relu":
        # The module read back is the network of the certified problem, whose hidden biases decay.
        weights = [layer.state_dict() for layer in module.double() if isinstance(layer, torch.nn.Linear)]
        biases = weights[0].get("bias", torch.zeros(0)).square().sum()
        decayed = sum(float(state["weight"].square().sum()) for state in weights) + float(biases)
        problem = fitted.result_.problem
        loss = np.logaddexp(0, -problem.Y[:, 0] * fitted.decision_function(X)).sum()
        assert loss + problem.beta / 2 * decayed == pytest.approx(fitted.result_.objective, rel=1e-5)


# -- limits, starts and refusals -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gap_that_is_not_reached_is_a_warning_with_the_gap_that_was():
    X, y = blobs()
    few = {"max_iter": 2, "beta_fraction": 0.01, "solver": "bm_newton"}  # auto may choose otherwise for another gap
    stopped = classifier(gap=1e-9, **few)
    with pytest.warns(ConvergenceWarning) as caught:
        stopped.fit(X, y)
    (warning,) = caught
    assert f"certified gap of {stopped.result_.gap:.2e}, where gap=1e-09 is the target" in str(warning.message)
    assert "stopped after 2 iterations" in str(warning.message)
    assert warning.filename == __file__
    assert stopped.n_iter_ == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(gap=stopped.result_.gap, **few).fit(X, y)
        classifier(gap=None, **few).fit(X, y)


@pytest.mark.slow
def test_a_warm_start_goes_on_from_the_last_point():
    X, y = blobs(n=60)
    fitted = classifier(warm_start=True, gap=1e-6, beta_fraction=0.02, random_state=None, patterns=30).fit(X, y)
    gates = fitted.result_.problem.gates
    cold = clone(fitted).set_params(random_state=fitted.result_.seed, beta_fraction=0.018).fit(X, y)
    fitted.set_params(beta_fraction=0.018).fit(X, y)
    np.testing.assert_array_equal(fitted.result_.problem.gates, gates)  # drawn once
    assert fitted.n_iter_ < cold.n_iter_
    assert fitted.result_.objective == pytest.approx(cold.result_.objective, rel=2e-6)
    # The same problem again is solved at once. Other samples of the same kind begin with the same neurons.
    assert fitted.fit(X, y).n_iter_ == 1
    assert fitted.fit(X[:50], y[:50]).certificate_.gap <= 1e-6
    with pytest.raises(cnn.InputError, match="warm_start=True needs the features and the outputs of the last fit"):
        fitted.fit(X[:, :1], y)


@pytest.mark.slow
def test_random_states_choose_the_gates():
    X, y = blobs()
    states = (3, 3, np.random.RandomState(3))
    one_step = {"max_iter": 1, "gap": None}
    gates = [classifier(random_state=state, **one_step).fit(X, y).result_.problem.gates for state in states]
    np.testing.assert_array_equal(gates[0], gates[1])
    assert not np.array_equal(gates[0], gates[2])
    first, second = (classifier(random_state=None, **one_step).fit(X, y).result_.seed for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": 0}, 'patterns must be "all" or a whole number'),
        ({"warm_start": True, "solver": "cvxpy_clarabel"}, "warm_start=True: solver 'cvxpy_clarabel' cannot begin"),
        ({"patterns": np.ones((40, 3), dtype=bool)}, 'patterns must be "all" or a whole number'),
        ({"beta_fraction": -1.0}, "beta_fraction must be a positive"),
        ({"beta": 0.0}, "beta must be a positive"),
        ({"gap": "small"}, "gap must be"),
        ({"max_iter": 0}, "max_iter must be a whole number"),
        ({"time_limit": -1}, "time_limit must be"),
        ({"fit_intercept": 1}, "fit_intercept must be one of True, False"),
        ({"loss": "cross_entropi"}, "cross_entropy"),
        ({"solver": "bm_newtn"}, "bm_newton"),
        ({"activation": "tanh"}, "gated_relu"),
        ({"class_weight": {0: 1.0, 1: 0.0, 2: 1.0}}, "class_weight must be positive"),
    ],
)
def test_arguments_that_are_not_usable(arguments, message):
    with pytest.raises(cnn.InputError, match=message):
        classifier(**arguments).fit(*blobs())


def test_refusals_of_data_and_solvers():
    X, y = blobs()
    with pytest.raises(cnn.InputError, match="one class only, 1 "):
        classifier().fit(X, y, sample_weight=y == 1)
    with pytest.raises(ValueError, match="Negative values"):
        classifier().fit(X, y, sample_weight=y - 1.0)
    with pytest.raises(cnn.InputError, match="loss must take numbers for regression"):
        regressor(loss="logistic").fit(X, y)
    with pytest.raises(cnn.ConvexNNError, match="ReLU"):
        classifier(activation="relu", solver="semismooth_newton").fit(X, y)
    with pytest.raises(NotFittedError):
        classifier().to_torch()


@pytest.mark.slow
@pytest.mark.parametrize(
    "X",
    [np.zeros((6, 2)), np.ones((6, 1)), np.arange(6.0)[:, None], np.array([[1.0, 2.0], [3.0, 4.0]])],
    ids=["zeros", "constant", "one feature", "two samples"],
)
@pytest.mark.parametrize("patterns", [100, "all"])
def test_few_and_degenerate_samples(X, patterns):
    y = np.arange(len(X)) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = classifier(patterns=patterns).fit(X, y)
        constant = regressor(patterns=patterns).fit(X, np.full(len(X), 0.3))
    assert fitted.certificate_.gap <= 1e-4
    np.testing.assert_allclose(constant.predict(X), 0.3, rtol=1e-12)


# -- the rest of scikit-learn ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_model_selection_and_copies(tmp_path):
    X, y = blobs(n=60)
    weights = np.where(y == 0, 2.0, 1.0)
    pipeline = make_pipeline(StandardScaler(), classifier(gap=1e-2))
    search = GridSearchCV(pipeline, {"convexmlpclassifier__beta_fraction": [0.9, 0.01]}, cv=3)
    search.fit(X, y, convexmlpclassifier__sample_weight=weights)
    assert search.best_params_ == {"convexmlpclassifier__beta_fraction": 0.01}
    assert search.best_estimator_[-1].certificate_.gap <= 1e-2
    scores = cross_val_score(search.best_estimator_, X, y, cv=3)
    assert scores.shape == (3,)
    assert scores.min() > 0.6
    fitted = search.best_estimator_
    joblib.dump(fitted, tmp_path / "pipeline.joblib")
    for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "pipeline.joblib")):
        np.testing.assert_array_equal(copy.predict_proba(X), fitted.predict_proba(X))
        assert copy[-1].certificate_ == fitted[-1].certificate_


@pytest.mark.process
def test_scikit_learn_is_imported_with_the_estimators_alone():
    code = (
        "import sys, convexnn_bench as cnn; cnn.Problem([[1.0]], [1.0], beta=0.1); before = 'sklearn' in sys.modules; "
        "cnn.ConvexMLPRegressor; print(before, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["False", "True"]


# -- sparse data -----------------------------------------------------------------------------------------------


def sparse_blobs(seed: int = 0) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """Samples that are mostly zeros, two of which are equal, and three classes."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((40, 6)) < 0.4, rng.standard_normal((40, 6)), 0.0)
    dense[7] = dense[3]
    index = (dense @ rng.standard_normal((6, 3))).argmax(axis=1)
    return scipy.sparse.csr_array(dense), index


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "fit_intercept"),
    [(scipy.sparse.csr_array, True), (scipy.sparse.coo_matrix, False), (pd.DataFrame.sparse.from_spmatrix, True)],
    ids=["CSR", "COO", "DataFrame"],
)
def test_sparse_data_are_fitted_as_the_dense_ones_and_stay_sparse(form, fit_intercept):
    X, index = sparse_blobs()
    new, weights = sparse_blobs(seed=1)[0], np.linspace(0.0, 2.0, 40)
    sparse, dense = (classifier(fit_intercept=fit_intercept, gap=1e-9) for _ in range(2))
    sparse.fit(form(X), index, sample_weight=weights)
    dense.fit(X.toarray(), index, sample_weight=weights)
    assert sparse.result_.problem.is_sparse
    assert sparse.result_.problem.N == dense.result_.problem.N
    assert sparse.result_.objective == pytest.approx(dense.result_.objective, rel=2e-9)
    np.testing.assert_allclose(sparse.predict_proba(form(new)), dense.predict_proba(new.toarray()), atol=1e-4)


def test_equal_sparse_samples_are_merged_and_a_warm_start_takes_them():
    X, index = sparse_blobs()
    fitted = regressor(warm_start=True, gap=1e-8).fit(X, index.astype(float))
    assert fitted.result_.problem.N == len(np.unique(np.column_stack([X.toarray(), index]), axis=0)) < 40
    fitted.fit(X, index.astype(float))
    assert fitted.n_iter_ <= 1
    fitted.fit(X.toarray(), index.astype(float))  # the same samples in another form
    assert fitted.certificate_.gap <= 1e-8


@pytest.mark.slow
def test_words_are_classified_in_a_pipeline():
    texts = ["red apple", "green apple tree", "red cherry", "fast car", "old green car", "fast train", "old train"]
    kinds = ["fruit", "fruit", "fruit", "vehicle", "vehicle", "vehicle", "vehicle"]
    pipeline = make_pipeline(TfidfVectorizer(), classifier(loss="logistic")).fit(texts, kinds)
    assert pipeline[-1].result_.problem.is_sparse
    assert list(pipeline.predict(["apple", "train"])) == ["fruit", "vehicle"]
    with pytest.raises(cnn.InputError, match="cones of ReLU blocks need dense data"):
        make_pipeline(TfidfVectorizer(), classifier(activation="relu")).fit(texts, kinds)
