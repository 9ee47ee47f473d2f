"""Every form of the conic program states the same program; its sparse maps are the operator's adjoint."""

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic.maps import adjoint_map, facet_rows, spanning_tree
from convexnn_bench.algorithms.conic.program import build_program, dual_program, primal_cone_program
from convexnn_bench.norms.conic_forms import norm_form, symmetric_places


class Pooling(cnn.BaseArchitecture):
    """Each sample has two tokens; C adds the tokens' rows with weights and mixes 2 q columns into c outputs."""

    name = "test_pooling"

    def check_data(self, X):
        assert X.ndim == 3

    def phi_rows(self, X):
        return X.reshape(-1, X.shape[2])

    def width_out(self, X, c):
        return 2 * c

    def second_layer(self, M, X, c):
        tokens = M.reshape(X.shape[0], 2, 2, c)
        weights = torch.tensor([[1.0, 0.5], [-0.3, 2.0]], dtype=M.dtype, device=M.device)
        return torch.einsum("ntac,ta->nc", tokens, weights)


def pooling_problem(c, patterns="all"):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((8, 2, 2)), rng.standard_normal((8, c))
    return cnn.Problem(X, Y, architecture=Pooling(), beta_fraction=0.1, patterns=patterns)


def solved(program):
    program.program.solve(
        solver=cp.CLARABEL, canon_backend="SCIPY", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10
    )
    return program.point()


PROBLEMS = {
    "mlp": lambda: random_problem(0, n=15, d=3, c=2, patterns=20),
    "mlp, all patterns": lambda: random_problem(0, n=12, d=2, c=3, patterns="all"),
    "pooling": lambda: pooling_problem(2),
    "pooling, sampled": lambda: pooling_problem(1, 5),
    "linear": lambda: random_problem(0, activation="linear"),
}


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_maps_are_the_adjoint(make, tree):
    problem = make()
    map_ = adjoint_map(problem, tree)
    L = np.random.default_rng(2).standard_normal(problem.Y.shape)
    G = map_.R @ L.ravel()
    if map_.T is not None:
        assert tree
        G = scipy.sparse.linalg.spsolve(map_.T.tocsc(), G)
    expected = problem.operator().adjoint(torch.as_tensor(L)).numpy()
    np.testing.assert_allclose(G, expected.ravel(), atol=1e-12)


def test_the_tree_is_taken_where_it_pays():
    complete = cnn.make_problem("spiral", n=60, beta_fraction=0.1)
    map_ = adjoint_map(complete)
    assert map_.T is not None
    # neighbouring cells differ in one point, so the tree is a path that flips one row at a time
    assert map_.R.nnz <= (complete.P + complete.N) * complete.p * complete.q
    assert adjoint_map(random_problem(0, n=60, d=10, patterns=20)).T is None


def test_spanning_tree_length_on_masks_known_by_hand():
    masks = np.array([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]], dtype=bool)
    parent, length = spanning_tree(masks)
    # 100 - 110 - 111 are one step each, 001 is two from its nearest, and the root, a single one, counts one
    assert length == 5
    assert list(parent).count(-1) == 1


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (3, 3)])
@pytest.mark.parametrize("form", ["lmi", "rowlmi"])
@pytest.mark.parametrize("tree", [False, True])
def test_matrix_forms_agree(form, tree, shape):
    d, c = shape
    problem = random_problem(1, n=12, d=d, c=c, patterns=8)
    reference = cnn.certify(problem, solved(build_program(problem)))
    certificate = cnn.certify(problem, solved(dual_program(problem, adjoint_map(problem, tree), form)))
    assert certificate.gap <= 1e-6
    assert certificate.primal == pytest.approx(reference.primal, rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("patterns", ["all", 6])
@pytest.mark.parametrize("loss", ["squared", "logistic", "squared_hinge", "huber"])
def test_cone_forms_agree(loss, patterns):
    problem = random_problem(3, loss=loss, activation="relu", n=14, d=2, patterns=patterns, beta_fraction=0.05)
    flat = adjoint_map(problem, False)
    programs = [
        primal_cone_program(problem, flat),
        primal_cone_program(problem, flat, reduce=False),
        dual_program(problem, flat, "soc"),
        dual_program(problem, adjoint_map(problem, True), "soc"),
    ]
    certificates = [cnn.certify(problem, solved(program)) for program in programs]
    for certificate in certificates:
        assert certificate.gap <= 1e-6
        assert certificate.infeasibility <= 1e-8
        assert certificate.primal == pytest.approx(certificates[0].primal, rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize("patterns", ["all", 5])
def test_an_architecture_with_its_own_second_layer(c, patterns):
    problem = pooling_problem(c, patterns)
    assert cnn.certify(problem, solved(build_program(problem))).gap <= 1e-6


@pytest.mark.slow
def test_one_row_blocks_are_vectors():
    problem = random_problem(2, n=10, d=1, c=3, patterns="all")
    assert norm_form(problem.p, problem.q) == "soc"
    assert cnn.certify(problem, solved(build_program(problem))).gap <= 1e-6


def test_small_inequalities_where_one_side_is_much_longer():
    assert norm_form(60, 2) == "rowlmi"
    assert norm_form(60, 2, interior_point=False) == "lmi"
    assert norm_form(2, 3) == norm_form(16, 10) == "lmi"


def test_facet_rows_describe_the_cones():
    problem = random_problem(4, activation="relu", n=20, d=3, patterns=5)
    all_rows, facets = facet_rows(problem, reduce=False), facet_rows(problem)
    assert facets.shape[0] < all_rows.shape[0] == 20 * problem.P
    u = np.random.default_rng(0).standard_normal((4000, problem.p))
    for k in range(problem.P):
        columns = slice(k * problem.p, (k + 1) * problem.p)
        inside = [(rows.toarray()[:, columns] @ u.T >= 0).all(axis=0) for rows in (all_rows, facets)]
        np.testing.assert_array_equal(*inside)


def test_symmetric_places():
    place = symmetric_places(np.array([0, 1]), np.array([0, 1]), np.array([1, 1]), 2, 2)
    np.testing.assert_array_equal((place @ np.array([5.0, 7.0])).reshape(2, 2, 2), [[[0, 5], [5, 0]], [[0, 0], [0, 7]]])
