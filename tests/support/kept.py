"""Problems and results of every formulation, activation and architecture, and what must survive a copy of them."""

import dataclasses
from functools import cache

import numpy as np
import torch
from problems import random_problem

import convexnn_bench as cnn


def images(activation: str = "linear", pool=2) -> "cnn.Problem":
    """Eight images of two channels, with a convolutional network."""
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((8, 2, 4, 4)), rng.standard_normal((8, 2))
    return cnn.Problem(X, Y, cnn.CNN(patch=3, pool=pool), activation, beta_fraction=0.1, patterns=3)


def sequences() -> "cnn.Problem":
    """Five sequences of three tokens."""
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((5, 3, 2)), rng.standard_normal((5, 1))
    return cnn.Problem(X, Y, cnn.Attention(output="mean"), "gated_relu", cnn.Huber(0.3), beta_fraction=0.2, patterns=3)


MATRIX = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.25, 0.75]])  # pools four patches to two values
# what is solved, the solver, and steps after which it ends: no point is at the optimum
CASES = {
    "blocks": (lambda: random_problem(1, "logistic"), "fista", 3),
    "split": (lambda: random_problem(2, "huber", "relu", patterns="all"), "fista", 3),
    "cone factors": (lambda: random_problem(3, "cross_entropy", "relu", n=5), "cvxpy_clarabel", None),
    "factors": (lambda: random_problem(4, "squared_hinge"), "bm_lbfgs", 3),
    "factors in cones": (lambda: random_problem(5, "squared", "relu"), "bm_newton", 2),
    "network": (lambda: random_problem(6, "cross_entropy"), "network_adam", 3),
    "ReLU network": (lambda: random_problem(7, "logistic", "relu"), "network_gd", 3),
    "linear": (lambda: random_problem(8, activation="linear", c=3), "bm_newton", 1),
    "pooled images": (lambda: images("gated_relu", MATRIX), "fista", 3),
    "images": (images, "bm_gd", 3),
    "sequences": (sequences, "bm_lbfgs", 2),
}


@cache
def solved(case: str) -> "cnn.Result":
    """The result of one of CASES, with everything cached that is computed on first use."""
    make, solver, iterations = CASES[case]
    result = cnn.solve(make(), solver, time_limit=None, iterations=iterations)
    assert result.certificate is not None, result.reason
    assert result.blocks is not None or result.network is not None
    assert result.problem.beta_max > 0
    return result


def same(one: object, other: object) -> bool:
    """Equal in every bit: numbers, arrays, tensors, and dataclasses, tuples and dictionaries of them."""
    if isinstance(one, np.ndarray | torch.Tensor):
        return type(one) is type(other) and one.dtype == other.dtype and bytes_of(one) == bytes_of(other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return repr(one) == repr(other)


def outcome(result: "cnn.Result") -> tuple:
    """The arrays of the point and its own certificate, without the bound of points scored before, by the clock."""
    point = result.point.copy()
    point.dual = None
    return list(point.arrays()), cnn.certify(result.problem, point)


def bytes_of(array: object) -> tuple:
    array = np.asarray(array)
    return array.shape, array.tobytes()


def check_kept(result: "cnn.Result", again: "cnn.Result") -> None:
    """The copy has the same certificate, and its point certified anew gives the same numbers as the original's."""
    assert again.problem is not result.problem
    assert same(result.certificate, again.certificate)
    assert same(result.curve, again.curve)
    assert (again.solver, again.parameters, again.status, again.reason) == (
        result.solver, result.parameters, result.status, result.reason,
    )  # fmt: skip
    assert (again.seed, again.device) == (result.seed, result.device)
    assert same((result.setup_seconds, result.solve_seconds), (again.setup_seconds, again.solve_seconds))
    assert (again.objective, again.gap) == (result.objective, result.gap)
    for name in ("X", "Y", "masks", "gates", "beta", "beta_max", "seed", "P", "scope"):
        assert same(getattr(result.problem, name), getattr(again.problem, name)), name
    assert repr(again.problem) == repr(result.problem)
    for name in ("blocks", "factors", "network"):
        assert same(getattr(result, name), getattr(again, name)), name
    one, other = cnn.certify(result.problem, result), cnn.certify(again.problem, again)
    assert [f.name for f in dataclasses.fields(one) if not same(getattr(one, f.name), getattr(other, f.name))] == []
