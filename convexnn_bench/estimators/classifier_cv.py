"""The classifier that chooses its weight decay by cross-validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convexnn_bench.activations import BaseActivation
from convexnn_bench.estimators.arguments import store_arguments
from convexnn_bench.estimators.classifier import ConvexMLPClassifier
from convexnn_bench.estimators.cross_validation import CrossValidated
from convexnn_bench.losses import BaseLoss
from convexnn_bench.solver import BaseSolver


class ConvexMLPClassifierCV(CrossValidated, ConvexMLPClassifier):
    """Classify by a two-layer perceptron, with weight decay by cross-validation.

    Every fold is solved along one path, from the largest weight decay down, each from the last solution. The network
    with the chosen weight decay is then trained on all samples, with a certificate.

    Parameters
    ----------
    betas : int or sequence of float
        The number of weight decays, or the weight decays themselves. A number stands for fractions of ``beta_max`` from
        1 down to `smallest`, in geometric progression. Each fold takes them of the ``beta_max`` of its own training
        samples, because the loss is a sum over samples. Given weight decays are the same in every fold.
    smallest : float
        The smallest weight decay as a fraction of ``beta_max``, if `betas` is a number.
    cv : int, splitter, iterable of splits, or None
        The folds, as scikit-learn takes them. None stands for five folds. An integer or None gives every fold the same
        shares of classes.
    scoring : str, callable or None
        What is maximised, as scikit-learn takes it. None stands for `score`, the accuracy.
    selection : {"best", "one_standard_error"}
        Take the weight decay with the best mean score, or the largest one whose mean score is within one standard error
        of the best mean score. Among equals the largest one is taken.
    n_jobs : int, optional
        Number of folds at a time, in processes of joblib. None stands for 1, and -1 for all processors.
    time_limit : float, optional
        Seconds after which a single solve is stopped, for every solve.
    activation, patterns, loss, solver, gap, fit_intercept, class_weight, max_iter, random_state, device, verbose
        As for `ConvexMLPClassifier`. All folds and the last fit have the same seed of gates.

    Attributes
    ----------
    beta_ : float
        The chosen weight decay.
    beta_fraction_ : float
        `beta_` as a fraction of ``beta_max`` of all samples.
    betas_ : array
        The weight decays for all samples, from the largest down.
    scores_ : array, number of weight decays x number of folds
        The scores on the samples that a fold has left out.
    cv_results_ : dict of arrays
        The validation curve, with an entry for each weight decay: beta, beta_fraction, split0_test_score and so on,
        mean_test_score, std_test_score, standard_error of the mean, and gap, the largest certified gap of the folds.
    classes_, result_, certificate_, n_iter_, n_features_in_, feature_names_in_
        As for `ConvexMLPClassifier`, of the fit to all samples.

    See Also
    --------
    ConvexMLPClassifier : The same network with a given weight decay.
    path : All weight decays of an interval, with bounds at each.

    Notes
    -----
    The standard error of the mean over k folds is std / sqrt(k - 1), where std has k in its denominator. Scores are
    known at the solved weight decays only. The certificate is about the training objective and not about scores.

    Examples
    --------
    >>> import numpy as np
    >>> import convexnn_bench as cnn
    >>> X = np.random.default_rng(0).standard_normal((60, 2))
    >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "opposite")
    >>> classifier = cnn.ConvexMLPClassifierCV(betas=5, cv=3, patterns=20, random_state=0).fit(X, y)
    >>> classifier.scores_.shape, bool(classifier.beta_fraction_ < 0.5), classifier.certificate_.gap <= 1e-4
    ((5, 3), True, True)
    >>> classifier.predict([[1.0, 1.0], [-1.0, 1.0]]).tolist()
    ['same', 'opposite']
    """

    _fold_class = ConvexMLPClassifier

    def __init__(
        self,
        *,
        activation: str | BaseActivation = "gated_relu",
        patterns: str | int = 100,
        loss: str | BaseLoss = "cross_entropy",
        solver: str | BaseSolver = "auto",
        gap: float | None = 1e-4,
        fit_intercept: bool = True,
        class_weight: str | Mapping[Any, float] | None = None,
        max_iter: int | None = 10_000,
        time_limit: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        verbose: bool = False,
        betas: int | Sequence[float] | np.ndarray = 20,
        smallest: float = 1e-3,
        cv: Any = None,
        scoring: Any = None,
        selection: str = "best",
        n_jobs: int | None = None,
    ):
        store_arguments(self, locals())
