"""Small problems of every architecture, and points of their formulations that were not found by a solver."""

import numpy as np

import convexnn_bench as cnn
from convexnn_bench.formulations import Point

RNG = np.random.default_rng
DATA = {
    "mlp": (cnn.MLP(), (3,), 8),
    "cnn": (cnn.CNN(patch=2, pool=2, bias=True), (2, 4, 4), 5),
    "tokens": (cnn.Attention(), (3, 2), 4),
    "mean": (cnn.Attention(output="mean"), (3, 2), 4),
}


def problem_of(kind: str, activation: str, c: int = 2, patterns: object = 6, **more: object) -> "cnn.Problem":
    architecture, sample, n = DATA[kind]
    X = RNG(1).standard_normal((n, *sample))
    Y = RNG(2).standard_normal((n, sample[0], c) if kind == "tokens" else (n, c))
    return cnn.Problem(X, Y, architecture, activation, beta_fraction=0.1, patterns=patterns, **more)


def points_of(problem: "cnn.Problem") -> list[Point]:
    """Points of the three formulations with the same predictions on the training data, with blocks that are zero."""
    m = 2
    U = RNG(3).standard_normal((problem.P, problem.p, m))
    V = RNG(4).standard_normal((problem.P, problem.q, m))
    if problem.has_cone:
        U = problem.cones.project(U)
    U[1::3], V[2::3] = 0.0, 0.0
    factored = Point(factors=(U, V))
    network = Point(network=tuple(factored.to_network(problem)))
    if problem.has_cone:  # vector-output blocks become neurons by an optimisation; scalar ones have a split
        return [factored, network]
    return [Point(blocks=U @ V.transpose(0, 2, 1)), factored, network]


def close(one: np.ndarray, other: np.ndarray) -> bool:
    assert one.shape == other.shape
    return bool(np.abs(one - other).max() <= 1e-12 * np.abs(other).max())
