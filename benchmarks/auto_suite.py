"""The problems from whose records `fit_auto.py` predicts times, and the run that makes the records.

    OMP_NUM_THREADS=1 python benchmarks/auto_suite.py [--out FILE] [--limit SECONDS] [--solvers NAME ...]

Each problem is solved by each solver that takes it, to a certified gap of 1e-6. A line of the file is one solver on one
problem: the features, and the seconds until the gap first was 1e-2, 1e-3, ... Lines that are there already are not run
again. Times are CPU seconds of set-up and solving: the solver's clock times the CPU share of the process during the
solve, so that other work on the machine counts for little.

After the quickest solver so far, the others get SLOWER times its time, and at least LEAST seconds: whether one of them
is ten or a hundred times as slow does not matter for a choice.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import convexnn_bench as cnn
from convexnn_bench.algorithms.automatic import features_of
from convexnn_bench.plugins import parse_spec
from convexnn_bench.records import describe_machine

SOLVERS = ("bm_newton", "semismooth_newton", "fista", "cvxpy_clarabel", "bm_lbfgs", "column_generation")
GAP, GAPS = 1e-6, (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
SLOWER, LEAST = 4.0, 0.3
PATIENCE = 12.0
# Solvers that are only run on problems with one of these words in their names. On 21 gated problems of all kinds
# bm_lbfgs was never among the two quickest.
SELDOM = {"bm_lbfgs": ("relu", "linear", "cnn"), "column_generation": ("activation=relu",)}

SPECS = (
    # ReLU: one output and several, all patterns and sampled ones
    *(f"teacher[n=200,d=10,patterns=50,activation=relu,beta_fraction={beta}]" for beta in (1e-1, 1e-2, 1e-3)),
    "teacher[n=30,d=2,activation=relu]",
    "teacher[n=60,d=3,patterns=50,activation=relu]",
    "teacher[n=500,d=5,patterns=100,activation=relu]",
    "spiral[n=60,targets=binary,activation=relu]",
    "spiral[n=30,activation=relu]",
    "teacher[n=100,d=5,c=3,patterns=30,activation=relu]",
    "breast_cancer[patterns=20,activation=relu,loss=logistic]",
    # classification
    *(f"breast_cancer[patterns=50,loss=logistic,beta_fraction={beta}]" for beta in (1e-1, 1e-2, 1e-3)),
    *(f"wine[patterns=50,loss=cross_entropy,beta_fraction={beta}]" for beta in (1e-1, 1e-2, 1e-3)),
    "breast_cancer[patterns=50,loss=squared_hinge]",
    # what the estimators for classes solve
    *(
        f"breast_cancer[patterns=100,loss=cross_entropy,output_bias=free,beta_fraction={beta}]"
        for beta in (1e-1, 1e-2, 1e-3)
    ),
    *(f"wine[patterns=100,loss=cross_entropy,output_bias=free,beta_fraction={beta}]" for beta in (1e-1, 1e-2)),
    "digits[n=300,patterns=50,loss=cross_entropy,output_bias=free]",
    "spiral[n=150,loss=cross_entropy]",
    "spiral[n=60,loss=cross_entropy,beta_fraction=0.001]",
    # other architectures and activations
    "teacher[n=1000,d=50,c=10,activation=linear]",
    "breast_cancer[activation=linear,loss=logistic]",
    "digits[n=200,layout=image,architecture=cnn,patterns=10]",
    "digits[n=100,layout=image,architecture=cnn,patterns=20,loss=cross_entropy,beta_fraction=0.1]",
    "digits[n=100,layout=image,architecture=cnn,patterns=5,loss=squared,activation=relu,beta_fraction=0.1]",
    # regression
    "diabetes[patterns=50]",
    "diabetes[patterns=100,output_bias=free,beta_fraction=0.1]",
    "teacher[n=300,d=10,patterns=50,loss=huber]",
    "teacher[n=300,d=10,c=3,patterns=50,loss=huber,beta_fraction=0.001]",
    # teachers and spirals over three decades of the weight decay
    *(f"teacher[n=500,d=20,c={c},patterns=100,beta_fraction={beta}]" for c in (1, 3) for beta in (1e-1, 1e-2, 1e-3)),
    *(f"spiral[n={n},beta_fraction={beta}]" for n in (60, 150, 600) for beta in (1e-2, 1e-3, 1e-4)),
    # the ladder, with fewer patterns for the digits
    "spiral[n=45]",
    "spiral[n=1500]",
    "teacher[n=2000,d=50,patterns=500]",
    "teacher[n=2000,d=50,patterns=500,beta_fraction=0.1]",
    "digits[patterns=50,loss=squared]",
    "digits[patterns=50,loss=cross_entropy]",
    # the map: a third of its grid over samples, outputs and patterns
    *(
        f"teacher[d=20,n={n},c={c},patterns={P}]"
        for n, c, P in (
            *((100, 1, 30), (100, 3, 100), (100, 10, 30), (300, 1, 100), (300, 3, 30), (300, 3, 300), (300, 10, 100)),
            *((1000, 1, 30), (1000, 1, 300), (1000, 3, 100), (1000, 10, 30), (3000, 1, 100), (3000, 3, 30)),
        )
    ),
)


def attention(n: int, activation: str, beta: float, output: str = "tokens") -> cnn.Problem:
    """Linear self-attention on random tokens, whose first two features are the targets."""
    tokens = np.random.default_rng(0).standard_normal((n, 4, 3))
    targets = tokens[:, :, :2] if output == "tokens" else tokens[:, :, :2].mean(1)
    patterns: Any = "all" if activation == "linear" else 20
    return cnn.Problem(tokens, targets, cnn.Attention(output), activation, beta_fraction=beta, patterns=patterns)


def small_classes(n: int, classes: int, beta: float) -> cnn.Problem:
    """Gaussian samples in four features with a constant one, and a free output bias, as the estimators state it."""
    X = np.column_stack([np.random.default_rng(0).standard_normal((n, 4)), np.ones(n)])
    labels = np.digitize(X[:, 0] * X[:, 1], np.quantile(X[:, 0] * X[:, 1], np.arange(1, classes) / classes))
    loss = "logistic" if classes == 2 else "cross_entropy"
    return cnn.Problem(X, labels, loss=loss, beta_fraction=beta, patterns=30, output_bias="free")


MADE: dict[str, Callable[[], cnn.Problem]] = {
    "attention linear": lambda: attention(50, "linear", 0.05),
    "attention gated": lambda: attention(30, "gated_relu", 0.05),
    "small logistic": lambda: small_classes(40, 2, 0.1),
    "small logistic, small beta": lambda: small_classes(100, 2, 0.01),
    "small cross_entropy": lambda: small_classes(40, 3, 0.1),
    "small cross_entropy, small beta": lambda: small_classes(100, 3, 0.01),
    "attention gated mean": lambda: attention(100, "gated_relu", 0.01, "mean"),
}


def problems() -> Iterator[tuple[str, Callable[[], cnn.Problem]]]:
    """Yield the name of each problem with a function that makes it."""
    yield from MADE.items()
    for spec in SPECS:
        name, parameters = parse_spec(spec)
        yield spec, lambda name=name, parameters=parameters: cnn.make_problem(name, **parameters)


def record(problem: cnn.Problem, solver: str, limit: float) -> dict[str, Any]:
    """Solve once; return the outcome, and the CPU seconds to each of GAPS that was reached."""
    # The limit is one of CPU seconds. On a machine with other work the wall clock runs up to PATIENCE times as fast.
    started, used = time.perf_counter(), time.process_time()
    np.linalg.svd(np.random.default_rng(0).standard_normal((300, 300)))
    busy = (time.perf_counter() - started) / max(time.process_time() - used, 1e-3)
    wall, cpu = time.perf_counter(), time.process_time()
    result = cnn.solve(problem, solver, limit * min(max(busy, 1.0), PATIENCE), GAP, show_progress=False)
    share = min((time.process_time() - cpu) / (time.perf_counter() - wall), 1.0)
    if result.status == "skipped":
        return {"status": "skipped", "reason": result.reason}
    reached = {
        f"{gap:g}": share * (result.setup_seconds + next(seconds for seconds, _, own in result.curve if own <= gap))
        for gap in GAPS
        if any(own <= gap for _, _, own in result.curve)
    }
    seconds = share * (result.setup_seconds + result.solve_seconds)
    best = min((own for _, _, own in result.curve if not math.isnan(own)), default=None)
    return {"status": result.status, "gap": best, "seconds": seconds, "share": share, "reached": reached}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results") / "auto.jsonl", help="file for the records")
    parser.add_argument("--limit", type=float, default=10.0, help="most seconds of a solve")
    parser.add_argument("--solvers", nargs="*", default=SOLVERS)
    parser.add_argument("--problems", default="", help="only problems with this text in their names")
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    lines = asked.out.read_text().splitlines() if asked.out.exists() else []
    known = {(one["problem"], one["solver"]): one for one in map(json.loads, lines)}
    machine = describe_machine()
    cnn.solve(cnn.make_problem("spiral[n=9]"), "cvxpy_clarabel")  # loads what the first solve would load
    for name, make in problems():
        here = [one for one in asked.solvers if one not in SELDOM or any(word in name for word in SELDOM[one])]
        solvers = [solver for solver in here if (name, solver) not in known]
        if not solvers or asked.problems not in name:
            continue
        problem = make()
        features = features_of(problem, GAP)
        for solver in solvers:
            reached = [one.get("reached", {}) for (label, _), one in known.items() if label == name]
            quickest = min((one[f"{GAP:g}"] for one in reached if f"{GAP:g}" in one), default=math.inf)
            limit = min(asked.limit, max(SLOWER * quickest, LEAST))
            outcome = record(problem, solver, limit)
            line = {
                "problem": name, "solver": solver, "limit": limit, **outcome, "features": features,
                "commit": machine["commit"], "processor": machine["processor"],
            }  # fmt: skip
            known[name, solver] = line
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{name} {solver}: {outcome['status']} {outcome.get('seconds', math.nan):.3g} s", flush=True)


if __name__ == "__main__":
    main()
