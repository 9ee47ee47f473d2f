"""Time A, its adjoint and the factored gradient of CNNs from pooled masked rows against the products with masked rows.

    OMP_NUM_THREADS=1 python benchmarks/pooled_rows.py [--repetitions 9]

Both come from one operator class, the second with the memory for pooled rows set to none. Gaussian data and gates, ten
outputs, m = 1. Medians of calls in turns, float64, one thread, in milliseconds, after one call each that also forms
what is kept; `set-up` is that first call of A. Both must give the same numbers to 1e-9.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from convexnn_bench import CNN, Problem
from convexnn_bench.operator import Operator
from convexnn_bench.operator.products import pooled as products

Call = Callable[[], object]
CASES = (  # n, side, pool, P
    (200, 14, 7, 16),
    (1000, 14, 7, 16),
    (500, 8, 2, 50),
    (500, 8, "global", 50),
)


def calls(own: Operator, seed: int = 0) -> dict[str, Call]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    Z, L = drawn(own.P, own.p, own.q), drawn(own.n_out, own.c)
    U, V = drawn(own.P, own.p, 1), drawn(own.P, own.q, 1)
    return {
        "A": lambda: own.apply(Z),
        "adjoint": lambda: own.adjoint(L),
        "factored": lambda: own.factored(U, V)[1](L),
    }


def seconds(call: Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def rows(repetitions: int) -> Iterator[tuple[str, str, float, float]]:
    """(case, what, milliseconds pooled, milliseconds masked)."""
    for n, side, pool, P in CASES:
        rng = np.random.default_rng(0)
        X, Y = rng.standard_normal((n, 1, side, side)), rng.standard_normal((n, 10))
        problem = Problem(X, Y, architecture=CNN(patch=3, padding=1, pool=pool), beta=1.0, patterns=P)
        found = []
        for most in (products.POOLED_ELEMENTS, 0):
            products.POOLED_ELEMENTS, kept = most, products.POOLED_ELEMENTS
            one = Operator(problem.architecture, problem.X, problem.Y, problem.masks)
            found.append((calls(one), seconds(calls(one)["A"])))
            products.POOLED_ELEMENTS = kept
        (pooled, first), (masked, other) = found
        case = f"n={n} {side}x{side} pool={pool} P={P}"
        yield case, "set-up", 1e3 * first, 1e3 * other
        for what in pooled:
            torch.testing.assert_close(pooled[what](), masked[what](), rtol=1e-9, atol=1e-9)
            times = np.array([[seconds(pooled[what]), seconds(masked[what])] for _ in range(repetitions)])
            ours, theirs = 1e3 * np.median(times, axis=0)
            yield case, what, float(ours), float(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'problem':<32} {'what':<9} {'pooled':>9} {'masked':>9} {'ratio':>7}")
    for case, what, ours, theirs in rows(given.repetitions):
        print(f"{case:<32} {what:<9} {ours:9.3f} {theirs:9.3f} {theirs / ours:7.1f}", flush=True)


if __name__ == "__main__":
    main()
