"""What a fit of an estimator costs on top of `solve`.

    OMP_NUM_THREADS=1 python benchmarks/estimator_overhead.py [--repetitions 9] [--gap 1e-4] [--out DIR]

Four data sets of scikit-learn, standardised, with the default arguments of the estimators. In turns, the script fits
the estimator, and makes the same problem and solves it by hand, after one fit that is not counted. "problem" is the
making of `Problem` with its gates and beta_max, "solve" the whole call of `solve` with its certificates. "overhead" is
the fit without both, the median of the differences with the least and the largest.
"""

import time
from typing import Any

import numpy as np
import torch
from common import parser, print_machine
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.preprocessing import StandardScaler

import convexnn_bench as cnn
from convexnn_bench.report import write_csv

DATASETS = {"breast_cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits, "diabetes": load_diabetes}


def by_hand(problem: "cnn.Problem", Y: np.ndarray, gap: float, iterations: int) -> tuple[float, float, "cnn.Result"]:
    """(seconds to make the problem, seconds to solve it, result) of a problem like `problem`."""
    started = time.perf_counter()
    made = cnn.Problem(
        problem.X, Y, loss=problem.loss.loss, beta=1.0, patterns=100, seed=problem.seed, output_bias="free"
    ).with_beta(fraction=0.01)
    ready = time.perf_counter()
    result = cnn.solve(made, "bm_newton", gap=gap, iterations=iterations, time_limit=None, show_progress=False)
    return ready - started, time.perf_counter() - ready, result


def measure(name: str, gap: float, repetitions: int) -> list[dict[str, Any]]:
    """One row a repetition on one data set."""
    X, y = DATASETS[name](return_X_y=True)
    X = StandardScaler().fit_transform(X)
    kind = cnn.ConvexMLPRegressor if name == "diabetes" else cnn.ConvexMLPClassifier
    estimator = kind(random_state=0, gap=gap).fit(X, y)
    rows = []
    for _ in range(repetitions):
        started = time.perf_counter()
        estimator.fit(X, y)
        fit = time.perf_counter() - started
        problem, solve, result = by_hand(estimator.result_.problem, y, gap, estimator.max_iter)
        assert abs(result.objective - estimator.result_.objective) <= 1e-8 * abs(result.objective)
        rows.append(
            {"dataset": name, "fit": fit, "problem": problem, "solve": solve, "overhead": fit - problem - solve}
        )
    return rows


def main() -> None:
    arguments = parser(__doc__, "estimator_overhead")
    arguments.add_argument("--repetitions", type=int, default=9)
    arguments.add_argument("--gap", type=float, default=1e-4)
    arguments.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=list(DATASETS))
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print_machine("cpu")
    rows = []
    print(f"{'data set':<14} {'fit (s)':>9} {'problem (s)':>12} {'solve (s)':>10}   overhead (ms)")
    for name in given.datasets:
        own = measure(name, given.gap, given.repetitions)
        rows += own
        fit, problem, solve = (float(np.median([row[key] for row in own])) for key in ("fit", "problem", "solve"))
        over = 1000 * np.array([row["overhead"] for row in own])
        print(
            f"{name:<14} {fit:>9.3f} {problem:>12.4f} {solve:>10.3f}   "
            f"{np.median(over):.1f} ({over.min():.1f} to {over.max():.1f})",
            flush=True,
        )
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"written: {write_csv(rows, given.out / 'estimator_overhead.csv')}")


if __name__ == "__main__":
    main()
