"""Vector-output ReLU between bounds: the best point found, and the best bound proven.

    python benchmarks/vector_relu.py [--seconds 20]

Three-class spirals in the plane (d = 2, all patterns) and Gaussian data with three outputs and d = 3 and d = 5, where
cones have many facets and the doubly non-negative program is a relaxation. Each problem is given to the conic program,
Burer-Monteiro, column generation and plain training of the network; all bounds are over all activation patterns.
"""

import argparse

import numpy as np

import convexnn_bench as cnn

SOLVERS = ("cvxpy_clarabel", "bm_lbfgs", "column_generation", "network_lbfgs")


def gaussian(n: int, d: int, noise: float) -> "cnn.Problem":
    """Three outputs of a teacher with four ReLU neurons and noise; every attainable pattern is a block."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    teacher = np.maximum(X @ rng.standard_normal((d, 4)), 0) @ rng.standard_normal((4, 3))
    Y = teacher + noise * rng.standard_normal((n, 3))
    return cnn.Problem(X, Y, activation="relu", beta_fraction=0.05, patterns="all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each solver on each problem")
    seconds = parser.parse_args().seconds
    spiral = {"activation": "relu", "beta_fraction": 0.02}
    problems = {
        "spiral n=12": cnn.make_problem("spiral[n=12,noise=0.2]", **spiral),
        "spiral n=30": cnn.make_problem("spiral[n=30,noise=0.2]", **spiral),
        "d=3, n=15": gaussian(15, 3, 0.1),
        "d=3, n=15, noise": gaussian(15, 3, 3.0),
        "d=5, n=9": gaussian(9, 5, 0.1),
        "d=5, n=10, noise": gaussian(10, 5, 3.0),
    }
    for name, problem in problems.items():
        facets = max(len(rows) for rows in problem.cones.facets)
        print(f"\n{name}: P={problem.P} ({problem.scope}), at most {facets} facets, beta={problem.beta:.6g}")
        upper, lower = np.inf, -np.inf
        for solver in SOLVERS:
            result = cnn.solve(problem, solver, gap=1e-8, time_limit=seconds)
            certificate = result.certificate
            upper, lower = min(upper, certificate.primal), max(lower, certificate.dual)
            spent = result.setup_seconds + result.solve_seconds
            print(
                f"  {solver:18s} {certificate.primal:14.9f}  bound {certificate.dual:14.9f}  gap {certificate.gap:8.1e}"
                f"  {spent:6.2f} s  {certificate.dual_norm_method}"
            )
        print(f"  optimum in [{lower:.9f}, {upper:.9f}], relative width {(upper - lower) / abs(lower):.1e}")


if __name__ == "__main__":
    main()
