"""Bounds hold for nearly parallel rows, and for hyperplanes that nearly meet in one line."""

from fractions import Fraction

import numpy as np
import pytest
import torch

import convexnn_bench as cnn
from convexnn_bench.cones import Cones
from convexnn_bench.norms import CompleteNorm
from convexnn_bench.patterns import enumerate_patterns


def near_copies(seed: int, n: int = 8, d: int = 4, distance: float = 1e-12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    X[n // 2 :] = X[: n - n // 2] + distance * rng.standard_normal((n - n // 2, d))
    return X


@pytest.mark.parametrize(("seed", "distance"), [(302, 1e-12), (1, 1e-14), (2, 1e-9), (3, 3e-13), (4, 1e-15)])
def test_near_copies_are_enumerated(seed, distance):
    """Seed 302 left a hyperplane without any trace of the others on it."""
    X = near_copies(seed, distance=distance)
    found = enumerate_patterns(X)
    assert np.array_equal(X @ found.gates >= 0, found.masks)
    assert found.masks.shape[1] >= enumerate_patterns(X[:4]).masks.shape[1]


@pytest.mark.parametrize("distance", [0.0, 1e-16, 1e-15, 1e-13])
def test_rows_that_are_all_but_one_have_patterns(distance):
    rng = np.random.default_rng(3)
    X = np.repeat(rng.standard_normal((1, 3)), 5, axis=0) + distance * rng.standard_normal((5, 3))
    found = enumerate_patterns(X)
    assert found.masks.shape[1] >= 1
    assert np.array_equal(X @ found.gates >= 0, found.masks)


@pytest.mark.parametrize("seed", [107, 139, 210])
def test_rows_whose_cells_are_all_lost_keep_the_patterns_of_their_own_directions(seed):
    """Rows that differ by some units of their last digits: no direction between them survives the way back to X."""
    rng = np.random.default_rng(seed)
    n, d, distance = int(rng.integers(2, 6)), int(rng.integers(2, 5)), 10.0 ** rng.uniform(-17, -12)
    X = np.repeat(rng.standard_normal((1, d)), n, axis=0) + distance * rng.standard_normal((n, d))
    found = enumerate_patterns(X)
    assert np.array_equal(X @ found.gates >= 0, found.masks)
    assert found.masks.all(axis=0).any()
    assert not found.complete


@pytest.mark.parametrize(
    "row", [[-1.8, 1e-310, 1e-310], [1e-320, 2.0, 0.0], [1e40, 1e-300, 1.0], [5e-324, -1.0, 1e-200]]
)
@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
def test_subnormal_features_have_patterns(row, activation):
    problem = cnn.Problem([row], [1.0], activation=activation, beta=0.1, patterns="all")
    assert problem.P >= 1
    certificate = cnn.certify(problem, np.zeros((problem.P, 3, 1)))
    assert 0 <= certificate.dual <= certificate.primal


def test_nothing_is_allowed_for_where_hyperplanes_differ():
    rng = np.random.default_rng(0)
    for X in (rng.standard_normal((8, 3)), np.vstack([np.eye(3), np.ones((1, 3))])):
        found = enumerate_patterns(X)
        assert found.complete
        assert found.moved is None or found.moved.max() < 1e-14
        assert found.copies is None


def test_rows_that_float64_tells_apart_leave_gates_incomplete_and_relu_complete():
    """A gate between two rows is a block of its own; with ReLU the cone between them is as thin as the angle."""
    X = np.array([[1.0, 0.0], [1.0, 3e-14], [0.3, 1.0]])
    found = enumerate_patterns(X)
    assert found.complete
    assert not found.resolved
    assert found.copies.tolist() == [False, True, False]
    assert 3e-14 <= found.moved[1] <= 1e-12
    assert cnn.Problem(X, np.ones(3), activation="gated_relu", beta=0.1).scope == "sampled"
    assert cnn.Problem(X, np.ones(3), activation="relu", beta=0.1).scope == "complete"


def exact_value(Phi: np.ndarray, R: np.ndarray, u: np.ndarray) -> Fraction:
    """The square of the length of R^T (Phi u)_+ over ||u||^2."""
    u = [Fraction(float(entry)) for entry in u]
    hidden = [max(sum(Fraction(float(a)) * b for a, b in zip(row, u, strict=True)), 0) for row in Phi]
    outputs = [sum(h * Fraction(float(r)) for h, r in zip(hidden, column, strict=True)) for column in R.T]
    return sum(entry**2 for entry in outputs) / sum(entry**2 for entry in u)


@pytest.mark.parametrize("angle", [1e-16, 1e-14, 6e-14, 1e-13, 1e-11])
def test_a_bound_over_all_patterns_covers_the_cone_between_near_copies(angle):
    """R = (1, -1) on two rows at this angle: the norm is attained between them, and is as small as the angle."""
    Phi = np.array([[1.0, 0.0], [1.0, angle]])
    R = np.array([[1.0], [-1.0]])
    u = np.array([angle / 2, -1.0])  # positive on the first row, negative on the second
    exact = exact_value(Phi, R, u)
    assert Fraction(CompleteNorm(Phi).bound(R).value) ** 2 >= exact
    problem = cnn.Problem(Phi, np.ones(2), activation="relu", beta=0.1, patterns="all")
    if problem.scope == "complete":
        norm = cnn.certificates.bounds._enlarged_norm(problem, problem.operator(), torch.as_tensor(R), "complete")[1]
        assert Fraction(norm) ** 2 >= exact


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("change", [np.nextafter(1.0, 2.0), 1 + 4e-15, 1 + 3e-14])
def test_a_bound_over_all_patterns_covers_nearly_opposite_rows(outputs, change):
    """Exact values at the edges of all cells, between them, and at the best direction of every pattern."""
    for seed in range(3):
        rng = np.random.default_rng([seed, outputs])
        Phi = rng.standard_normal((5, 2))
        Phi[1], Phi[3] = -Phi[0] * [change, 1.0], -Phi[2] * [1.0, change]
        R = rng.standard_normal((5, outputs))
        edges = np.concatenate([Phi @ [[0.0, 1.0], [-1.0, 0.0]], Phi @ [[0.0, -1.0], [1.0, 0.0]]])
        edges = edges[np.argsort(np.arctan2(edges[:, 1], edges[:, 0]))]
        tried = np.concatenate([edges, edges + np.roll(edges, 1, axis=0), rng.standard_normal((40, 2))])
        best = [np.linalg.svd((Phi * (Phi @ u > 0)[:, None]).T @ R)[0][:, 0] for u in tried]
        exact = max(exact_value(Phi, R, u) for u in [*tried, *best, *(-u for u in best)])
        assert Fraction(CompleteNorm(Phi).bound(R).value) ** 2 >= exact
        problem = cnn.Problem(Phi, np.ones((5, outputs)), activation="relu", beta=0.1, patterns="all")
        assert problem.scope == "complete"
        norm = cnn.certificates.bounds._enlarged_norm(problem, problem.operator(), torch.as_tensor(R), "complete")[1]
        assert Fraction(norm) ** 2 >= exact


@pytest.mark.parametrize("seed", range(4))
def test_facets_of_near_copies_describe_their_cones(seed):
    X = near_copies(seed, n=6, d=3, distance=3e-12)
    cones = Cones(X, np.ones((6, 1), dtype=bool), None)
    assert len(cones.facets[0]) >= 1
    two = np.array([
        [-1.1133728552676374, -1.3512040055875814, -0.7585784931180315],
        [-1.1133728552691111, -1.3512040055893202, -0.7585784931178037],
    ])  # fmt: skip
    for gates in (None, np.array([[0.2], [-0.6], [-0.1]]), np.linalg.svd(two)[2][1][:, None]):
        assert len(Cones(two, np.ones((2, 1), dtype=bool), gates).facets[0]) >= 1


@pytest.mark.parametrize("tiny", [1e-280, 1e-300, 5e-324])
def test_rows_that_differ_below_the_smallest_quotients_are_enumerated(tiny):
    """A row is so nearly parallel to another that the distance to its hyperplane along the other overflows."""
    X = np.array([[0.0, -tiny, 1.0], [tiny, 0.0, 8.0], [1.0, 0.0, 0.0], [-2 * tiny, -tiny, -1.5], [0.0, tiny, -3.0]])
    found = enumerate_patterns(X)
    assert np.array_equal(X @ found.gates >= 0, found.masks)
