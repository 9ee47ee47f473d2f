"""ReLU cones for scalar outputs: facets, projections, dual norms, feasibility, decompositions."""

import time

import cvxpy as cp
import numpy as np
import pytest

from convexnn_bench.cones import facets as cone_facets
from convexnn_bench.cones import projection as cone_geometry
from convexnn_bench.cones.all_cones import Cones
from convexnn_bench.cones.facets import reduce_rows
from convexnn_bench.cones.projection import split_difference
from convexnn_bench.deadline import cuts_counted, deadline
from convexnn_bench.errors import InputError
from convexnn_bench.norms import scalar_outputs
from convexnn_bench.norms.scalar_outputs import dual_norms, max_scalar_norm
from convexnn_bench.patterns.enumeration import enumerate_patterns
from convexnn_bench.patterns.sampling import sample_patterns


def make(N: int, p: int, P: int | None = None, seed: int = 0, with_gates: bool = True) -> Cones:
    Phi = np.random.default_rng(seed).standard_normal((N, p))
    patterns = enumerate_patterns(Phi) if P is None else sample_patterns(Phi, P, seed)
    return Cones(Phi, patterns.masks, patterns.gates if with_gates else None)


def all_rows(cones: Cones, k: int) -> np.ndarray:
    """K_k = (2 D_k - I) Phi (Pilanci & Ergen 2020)."""
    return (2.0 * cones.masks[:, k] - 1.0)[:, None] * cones.Phi


def normals(cones: Cones, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((cones.P, cones.p))


SIZES = [
    (12, 1, None),
    (15, 2, None),
    (9, 3, None),
    (60, 3, 20),
    (60, 5, 15),
    (60, 8, 6),
    (60, 10, 5),
    (120, 12, 3),
]


@pytest.mark.parametrize(("N", "p", "P"), SIZES)
def test_facets_describe_the_same_cone(N, p, P):
    """Points of the cone by facets are in the cone by all rows; the converse holds because facets are
    rows."""
    cones = make(N, p, P)
    rng = np.random.default_rng(2)
    for k in range(cones.P):
        F = cones.facets[k]
        assert np.allclose(np.linalg.norm(F, axis=1), 1.0)
        K = cone_geometry.unit_rows(all_rows(cones, k))
        assert all(np.min(np.linalg.norm(K - f, axis=1)) < 1e-14 for f in F)
        for u in rng.standard_normal((20, p)):
            point, _ = cone_geometry.nearest_point(F, u)
            assert np.min(K @ point) >= -1e-11


@pytest.mark.parametrize(("N", "p", "P"), [(40, 3, 10), (40, 5, 6), (40, 10, 3)])
def test_no_facet_is_redundant(N, p, P):
    cones = make(N, p, P)
    for k in range(cones.P):
        F = cones.facets[k]
        for i in range(F.shape[0]):
            witness, _ = cone_geometry.nearest_point(np.delete(F, i, axis=0), -F[i])
            assert np.linalg.norm(witness) > 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("p", [2, 3, 5, 10])
def test_facets_do_not_need_gates(p):
    with_gates, without = make(30, p, 6), make(30, p, 6, with_gates=False)
    for a, b in zip(with_gates.facets, without.facets, strict=True):
        assert {tuple(np.round(row, 12)) for row in a} == {tuple(np.round(row, 12)) for row in b}


def test_hull_and_shooting_agree():
    cones = make(80, 5, 10)
    for k in range(cones.P):
        rows, gate = cones.signed_rows(k), cones.interior(k)
        hull = cone_facets._hull_rows(rows, gate)
        assert hull is not None
        assert sorted(cone_facets._facets_by_shooting(rows, gate)) == sorted(hull)


def test_rows_by_hand():
    K = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    assert list(reduce_rows(K)) == [1, 4]
    assert list(reduce_rows(K, np.array([1.0, 1.0]))) == [1, 4]
    cube = np.vstack([np.eye(3), np.ones((1, 3)), [[1.0, 2.0, 0.0]]])
    assert list(reduce_rows(cube, np.ones(3))) == [0, 1, 2]
    assert list(reduce_rows(np.zeros((3, 2)))) == []
    assert list(reduce_rows(np.array([[2.0], [3.0]]))) == [0]


@pytest.mark.parametrize(
    "K",
    [
        np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]),
        np.array([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0], [0.3, 1.0]]),
        np.array([[1.0], [-1.0], [2.0]]),
        np.vstack([np.eye(4), -np.ones((1, 4)), [[1.0, 1.0, 0.0, 0.0]]]),
        np.vstack([np.eye(9), -np.eye(9)[:2], np.ones((1, 9))]),
    ],
)
def test_cones_without_interior_keep_enough_rows(K):
    kept = reduce_rows(K)
    for u in np.random.default_rng(0).standard_normal((40, K.shape[1])):
        point, _ = cone_geometry.nearest_point(cone_geometry.unit_rows(K[kept]), u)
        assert np.min(K @ point) >= -1e-11


@pytest.mark.slow
def test_rank_deficient_rows():
    rng = np.random.default_rng(3)
    for rank in (1, 2, 3):
        Phi = rng.standard_normal((20, rank)) @ rng.standard_normal((rank, 5))
        patterns = enumerate_patterns(Phi)
        cones = Cones(Phi, patterns.masks, patterns.gates)
        U = cones.project(rng.standard_normal((cones.P, 5, 2)))
        assert cones.violation(U) <= 1e-12
        assert max(len(F) for F in cones.facets) <= (rank if rank < 3 else 20)


@pytest.mark.parametrize("p", [2, 3, 5, 10])
@pytest.mark.parametrize("with_gates", [True, False])
def test_projection_against_a_quadratic_program(p, with_gates):
    cones = make(25, p, 6, with_gates=with_gates)
    U = np.random.default_rng(4).standard_normal((cones.P, p, 2))
    projected = cones.project(U)
    assert cones.violation(projected) <= 1e-12
    for k in range(cones.P):
        for j in range(2):
            v = cp.Variable(p)
            program = cp.Problem(cp.Minimize(cp.sum_squares(v - U[k, :, j])), [all_rows(cones, k) @ v >= 0])
            program.solve(solver=cp.CLARABEL)
            assert np.allclose(projected[k, :, j], v.value, atol=1e-5)
            assert np.sum((projected[k, :, j] - U[k, :, j]) ** 2) <= program.value + 1e-7


@pytest.mark.parametrize(("N", "p", "P"), SIZES)
def test_what_is_left_at_the_deadline_becomes_feasible_and_is_never_further_than_zero(N, p, P, monkeypatch):
    cones = make(N, p, P)
    U = np.random.default_rng(6).standard_normal((cones.P, p, 3)) * 10.0 ** np.arange(-6, 12, 6)
    U[:, :, 0] = cones.project(U)[:, :, 0]  # columns inside
    U[:, :, 1] = cones.project(U)[:, :, 1] * (1 + 1e-6 * U[:, :, 1])  # and next to their cones
    with cuts_counted() as cuts:
        nearest = cones.project_in_time(U)
    assert not cuts
    np.testing.assert_array_equal(nearest[:, :, 1:], cones.project(U)[:, :, 1:])
    monkeypatch.setattr("convexnn_bench.cones.all_cones.nearest_point", None)  # a projection would fail
    with deadline(-1.0, lambda: 0.0), cuts_counted() as cuts:
        V = cones.project_in_time(U)
    assert bool(cuts) == (p != 2)  # in the plane the closed form takes no time
    assert cones.violation(V) <= 1e-12
    np.testing.assert_allclose(V[:, :, 0], U[:, :, 0], rtol=1e-15)
    outside = np.linalg.norm(V - U, axis=1)
    assert np.all(outside <= np.linalg.norm(U, axis=1) * (1 + 1e-15))
    assert np.all(np.linalg.norm(nearest - U, axis=1) <= outside * (1 + 1e-12))
    # Next to a cone only its gate's depth decides how far a column moves.
    depth = [np.min(all_rows(cones, k) @ gate) / np.linalg.norm(gate) for k, gate in enumerate(cones.gates.T)]
    assert np.all(outside[:, 1] <= 1e-4 * np.linalg.norm(U[:, :, 1], axis=1) / np.array(depth))


def test_the_longest_columns_are_projected_before_the_deadline():
    cones, calls = make(40, 5, 10), []

    def clock() -> float:
        calls.append(1)
        return float(len(calls))

    U = np.random.default_rng(7).standard_normal((10, 5, 2)) * 10.0 ** np.arange(10)[:, None, None]
    with deadline(5.0, clock):
        V = cones.project_in_time(U)
    away = np.linalg.norm(V - cones.project(U), axis=1) / np.linalg.norm(U, axis=1)
    assert np.all(away[-1] == 0)
    assert np.max(away[:5]) > 0.1


def test_without_a_direction_inside_what_is_left_becomes_zero():
    Phi = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # u_1 = 0: a cone without interior
    U = np.ones((1, 3, 1))
    for gates in (None, np.array([[0.0], [1.0], [0.0]])):
        with deadline(-1.0, lambda: 0.0):
            assert not Cones(Phi, np.ones((3, 1), dtype=bool), gates).project_in_time(U).any()


@pytest.mark.parametrize(("N", "p", "P"), SIZES)
def test_inside_reads_every_row(N, p, P, monkeypatch):
    monkeypatch.setattr("convexnn_bench.cones.all_cones.CHUNK_ELEMENTS", 100)  # several chunks
    cones = make(N, p, P)
    U = np.concatenate([normals(cones)[:, :, None], cones.project(normals(cones, 2)[:, :, None])], axis=2)
    rows = cone_geometry.unit_rows(cones.Phi)
    expected = [
        [np.min(np.where(mask, rows @ u, -rows @ u)) >= -1e-13 * np.linalg.norm(u) for u in block.T]
        for mask, block in zip(cones.masks.T, U, strict=True)
    ]
    np.testing.assert_array_equal(cones.inside(U, 1e-13), expected)
    assert cones.inside(U, 1e-13)[:, 1].all()


def test_cones_without_rows_hold_every_point():
    cones = Cones(np.zeros((2, 3)), np.ones((2, 4), dtype=bool))
    U = np.random.default_rng(0).standard_normal((4, 3, 2))
    np.testing.assert_array_equal(cones.project(U), U)


@pytest.mark.parametrize(("N", "p", "P"), SIZES)
def test_projection_satisfies_moreau(N, p, P):
    """u - Pi(u) is orthogonal to Pi(u) and makes no acute angle with any point of the cone; Pi is
    idempotent."""
    cones = make(N, p, P)
    rng = np.random.default_rng(5)
    U = rng.standard_normal((cones.P, p, 3)) * 10.0 ** rng.integers(-6, 7, size=(cones.P, 1, 3))
    U[0, :, 0] = 0.0
    V = cones.project(U)
    size = np.linalg.norm(U, axis=1) + 1e-300
    assert np.all(np.abs(np.sum((U - V) * V, axis=1)) <= 1e-12 * size**2)
    inside = cones.project(rng.standard_normal(U.shape))
    assert np.all(np.sum((U - V) * inside, axis=1) <= 1e-12 * size * np.linalg.norm(inside, axis=1))
    assert np.all(np.linalg.norm(cones.project(V) - V, axis=1) <= 1e-12 * np.linalg.norm(V, axis=1))
    for k in range(cones.P):
        K = cone_geometry.unit_rows(all_rows(cones, k))
        assert np.all(K @ V[k] >= -1e-12 * np.linalg.norm(V[k], axis=0))


def test_least_squares_at_a_point_where_every_gradient_is_rounding():
    """Active-set codes have answered this one with a residual of 16 instead of 1: u lies in the cone but for
    1e-16."""
    cones = make(120, 12, 3)
    rng = np.random.default_rng(5)
    U = rng.standard_normal((3, 12, 3)) * 10.0 ** rng.integers(-6, 7, size=(3, 1, 3))
    for k, j in [(0, 1), (1, 0), (2, 2), (2, 0)]:
        point = cone_geometry.nearest_point(cones.signed_rows(k), U[k, :, j])[0]
        rows, b = cones.signed_rows(k), -point / np.linalg.norm(point)
        x = cone_geometry.nonnegative_least_squares(rows.T, b)
        assert np.linalg.norm(x @ rows - b) == pytest.approx(1.0, rel=1e-12)


def dense_directions(p: int, count: int) -> np.ndarray:
    if p == 2:
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        return np.stack([np.cos(angle), np.sin(angle)])
    # Fibonacci points on the sphere
    height = 1 - 2 * (np.arange(count) + 0.5) / count
    angle = np.pi * (1 + 5**0.5) * np.arange(count)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height])


@pytest.mark.slow
@pytest.mark.parametrize(("p", "count", "slack"), [(2, 200_000, 1e-3), (3, 200_000, 2e-2)])
def test_dual_norm_against_dense_directions(p, count, slack):
    cones = make(8, p)
    G = normals(cones)
    upper, lower = dual_norms(cones, G)
    directions = dense_directions(p, count)
    for k in range(cones.P):
        inside = np.all(all_rows(cones, k) @ directions >= 0, axis=0)
        best = np.max(np.abs(G[k] @ directions[:, inside]), initial=0.0)
        assert best <= upper[k]
        assert upper[k] <= best + slack * np.linalg.norm(G[k]) + (10 if inside.sum() < 20 else 0)
    assert np.all(lower <= upper)
    assert np.all(upper - lower <= 1e-12 * np.linalg.norm(G, axis=1))


@pytest.mark.parametrize("p", [5, 10])
def test_upper_bound_is_above_every_feasible_point(p):
    cones = make(40, p, 8)
    rng = np.random.default_rng(6)
    G = normals(cones)
    upper, lower = dual_norms(cones, G)
    points = cones.project(
        np.concatenate([rng.standard_normal((cones.P, p, 200)), G[:, :, None], -G[:, :, None]], axis=2)
    )
    size = np.linalg.norm(points, axis=1)
    values = np.abs(np.einsum("kp,kpm->km", G, points)) / np.where(size > 0, size, 1.0)
    assert np.all(values <= upper[:, None])
    assert np.all(lower <= upper)
    assert np.all(upper - lower <= 1e-11 * np.linalg.norm(G, axis=1))


@pytest.mark.parametrize("p", [1, 2, 3, 10])
def test_dual_norm_where_the_answer_is_known(p):
    """In the cone the dual norm is ||g||; its negative has the same; zero for zero; a facet normal's opposite
    is cut off."""
    cones = make(20, p, 3)
    inside = cones.project(normals(cones)[:, :, None])[:, :, 0]
    size = np.linalg.norm(inside, axis=1)
    for G in (inside, -inside):
        upper, lower = dual_norms(cones, G)
        assert np.allclose(upper, size, rtol=1e-12)
        assert np.all(upper >= lower)
        assert np.allclose(lower, size, rtol=1e-12)
    assert np.all(dual_norms(cones, np.zeros((cones.P, p)))[0] == 0)


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e150])
@pytest.mark.parametrize("p", [2, 3, 10])
def test_scale_does_not_matter(scale, p):
    cones = make(15, p, 4)
    G = normals(cones)
    upper = dual_norms(cones, G)[0]
    assert np.allclose(dual_norms(cones, scale * G)[0], scale * upper, rtol=1e-12, atol=0)
    assert np.allclose(max_scalar_norm(cones, scale * G).value, scale * np.max(upper), rtol=1e-12, atol=0)
    assert np.allclose(
        cones.project(scale * G[:, :, None]),
        scale * cones.project(G[:, :, None]),
        rtol=1e-9,
        atol=1e-13 * scale,
    )
    split = cones.decompose(scale * G)
    assert cones.violation(split) <= 1e-12


@pytest.mark.parametrize(("N", "p", "P"), SIZES)
def test_max_dual_norm_is_the_largest(N, p, P):
    cones = make(N, p, P)
    for seed in range(5):
        G = normals(cones, seed)
        upper, _ = dual_norms(cones, G)
        found = max_scalar_norm(cones, G)
        assert found.value >= np.max(upper) * (1 - 1e-12)
        assert found.value <= np.max(upper) * (1 + 1e-12)
        assert found.block == np.argmax(upper)


def test_max_dual_norm_refines_few_blocks(monkeypatch):
    cones = make(100, 5, 100)
    looked_at = []
    plain = scalar_outputs.dual_norm
    monkeypatch.setattr(scalar_outputs, "dual_norm", lambda cones, k, g: looked_at.append(k) or plain(cones, k, g))
    max_scalar_norm(cones, normals(cones))
    assert 1 <= len(looked_at) < 50


def test_violation_counts_every_row():
    Phi = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    cones = Cones(Phi, np.array([[True], [True], [True], [True]]))
    assert cones.violation(np.zeros((1, 2, 1))) == 0.0
    assert cones.violation(np.array([[[1.0], [2.0]]])) == 0.0
    # the second row: -1 in the first column, 1 in the second
    assert cones.violation(np.array([[[4.0, 1.0], [-1.0, 1.0]]])) == pytest.approx(1.0)


def gauge(K: np.ndarray, z: np.ndarray) -> float:
    a, b = cp.Variable(z.size), cp.Variable(z.size)
    program = cp.Problem(cp.Minimize(cp.norm(a) + cp.norm(b)), [K @ a >= 0, K @ b >= 0, a - b == z])
    program.solve(solver=cp.CLARABEL)
    return float(program.value)


@pytest.mark.parametrize(
    ("N", "p", "P"), [(6, 1, None), (8, 2, None), (3, 2, None), (8, 3, 8), (15, 5, 5), (25, 10, 4)]
)
@pytest.mark.parametrize("with_gates", [True, False])
def test_decomposition_against_a_cone_program(N, p, P, with_gates):
    cones = make(N, p, P, with_gates=with_gates)
    Z = normals(cones)
    Z[0] = 0.0
    split = cones.decompose(Z)
    assert split.shape == (cones.P, p, 2)
    assert np.allclose(split[:, :, 0] - split[:, :, 1], Z, atol=1e-12 * np.max(np.abs(split)))
    assert cones.violation(split) <= 1e-12
    for k in range(1, cones.P):
        cost = np.sum(np.linalg.norm(split[k], axis=0))
        best = gauge(cone_geometry.unit_rows(all_rows(cones, k)), Z[k])
        assert cost == pytest.approx(best, rel=2e-6)


@pytest.mark.parametrize("p", [1, 2, 3, 10])
def test_decomposition_of_points_of_the_cone(p):
    cones = make(20, p, 4)
    inside = np.array([cones.interior(k) for k in range(cones.P)])
    assert np.array_equal(cones.decompose(inside), np.stack([inside, np.zeros_like(inside)], axis=2))
    assert np.array_equal(cones.decompose(-inside), np.stack([np.zeros_like(inside), inside], axis=2))


def test_gauge_and_dual_norm_are_dual():
    """g^T z <= gauge(z) dual(g), for all z and g."""
    cones = make(30, 4, 20)
    Z, G = normals(cones, 1), normals(cones, 2)
    cost = np.sum(np.linalg.norm(cones.decompose(Z), axis=1), axis=1)
    assert np.all(np.abs(np.sum(Z * G, axis=1)) <= cost * dual_norms(cones, G)[0] * (1 + 1e-12))


MASKS_OF_NOTHING = np.array([[True, False], [True, True], [False, False]])


@pytest.mark.parametrize(
    "Phi",
    [
        np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]),
    ],
)
def test_masks_that_no_direction_attains(Phi):
    """u1 >= 0, u2 >= 0, u1 + u2 <= 0 holds only for u1 = u2 = 0."""
    cones = Cones(Phi, MASKS_OF_NOTHING)
    p = Phi.shape[1]
    assert cones.interior(0) is None
    U = np.random.default_rng(7).standard_normal((2, p, 3))
    V = cones.project(U)
    assert np.allclose(V[0, :2], 0.0, atol=1e-12)
    assert np.allclose(V[0, 2:], U[0, 2:])
    assert cones.violation(V) <= 1e-12
    upper, lower = dual_norms(cones, U[:, :, 0])
    assert np.all(lower <= upper)
    assert upper[0] == pytest.approx(np.linalg.norm(U[0, 2:, 0]), abs=1e-12)
    with pytest.raises(InputError, match="no interior"):
        cones.decompose(U[:, :, 0])


@pytest.mark.slow
def test_degenerate_data():
    """Duplicate, antipodal, zero rows and a constant feature."""
    grid = np.array([[a, b, 1.0] for a in range(-2, 3) for b in range(-2, 3)])
    Phi = np.vstack([grid, -grid[:5], grid[3:6], np.zeros((2, 3))])
    patterns = enumerate_patterns(Phi)
    cones = Cones(Phi, patterns.masks, patterns.gates)
    U = np.random.default_rng(8).standard_normal((cones.P, 3, 2))
    assert cones.violation(cones.project(U)) <= 1e-12
    for k in range(0, cones.P, 7):
        K = cone_geometry.unit_rows(all_rows(cones, k))
        for u in U[k].T:
            assert np.min(K @ cone_geometry.nearest_point(cones.facets[k], u)[0]) >= -1e-11


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.project(np.zeros((c.P, c.p + 1, 1))), "shape"),
        (lambda c: dual_norms(c, np.zeros((c.P + 1, c.p))), "shape"),
        (lambda c: c.decompose(np.full((c.P, c.p), np.nan)), "NaN"),
        (lambda c: Cones(c.Phi[1:], c.masks), "rows"),
    ],
)
def test_unusable_arguments(call, words):
    cones = make(10, 3, 4)
    with pytest.raises(InputError, match=words):
        call(cones)
    with pytest.raises(IndexError):
        cones.facets[4]


def test_three_thousand_blocks_in_the_plane_are_fast():
    cones = make(1500, 2)
    assert cones.P == 3000
    start = time.process_time()
    sizes = [len(F) for F in cones.facets]
    upper, lower = dual_norms(cones, normals(cones))
    cones.project(normals(cones)[:, :, None])
    assert time.process_time() - start < 5.0
    assert set(sizes) == {2}
    assert np.all(lower <= upper)


@pytest.mark.parametrize("thin", [1e-3, 1e-6, 1e-9, 1e-11, 1e-12, 1e-13, 1e-15, 0.0])
def test_decomposition_on_thin_cones_is_feasible_or_none(thin):
    """Two nearly opposite facets: the pair grows as 1 / thin, until float64 says that there is none."""
    F = np.array([[1.0, thin, 0.0], [-1.0, thin, 0.0], [0.0, 0.0, 1.0]])
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    z = np.array([1.0, 0.3, -0.2])
    pair = split_difference(F, z, None)
    if pair is None:
        assert thin <= 1e-9
        return
    scale = np.linalg.norm(pair[0])
    np.testing.assert_allclose(pair[0] - pair[1], z, atol=1e-12 * scale)
    assert min((F @ pair[0]).min(), (F @ pair[1]).min()) >= -1e-9 * scale
