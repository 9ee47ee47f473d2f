"""How long a caller waits for `solve` under a time limit, for every installed solver on problems chosen to be slow.

    OMP_NUM_THREADS=1 python benchmarks/time_limits.py [--time-limit 5] [--solvers bm_newton ...] [--problems wide ...]

Each row has the wait (wall clock, set-up, scores and last certificate included, packages loaded before), the CPU
seconds of the process meanwhile, the solver's own clock, the certified gap and the status. `solve` promises a wait of
at most 1.2 times the limit and one second. Another process on the same core lengthens the wait, not the CPU seconds.
"""

import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import parser, print_machine, registered

import convexnn_bench as cnn
from convexnn_bench.report import write_csv
from convexnn_bench.running.wait import SECONDS, SHARE


def normal(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *shape))


def labels(n: int, classes: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, classes, n)


def houses() -> "cnn.Problem":
    """Prices of houses in dollars, unscaled."""
    rng = np.random.default_rng(1)
    area = rng.integers(500, 5000, 30).astype(float)
    X = np.column_stack([area, np.ones(30)])
    return cnn.Problem(
        X, 1e5 + 150 * area, activation="relu", beta_fraction=0.01, loss=cnn.Huber(delta=1e4), patterns=1
    )


def relu(n: int, d: int, targets: np.ndarray, loss: str, patterns: Any, beta_fraction: float = 0.01) -> "cnn.Problem":
    return cnn.Problem(
        normal(n, d), targets, activation="relu", loss=loss, beta_fraction=beta_fraction, patterns=patterns
    )


def images() -> "cnn.Problem":
    return cnn.Problem(
        normal(200, 1, 8, 8), labels(200, 4), architecture=cnn.CNN(patch=3, pool=2), activation="relu",
        loss="cross_entropy", beta_fraction=0.01, patterns=60,
    )  # fmt: skip


def tokens() -> "cnn.Problem":
    return cnn.Problem(
        normal(60, 6, 5), normal(60, 6, 3), architecture="attention", activation="gated_relu", beta_fraction=0.01,
        patterns=60,
    )  # fmt: skip


PROBLEMS: dict[str, Callable[[], "cnn.Problem"]] = {
    "relu three features": lambda: relu(200, 3, normal(200, 1)[:, 0], "squared", 200),
    "raw units": houses,
    "relu three classes": lambda: relu(1000, 20, labels(1000, 3), "cross_entropy", 50),
    "relu vector": lambda: relu(300, 8, normal(300, 3), "squared", 100),
    "relu wide": lambda: relu(60, 1000, normal(60, 1)[:, 0], "squared", 40),
    "relu all patterns": lambda: relu(24, 5, normal(24, 2), "squared", "all"),
    "many gates": lambda: cnn.make_problem("teacher", n=1000, d=50, c=1, patterns=500),
    "ten outputs": lambda: cnn.make_problem("teacher", n=500, d=20, c=10, patterns=100, beta_fraction=1e-3),
    "small beta": lambda: cnn.make_problem("spiral", n=600, beta_fraction=1e-5),
    "linear": lambda: cnn.Problem(normal(2000, 200), normal(2000, 50), activation="linear", beta_fraction=1e-3),
    "images": images,
    "tokens": tokens,
}


def measured(solver: str, problem: "cnn.Problem", time_limit: float) -> dict[str, Any] | None:
    """Return the row of one solve, None if the solver skips the problem. An error is a row, too."""
    wall, cpu = time.perf_counter(), time.process_time()
    row: dict[str, Any] = {"solver": solver}
    try:
        # The target is a gap that float64 cannot certify, so that only the limit ends the run.
        result = cnn.solve(problem, solver, time_limit=time_limit, gap=1e-13, show_progress=False)
        if result.status == "skipped":
            return None
        row |= {"status": result.status, "gap": result.gap, "own": result.setup_seconds + result.solve_seconds}
    except Exception as error:  # the wait of the caller ends with an error too
        row |= {"status": f"{type(error).__name__}: {error}"[:60], "gap": float("nan"), "own": float("nan")}
    return row | {"wait": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def main() -> None:
    arguments = parser(__doc__, "time_limits")
    arguments.add_argument("--time-limit", type=float, default=5.0)
    arguments.add_argument("--solvers", nargs="*", default=sorted(cnn.SOLVERS.names()))
    arguments.add_argument("--problems", nargs="*", default=list(PROBLEMS), choices=PROBLEMS)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print_machine("cpu")
    solvers = registered(given.solvers)
    importlib.import_module("convexnn_bench.harness.preload")  # so that no wait includes an import
    most = (1 + SHARE) * given.time_limit + SECONDS
    print(f"limit {given.time_limit:g} s, promised: at most {most:g} s")
    print(f"{'problem':20s}{'solver':20s}{'wait':>8s}{'cpu':>8s}{'own':>8s}{'gap':>10s}  status")
    rows = []
    for name in given.problems:
        problem = PROBLEMS[name]()
        for solver in solvers:
            row = measured(solver, problem, given.time_limit)
            if row is None:
                continue
            rows.append({"problem": name, **row})
            numbers = f"{row['wait']:8.2f}{row['cpu']:8.2f}{row['own']:8.2f}{row['gap']:10.1e}"
            late = "  LATE" if row["wait"] > most else ""
            print(f"{name:20s}{solver:20s}{numbers}  {row['status']}{late}", flush=True)
    longest = max(rows, key=lambda row: row["wait"])
    late = sum(row["wait"] > most for row in rows)
    print(f"longest wait: {longest['wait']:.2f} s, {longest['solver']} on {longest['problem']}")
    print(f"{late} of {len(rows)} waits were longer than promised")
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"written: {write_csv(rows, given.out / 'time_limits.csv')}")


if __name__ == "__main__":
    main()
