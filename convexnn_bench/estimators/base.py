"""The common part of the estimators: arguments, training problem and solution.

The problem is that of `Problem` for a two-layer perceptron. With `fit_intercept` the network has biases,

    f(x) = sum_j phi(u_j^T x + a_j) v_j + b       with the penalty beta/2 sum_j (||u_j||^2 + a_j^2 + ||v_j||^2).

The biases a_j of the hidden layer are the weights of a constant feature of one, and decay like all other weights.
Without them the hyperplane of every neuron would contain the origin. The output bias b is free, so that the zero
network makes the best constant prediction.
"""

import warnings
from dataclasses import replace
from typing import Any, Self

import numpy as np
import scipy.sparse
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from convexnn_bench.activations import BaseActivation
from convexnn_bench.certificates import Certificate
from convexnn_bench.errors import ConvexNNError, InputError
from convexnn_bench.estimators.arguments import check_gates, store_arguments
from convexnn_bench.estimators.hidden_biases import with_hidden_biases
from convexnn_bench.estimators.merging import merged, same_data
from convexnn_bench.labels import Targets
from convexnn_bench.losses import BaseLoss, weighted_part
from convexnn_bench.operator import DataArray
from convexnn_bench.plugins import ACTIVATIONS, LIMIT, LOSSES, SOLVERS, YES_OR_NO, Number, Whole, is_whole
from convexnn_bench.problem import Problem
from convexnn_bench.running import Result, solve
from convexnn_bench.solver import BaseSolver

EPS = float(np.finfo(np.float64).eps)
SEEDS = 2**31 - 1  # number of seeds that a random state chooses from
ANY_BETA = 1.0  # weight decay where beta_max is zero: the zero network is then optimal for every weight decay


class BaseConvexMLP(BaseEstimator):
    """Base class of both estimators: their arguments, fits and scores.

    A subclass defines the meaning of targets and scores.
    `ConvexMLPClassifier` and `ConvexMLPRegressor` document the arguments.
    """

    activation: str | BaseActivation
    patterns: str | int
    loss: str | BaseLoss
    solver: str | BaseSolver
    gap: float | None
    fit_intercept: bool
    warm_start: bool
    max_iter: int | None
    time_limit: float | None
    random_state: int | np.random.RandomState | None
    device: str
    verbose: bool
    result_: Result
    certificate_: Certificate
    n_iter_: int
    n_features_in_: int

    def __init__(
        self,
        *,
        activation: str | BaseActivation = "gated_relu",
        patterns: str | int = 100,
        beta_fraction: float = 0.01,
        beta: float | None = None,
        loss: str | BaseLoss = "squared",
        solver: str | BaseSolver = "auto",
        gap: float | None = 1e-4,
        fit_intercept: bool = True,
        warm_start: bool = False,
        max_iter: int | None = 10_000,
        time_limit: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        verbose: bool = False,
    ):
        store_arguments(self, locals())

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = getattr(self.activation, "name", self.activation) != "relu"
        return tags

    def to_torch(self) -> torch.nn.Module:
        """Return the fitted network as a torch module in float64.

        Returns
        -------
        torch.nn.Module
            A map from samples n x d to outputs n x c: ``Sequential(Linear, ReLU, Linear)`` for ReLU, `GatedMLP` for
            gated ReLU, and ``Linear`` for linear activation, with the biases of the hidden layer. It takes the
            features that `fit` takes. Earlier steps of a pipeline are not part of the module.

        Raises
        ------
        NotFittedError
            `fit` has not been called.
        UnsupportedError
            The activation is a plug-in that has no layers of torch.
        """
        check_is_fitted(self)
        module = self.result_.to_torch()
        return with_hidden_biases(module) if self.result_.problem.p > self.n_features_in_ else module

    # -- fitting ----------------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        """Raise InputError for an argument that is not allowed."""
        ACTIVATIONS.make(self.activation)
        LOSSES.make(self.loss)
        solver = SOLVERS.make(self.solver)
        check_gates(self.patterns)
        self._check_weight_decay()
        LIMIT.check("gap", self.gap)
        LIMIT.check("time_limit", self.time_limit)
        Whole(optional=True).check("max_iter", self.max_iter)
        for name in ("fit_intercept", "warm_start", "verbose"):
            YES_OR_NO.check(name, getattr(self, name))
        if self.warm_start and solver.start_formulation is None:
            raise InputError(
                f"warm_start=True: solver {solver.name!r} cannot begin at the point of the last fit; use "
                "warm_start=False or another solver, such as 'bm_newton'"
            )

    def _check_weight_decay(self) -> None:
        """Raise InputError unless the arguments define a weight decay."""
        Number(optional=True).check("beta", self.beta)
        if self.beta is None:
            Number().check("beta_fraction", self.beta_fraction)

    def _read(self, X: Any, y: Any) -> tuple[DataArray, np.ndarray]:
        """Return the caller's samples and targets as checked arrays."""
        raise NotImplementedError

    def _read_targets(self, y: np.ndarray, weights: np.ndarray | None) -> tuple[Targets, np.ndarray | None]:
        """Return the targets, and the factors of the samples' classes or None."""
        raise NotImplementedError

    def _weights(self, sample_weight: Any, X: DataArray) -> np.ndarray | None:
        """Return the weights of the samples as float64, or None for no weights."""
        if sample_weight is None:
            return None
        weights: np.ndarray = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weights.any():
            raise InputError("sample_weight must not be zero for all samples: at least one weight must be positive")
        return weights

    def _fit(self, X: DataArray, y: np.ndarray, weights: np.ndarray | None) -> Self:
        """Solve the training problem of checked samples, with `warm_start` from a point."""
        problem, without_classes = self._problem(X, y, weights)
        beta = self.beta_fraction * fraction_unit(without_classes) if self.beta is None else self.beta
        problem = problem.with_beta(beta)
        return self._keep(self._solved(problem, self._start(problem)))

    def _solved(self, problem: Problem, start: Result | np.ndarray | None = None) -> Result:
        """Return the solution of a problem by the estimator's solver."""
        return solve(problem, self.solver, start=start, show_progress=self.verbose, **self._limits(problem))

    def _limits(self, problem: Problem) -> dict[str, Any]:
        """Return the arguments of `solve` that say how far and where a solver runs."""
        return {
            "time_limit": self.time_limit, "gap": self.gap, "iterations": self.max_iter,
            "seed": problem.seed, "device": self.device,
        }  # fmt: skip

    def _keep(self, result: Result) -> Self:
        """Store the result of a fit. Warn if its certified gap is above the target."""
        self._set(result)
        if self._misses_gap(result):
            proven = "no certified gap" if np.isnan(result.gap) else f"a certified gap of {result.gap:.2e}"
            warnings.warn(
                f"{type(self).__name__} has {proven}, where "
                f"gap={self.gap:g} is the target ({result.reason}). The point "
                "is used as it is. Standardise the features, raise max_iter or time_limit, take another solver, or "
                "accept a larger gap",
                ConvergenceWarning,
                stacklevel=4,
            )
        return self

    def _set(self, result: Result) -> None:
        """Store a result. Raise ConvexNNError if it has no point."""
        if result.point is None or result.certificate is None:
            raise ConvexNNError(
                f"{type(self).__name__} has no point: {result.solver} was {result.status}, {result.reason}"
            )
        self.result_, self.certificate_ = result, result.certificate
        self.n_iter_ = max(result.iterations, 1)

    def _misses_gap(self, result: Result) -> bool:
        """Return whether the certified gap is above the target."""
        return self.gap is not None and not result.gap <= self.gap and not _is_zero(result)

    def _problem(self, X: DataArray, y: np.ndarray, weights: np.ndarray | None) -> tuple[Problem, Problem]:
        """Return the training problem, and the same one without the weights of classes.

        The weight decay of both is ANY_BETA. `fraction_unit` of the second one is the unit of weight decays.
        """
        # 1. Remove samples of weight zero, so that nothing depends on them, and merge equal samples.
        if weights is not None:
            X, y, weights = X[weights > 0], y[weights > 0], weights[weights > 0]
        targets, factors = self._read_targets(y, weights)
        kept, weights = merged(X, targets.rows, weights)
        targets, factors = replace(targets, rows=targets.rows[kept]), None if factors is None else factors[kept]
        # 2. State the problem, and once more with the factors of classes.
        rows = self._rows(X[kept])
        model: dict[str, Any] = {
            "activation": self.activation, "loss": self.loss, "beta": ANY_BETA, "seed": self._seed(),
            "output_bias": "free" if self.fit_intercept else None,
        }  # fmt: skip
        problem = Problem(rows, targets, patterns=self.patterns, sample_weight=weights, **model)
        if factors is None:
            return problem, problem
        both = factors if weights is None else weights * factors
        return Problem(rows, targets, patterns=problem.pattern_info, sample_weight=both, **model), problem

    def _seed(self) -> int:
        """Return the seed of the gates and of the start point."""
        state: Any = self.random_state
        if is_whole(state):
            return int(state)
        if self.warm_start and hasattr(self, "result_"):
            return self.result_.seed  # with other gates the last point would belong to other blocks
        return int(check_random_state(state).randint(SEEDS))

    def _start(self, problem: Problem) -> Result | np.ndarray | None:
        """Return the last point if the fit begins there, or None.

        None also if the blocks of the last problem are not those of this one. Raise InputError if the last fit had
        other features or targets.
        """
        if not self.warm_start or not hasattr(self, "result_"):
            return None
        last = self.result_.problem
        if (last.p, last.c, last.classes) != (problem.p, problem.c, problem.classes):
            raise InputError(
                f"warm_start=True needs the features and the outputs of the last fit, {last.p} inputs, {last.c} "
                f"outputs and the classes {last.classes}, got {problem.p}, {problem.c} and {problem.classes}; with "
                "warm_start=False a fit begins anew"
            )
        if last.activation.name != problem.activation.name:
            return None
        same_X = same_data(last.X, problem.X) and np.array_equal(last.masks, problem.masks)
        if same_X and np.array_equal(last.Y, problem.Y):
            return self.result_
        # On other samples, equal gates define the same blocks. This does not hold for cones, which depend on samples.
        same_gates = not problem.has_cone and _same(last.gates, problem.gates)
        return self.result_.blocks if same_X or same_gates else None

    # -- scores -----------------------------------------------------------------------------------------

    def _rows(self, X: DataArray) -> DataArray:
        """Return the inputs of the network, with a constant feature for hidden biases."""
        if not self.fit_intercept:
            return X
        ones = np.ones((X.shape[0], 1))
        return scipy.sparse.hstack([X, ones], format="csr") if scipy.sparse.issparse(X) else np.column_stack([X, ones])

    def _scores(self, X: Any) -> np.ndarray:
        """Return the outputs of the network, n x c, for the caller's samples."""
        check_is_fitted(self)
        checked = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        return self.result_.predict(self._rows(checked))


def fraction_unit(problem: Problem) -> float:
    """Return the unit of fractions: beta_max, or ANY_BETA if beta_max is zero."""
    return problem.beta_max if problem.beta_max > 0 else ANY_BETA


def _is_zero(result: Result) -> bool:
    """Return whether the objective is zero up to rounding.

    No relative gap is then small.
    """
    problem = result.problem
    loss = weighted_part(problem.loss)
    Y = torch.as_tensor(problem.Y)
    return result.objective <= EPS * float(loss.value(torch.zeros_like(Y), Y))


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Return whether two arrays are equal, or both missing."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))
