"""The regressor that chooses its weight decay by cross-validation."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convexnn_bench.activations import BaseActivation
from convexnn_bench.estimators.arguments import store_arguments
from convexnn_bench.estimators.cross_validation import CrossValidated
from convexnn_bench.estimators.regressor import ConvexMLPRegressor
from convexnn_bench.losses import BaseLoss
from convexnn_bench.solver import BaseSolver


class ConvexMLPRegressorCV(CrossValidated, ConvexMLPRegressor):
    """Regress by a two-layer perceptron, with weight decay by cross-validation.

    Every fold is solved along one path, from the largest weight decay down, each from the last solution. The network
    with the chosen weight decay is then trained on all samples, with a certificate.

    Parameters
    ----------
    scoring : str, callable or None
        What is maximised, as scikit-learn takes it. None stands for `score`, the coefficient of determination R2.
    cv : int, splitter, iterable of splits, or None
        The folds, as scikit-learn takes them. None stands for five folds.
    betas, smallest, selection, n_jobs, time_limit
        As for `ConvexMLPClassifierCV`.
    activation, patterns, loss, solver, gap, fit_intercept, max_iter, random_state, device, verbose
        As for `ConvexMLPRegressor`. All folds and the last fit have the same seed of gates.

    Attributes
    ----------
    beta_, beta_fraction_, betas_, scores_, cv_results_
        As for `ConvexMLPClassifierCV`.
    result_, certificate_, n_iter_, n_features_in_, feature_names_in_
        As for `ConvexMLPRegressor`, of the fit to all samples.

    See Also
    --------
    ConvexMLPRegressor : The same network with a given weight decay.
    ConvexMLPClassifierCV : The same choice for classes.

    Examples
    --------
    >>> import numpy as np
    >>> import convexnn_bench as cnn
    >>> X = np.random.default_rng(0).uniform(-1, 1, (40, 1))
    >>> regressor = cnn.ConvexMLPRegressorCV(betas=5, cv=4, patterns="all").fit(X, np.abs(X[:, 0]))
    >>> regressor.beta_fraction_ < 0.01, regressor.certificate_.gap <= 1e-4
    (True, True)
    >>> regressor.predict([[-0.5], [0.5]]).round(1)
    array([0.5, 0.5])
    """

    _fold_class = ConvexMLPRegressor

    def __init__(
        self,
        *,
        activation: str | BaseActivation = "gated_relu",
        patterns: str | int = 100,
        loss: str | BaseLoss = "squared",
        solver: str | BaseSolver = "auto",
        gap: float | None = 1e-4,
        fit_intercept: bool = True,
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
