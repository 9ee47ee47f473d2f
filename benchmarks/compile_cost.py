"""Whether torch.compile pays for objective and gradient of the factored form.

    OMP_NUM_THREADS=1 python benchmarks/compile_cost.py [--device cuda] [--repetitions 25]

Gated MLP, squared loss, (n, d, P, c) = (4000, 50, 100, 4); m = 1 goes through the columns, m = 4 through the blocks.
Eager and compiled calls in turns, medians; `first` is the first compiled call, compilation included. It needs a C++
compiler.
"""

import argparse
import time

import numpy as np
import torch
from common import print_machine, synchronise, teacher

from convexnn_bench.formulations import burer_monteiro


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repetitions", type=int, default=25)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print_machine(given.device)
    problem = teacher(4000, 50, 100, 4)
    operator = problem.operator(given.device)

    def seconds(call: object, *factors: torch.Tensor) -> float:
        synchronise(given.device)
        started = time.perf_counter()
        call(problem, operator, *factors)  # type: ignore[operator]
        synchronise(given.device)
        return time.perf_counter() - started

    eager = burer_monteiro.value_and_gradient
    for m in (1, 4):
        factors = burer_monteiro.start(problem, operator, m, 0)
        compiled = torch.compile(eager, dynamic=False)
        first = seconds(compiled, *factors)
        torch.testing.assert_close(compiled(problem, operator, *factors), eager(problem, operator, *factors))
        times = [(seconds(eager, *factors), seconds(compiled, *factors)) for _ in range(given.repetitions)]
        ours, theirs = np.median(times, axis=0)
        ratio = f"{ours / theirs:.2f} x, first {first:.1f} s"
        print(f"m={m}: eager {1e3 * ours:.2f} ms, compiled {1e3 * theirs:.2f} ms ({ratio})", flush=True)


if __name__ == "__main__":
    main()
