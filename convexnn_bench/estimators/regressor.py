"""A two-layer perceptron for regression, as an estimator of scikit-learn."""

from typing import Any, Self

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import validate_data

from convexnn_bench.errors import InputError
from convexnn_bench.estimators.base import BaseConvexMLP
from convexnn_bench.labels import Targets
from convexnn_bench.operator import DataArray
from convexnn_bench.plugins import LOSSES


class ConvexMLPRegressor(RegressorMixin, MultiOutputMixin, BaseConvexMLP):
    """Regress by a two-layer perceptron with a certificate of its training objective.

    The estimator for scikit-learn has one or several outputs. `certificate_` bounds how far the training objective can
    be above its global optimum. The features should have similar scales:
    ``make_pipeline(StandardScaler(), ConvexMLPRegressor())``.

    Parameters
    ----------
    loss : str or BaseLoss
        A loss of numbers: "squared", "huber", or an instance such as ``cnn.Huber(delta=0.5)``.
    activation, patterns, beta_fraction, beta, solver, gap, fit_intercept, warm_start, max_iter, time_limit, \
random_state, device, verbose
        As for `ConvexMLPClassifier`.

    Attributes
    ----------
    result_, certificate_, n_iter_, n_features_in_, feature_names_in_
        As for `ConvexMLPClassifier`.

    See Also
    --------
    ConvexMLPClassifier : The same network for classes.

    Notes
    -----
    The training objective is that of `Problem`, a sum over samples, with the weights and the biases of the fit.

    Examples
    --------
    >>> import numpy as np
    >>> import convexnn_bench as cnn
    >>> X = np.linspace(-1, 1, 30)[:, None]
    >>> regressor = cnn.ConvexMLPRegressor(patterns="all", beta_fraction=1e-3)
    >>> regressor.fit(X, np.abs(X[:, 0])).certificate_.gap <= 1e-4
    True
    >>> regressor.predict([[-0.5], [0.5]]).round(1)
    array([0.5, 0.5])
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the network, and prove how far its objective can be from the optimum.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, n x d
            The samples.
        y : array, n or n x c
            The targets.
        sample_weight : array, n, optional
            Factors >= 0 of the samples' losses. A sample of weight zero is left out.

        Returns
        -------
        ConvexMLPRegressor
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

    def _check_arguments(self) -> None:
        super()._check_arguments()
        loss = LOSSES.make(self.loss)
        if loss.labels is not None:
            raise InputError(f'loss must take numbers for regression, such as "squared" or "huber", got {loss.name!r}')

    def _read(self, X: Any, y: Any) -> tuple[DataArray, np.ndarray]:
        return validate_data(  # type: ignore[no-any-return]
            self, X, y, accept_sparse="csr", dtype=np.float64, multi_output=True, y_numeric=True
        )

    def _read_targets(self, y: np.ndarray, weights: np.ndarray | None) -> tuple[Targets, np.ndarray | None]:
        self._one_column = y.ndim == 1
        return Targets(np.asarray(y, dtype=np.float64).reshape(len(y), -1)), None

    def predict(self, X: Any) -> np.ndarray:
        """Return the predictions.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, n x d
            The samples.

        Returns
        -------
        array, n or n x c
            In the shape of the targets of `fit`.

        Raises
        ------
        NotFittedError
            `fit` has not been called.
        """
        scores = self._scores(X)
        return scores[:, 0] if self._one_column else scores
