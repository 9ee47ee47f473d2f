"""A conic solver is not started where compiling and one factorisation do not fit into the time that is left."""

import numpy as np
import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic import program
from convexnn_bench.algorithms.conic.cost import (
    COMPILED_ENTRY,
    INEQUALITY,
    INTERIOR_POINT,
    PRIMAL_ENTRY,
    SPLITTING,
    Cost,
)
from convexnn_bench.algorithms.conic.maps import adjoint_map, facet_rows
from convexnn_bench.algorithms.conic.program import build_program
from convexnn_bench.deadline import OutOfTime, deadline


def gated(n, d, c, patterns):
    rng = np.random.default_rng(0)
    return cnn.Problem(rng.standard_normal((n, d)), rng.standard_normal((n, c)), beta=0.1, patterns=patterns)


@pytest.mark.parametrize("c", [1, 3])
def test_the_operations_are_those_of_a_dense_elimination(c):
    """A row of R has an entry for each active sample, and each output its own matrix for a splitting method."""
    problem = gated(30, 4, c, 12)
    active = problem.masks.sum(axis=0).astype(float)
    eliminate = problem.p * c * np.sum(active**2)
    cost = Cost.of(problem, adjoint_map(problem, tree=False), interior_point=True)
    assert cost.compile == pytest.approx(COMPILED_ENTRY * problem.p * c * active.sum())
    assert cost.factorise == pytest.approx(INTERIOR_POINT * (eliminate + (30 * c) ** 3 / 3))
    cost = Cost.of(problem, adjoint_map(problem, tree=False), interior_point=False)
    assert cost.factorise == pytest.approx(SPLITTING * (eliminate + c * 30**3 / 3))


def test_the_cheaper_order_counts_and_a_tree_costs_no_factorisation():
    linear = cnn.Problem(np.ones((40, 3)), np.ones((40, 2)), activation="linear", beta=0.1)
    cost = Cost.of(linear, adjoint_map(linear, tree=False), interior_point=True)
    assert cost.factorise == pytest.approx(INTERIOR_POINT * (80 * 3.0**2 + 6**3 / 3))
    spiral = cnn.make_problem("spiral", n=60)
    assert Cost.of(spiral, adjoint_map(spiral), interior_point=True).factorise == 0.0


@pytest.mark.parametrize("interior_point", [True, False])
def test_a_program_that_does_not_fit_into_the_time_is_not_compiled(interior_point):
    """Half a million entries and 2e9 operations: two seconds and five."""
    problem = gated(300, 10, 6, 60)
    with deadline(0.5, lambda: 0.0), pytest.raises(OutOfTime, match=r"coefficients, .* takes about .* s, where 0\.5 s"):
        build_program(problem, interior_point)


@pytest.mark.parametrize("c", [1, 3])
def test_every_program_states_its_cost(c, monkeypatch):
    """The primal program by its coefficients, the relaxation by its inequalities and pairs of facets."""
    rng = np.random.default_rng(0)
    relu = cnn.Problem(
        rng.standard_normal((20, 4)), rng.standard_normal((20, c)), activation="relu", beta=0.1, patterns=5
    )
    map_, facets = adjoint_map(relu, tree=False), [len(rows) for rows in relu.cones.facets]
    cost = build_program(relu).cost
    if c == 1:
        entries = 2 * (map_.R.nnz + facet_rows(relu).nnz)
        assert entries == 2 * 4 * (relu.masks.sum() + sum(facets))
        assert cost == Cost(COMPILED_ENTRY * entries, PRIMAL_ENTRY * entries)
    else:
        pairs = sum(F * (F - 1) // 2 for F in facets)
        alone = Cost.of(relu, map_, interior_point=True)
        assert cost.compile == pytest.approx(alone.compile + COMPILED_ENTRY * pairs * 16)
        operations = 5 * 28.0**3 / 3 + pairs * 10.0**2  # triangles of 7 x 7 and of 4 x 4 matrices
        assert cost.factorise == pytest.approx(alone.factorise + INEQUALITY * operations)
    # Neither is stated where that takes too long: CVXPY is not reached.
    monkeypatch.setattr(program, "cone_frames" if c == 1 else "norm_cone_lmi", None)
    monkeypatch.setattr("cvxpy.Problem", None)
    with deadline(1e-9, lambda: 0.0), pytest.raises(OutOfTime, match="coefficients"):
        build_program(relu)


@pytest.mark.parametrize(("d", "c", "count", "size"), [(8, 6, 3, 14), (60, 2, 180, 3)])
def test_matrix_inequalities_cost_an_interior_point_method_the_cube_of_their_triangle(d, c, count, size):
    """One inequality of size 8 + 6 a block, or sixty of size 2 + 1."""
    problem = gated(20, d, c, 3)
    more, map_ = INEQUALITY * count * (size * (size + 1) / 2) ** 3 / 3, adjoint_map(problem)
    alone = Cost.of(problem, map_, interior_point=True).factorise
    assert build_program(problem).cost.factorise == pytest.approx(alone + more)
    split = Cost.of(problem, map_, interior_point=False)
    assert build_program(problem, interior_point=False).cost == split


@pytest.mark.parametrize("name", ["cvxpy_clarabel", "cvxpy_scs"])
def test_the_iterations_end_a_step_before_the_time_limit(name):
    pytest.importorskip(name.partition("_")[2])
    solver = cnn.SOLVERS.make(name)
    solver.set_problem(random_problem(1))
    assert solver.seconds is None
    assert not any("time_limit" in option for option in solver.options())
    solver.time_limit = 10.0
    given = next(value for option, value in solver.options().items() if "time_limit" in option)
    assert given == solver.seconds
    assert 8.0 < given < 9.0
    solver.time_limit = 1e-6
    assert solver.seconds > 0
