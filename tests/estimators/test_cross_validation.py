"""The estimators that choose their weight decay: folds, scores, the choice, and the conventions of scikit-learn."""

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneGroupOut
from sklearn.utils.estimator_checks import parametrize_with_checks

import convexnn_bench as cnn

# For the hundreds of fits of scikit-learn's checks; the squared loss has its output bias in closed form. The solver is
# named, since with two weight decays and this gap the better one may depend on it.
QUICK = {"betas": 2, "smallest": 0.3, "cv": 2, "patterns": 3, "gap": 1e-2, "loss": "squared", "solver": "bm_newton"}
ONE_STEP = {"max_iter": 1, "gap": None, "patterns": 3}  # where the fits themselves do not matter


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([cnn.ConvexMLPClassifierCV(**QUICK), cnn.ConvexMLPRegressorCV(**QUICK)])
def test_the_conventions_of_scikit_learn(estimator, check):
    check(estimator)


def samples(n: int = 36, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Samples of three classes."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 2))
    return X, (X @ rng.standard_normal((2, 3)) + 0.5 * rng.standard_normal((n, 3))).argmax(axis=1)


def classifier(**arguments) -> cnn.ConvexMLPClassifierCV:
    given = {"betas": 3, "smallest": 0.05, "cv": 3, "patterns": 5, "random_state": 0}
    return cnn.ConvexMLPClassifierCV(**{**given, **arguments})


def regressor(**arguments) -> cnn.ConvexMLPRegressorCV:
    given = {"betas": 3, "smallest": 0.05, "cv": 3, "patterns": 5, "random_state": 0}
    return cnn.ConvexMLPRegressorCV(**{**given, **arguments})


# -- folds and scores --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scores_and_choice_are_those_of_a_grid_search_of_the_plain_estimator():
    X, y = samples()
    fitted = classifier(scoring="neg_log_loss", gap=1e-7, class_weight="balanced").fit(X, y)
    plain = cnn.ConvexMLPClassifier(patterns=5, random_state=0, gap=1e-7, class_weight="balanced")
    grid = {"beta_fraction": np.geomspace(1, 0.05, 3).tolist()}
    search = GridSearchCV(plain, grid, cv=3, scoring="neg_log_loss").fit(X, y)
    expected = np.array([search.cv_results_[f"split{fold}_test_score"] for fold in range(3)]).T
    np.testing.assert_allclose(fitted.scores_, expected, atol=1e-3)
    np.testing.assert_allclose(fitted.cv_results_["std_test_score"], expected.std(axis=1), atol=1e-3)
    assert fitted.beta_fraction_ == pytest.approx(search.best_params_["beta_fraction"])
    # the last fit is the plain one at the chosen weight decay
    best = plain.set_params(beta=fitted.beta_).fit(X, y)
    assert fitted.certificate_ == best.certificate_
    np.testing.assert_array_equal(fitted.predict_proba(X), best.predict_proba(X))


@pytest.mark.slow
def test_given_weight_decays_are_the_same_in_every_fold():
    X, _ = samples()
    y = np.column_stack([X[:, 0] ** 2, np.abs(X[:, 1])])
    fitted = regressor(betas=[0.1, 3.0, 0.5], gap=1e-8).fit(X, y)
    np.testing.assert_array_equal(fitted.betas_, [3.0, 0.5, 0.1])
    plain = cnn.ConvexMLPRegressor(patterns=5, random_state=0, gap=1e-8)
    search = GridSearchCV(plain, {"beta": [3.0, 0.5, 0.1]}, cv=3).fit(X, y)
    np.testing.assert_allclose(fitted.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"], atol=1e-4)
    assert fitted.beta_ == search.best_params_["beta"]
    assert fitted.beta_fraction_ == pytest.approx(fitted.beta_ / fitted.result_.problem.beta_max)
    assert fitted.predict(X).shape == y.shape


@pytest.mark.slow
def test_integer_weights_are_repeated_samples_in_fits_and_scores():
    X, y = samples()
    counts, groups = np.random.default_rng(1).integers(0, 3, size=len(X)), np.arange(len(X)) % 3
    copies = [array.repeat(counts, axis=0) for array in (X, y, groups)]
    folds = [list(LeaveOneGroupOut().split(one, groups=group)) for one, group in ((X, groups), (copies[0], copies[2]))]
    weighted = classifier(cv=folds[0], gap=1e-6).fit(X, y, sample_weight=counts)
    repeated = classifier(cv=folds[1], gap=1e-6).fit(copies[0], copies[1])
    np.testing.assert_allclose(weighted.scores_, repeated.scores_, rtol=1e-12)
    np.testing.assert_allclose(weighted.betas_, repeated.betas_, rtol=1e-12)
    assert weighted.certificate_.primal == pytest.approx(repeated.certificate_.primal, rel=2e-6)


@pytest.mark.slow
@pytest.mark.process
def test_folds_in_parallel_give_the_same_fit():
    X, y = samples()
    one, two = (classifier(n_jobs=jobs).fit(scipy.sparse.csr_array(X), y) for jobs in (None, 2))
    np.testing.assert_allclose(one.scores_, two.scores_, rtol=1e-12)
    assert one.beta_ == two.beta_


@pytest.mark.slow
def test_everything_of_the_plain_estimator_is_there():
    X, index = samples()
    words = np.array(["ash", "beech", "cedar"])[index]
    fitted = classifier(betas=2).fit(X, words, sample_weight=np.linspace(0, 2, len(X)))
    assert fitted.classes_.tolist() == ["ash", "beech", "cedar"]
    assert set(fitted.predict(X)) <= set(words)
    assert fitted.certificate_.gap <= 1e-4
    assert (fitted.cv_results_["gap"] <= 1e-4).all()
    outputs = fitted.to_torch()(torch.as_tensor(X)).detach().numpy()
    np.testing.assert_allclose(outputs, fitted.decision_function(X), atol=1e-12)


# -- the choice --------------------------------------------------------------------------------------------------


def fixed_curve(curves: dict[float, list[float]]):
    """Return a scorer that gives the values of a list, one fold after another, for each weight decay."""
    left = {beta: list(values) for beta, values in curves.items()}
    return lambda estimator, X, y: left[estimator.result_.problem.beta].pop(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("selection", "chosen"),
    [("best", 1.0), ("one_standard_error", 2.0)],
)
def test_the_choice_from_a_curve_by_hand(selection, chosen):
    # Means 0.5, 0.7, 0.8, 0.8. The scores 0.7 and 0.9 have a standard error of 0.1, and 1.0 precedes 0.5.
    curves = {4.0: [0.5, 0.5], 2.0: [0.71, 0.71], 1.0: [0.7, 0.9], 0.5: [0.8, 0.8]}
    fitted = classifier(betas=list(curves), cv=2, selection=selection, scoring=fixed_curve(curves), **ONE_STEP)
    fitted.fit(*samples())
    assert fitted.beta_ == chosen
    results = fitted.cv_results_
    np.testing.assert_allclose(results["mean_test_score"], [0.5, 0.71, 0.8, 0.8])
    np.testing.assert_allclose(results["standard_error"], [0, 0, 0.1, 0], atol=1e-15)
    np.testing.assert_array_equal(results["split1_test_score"], [0.5, 0.71, 0.9, 0.8])
    np.testing.assert_array_equal(results["beta"], list(curves))


@pytest.mark.slow
def test_scores_that_are_not_finite_are_not_chosen():
    curves = {4.0: [np.nan, 0.9], 2.0: [0.1, 0.2]}
    fitted = classifier(betas=list(curves), cv=2, scoring=fixed_curve(curves), **ONE_STEP).fit(*samples())
    assert fitted.beta_ == 2.0
    with pytest.raises(cnn.InputError, match="no finite mean score"):
        classifier(scoring=lambda *arguments: np.nan, **ONE_STEP).fit(*samples())


def test_constant_targets_have_a_path_too():
    X, _ = samples()
    fitted = regressor(scoring="neg_mean_squared_error").fit(X, np.full(len(X), 0.3))
    np.testing.assert_allclose(fitted.predict(X), 0.3, rtol=1e-12)


# -- warnings and refusals ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_missed_gaps_in_folds_are_one_warning():
    with pytest.warns(ConvergenceWarning) as caught:
        classifier(gap=1e-9, max_iter=1).fit(*samples())
    folds, whole = (str(warning.message) for warning in caught)
    assert "of 9 fits in the folds have a certified gap above gap=1e-09" in folds
    assert "gap=1e-09 is the target" in whole
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"betas": 1}, "betas must be a whole number, at least 2"),
        ({"betas": "many"}, "betas must be a whole number, at least 2"),
        ({"betas": []}, "betas must be a number of weight decays"),
        ({"betas": [1.0, 1.0]}, "betas must be a number of weight decays"),
        ({"betas": [1.0, -1.0]}, "betas must be a positive"),
        ({"smallest": 1.0}, "smallest must be"),
        ({"selection": "largest"}, "selection must be one of 'best', 'one_standard_error'"),
        ({"gap": -1.0}, "gap must be"),
        ({"cv": KFold(2).split(np.zeros((36, 1))), "selection": "one_standard_error"}, None),
        ({"cv": [(np.arange(30), np.arange(30, 36))], "selection": "one_standard_error"}, "at least two folds"),
        ({"scoring": "accuracyy"}, "accuracyy"),
    ],
)
def test_arguments_that_are_not_usable(arguments, message):
    if message is None:
        classifier(**{**ONE_STEP, **arguments}).fit(*samples())
        return
    with pytest.raises(ValueError, match=message):
        classifier(**{**ONE_STEP, **arguments}).fit(*samples())


def test_a_fold_without_weight_is_refused():
    X, y = samples()
    weights = np.where(np.arange(len(X)) < 12, 0.0, 1.0)
    with pytest.raises(cnn.InputError, match="zero for all validation samples of a fold"):
        classifier(cv=KFold(3), **ONE_STEP).fit(X, y, sample_weight=weights)


@pytest.mark.slow
def test_scorers_get_the_weights_of_the_samples():
    X, y = samples()
    weights, seen = np.linspace(0.0, 1.0, len(X)), []

    def weighted(true, predicted, sample_weight):
        seen.append(sample_weight)
        return float(np.average(true == predicted, weights=sample_weight))

    classifier(cv=KFold(3), betas=2, scoring=make_scorer(weighted), **ONE_STEP).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(np.concatenate(seen[::2]), weights[1:])
