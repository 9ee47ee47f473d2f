"""Vector-output ReLU through the doubly non-negative relaxation: its value, its rounding, and the norm of blocks."""

import itertools
import sys
import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from problems import LOSS_NAMES, targets
from test_cvxpy_forms import Pooling
from textbook import loss_expression

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic import solver as conic_solver
from convexnn_bench.algorithms.conic.program import build_program
from convexnn_bench.algorithms.conic.rounding import descend_factors, round_relaxation
from convexnn_bench.deadline import deadline
from convexnn_bench.formulations import convex
from convexnn_bench.norms.cone_factors import tight_frame

TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-9}


def spiral(n):
    """With beta = 0.02 of the spectral norms, the dual norms without the cones."""
    gated = cnn.make_problem(f"spiral[n={n},noise=0.2]", beta_fraction=0.02)
    return cnn.Problem(gated.X, gated.Y, activation="relu", beta=gated.beta)


def gaussian(seed=0, n=8, d=3, c=2, loss="squared", patterns="all", beta=0.3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return cnn.Problem(
        X, targets(loss, n, c, rng), activation="relu", loss=loss, patterns=patterns, beta=beta, seed=seed
    )


def run(problem, name="cvxpy_clarabel", **attributes):
    """(point, objective of its factors, value of the relaxation, solver)."""
    made = cnn.SOLVERS.make(name)
    for key, value in attributes.items():
        setattr(made, key, value)
    made.set_problem(problem)
    made.run(lambda: False)
    point = made.get_result()
    U, V = point.cone_factors
    np.testing.assert_allclose(
        point.blocks, U @ V.transpose(0, 2, 1), atol=1e-12 * max(1.0, np.abs(point.blocks).max())
    )
    assert problem.cones.violation(U) <= 1e-9
    return point, problem.factored_objective(U, V), made.conic.relaxation().value, made


def solved(program):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        program.solve(solver=cp.CLARABEL, **TIGHT)
    assert program.status in ("optimal", "optimal_inaccurate")
    return float(program.value)


def textbook_relaxation(problem):
    """The doubly non-negative program block by block, from the primal side, with all rows of every K_k."""
    p, total, traces, constraints = problem.p, 0, 0, []
    for k in range(problem.P):
        D = problem.masks[:, k].astype(float)[:, None]
        K = (2 * D - 1) * problem.X
        W = cp.Variable((p + problem.q, p + problem.q), PSD=True)
        constraints.append(K @ W[:p, :p] @ K.T >= 0)
        total += (D * problem.X) @ W[:p, p:]
        traces += cp.trace(W)
    objective = loss_expression(problem.loss, total, problem.Y) + problem.beta / 2 * traces
    return solved(cp.Problem(cp.Minimize(objective), constraints))


def plane_bound(problem, L):
    """-F*(s L) with s L feasible: in the plane ||G_k^T u|| over cone k is largest at the top singular vector of G_k, if
    that or its negative lies in the cone, and else on one of the two rays. Squared loss."""
    L = np.asarray(L)
    largest = 0.0
    for mask, G in zip(problem.masks.T, problem.operator().adjoint(torch.as_tensor(L)).numpy(), strict=True):
        K = np.where(mask, 1.0, -1.0)[:, None] * problem.Phi
        rays = np.stack([-K[:, 1], K[:, 0]], axis=1)
        candidates = np.concatenate([rays, -rays, np.linalg.svd(G)[0][:, :1].T * np.array([[1.0], [-1.0]])])
        inside = candidates[np.min(candidates @ K.T, axis=1) >= -1e-12]
        assert len(inside) >= 2
        norms = np.linalg.norm(inside @ G, axis=1) / np.linalg.norm(inside, axis=1)
        largest = max(largest, float(norms.max()))
    s = problem.beta / largest
    s = min(s, -np.sum(L * problem.Y) / np.sum(L**2))
    return -0.5 * s**2 * np.sum(L**2) - s * np.sum(L * problem.Y)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "optimum"), [(12, 3.178949), (30, 8.05653)])
def test_spirals_are_solved_to_a_certified_gap(n, optimum):
    problem = spiral(n)
    point, objective, value, made = run(problem)
    assert objective == pytest.approx(optimum, rel=2e-6)
    bound = plane_bound(problem, point.dual)
    assert bound * (1 - 1e-12) <= objective <= bound * (1 + 1e-6)
    certificate = cnn.certify(problem, point)
    assert certificate.primal == pytest.approx(objective, rel=1e-12)
    assert certificate.dual <= bound * (1 + 1e-7)
    assert certificate.gap <= 1e-6
    assert value == pytest.approx(objective, rel=1e-7)
    assert "doubly non-negative relaxation" in made.message
    assert "exact" in made.message


@pytest.mark.slow
def test_an_architecture_with_its_own_second_layer():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 2, 2)), rng.standard_normal((6, 1))
    problem = cnn.Problem(X, Y, architecture=Pooling(), activation="relu", beta_fraction=0.1)
    point, objective, _, _ = run(problem)
    assert (problem.q, problem.c) == (2, 1)
    bound = plane_bound(problem, point.dual)
    assert bound * (1 - 1e-12) <= objective <= bound * (1 + 1e-6)


@pytest.mark.slow
def test_spiral_against_the_textbook_program():
    problem = spiral(12)
    assert run(problem)[2] == pytest.approx(textbook_relaxation(problem), rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_every_loss_in_the_plane(loss):
    problem = gaussian(1, n=6, d=2, loss=loss, beta=0.1)
    _, objective, value, _ = run(problem)
    assert value == pytest.approx(textbook_relaxation(problem), rel=1e-6)
    assert objective == pytest.approx(value, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "c"), [(0, 2), (1, 3), (2, 2)])
def test_three_features_against_the_textbook_and_local_minima(seed, c):
    problem = gaussian(seed, c=c, patterns=8, beta=0.1)
    _, objective, value, _ = run(problem)
    assert value == pytest.approx(textbook_relaxation(problem), rel=1e-6)
    # no factors of the program are below the relaxation, and the rounding is as good as descent from random points
    rng = np.random.default_rng(seed)
    U = np.asarray(problem.cones.project(rng.standard_normal((problem.P, 3, 2))))
    local = problem.factored_objective(*descend_factors(problem, U, rng.standard_normal((problem.P, c, 2))))
    assert value * (1 - 1e-7) <= objective <= local * (1 + 1e-6)


@pytest.mark.slow
def test_exact_where_cones_have_at_most_four_facets():
    complete = gaussian(1)
    simple = [k for k in range(complete.P) if len(complete.cones.facets[k]) <= 4]
    problem = gaussian(1, patterns=complete.masks[:, simple], beta=0.08)
    assert 10 < len(simple) < complete.P
    _, objective, value, made = run(problem)
    assert objective == pytest.approx(value, rel=1e-6)
    assert "exact" in made.message


@pytest.mark.slow
def test_an_inexact_relaxation_says_so_and_gives_a_feasible_point():
    problem = gaussian(5, n=12, d=4, c=3, patterns=2, beta=0.3)
    _, objective, value, made = run(problem)
    assert value * (1 + 1e-5) < objective < value * 1.05
    assert "best point found" in made.message
    assert "exact" not in made.message


@pytest.mark.slow
@pytest.mark.parametrize("problem", [spiral(12), gaussian(0, n=7, patterns=8)], ids=["plane", "three features"])
def test_scs_agrees(problem):
    _, objective, value, _ = run(problem, "cvxpy_scs", time_limit=600)
    reference = run(problem)[2]
    assert value == pytest.approx(reference, rel=1e-4)
    assert reference * (1 - 1e-7) <= objective <= reference * (1 + 1e-4)


@pytest.mark.slow
def test_a_half_space_is_no_constraint():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((1, 3)), rng.standard_normal((1, 2))
    relu = cnn.Problem(X, Y, activation="relu", beta=0.1)
    # v may have either sign, so that only lines u matter, and every line meets the half space
    size = np.linalg.norm(X) * np.linalg.norm(Y)
    expected = 0.1 * (size - 0.05) / np.linalg.norm(X) ** 2
    assert run(relu)[1] == pytest.approx(expected, rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "masks"),
    [
        ([[1.0, 2.0, 0.5], [0.3, -1.0, 1.0]], [[1, 0], [1, 1]]),  # two facets and a line
        ([[1.0], [-2.0]], [[1, 0], [0, 1]]),  # rays
        ([[1.0, 0.5], [-1.0, -0.5], [0.2, -1.0]], [[1, 1], [1, 0], [1, 1]]),  # the first cone is a ray in the plane
        ([[1.0, 0.5], [0.2, -1.0], [-1.0, -0.5]], [[1, 1], [0, 1], [1, 1]]),  # and both
    ],
    ids=["line", "one feature", "one without interior", "none with interior"],
)
def test_cones_that_are_not_pointed_or_have_no_interior(rows, masks):
    X, Y = np.array(rows), np.random.default_rng(0).standard_normal((len(rows), 2)) * 2
    problem = cnn.Problem(X, Y, activation="relu", beta=0.1, patterns=np.array(masks, dtype=bool))
    _, objective, value, _ = run(problem)
    assert value == pytest.approx(textbook_relaxation(problem), rel=1e-6)
    assert objective == pytest.approx(value, rel=1e-6)


@pytest.mark.slow
def test_above_beta_max_the_point_is_zero():
    complete = gaussian(0, d=2)
    point, objective, _, _ = run(gaussian(0, d=2, beta=1.1 * complete.beta_max))
    assert np.all(point.blocks == 0)
    assert objective == pytest.approx(0.5 * np.sum(complete.Y**2))


@pytest.mark.slow
@pytest.mark.parametrize("cut", [{"max_iter": 3}, {"time_limit": 1e-5}], ids=["iterations", "time"])
def test_a_cut_off_run_still_gives_a_feasible_point(cut, monkeypatch):
    monkeypatch.setattr(conic_solver, "LEAST_SECONDS", 1e-5)  # less than the first iteration takes on any machine
    problem = spiral(12)
    _, objective, _, made = run(problem, **cut)
    assert "Max" in made.message
    assert objective >= run(problem)[2] * (1 - 1e-7)


@pytest.mark.parametrize(("seconds", "blocks"), [(1, 0), (3, 2), (10**9, 5)])
def test_reading_the_point_ends_at_a_deadline_with_the_largest_blocks(seconds, blocks):
    """The clock advances by one second with every look at it."""
    problem = gaussian(patterns=6)
    made = cnn.SOLVERS.make("cvxpy_clarabel")
    made.set_problem(problem)
    made.run(lambda: False)
    relaxation, now = made.conic.relaxation(), itertools.count()
    with deadline(seconds, lambda: float(next(now))):
        U, V = round_relaxation(problem, relaxation)
    full = round_relaxation(problem, relaxation)
    factored = np.any(U != 0, axis=(1, 2))
    assert factored.sum() == blocks
    assert problem.factored_objective(U, V) >= problem.factored_objective(*full)
    largest = np.argsort(-relaxation.weights, kind="stable")[:blocks]
    assert set(np.flatnonzero(factored)) == set(largest)
    point = cnn.certify(problem, (U, V))
    assert point.infeasibility <= 1e-8
    assert point.dual <= point.primal


def test_too_many_facets_are_refused(monkeypatch):
    monkeypatch.setattr("convexnn_bench.algorithms.conic.program.MOST_ENTRIES", 100)
    with pytest.raises(cnn.UnsupportedError, match="multipliers of pairs of facets"):
        build_program(gaussian(0))


# -- blocks given alone --------------------------------------------------------------------------------------------


def textbook_norm(problem, k, Z):
    """The relaxed norm of one block, with all rows of K_k."""
    p = problem.p
    K = np.where(problem.masks[:, k], 1.0, -1.0)[:, None] * problem.X
    W = cp.Variable((p + problem.q, p + problem.q), PSD=True)
    return solved(cp.Problem(cp.Minimize(cp.trace(W) / 2), [W[:p, p:] == Z, K @ W[:p, :p] @ K.T >= 0]))


@pytest.mark.slow
@pytest.mark.parametrize(("d", "c"), [(2, 3), (3, 2)])
def test_norm_of_random_blocks(d, c):
    problem = gaussian(2, n=5, d=d, c=c)
    Z = np.zeros((problem.P, d, c))
    blocks = [k for k in range(problem.P) if len(problem.cones.facets[k]) <= 4][:6]
    Z[blocks] = np.random.default_rng(1).standard_normal((6, d, c))
    U, V = convex.cone_factors(problem, torch.as_tensor(Z))
    np.testing.assert_allclose((U @ V.transpose(1, 2)).numpy(), Z, atol=1e-11)
    assert problem.cones.violation(U.numpy()) <= 1e-9
    for k in blocks:
        cost = 0.5 * float(U[k].square().sum() + V[k].square().sum())
        assert cost == pytest.approx(textbook_norm(problem, k, Z[k]), rel=1e-5)
    others = np.setdiff1d(np.arange(problem.P), blocks)
    assert not U[others].any()


@pytest.mark.slow
def test_norm_of_blocks_with_many_facets_is_an_upper_bound():
    problem = gaussian(3, n=14, d=5, c=3, patterns=3)
    Z = np.random.default_rng(1).standard_normal((3, 5, 3))
    U, V = convex.cone_factors(problem, torch.as_tensor(Z))
    np.testing.assert_allclose((U @ V.transpose(1, 2)).numpy(), Z, atol=1e-9)
    assert problem.cones.violation(U.numpy()) <= 1e-9
    for k in range(3):
        relaxed = textbook_norm(problem, k, Z[k])
        assert relaxed * (1 - 1e-5) <= 0.5 * float(U[k].square().sum() + V[k].square().sum()) <= 1.5 * relaxed


def test_norm_in_closed_form_needs_no_solver(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    problem = gaussian(0)
    gates, Z = problem.cones.interior(4), np.zeros((problem.P, 3, 2))
    v = np.array([3.0, 4.0])
    Z[4] = np.outer(gates, v)
    Z[5] = -np.outer(problem.cones.interior(5), v)
    assert convex.regulariser(problem, torch.as_tensor(Z)) == pytest.approx(10.0, rel=1e-12)


@pytest.mark.slow
def test_objective_of_blocks_is_that_of_their_factors():
    problem = gaussian(0, d=2)
    point, objective, _, _ = run(problem)
    assert problem.objective(point.blocks) == pytest.approx(objective, rel=1e-8)
    assert cnn.certify(problem, point.blocks).primal == pytest.approx(objective, rel=1e-8)
    U, V = convex.to_factors(problem, torch.as_tensor(point.blocks), m=5)
    assert U.shape == (problem.P, 2, 5)
    assert problem.factored_objective(U, V) == pytest.approx(objective, rel=1e-8)


def test_blocks_outside_the_span_of_a_cone_are_refused():
    X = np.array([[1.0, 0.0], [-1.0, 0.0]])
    problem = cnn.Problem(X, np.ones((2, 2)), activation="relu", beta=0.1, patterns=np.ones((2, 1), dtype=bool))
    inside, outside = np.array([[[0.0, 0.0], [1.0, 2.0]]]), np.array([[[1.0, 0.0], [1.0, 2.0]]])
    assert convex.regulariser(problem, torch.as_tensor(inside)) == pytest.approx(5**0.5)
    with pytest.raises(cnn.InputError, match=r"block 0 .* no interior"):
        problem.objective(outside)


def test_without_cvxpy_the_norm_is_refused(monkeypatch):
    monkeypatch.setattr("convexnn_bench.norms.gauge.importable", lambda package: package != "cvxpy")
    problem = gaussian(2, n=5, d=2)
    with pytest.raises(cnn.UnsupportedError, match="cvxpy"):
        problem.objective(np.random.default_rng(0).standard_normal((problem.P, 2, 2)))


# -- completely positive factors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("f", "r"), [(6, 2), (3, 3), (4, 3), (4, 4)])
def test_doubly_non_negative_matrices_of_small_order_or_rank_are_factored(f, r):
    rng = np.random.default_rng(f + r)
    found = 0
    while found < 8:
        A = rng.standard_normal((f, r)) + 0.5
        if np.min(A @ A.T) < 0 or np.linalg.matrix_rank(A) < r:
            continue
        Q, exact = tight_frame(A)
        assert exact
        np.testing.assert_allclose(Q @ Q.T, np.eye(r), atol=1e-6)
        assert np.min(A @ Q) >= -1e-7
        found += 1


@pytest.mark.slow
def test_a_doubly_non_negative_matrix_that_is_not_completely_positive():
    # Berman & Shaked-Monderer, Completely Positive Matrices, 2003, example 2.4
    M = np.array([[1, 1, 0, 0, 1], [1, 2, 1, 0, 0], [0, 1, 2, 1, 0], [0, 0, 1, 2, 1], [1, 0, 0, 1, 6]], dtype=float)
    assert np.linalg.eigvalsh(M)[0] > 0
    Q, exact = tight_frame(np.linalg.cholesky(M))
    assert not exact
    assert np.min(np.linalg.cholesky(M) @ Q) >= -1e-7


# -- MOSEK, as far as it goes without a licence --------------------------------------------------------------------


@pytest.mark.slow
def test_the_task_for_mosek_states_the_same_program(tmp_path):
    pytest.importorskip("mosek", reason="package mosek is not installed (extra 'mosek')")
    from mosek_task import rebuilt

    problem, path = gaussian(0, n=6, patterns=5), tmp_path / "program.task"
    made = cnn.SOLVERS.make("cvxpy_mosek", save_file=str(path))
    made.set_problem(problem)
    if cnn.SOLVERS.get("cvxpy_mosek").unavailable() is None:
        made.run(lambda: False)
    else:
        with pytest.raises(cnn.ConvexNNError):
            made.run(lambda: False)
    offset = made._compiled[2][-1][cp.settings.OBJ_OFFSET]
    unit = 2 * float(problem.loss.value(torch.zeros_like(problem.operator().Y), problem.operator().Y)) / problem.Y.size
    value = unit * (solved(rebuilt(path)) + offset)
    assert abs(value) == pytest.approx(run(problem)[2], rel=1e-6)
