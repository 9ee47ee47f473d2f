"""Compare test scores and proven gaps of this package, scikit-learn's networks and adelie.

    OMP_NUM_THREADS=1 python benchmarks/test_scores.py [--seeds 5] [--patterns 100] [--beta-fraction 0.01]
                                                       [--datasets ...] [--out DIR]

The data sets are breast_cancer, wine, digits and diabetes, with a quarter of the samples held out. Features, and the
targets of diabetes, are standardised by the training samples. A seed draws the split, the gates and the start. The
models are

- `convex`: the estimators of this package with their defaults, 100 gates and beta = 0.01 beta_max, to a gap of 1e-4.
  Two classes have one output and the logistic loss, as with the other models.
- `adelie`: the same problem by adelie's group lasso, the solver of its `GroupElasticNet`, at its default tolerance and
  from beta_max down, where `make rivals` has installed it. It has one output only. This package certifies its point.
  The seconds are those of set-up and solve, without the start of its process.
- `mlp`: scikit-learn's MLPClassifier and MLPRegressor with their defaults (100 ReLU neurons, Adam, alpha=1e-4), for up
  to 2000 epochs.
- `mlp, same beta`: the same with alpha=beta, which makes its training objective the network's with weight decay beta.

The training objective is the sum of the losses plus the weight decay of each model, for scikit-learn alpha/2 times the
squared weights without biases. The script prints means ± standard deviations over the seeds, medians of the seconds to
fit, and the largest certified gap. scikit-learn and adelie prove nothing themselves.
"""

import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import parser, print_machine, registered
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

import convexnn_bench as cnn
from convexnn_bench.report import write_csv

DATASETS = {"breast_cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits, "diabetes": load_diabetes}
HELD_OUT, EPOCHS = 0.25, 2000
SOLVERS = {"bm_newton": "convex", "rival_adelie": "adelie"}
OPTIONS = {"rival_adelie": "[lambdas=10]"}
Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # X and y of training, X and y of test
Fit = Callable[[np.ndarray, np.ndarray], Any]


def split(name: str, seed: int) -> Split:
    """Return the standardised data of one split."""
    X, y = DATASETS[name](return_X_y=True)
    numbers = y.dtype.kind == "f"
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=HELD_OUT, random_state=seed, stratify=None if numbers else y
    )
    scaler = StandardScaler().fit(X_train)
    if numbers:
        centre, spread = y_train.mean(), y_train.std()
        y_train, y_test = (y_train - centre) / spread, (y_test - centre) / spread
    return scaler.transform(X_train), y_train, scaler.transform(X_test), y_test


def convex(seed: int, given: Namespace, numbers: bool, classes: int, solver: str) -> Any:
    """Return the regressor if the targets are numbers, and otherwise the classifier."""
    common = {"patterns": given.patterns, "beta_fraction": given.beta_fraction, "random_state": seed, "solver": solver}
    if numbers:
        return cnn.ConvexMLPRegressor(**common)
    return cnn.ConvexMLPClassifier(loss="logistic" if classes == 2 else "cross_entropy", **common)


def objective_of_mlp(network: Any, X: np.ndarray, y: np.ndarray) -> float:
    """Return the training objective of scikit-learn's network: losses plus alpha/2 ||weights||^2."""
    if isinstance(network, MLPRegressor):
        loss = 0.5 * float(np.square(network.predict(X) - y).sum())
    else:
        loss = float(log_loss(y, network.predict_proba(X), normalize=False, labels=network.classes_))
    return loss + 0.5 * network.alpha * sum(float(np.square(weights).sum()) for weights in network.coefs_)


def run(name: str, seed: int, given: Namespace, solvers: list[str]) -> list[dict[str, Any]]:
    """Return one row for each model on one split."""
    X, y, X_test, y_test = split(name, seed)
    numbers, classes = y.dtype.kind == "f", len(np.unique(y))
    rows, beta = [], np.nan
    for solver in solvers:
        if solver == "rival_adelie" and classes > 2 and not numbers:
            continue  # the table says so
        estimator = convex(seed, given, numbers, classes, solver + OPTIONS.get(solver, ""))
        fitted, seconds = timed(estimator.fit, X, y)
        if solver != "bm_newton":  # exclude the start of the rival's process
            seconds = fitted.result_.setup_seconds + fitted.result_.solve_seconds
        beta = fitted.result_.problem.beta
        rows.append({"model": SOLVERS[solver], "objective": fitted.result_.objective, "gap": fitted.result_.gap})
        rows[-1] |= {"seconds": seconds, "score": fitted.score(X_test, y_test), "steps": fitted.n_iter_}
    kind = MLPRegressor if numbers else MLPClassifier
    for model, alpha in (("mlp", 1e-4), ("mlp, same beta", beta)):
        network, seconds = timed(kind(alpha=alpha, max_iter=EPOCHS, random_state=seed).fit, X, y)
        rows.append({"model": model, "objective": objective_of_mlp(network, X, y), "gap": np.nan})
        rows[-1] |= {"seconds": seconds, "score": network.score(X_test, y_test), "steps": network.n_iter_}
    return [{"dataset": name, "seed": seed, "n": len(X), "beta": beta, **row} for row in rows]


def timed(fit: Fit, X: np.ndarray, y: np.ndarray) -> tuple[Any, float]:
    """Return the fitted model and the seconds that the fit took."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # steps and gaps are in the table
        started = time.perf_counter()
        return fit(X, y), time.perf_counter() - started


def main() -> None:
    arguments = parser(__doc__, "test_scores")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--patterns", type=int, default=100)
    arguments.add_argument("--beta-fraction", type=float, default=0.01)
    arguments.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=list(DATASETS))
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print_machine("cpu")
    solvers, rows = registered(list(SOLVERS)), []
    print(
        f"{'data set':<14} {'model':<15} {'test score':>15} {'training objective':>20} {'seconds':>8} {'steps':>6}"
        "   proven of the training objective"
    )
    for name in given.datasets:
        own = [row for seed in range(given.seeds) for row in run(name, seed, given, solvers)]
        rows += own
        for model in dict.fromkeys(row["model"] for row in own):
            print(line(name, model, [row for row in own if row["model"] == model]), flush=True)
        if "rival_adelie" in solvers and not any(row["model"] == "adelie" for row in own):
            print(f"{name:<14} {'adelie':<15} several outputs have the nuclear norm, which adelie does not")
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"written: {write_csv(rows, given.out / 'test_scores.csv')}")


def line(name: str, model: str, rows: list[dict[str, Any]]) -> str:
    """Return one line of the table."""
    values = {key: np.array([row[key] for row in rows]) for key in ("score", "objective", "seconds", "steps", "gap")}
    score, objective = (f"{values[key].mean():.4g} ± {values[key].std():.2g}" for key in ("score", "objective"))
    gap = values["gap"].max()
    proven = "nothing" if np.isnan(gap) else f"at most {gap:.1e} above the optimum"
    return (
        f"{name:<14} {model:<15} {score:>15} {objective:>20} {np.median(values['seconds']):>8.3g} "
        f"{np.median(values['steps']):>6.0f}   {proven}"
    )


if __name__ == "__main__":
    main()
