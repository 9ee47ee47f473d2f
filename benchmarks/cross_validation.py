"""Cross-validated classifiers: ConvexMLPClassifierCV, scikit-learn's LogisticRegressionCV and adelie's cv_grpnet.

    OMP_NUM_THREADS=1 python benchmarks/cross_validation.py [--repetitions 3] [--betas 10] [--out FILE.csv]

Each repetition holds out 30 % of the samples, standardises the features with the others, and lets every method choose
its penalty from ten values by five-fold cross-validation of the accuracy (adelie: of the logistic loss). The methods
take turns in one process. The script prints medians of test accuracy, mean test log loss and processor seconds, with
the least and the largest in brackets. adelie fits the same gated network: a logistic group lasso on the rows
1{gate k} x, one group for each gate, for two classes only, in its own
environment (make rivals). It is left out without that environment.
"""

import argparse
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import print_machine
from sklearn.datasets import load_breast_cancer, load_wine, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import convexnn_bench as cnn
from convexnn_bench.algorithms.rival import environments
from convexnn_bench.report import write_csv

FOLDS, GATES, GAP = 5, 50, 1e-3

ADELIE = environments() / "adelie" / "bin" / "python"

DATA: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "breast_cancer": lambda seed: load_breast_cancer(return_X_y=True),
    "wine": lambda seed: load_wine(return_X_y=True),
    "two moons, n = 300": lambda seed: make_moons(300, noise=0.25, random_state=seed),
}


class Outcome(NamedTuple):
    """Probabilities of the classes on test data, the chosen penalty, and the processor seconds of all fits."""

    probabilities: np.ndarray
    chosen: float
    seconds: float


def ours(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, seed: int, penalties: int, **options: Any) -> Outcome:
    started = time.process_time()
    model = cnn.ConvexMLPClassifierCV(
        betas=penalties, cv=FOLDS, patterns=GATES, gap=GAP, loss="logistic", random_state=seed, **options
    ).fit(X, y)
    seconds = time.process_time() - started
    return Outcome(model.predict_proba(X_test), model.beta_fraction_, seconds)


def one_error(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, seed: int, penalties: int) -> Outcome:
    return ours(X, y, X_test, seed, penalties, selection="one_standard_error")


def logistic_regression(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, seed: int, penalties: int) -> Outcome:
    started = time.process_time()
    model = LogisticRegressionCV(
        Cs=penalties, cv=FOLDS, max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False, scoring="accuracy"
    ).fit(X, y)
    seconds = time.process_time() - started
    return Outcome(model.predict_proba(X_test), float(np.ravel(model.C_)[0]), seconds)


def adelie(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, seed: int, penalties: int) -> Outcome:
    one, one_test = (np.column_stack([samples, np.ones(len(samples))]) for samples in (X, X_test))
    gates = np.random.default_rng(seed).standard_normal((one.shape[1], GATES))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "data.npz", Path(folder) / "scores.npz"
        np.savez(
            source, X=one, y=y.astype(float), X_test=one_test, gates=gates, folds=FOLDS, penalties=penalties, seed=seed
        )
        subprocess.run(
            [ADELIE, str(Path(__file__).with_name("adelie_cross_validation.py")), source, target], check=True
        )
        found = np.load(target)
        second = 1 / (1 + np.exp(-found["scores"]))
        return Outcome(np.column_stack([1 - second, second]), float(found["chosen"]), float(found["seconds"]))


WAYS = {
    "ConvexMLPClassifierCV": ours,
    "the same, one standard error": one_error,
    "LogisticRegressionCV": logistic_regression,
    "adelie cv_grpnet": adelie,
}


def run(name: str, way: str, seed: int, betas: int) -> dict[str, Any]:
    X, y = DATA[name](seed)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
    scaler = StandardScaler().fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        outcome = WAYS[way](scaler.transform(X), y, scaler.transform(X_test), seed, betas)
    return {
        "dataset": name, "way": way, "seed": seed, "chosen": outcome.chosen, "cpu_seconds": outcome.seconds,
        "accuracy": accuracy_score(y_test, outcome.probabilities.argmax(axis=1)),
        "log_loss": log_loss(y_test, outcome.probabilities, labels=np.unique(y)),
    }  # fmt: skip


def median(values: list[float]) -> str:
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--betas", type=int, default=10)
    parser.add_argument("--out", type=Path, help="a CSV file of all runs")
    given = parser.parse_args()
    print_machine("cpu")
    ways = [way for way in WAYS if way != "adelie cv_grpnet" or ADELIE.is_file()]
    if len(ways) < len(WAYS):
        print("left out: adelie cv_grpnet, because its environment is not here (make rivals)")
    rows = []
    for name in DATA:
        binary = len(np.unique(DATA[name](0)[1])) == 2
        here = [way for way in ways if binary or way != "adelie cv_grpnet"]
        own = [run(name, way, seed, given.betas) for seed in range(given.repetitions) for way in here]
        rows += own
        for way in here:
            runs = [row for row in own if row["way"] == way]
            columns = (f"{key} {median([row[key] for row in runs])}" for key in ("accuracy", "log_loss", "cpu_seconds"))
            print(f"{name:<20} {way:<30} {'  '.join(columns)}", flush=True)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        print(f"written: {write_csv(rows, given.out)}")


if __name__ == "__main__":
    main()
