"""Measure seconds and memory of one dense problem on float32 or float64 data.

    OMP_NUM_THREADS=1 python benchmarks/float32_data.py {float32,float64} [--samples 100000] [--features 500]

The memory is the peak beyond libraries and the caller's data. A seed draws data and labels, the same numbers in both
cases. The problem has two classes and P = 20 gates.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

import convexnn_bench as cnn
from convexnn_bench.harness.tree import resident_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dtype", choices=("float32", "float64"))
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=500)
    parser.add_argument("--gap", type=float, default=1e-3)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    X = rng.standard_normal((chosen.samples, chosen.features), dtype=np.float32)
    hidden = np.maximum(X @ rng.standard_normal((chosen.features, 3)), 0)
    labels = np.where(hidden @ [1.0, -1.0, 0.5] + 0.1 * rng.standard_normal(len(X)) > 0, "first", "second")
    X = X.astype(chosen.dtype, copy=False)
    cnn.solve(cnn.Problem(X[:100], labels[:100], loss="logistic", beta_fraction=0.5, patterns=2), "bm_newton")
    Path("/proc/self/clear_refs").write_text("5")  # on Linux this resets the peak to the current memory
    before = resident_mb(os.getpid())[1]
    print(f"X: {chosen.samples} x {chosen.features} of {chosen.dtype}, {X.nbytes / 2**30:.2f} GiB")
    started = time.perf_counter()
    problem = cnn.Problem(X, labels, loss="logistic", beta_fraction=0.05, patterns=20)
    print(f"{problem!r}: {time.perf_counter() - started:.2f} s")
    for solver in ("bm_newton", "bm_lbfgs", "fista"):
        result = cnn.solve(problem, solver, gap=chosen.gap)
        started = time.perf_counter()
        certificate = cnn.certify(problem, result)
        print(
            f"{solver}: {result.status}, set-up {result.setup_seconds:.2f} s, solve {result.solve_seconds:.2f} s, "
            f"certified gap {certificate.gap:.2e} in {time.perf_counter() - started:.2f} s, "
            f"at most {(resident_mb(os.getpid())[0] - before) / 2**10:.2f} GiB so far"
        )


if __name__ == "__main__":
    main()
