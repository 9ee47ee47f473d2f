"""A Hessian product, and one pricing of all blocks, of `bm_newton` with J neurons while the number P of blocks grows.

    OMP_NUM_THREADS=1 python benchmarks/active_blocks.py [--n 4000] [--d 50] [--c 4] [--neurons 60] [--repetitions 25]

Neurons are in the first J blocks, one each. A product is to cost the same whatever P is; pricing, once a round, is
proportional to P. Milliseconds, medians, sizes in turns.
"""

import argparse
import time

import numpy as np
import torch
from common import print_machine

import convexnn_bench as cnn
from convexnn_bench.algorithms.newton import BlockNeurons, PointState, WorkingProblem

BLOCKS = (100, 200, 400, 800, 1600)


def random_point(n: int, d: int, c: int, P: int, J: int) -> PointState:
    """A random point, its gradient computed."""
    rng = np.random.default_rng(0)
    problem = cnn.make_problem("teacher", n=n, d=d, c=c, patterns=P, beta_fraction=0.01)
    W, Y = rng.standard_normal((problem.p, J)), rng.standard_normal((problem.q, J))
    arrays = np.arange(J), W, Y / np.linalg.norm(Y, axis=0)
    point = PointState(WorkingProblem(problem, "cpu"), BlockNeurons(*map(torch.as_tensor, arrays)))
    assert point.gradient.shape == (problem.p + problem.q, J)
    return point


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("n", 4000), ("d", 50), ("c", 4), ("neurons", 60), ("repetitions", 25)):
        arguments.add_argument(f"--{name}", type=int, default=value)
    given = arguments.parse_args()
    points = {P: random_point(given.n, given.d, given.c, P, given.neurons) for P in BLOCKS}
    step = torch.randn(next(iter(points.values())).gradient.shape, dtype=torch.float64)
    calls = {
        "Hessian product, float64": lambda point: point.hessian_product(step),
        "Hessian product, float32": lambda point: point.hessian_product(step, point.single),
        "pricing": lambda point: point.operator.adjoint(point.loss_gradient),
    }
    print_machine("cpu")
    print(f"{'P':26s}" + "".join(f"{P:9d}" for P in BLOCKS))
    for name, call in calls.items():
        seconds: dict[int, list[float]] = {P: [] for P in BLOCKS}
        for _ in range(given.repetitions):
            for P, point in points.items():
                began = time.perf_counter()
                call(point)
                seconds[P].append(time.perf_counter() - began)
        print(f"{name:26s}" + "".join(f"{1e3 * float(np.median(seconds[P])):9.2f}" for P in BLOCKS))


if __name__ == "__main__":
    main()
