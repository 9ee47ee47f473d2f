"""Choose the weight decay of an estimator by cross-validation.

Every fold has one path: its weight decays are solved from the largest down, each from the last solution. Every score
is that of a solved network, because bounds on the training objective between two weight decays say nothing about the
scores between them.
"""

import warnings
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.parallel import Parallel, delayed

from convexnn_bench.errors import InputError
from convexnn_bench.estimators.base import BaseConvexMLP, fraction_unit
from convexnn_bench.operator import DataArray
from convexnn_bench.plugins import Choice, Number, Whole
from convexnn_bench.regularisation import solve_grid
from convexnn_bench.terminal import progress

SELECTIONS = Choice(("best", "one_standard_error"))
OWN_ARGUMENTS = ("betas", "smallest", "cv", "scoring", "selection", "n_jobs")

Split = tuple[np.ndarray, np.ndarray]


class FoldCurve(NamedTuple):
    """Scores and certified gaps of one fold, from the largest weight decay down.

    missed: the number of gaps that are above the target.
    """

    scores: list[float]
    gaps: list[float]
    missed: int


class CrossValidated(BaseConvexMLP):
    """The part of both estimators that chooses the weight decay.

    A subclass names the class of a fold's estimator.
    """

    _fold_class: type[BaseConvexMLP]
    warm_start = False  # a fit does not begin at the last one

    betas: Any  # a number of weight decays, or the weight decays themselves
    smallest: float
    cv: Any
    scoring: Any
    selection: str
    n_jobs: int | None
    betas_: np.ndarray
    beta_: float
    beta_fraction_: float
    scores_: np.ndarray
    cv_results_: dict[str, np.ndarray]

    def _check_weight_decay(self) -> None:
        """Raise InputError unless the arguments define a grid and a choice from it."""
        SELECTIONS.check("selection", self.selection)
        if isinstance(self.betas, str) or np.ndim(self.betas) == 0:
            Whole(low=2).check("betas", self.betas)
            Number(high=1.0).check("smallest", self.smallest)
            return
        values = [Number().check("betas", beta) for beta in self.betas]
        if not values or len(set(values)) != len(values):
            raise InputError(
                f"betas must be a number of weight decays, or different positive weight decays, got {self.betas!r}"
            )

    def _fit(self, X: DataArray, y: np.ndarray, weights: np.ndarray | None) -> Self:
        """Choose the weight decay by cross-validation, and fit all samples with it."""
        # 1. State the problem of all samples, which also checks them. Its seed is that of all folds.
        problem, without_classes = self._problem(X, y, weights)
        unit = fraction_unit(without_classes)
        self.betas_ = self._fractions() * unit if self._counts else np.sort(np.asarray(self.betas, dtype=float))[::-1]
        # 2. Solve the path of every fold, and score its networks.
        splits = self._splits(X, y)
        shared = {name: value for name, value in self.get_params(deep=False).items() if name not in OWN_ARGUMENTS}
        estimator = self._fold_class(**{**shared, "random_state": problem.seed})
        betas = None if self._counts else self.betas_
        with progress(f"{len(splits)} paths of {len(self.betas_)} weight decays", show=self.verbose):
            folds: list[FoldCurve] = Parallel(n_jobs=self.n_jobs)(
                delayed(fold_curve)(clone(estimator), X, y, weights, split, self._fractions(), betas, self.scoring)
                for split in splits
            )
        # 3. Choose the weight decay.
        self._keep_curve(folds, unit)
        index = self._selected()
        self.beta_, self.beta_fraction_ = float(self.betas_[index]), float(self.betas_[index] / unit)
        self._warn_of_missed_gaps(folds)
        # 4. Solve for it with all samples.
        return self._keep(self._solved(problem.with_beta(self.beta_)))

    @property
    def _counts(self) -> bool:
        """Whether `betas` is a number of weight decays."""
        return np.ndim(self.betas) == 0

    def _fractions(self) -> np.ndarray:
        """Return the fractions of beta_max for every fold, from 1 down to `smallest`."""
        return np.geomspace(1.0, self.smallest, self.betas) if self._counts else np.empty(0)

    def _splits(self, X: DataArray, y: np.ndarray) -> list[Split]:
        """Return the training and the validation samples of each fold, as indices."""
        splits = list(check_cv(self.cv, y, classifier=is_classifier(self)).split(X, y))
        if len(splits) < 2 and self.selection == "one_standard_error":
            raise InputError(
                f'selection="one_standard_error" needs at least two folds, and cv={self.cv!r} gives {len(splits)}'
            )
        return splits

    def _keep_curve(self, folds: list[FoldCurve], unit: float) -> None:
        """Store the scores of all folds and the validation curve."""
        self.scores_ = np.array([fold.scores for fold in folds]).T
        count = self.scores_.shape[1]
        spread = self.scores_.std(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            standard_error = spread / np.sqrt(count - 1)  # nan for one fold
        self.cv_results_ = {
            "beta": self.betas_.copy(),
            "beta_fraction": self.betas_ / unit,
            **{f"split{fold}_test_score": self.scores_[:, fold].copy() for fold in range(count)},
            "mean_test_score": self.scores_.mean(axis=1),
            "std_test_score": spread,
            "standard_error": standard_error,
            "gap": np.array([fold.gaps for fold in folds]).max(axis=0),
        }

    def _selected(self) -> int:
        """Return the index of the weight decay that `selection` chooses.

        It is the largest one of equals.
        """
        means = self.cv_results_["mean_test_score"]
        if not np.isfinite(means).any():
            raise InputError(f"scoring={self.scoring!r} gives no finite mean score at any weight decay")
        best = int(np.nanargmax(np.where(np.isfinite(means), means, np.nan)))  # the first of equals
        if self.selection == "best":
            return best
        least = means[best] - self.cv_results_["standard_error"][best]
        return int(np.flatnonzero(means >= least)[0])

    def _warn_of_missed_gaps(self, folds: list[FoldCurve]) -> None:
        missed = sum(fold.missed for fold in folds)
        if missed:
            warnings.warn(
                f"{type(self).__name__}: {missed} of {self.scores_.size} fits in the folds have a certified gap above "
                f"gap={self.gap:g}, the largest {np.nanmax(self.cv_results_['gap']):.2e}. Their scores are used as "
                "they are. Standardise the features, raise max_iter or time_limit, take another solver, or accept a "
                "larger gap",
                ConvergenceWarning,
                stacklevel=4,
            )


def fold_curve(
    estimator: BaseConvexMLP,
    X: DataArray,
    y: np.ndarray,
    weights: np.ndarray | None,
    split: Split,
    fractions: np.ndarray,
    betas: np.ndarray | None,
    scoring: Any,
) -> FoldCurve:
    """Solve a fold's training samples at all weight decays, and score each network.

    Scores are on the samples that the fold has left out.
    betas: the weight decays. None stands for `fractions` of the beta_max of the fold's training samples.
    """
    train, test = split
    # 1. Take the samples of both parts. Those of weight zero enter neither.
    X_train, y_train, w_train = X[train], y[train], None if weights is None else weights[train]
    X_test, y_test, w_test = X[test], y[test], None if weights is None else weights[test]
    for part, w in (("training", w_train), ("validation", w_test)):
        if w is not None and not w.any():
            raise InputError(f"sample_weight is zero for all {part} samples of a fold: choose other folds by cv")
    options: dict[str, Any] = {}
    if w_test is not None:
        X_test, y_test, options = X_test[w_test > 0], y_test[w_test > 0], {"sample_weight": w_test[w_test > 0]}
    # 2. Solve from the largest weight decay down, and score each network as a fitted estimator.
    estimator._read(X_train, y_train)
    problem, without_classes = estimator._problem(X_train, y_train, w_train)
    grid = fractions * fraction_unit(without_classes) if betas is None else betas
    scorer = check_scoring(estimator, scoring=scoring)
    curve = FoldCurve([], [], 0)
    for result in solve_grid(problem, grid, estimator.solver, **estimator._limits(problem)):
        estimator._set(result)
        curve.scores.append(float(scorer(estimator, X_test, y_test, **options)))
        curve.gaps.append(result.gap)
        curve = curve._replace(missed=curve.missed + estimator._misses_gap(result))
    return curve
