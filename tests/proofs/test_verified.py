"""Verified certificates are on the safe side of exact arithmetic, and about as tight as those in float64."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.sparse
import second_checker
from properties import given, strategies
from test_proofs import CELLS, problem_of, proven

import convexnn_bench as cnn
from convexnn_bench.formulations import Point
from convexnn_bench.proofs import intervals, loss_bounds
from convexnn_bench.proofs.grid import on_grid
from convexnn_bench.records.fields import blank
from convexnn_bench.report.tables import cell_texts, shown_columns
from convexnn_bench.running import describe_certificate

WITHOUT_CONES = [cell for cell in CELLS if cell[1] != "relu"]
exact = second_checker.array


def exactly(function, x):
    with mpmath.workdps(60):
        return function(mpmath.mpf(x))


@given(strategies.floats(1e-300, 1e300))
def test_logarithms_are_enclosed(x):
    low, high = (float(bound[0]) for bound in intervals.log_bounds(np.array([x])))
    assert low <= exactly(mpmath.log, x) <= high
    assert high - low <= 80 * intervals.U * abs(high) + 4e-290


@given(strategies.floats(-0.5, 1.0))
def test_logarithms_next_to_one_are_enclosed(x):
    low, high = (float(bound[0]) for bound in intervals.log1p_bounds(np.array([x])))
    assert low <= exactly(mpmath.log1p, x) <= high
    assert high - low <= 80 * intervals.U * abs(high) + 4e-290


@given(strategies.floats(-1e4, 700.0))
def test_exponentials_are_bounded(x):
    bound = float(intervals.exp_above(np.array([x]))[0])
    assert exactly(mpmath.exp, x) <= bound
    assert x < -700 or bound <= exactly(mpmath.exp, x) * (1 + 40 * intervals.U)


@pytest.mark.parametrize("shape", [(4, 3, 1), (4, 1, 3), (5, 4, 2), (5, 3, 3), (3, 4, 6)])
def test_spectral_norms_are_bounded_in_exact_arithmetic(shape):
    G = np.random.default_rng(shape[1]).integers(-40, 40, shape).astype(float)
    G[0] = np.outer(G[0, :, 0], G[0, 0])  # of rank one, where eigenvalues are least accurate
    bound, _ = intervals.largest_spectral_norm(G)
    assert bound == pytest.approx(np.linalg.norm(G, ord=2, axis=(1, 2)).max(), rel=1e-13)

    def all_below(size):
        gap = [Fraction(size) ** 2 * exact(np.eye(shape[2], dtype=int)) - exact(g).T @ exact(g) for g in G]
        return all(map(second_checker.positive_semidefinite, gap))

    assert all_below(bound)
    assert not all_below(bound * (1 - 1e-13))


@pytest.mark.slow
@pytest.mark.parametrize("cell", WITHOUT_CONES, ids="-".join)
def test_the_bounds_hold_in_exact_arithmetic_and_are_tight(cell):
    problem, (point, certificate, _) = problem_of(*cell), proven(*cell)
    verified = cnn.certify(problem, point, verified=True)
    assert verified.verified
    assert not certificate.verified
    # 1. The multiplier on the grid is exactly in the domain, and the bound is a multiple's exact value or less.
    parts = loss_bounds.LossParts.of(problem.loss, problem.operator().Y.numpy())
    L = on_grid(parts, certificate.multiplier)
    assert L is not None
    assert np.allclose(L, certificate.multiplier, rtol=0, atol=1e-14 * max(np.abs(L).max(), 1e-300))
    s = _scale(L, verified.multiplier)
    value = second_checker.conjugate(problem, Fraction(s) * exact(L))
    assert value is not None
    assert Fraction(verified.dual) <= -value
    # 2. That multiple is feasible in every block.
    Phi, T = second_checker.rows_and_map(problem)
    R = np.tensordot(T, Fraction(s) * exact(L), axes=(0, 0)).reshape(len(Phi), -1)
    for mask in problem.masks.T:
        G = Phi.T @ (mask[:, None] * R)
        square = Fraction(problem.beta) ** 2 * exact(np.eye(G.shape[1], dtype=int))
        assert second_checker.positive_semidefinite(square - G.T @ G)
    # 3. The objective is not below the exact one, of which the proof states an upper bound with 30 digits.
    assert verified.primal >= _objective(problem, point, Phi, T)
    # 4. Both are tight.
    scale = max(abs(certificate.dual), abs(certificate.primal))
    assert verified.dual >= certificate.dual - 1e-11 * scale
    assert verified.primal <= certificate.primal + 1e-11 * scale


def _scale(L, scaled):
    """Return the s with scaled = s L up to rounding, as the float that was used."""
    i = np.unravel_index(np.abs(L).argmax(), L.shape)
    if L[i] == 0:
        return 1.0
    # Several s round to the same product: take the largest, for which feasibility is hardest.
    s = scaled[i] / L[i]
    for _ in range(4):
        further = math.nextafter(s, math.inf)
        s = further if further * L[i] == scaled[i] else s
    return s


def _objective(problem, point, Phi, T):
    U, V = (exact(np.asarray(part)) for part in point.to_factors(problem))
    neurons = [(k, U[k, :, j], V[k, :, j]) for k in range(U.shape[0]) for j in range(U.shape[2])]
    bias = np.zeros(problem.c)
    if second_checker.parts(problem)[2][0]:
        bias = problem.loss.best_bias(point.evaluate(problem, "cpu").predictions, problem.operator().Y).numpy()
    as_proof = {
        "bits": 0,
        "first": [u for _, u, _ in neurons],
        "second": [v for _, _, v in neurons],
        "blocks": [k for k, _, _ in neurons],
        "bias": exact(bias),
    }
    value = second_checker._objective(problem, as_proof, Phi, T, problem.masks, Fraction(problem.beta), problem.c)
    # The second checker rounds logarithms up by less than this.
    return value * (1 - Fraction(1, 10**40))


def test_blocks_and_networks_have_verified_objectives():
    problem = problem_of("mlp", "gated_relu", "squared")
    U, V = (np.asarray(part) for part in proven("mlp", "gated_relu", "squared")[0].to_factors(problem))
    points = [Point(factors=(U, V)), Point(blocks=U @ V.transpose(0, 2, 1))]
    points.append(Point(network=tuple(np.asarray(part) for part in points[0].to_network(problem))))
    for point in points:
        usual, verified = cnn.certify(problem, point), cnn.certify(problem, point, verified=True)
        assert verified.primal == pytest.approx(usual.primal, rel=1e-12)
        assert verified.gap == pytest.approx(usual.gap, rel=1e-9)


def test_a_relu_certificate_is_that_of_a_proof():
    problem, (point, certificate, proof) = problem_of("mlp", "relu", "squared"), proven("mlp", "relu", "squared")
    verified = cnn.certify(problem, point, "sampled", verified=True)
    assert (verified.scope, verified.verified) == (certificate.scope, True)
    assert Fraction(verified.dual) <= proof.bound <= Fraction(math.nextafter(verified.dual, math.inf))
    assert proof.primal <= Fraction(verified.primal) <= proof.primal + Fraction(1, 10**12)


def test_what_cannot_be_verified_is_refused():
    class Other(cnn.BaseLoss):
        name = "squared"

    with pytest.raises(cnn.UnsupportedError, match="verified bounds know the losses squared"):
        loss_bounds.LossParts.of(Other(), np.zeros((2, 1)))
    tiny = cnn.Problem(np.eye(2), [1e-39, 1e-39], activation="linear", beta=1e-105)
    with pytest.raises(cnn.UnsupportedError, match="too close to the ends of float64"):
        cnn.certify(tiny, np.zeros((1, 2, 1)), verified=True)


def test_a_solver_stops_at_a_verified_gap_and_its_last_point_is_verified():
    problem = cnn.make_problem("spiral", n=12, patterns=6, beta_fraction=0.1)
    reached = cnn.solve(problem, "bm_newton", gap=1e-6, time_limit=600.0, verified=True)
    assert (reached.status, reached.certificate.verified) == ("gap_reached", True)
    assert reached.certificate.gap <= 1e-6
    assert cnn.certify(problem, reached, verified=True).gap == pytest.approx(reached.certificate.gap, abs=1e-12)
    stopped = cnn.solve(problem, "bm_newton", gap=1e-12, iterations=2, time_limit=600.0, verified=True)
    assert (stopped.status, stopped.certificate.verified) == ("stalled", True)
    assert stopped.curve[-1][1:] == (stopped.certificate.primal, stopped.certificate.gap)
    assert describe_certificate(stopped.certificate)["verified"] == "yes"
    assert describe_certificate(cnn.certify(problem, stopped))["verified"] == "no"


def test_a_table_has_a_column_only_where_bounds_are_verified():
    record = {**blank(), "solver_name": "fista", "problem_name": "a", "verified": "no"}
    assert "verified" not in shown_columns([record])
    assert "verified" in shown_columns([record, {**record, "verified": "yes"}])
    titles, groups = cell_texts([{**record, "seed": 0, "gap": None, "verified": "yes"}])
    assert groups["a"][0][titles.index("verified")] == "yes"


def test_sparse_data_have_verified_bounds_on_the_safe_side_of_a_proof():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 5)) * (rng.random((20, 5)) < 0.4)
    dense, sparse = (cnn.Problem(data, X[:, 0], beta=0.3, patterns=4) for data in (X, scipy.sparse.csr_matrix(X)))
    result = cnn.solve(dense, "bm_newton", iterations=20)
    proof, verified = cnn.prove(dense, result), cnn.certify(sparse, result.blocks, verified=True)
    # The proof has the same multiplier, which it shortens by less.
    assert Fraction(verified.dual) <= proof.bound
    assert Fraction(verified.primal) >= proof.primal
    assert verified.gap <= float(proof.gap) + 1e-12
