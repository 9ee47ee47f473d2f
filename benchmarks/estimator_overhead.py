"""What a fit of an estimator costs on top of `solve`.

    OMP_NUM_THREADS=1 python benchmarks/estimator_overhead.py [--repetitions 9] [--gap 1e-2] [--out DIR]

The problems are four standardised data sets of scikit-learn. The estimators have their default arguments except for the
gap, on which the overhead does not depend. Clocks around the calls in `fit` divide its time: "solve" is the call of
`solve`, with set-up and certificates; "problem" makes the `Problem`, with gates and beta_max; "rest" is checks, labels,
weights and equal samples. The overhead is the fit without "solve". The first fit is not counted. The table has medians
over the repetitions, and the least and the largest overhead.
"""

import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import parser, print_machine
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.preprocessing import StandardScaler

import convexnn_bench as cnn
from convexnn_bench.estimators import base
from convexnn_bench.report import write_csv

DATASETS = {"breast_cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits, "diabetes": load_diabetes}


class Stopwatch:
    """A function that records the seconds of its calls."""

    def __init__(self, function: Callable[..., Any]):
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return self.function(*arguments, **named)
        finally:
            self.seconds += time.perf_counter() - started


def measure(name: str, gap: float) -> dict[str, Any]:
    """Return the seconds of one fit and of its parts."""
    X, y = DATASETS[name](return_X_y=True)
    X = StandardScaler().fit_transform(X)
    kind = cnn.ConvexMLPRegressor if name == "diabetes" else cnn.ConvexMLPClassifier
    estimator = kind(random_state=0, gap=gap)
    solve, problem = Stopwatch(base.solve), Stopwatch(estimator._problem)
    estimator._problem = problem
    with patch.object(base, "solve", solve):
        started = time.perf_counter()
        estimator.fit(X, y)
        fit = time.perf_counter() - started
    rest = fit - solve.seconds - problem.seconds
    return {"dataset": name, "fit": fit, "solve": solve.seconds, "problem": problem.seconds, "rest": rest}


def main() -> None:
    arguments = parser(__doc__, "estimator_overhead")
    arguments.add_argument("--repetitions", type=int, default=9)
    arguments.add_argument("--gap", type=float, default=1e-2)
    arguments.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=list(DATASETS))
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print_machine("cpu")
    rows = []
    print(f"{'data set':<14} {'fit (s)':>9} {'solve (s)':>10} {'problem (ms)':>13} {'rest (ms)':>10}   overhead (ms)")
    for name in given.datasets:
        own = [measure(name, given.gap) for _ in range(given.repetitions + 1)][1:]
        rows += own
        fit, solve, problem, rest = (float(np.median([row[key] for row in own])) for key in list(own[0])[1:])
        over = 1000 * np.array([row["fit"] - row["solve"] for row in own])
        print(
            f"{name:<14} {fit:>9.3f} {solve:>10.3f} {1000 * problem:>13.1f} {1000 * rest:>10.1f}   "
            f"{np.median(over):.1f} ({over.min():.1f} to {over.max():.1f})",
            flush=True,
        )
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"written: {write_csv(rows, given.out / 'estimator_overhead.csv')}")


if __name__ == "__main__":
    main()
