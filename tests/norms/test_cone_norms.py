"""Dual norms with cones and vector outputs: against brute force, an SDP in CVXPY, and each other."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from properties import given, settings
from properties import strategies as st

import convexnn_bench as cnn
from convexnn_bench.cones.all_cones import Cones
from convexnn_bench.norms import vector_outputs as cone_norms
from convexnn_bench.norms.face_search import FaceSearch
from convexnn_bench.norms.relaxation import doubly_nonnegative_bound
from convexnn_bench.norms.scalar_outputs import dual_norms
from convexnn_bench.norms.vector_outputs import max_vector_norm, plane_norms, power_iterations


def random_cones(seed: int, N: int, p: int, P: int) -> Cones:
    """Cones of sampled patterns; every third seed has repeated and zero rows."""
    rng = np.random.default_rng(seed)
    Phi = rng.standard_normal((N, p))
    if seed % 3 == 2 and N > 3:
        Phi[1], Phi[2] = 2 * Phi[0], 0
    found = cnn.sample_patterns(Phi, P, seed)
    return Cones(Phi, found.masks, found.gates)


def extreme_rays(F: np.ndarray) -> np.ndarray:
    """All extreme rays of a pointed cone F u >= 0, by solving for every p - 1 rows."""
    p = F.shape[1]
    rays = []
    for rows in itertools.combinations(range(len(F)), p - 1):
        direction = np.linalg.svd(F[list(rows)])[2][-1]
        for ray in (direction, -direction):
            if (F @ ray >= -1e-10).all():
                rays.append(ray)
    return np.array(rays)


def brute_force(cones: Cones, k: int, G: np.ndarray, rng: np.random.Generator, size: int = 20_000) -> float:
    """The largest ||G^T u|| over conic combinations of the extreme rays, then by shrinking random steps."""
    F = cones.signed_rows(k)
    rays = extreme_rays(F) if np.linalg.matrix_rank(F) == cones.p else np.empty((0, cones.p))
    assert len(rays), "brute force needs a pointed cone"
    weights = rng.exponential(size=(size, len(rays))) * (rng.random((size, len(rays))) < 0.5)
    weights[: len(rays)] = np.eye(len(rays))
    step = 0.3
    best, where = -1.0, weights[0]
    for _ in range(12):
        U = weights @ rays
        values = np.linalg.norm(U @ G, axis=1) / np.linalg.norm(U, axis=1).clip(1e-300)
        if values.max() > best:
            best, where = float(values.max()), weights[values.argmax()] / np.linalg.norm(U[values.argmax()])
        noise = step * rng.standard_normal((4000, len(rays))) * (rng.random((4000, len(rays))) < 0.5)
        weights = np.maximum(where + noise, 0)
        step *= 0.3
    return best


@pytest.mark.parametrize("p", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_bounds_enclose_brute_force_and_are_exact(p, seed):
    cones = random_cones(3 * seed, 9, p, 5)
    rng = np.random.default_rng(seed)
    G = rng.standard_normal((cones.P, p, 3))
    found = max_vector_norm(cones, G)
    expected = [brute_force(cones, k, G[k], rng) for k in range(cones.P)]
    assert found.lower <= found.value
    assert found.lower == pytest.approx(found.value, rel=1e-9)
    assert found.value >= max(expected)
    assert found.value == pytest.approx(max(expected), rel=2e-4)
    assert found.block == int(np.argmax(expected))
    assert "exact" in found.method


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=60)
def test_no_vector_of_a_cone_exceeds_the_bound(seed, N, p, q):
    cones = random_cones(seed, N, p, 3)
    rng = np.random.default_rng(seed)
    G = rng.standard_normal((cones.P, p, q))
    G[0] = np.outer(G[0, :, 0], G[0, 0])  # rank one
    found = max_vector_norm(cones, G)
    U = cones.project(rng.standard_normal((cones.P, p, 200)))
    norms = np.linalg.norm(np.einsum("kpq,kpm->kqm", G, U), axis=1)
    assert (norms <= found.value * np.linalg.norm(U, axis=1) * (1 + 1e-12) + 1e-300).all()
    assert found.lower <= found.value
    assert found.lower >= found.value * (1 - 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_faces_and_the_closed_form_of_the_plane_agree(seed):
    cones = random_cones(seed, 8, 2, 10)
    G = np.random.default_rng(seed).standard_normal((cones.P, 2, 3))
    upper, lower = plane_norms(cones.plane, G)
    for k in range(cones.P):
        search = FaceSearch([cones.facets[k]], G[k : k + 1], 0.0)
        search.run(100)
        assert search.upper[0] == pytest.approx(upper[k], rel=1e-8)
        assert lower[k] == pytest.approx(upper[k], rel=1e-6)


@pytest.mark.parametrize("p", [2, 3, 5])
def test_one_output_is_the_projection_onto_the_cone(p):
    """For q = 1 the norm is the larger of ||Pi(g)|| and ||Pi(-g)||, a route that shares no code."""
    cones = random_cones(0, 12, p, 6)
    g = np.random.default_rng(1).standard_normal((cones.P, p))
    expected = dual_norms(cones, g)[0]
    found = max_vector_norm(cones, g[:, :, None])
    assert found.value == pytest.approx(expected.max(), rel=1e-10)
    assert found.block == int(expected.argmax())


def semidefinite_bound(F: np.ndarray, G: np.ndarray) -> float:
    N = cp.Variable((len(F), len(F)), symmetric=True)
    t = cp.Variable()
    program = cp.Problem(cp.Minimize(t), [N >= 0, t * np.eye(len(G)) - G @ G.T - F.T @ N @ F >> 0])
    program.solve(solver=cp.CLARABEL)
    return float(np.sqrt(t.value))


@pytest.mark.slow
@pytest.mark.parametrize("p", [3, 4, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_relaxation_is_that_of_a_semidefinite_program(p, seed):
    cones = random_cones(3 * seed, 14, p, 2)
    G = np.random.default_rng(seed).standard_normal((p, 3))
    F = cones.facets[0]
    found = doubly_nonnegative_bound(F, G)
    expected = semidefinite_bound(F, G)
    assert found >= expected * (1 - 1e-7)
    assert found == pytest.approx(expected, rel=1e-4)
    search = FaceSearch([F], G[None], 0.0)
    search.run(10_000)
    assert search.lower[0] <= found * (1 + 1e-12)
    assert power_iterations(cones, 0, G) <= search.upper[0]
    if len(F) <= 4:  # a doubly non-negative 4 x 4 matrix is completely positive
        assert found == pytest.approx(search.upper[0], rel=1e-4)


@pytest.mark.slow
def test_a_search_that_is_stopped_still_encloses_the_norm(monkeypatch):
    cones = random_cones(0, 30, 5, 12)
    G = np.random.default_rng(0).standard_normal((cones.P, 5, 3))
    exact = max_vector_norm(cones, G)
    assert "exact" in exact.method
    for nodes in (0, 5, 40):
        stopped = max_vector_norm(cones, G, nodes=nodes)
        assert stopped.lower <= exact.value
        assert stopped.value >= exact.lower
        assert "exact" not in stopped.method
    monkeypatch.setattr(cone_norms, "FACE_DIMENSIONS", 2)
    relaxed = max_vector_norm(cones, G)
    assert relaxed.method == cone_norms.RELAXATION
    assert exact.lower <= relaxed.value <= 1.2 * exact.value


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_norms_follow_the_scale(scale):
    cones = random_cones(1, 10, 3, 4)
    G = np.random.default_rng(2).standard_normal((cones.P, 3, 2))
    base, scaled = max_vector_norm(cones, G), max_vector_norm(cones, scale * G)
    assert scaled.value == pytest.approx(scale * base.value, rel=1e-10)
    assert scaled.lower == pytest.approx(scale * base.lower, rel=1e-10)


def test_zero_and_cones_without_rows_or_interior():
    cones = random_cones(1, 6, 3, 4)
    nothing = max_vector_norm(cones, np.zeros((cones.P, 3, 2)))
    assert nothing.value == nothing.lower == 0.0
    G = np.random.default_rng(0).standard_normal((1, 3, 2))
    everything = Cones(np.zeros((2, 3)), np.ones((2, 1), dtype=bool))
    assert max_vector_norm(everything, G).value == pytest.approx(np.linalg.norm(G[0], 2), rel=1e-10)
    # x >= 0 and x < 0 at once: the plane x = 0
    flat = Cones(np.array([[1.0, 0, 0], [1.0, 0, 0]]), np.array([[True], [False]]))
    assert max_vector_norm(flat, G).value == pytest.approx(np.linalg.norm(G[0][1:], 2), rel=1e-8)
    both = Cones(np.array([[1.0, 0], [1.0, 0]]), np.array([[True], [False]]))
    assert max_vector_norm(both, G[:, :2]).value == pytest.approx(np.linalg.norm(G[0, 1]), rel=1e-8)
