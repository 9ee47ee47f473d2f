"""Compute the cases by which the page of `convexnn-bench play` checks its own functions.

    OMP_NUM_THREADS=1 python benchmarks/play_cases.py

Writes convexnn_bench/playground/cases.json. Opened with #selftest, the page compares its patterns, certificates, minima
and staircase with these numbers of the package. A test compares the file with what the package computes now.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convexnn_bench as cnn

PATH = Path(__file__).resolve().parents[1] / "convexnn_bench/playground/cases.json"
UNIT = 20  # coordinates of points are whole numbers of twentieths
TOLERANCE = 1e-8  # relative; minimisers from solvers are not closer than that
# The data of parts 2 and 3 of the page, which its scripts state too.
SCALAR = ([[0.8], [-0.4], [0.4]], [[0.9], [-0.2], [0.5]])
STAIRS = (
    [[1.2, 0.1, -0.3], [-0.4, 0.9, 0.2], [0.3, -0.2, 1.0], [0.6, 0.5, -0.4], [-0.7, 0.3, 0.5], [0.2, -0.8, 0.4]],
    [[1.9, 0.5, -0.2], [-0.5, 1.0, 0.3], [0.4, -0.3, 0.6], [0.9, 0.8, -0.5], [-1.2, 0.2, 0.4], [0.4, -0.9, 0.3]],
)
POINTS: dict[str, list[list[int]]] = {
    "five points": [[24, 10], [6, 28], [-26, 16], [-18, -20], [14, -28]],
    "two on a line through zero": [[24, 12], [-12, -6], [8, 28], [-26, 18], [6, -30]],
    "three on a line": [[-30, -24], [-10, -8], [10, 8], [-20, 24], [26, -20]],
    "all on a line": [[-30, -14], [-10, -4], [10, 6], [20, 11]],
    "all on a line through zero": [[-20, -10], [10, 5], [20, 10]],
    "equal points": [[5, 7], [5, 7], [-8, 3], [2, -9]],
    "one at zero": [[0, 0], [12, 3], [-7, 9], [4, -20]],
    "one point": [[10, 4]],
    "a grid": [[x, y] for x in (-20, 0, 20) for y in (-20, 0, 20)],
}


def pattern_case(name: str, points: list[list[int]], bias: bool) -> dict[str, Any]:
    """Return all patterns of some points, the one in which no nonzero row is active included."""
    rows = np.array([[*point, UNIT] if bias else point for point in points]) / UNIT
    found = cnn.enumerate_patterns(rows)
    masks = ["".join("01"[int(one)] for one in column) for column in found.masks.T]
    # This pattern is no block, so that the package only says whether it occurs. Rows of zeros are always active.
    masks += ["".join("01"[int(not row.any())] for row in rows)] * found.zero
    rank = int(np.linalg.matrix_rank(rows))
    words = f"{name}, {'with' if bias else 'without'} a bias"
    formula = cnn.count_patterns(len(points), rank)
    return {"name": words, "points": points, "bias": bias, "masks": sorted(masks), "rank": rank, "formula": formula}


def linear_network(data: tuple[Any, Any], beta: float) -> cnn.Problem:
    X, Y = (np.array(one) for one in data)
    return cnn.Problem(X, Y, activation="linear", loss="squared", beta=beta)


def gradient_length(problem: cnn.Problem, *factors: np.ndarray) -> float:
    """Return the norm of the gradient of 1/2 ||X U V^T - Y||^2 + beta/2 (||U||^2 + ||V||^2), from torch's autograd."""
    U, V = (torch.tensor(factor, requires_grad=True) for factor in factors)
    X, Y = (torch.as_tensor(one, dtype=torch.float64) for one in (problem.X, problem.Y))
    fit = (X @ U @ V.T - Y).square().sum() / 2
    (fit + problem.beta / 2 * (U.square().sum() + V.square().sum())).backward()
    return float(torch.cat([factor.grad.flatten() for factor in (U, V) if factor.grad is not None]).norm())


def point_cases(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield objective, bound, largest dual norm and gradient at random points of linear networks."""
    draw = np.random.default_rng(seed)
    for data, name in ((SCALAR, "scalar"), (STAIRS, "staircase")):
        for m, beta, size in ((1, 0.05, 1.0), (1, 0.9, 0.1), (2, 0.3, 0.5), (3, 0.01, 1.5)):
            problem = linear_network(data, beta)
            U, V = (size * draw.standard_normal((rows, m)).round(3) for rows in (problem.p, problem.q))
            certificate = cnn.certify(problem, (U[None], V[None]))
            own = {"X": data[0], "Y": data[1], "beta": beta, "U": U.tolist(), "V": V.tolist()}
            values = {"objective": certificate.primal, "bound": certificate.dual}
            norms = {"dual_norm": certificate.max_dual_norm, "gradient": gradient_length(problem, U, V)}
            yield {"name": f"{name}, {m} columns, beta = {beta}", **own, **values, **norms}


def scalar_cases() -> Iterator[dict[str, Any]]:
    """Yield the product u v at the optimum of part 2 and its objective, from a solver of the convex program."""
    beta_max = linear_network(SCALAR, 1.0).beta_max
    for fraction in (0.02, 0.3, 0.9, 1.1):
        problem = linear_network(SCALAR, fraction * beta_max)
        result = cnn.solve(problem, "semismooth_newton", gap=1e-14, iterations=100, show_progress=False)
        values = {"product": float(result.blocks.sum()), "objective": result.objective, "beta_max": beta_max}
        yield {"name": f"scalar, beta = {fraction} beta_max", "beta": problem.beta, **values}


def stair_cases() -> Iterator[dict[str, Any]]:
    """Yield the objectives of the package's staircase, and the optimum of the convex program."""
    beta_max = linear_network(STAIRS, 1.0).beta_max
    for fraction in (0.06, 0.3, 0.6):
        problem = linear_network(STAIRS, fraction * beta_max)
        objectives = [step.objective for step in cnn.staircase(problem, gap=1e-12)]
        optimum = cnn.solve(problem, "semismooth_newton", gap=1e-13, iterations=200, show_progress=False).objective
        own = {"beta": problem.beta, "beta_max": beta_max, "objectives": objectives, "optimum": optimum}
        yield {"name": f"staircase, beta = {fraction} beta_max", **own}


def make_cases() -> dict[str, Any]:
    """Return all cases, as the file has them."""
    return {
        "tolerance": TOLERANCE,
        "patterns": [pattern_case(name, points, bias) for name, points in POINTS.items() for bias in (False, True)],
        "points": list(point_cases()),
        "scalar": list(scalar_cases()),
        "stairs": list(stair_cases()),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(make_cases(), separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"written: {PATH} ({PATH.stat().st_size:,} bytes)")
