"""A two-layer perceptron for classification, as an estimator of scikit-learn."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from scipy.special import log_expit, log_softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from convexnn_bench.activations import BaseActivation
from convexnn_bench.errors import InputError
from convexnn_bench.estimators.arguments import store_arguments
from convexnn_bench.estimators.base import BaseConvexMLP
from convexnn_bench.estimators.class_targets import class_factors, targets_of_classes
from convexnn_bench.labels import Targets
from convexnn_bench.losses import BaseLoss, CrossEntropy, Logistic
from convexnn_bench.operator import DataArray
from convexnn_bench.plugins import LOSSES
from convexnn_bench.solver import BaseSolver


def _has_probabilities(estimator: "ConvexMLPClassifier") -> bool:
    """Return True if the loss defines probabilities; raise AttributeError otherwise."""
    loss = LOSSES.make(estimator.loss)
    if isinstance(loss, CrossEntropy | Logistic):
        return True
    raise AttributeError(f'the {loss.name} loss gives no probabilities: use loss="cross_entropy" or loss="logistic"')


class ConvexMLPClassifier(ClassifierMixin, BaseConvexMLP):
    """Classify by a two-layer perceptron with a certificate of its training objective.

    The estimator for scikit-learn takes two or more classes with labels of any kind. `certificate_` bounds how far the
    training objective can be above its global optimum. The features should have similar scales:
    ``make_pipeline(StandardScaler(), ConvexMLPClassifier())``.

    Parameters
    ----------
    activation : str or BaseActivation
        "gated_relu", "relu" or "linear".
    patterns : int or "all"
        The number of gates to sample, or "all" for every attainable pattern, which is possible for few features.
    beta_fraction : float
        Weight decay as a fraction of ``beta_max``, the weight decay from which the zero network is optimal.
    beta : float, optional
        Weight decay as a number, in place of `beta_fraction`. Losses are sums over samples, never means.
    loss : str or BaseLoss
        "cross_entropy" has an output for each class. "logistic", "squared_hinge", and losses of numbers such as
        "squared" have one output for two classes, and otherwise one against the rest for each class.
    solver : str or BaseSolver
        A solver's name, with parameters in brackets if wanted, as `solve` takes it.
    gap : float, optional
        Certified relative gap at which the solver is stopped. None lets it run to its own end.
    fit_intercept : bool
        Give the network biases. Those of the hidden layer are the weights of a constant feature of one and have weight
        decay, and those of the outputs have none. With False the problem is ``Problem(X, y)`` without changes.
    class_weight : "balanced", dict or None
        Factors of the losses of each class. "balanced" gives all classes the same total weight. The factors do not
        enter beta_max, so that `beta_fraction` gives the same weight decay with and without them.
    warm_start : bool
        Begin at the point of the last fit, as ``solve(..., start=...)`` does. The gates stay the same unless
        `random_state` is another whole number. On other samples a gated or linear network also begins at the last
        point. A ReLU network, whose cones depend on the samples, then begins without a start.
    max_iter : int, optional
        Steps after which an iterative solver is stopped; None for no limit.
    time_limit : float, optional
        Seconds after which the solver is stopped; None, the default, makes equal fits equal on every machine.
    random_state : int, RandomState or None
        Seed of the gates and of the start point. A whole number is the seed itself.
    device : str
        "cpu", "cuda" or "cuda:0".
    verbose : bool
        Show a progress bar on a terminal or in a notebook.

    Attributes
    ----------
    classes_ : array
        The labels in sorted order, without labels whose samples all have weight zero.
    result_ : Result
        The solution, with its training problem `result_.problem`, its curve and its times.
    certificate_ : Certificate
        The proven bounds on the training objective, with the weights and the biases of the fit.
    n_iter_ : int
        Number of steps that the solver took, at least 1.
    n_features_in_ : int
        Number of features d.
    feature_names_in_ : array
        Names of the features, if X has column names and all of them are strings.

    See Also
    --------
    ConvexMLPRegressor : The same network for numbers.

    Notes
    -----
    With weights w_i, the fit minimises sum_i w_i f(z_i, y_i) + beta/2 ||weights||^2 over two-layer networks with fixed
    gates, or its convex or Burer-Monteiro form, as `Problem` states them. `certificate_` bounds the distance from that
    optimum. It says nothing about test data. Samples that occur several times with the same target are merged into one
    sample of `result_.problem` with the sum of their weights, which gives the same optimum.

    Examples
    --------
    >>> import numpy as np
    >>> import convexnn_bench as cnn
    >>> X = np.random.default_rng(0).standard_normal((60, 2))
    >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "opposite")
    >>> classifier = cnn.ConvexMLPClassifier(patterns=50, random_state=0).fit(X, y)
    >>> classifier.certificate_.gap <= 1e-4
    True
    >>> classifier.predict([[1.0, 1.0], [-1.0, 1.0]]).tolist()
    ['same', 'opposite']
    """

    class_weight: str | Mapping[Any, float] | None
    classes_: np.ndarray

    def __init__(
        self,
        *,
        activation: str | BaseActivation = "gated_relu",
        patterns: str | int = 100,
        beta_fraction: float = 0.01,
        beta: float | None = None,
        loss: str | BaseLoss = "cross_entropy",
        solver: str | BaseSolver = "auto",
        gap: float | None = 1e-4,
        fit_intercept: bool = True,
        class_weight: str | Mapping[Any, float] | None = None,
        warm_start: bool = False,
        max_iter: int | None = 10_000,
        time_limit: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        verbose: bool = False,
    ):
        store_arguments(self, locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the network, and prove how far its objective can be from the optimum.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, n x d
            The samples.
        y : array, n
            Labels of at least two classes: words, booleans, whole numbers, categories.
        sample_weight : array, n, optional
            Factors >= 0 of the samples' losses. A sample of weight zero is left out.

        Returns
        -------
        ConvexMLPClassifier
            The estimator itself.

        Raises
        ------
        InputError
            An argument is not usable. It is a ValueError, as other errors about data are.
        ConvexNNError
            The solver has no point, or does not take this problem.

        Warns
        -----
        ConvergenceWarning
            The certified gap is above `gap`.
        """
        self._check_arguments()
        X, y = self._read(X, y)
        return self._fit(X, y, self._weights(sample_weight, X))

    def _read(self, X: Any, y: Any) -> tuple[DataArray, np.ndarray]:
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64)
        check_classification_targets(y)
        return X, y

    def _read_targets(self, y: np.ndarray, weights: np.ndarray | None) -> tuple[Targets, np.ndarray | None]:
        # Number the classes, and compute their weights.
        classes, index = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise InputError(
                f"y has samples of one class only, {classes.tolist()[0]!r} (samples of weight zero do not count): a "
                "classifier needs at least two classes"
            )
        self.classes_ = classes
        factors = (
            None if self.class_weight is None else class_factors(self.class_weight, classes, index, weights)[index]
        )
        return targets_of_classes(self.loss, classes, index), factors

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of the classes; one score if there are two classes.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, n x d
            The samples.

        Returns
        -------
        array, n or n x number of classes
            The outputs of the network. For two classes, the score is positive for the second class; with cross-entropy
            it is the second output minus the first.

        Raises
        ------
        NotFittedError
            `fit` has not been called.
        """
        scores = self._scores(X)
        if len(self.classes_) > 2:
            return scores
        return scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]

    def predict(self, X: Any) -> np.ndarray:
        """Return the labels of the classes with the highest scores.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, n x d
            The samples.

        Returns
        -------
        array, n
            Labels, as they are in `classes_`.

        Raises
        ------
        NotFittedError
            `fit` has not been called.
        """
        scores = self.decision_function(X)
        labels: np.ndarray = self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]
        return labels

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes.

        The loss must be "cross_entropy" or "logistic".

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, n x d
            The samples.

        Returns
        -------
        array, n x number of classes
            The softmax of the scores for cross-entropy, and their logistic function for the logistic loss. For more
            than two classes the latter is divided by its sum. Columns are in the order of `classes_`, rows sum to one.

        Raises
        ------
        AttributeError
            The loss gives no probabilities.
        NotFittedError
            `fit` has not been called.
        """
        probabilities: np.ndarray = np.exp(self.predict_log_proba(X))
        return probabilities

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of `predict_proba`, computed without underflow.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, n x d
            The samples.

        Returns
        -------
        array, n x number of classes
            Columns are in the order of `classes_`.

        Raises
        ------
        AttributeError
            The loss gives no probabilities.
        NotFittedError
            `fit` has not been called.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([log_expit(-scores), log_expit(scores)], axis=1)
        # The log-softmax of the logarithms normalises the probabilities.
        against_rest = LOSSES.make(self.loss).labels == "signs"
        logarithms: np.ndarray = log_softmax(log_expit(scores) if against_rest else scores, axis=1)
        return logarithms
