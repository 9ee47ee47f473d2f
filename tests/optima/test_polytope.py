"""Least changes over polytopes of sizes, against a linear program that knows nothing of groups."""

import numpy as np
import pytest
from scipy.optimize import linprog

from convexnn_bench.optima.polytope import equal_columns, least_changes, null_space


def polytope(groups, rows, seed, copies=4):
    """Orthonormal rows across a polytope of sizes with sum one, with several copies of each column."""
    rng = np.random.default_rng(seed)
    columns = np.vstack([rng.standard_normal((rows - 1, groups)), np.ones((1, groups))])
    M = np.repeat(columns, copies, axis=1)[:, rng.permutation(copies * groups)]
    sizes = rng.random(copies * groups) * (rng.random(copies * groups) < 0.6)
    basis = null_space(M, 1e-9)
    across = np.linalg.svd(basis)[0][:, basis.shape[1] :].T
    return M, across, sizes / sizes.sum(), rng.standard_normal((12, copies * groups))


@pytest.mark.parametrize(("groups", "rows"), [(3, 3), (1, 1), (3, 4), (6, 3), (5, 2)])
def test_least_changes_are_those_of_the_whole_program(groups, rows):
    """As many groups as rows have a closed form, and so have fewer; more of them need a program."""
    M, across, sizes, slopes = polytope(groups, rows, seed=groups)
    assert len(across) == min(groups, rows)
    assert sorted(map(len, equal_columns(across))) == [4] * groups
    expected = [linprog(slope, A_eq=M, b_eq=M @ sizes).fun - slope @ sizes for slope in slopes]
    np.testing.assert_allclose(least_changes(slopes, across, sizes), expected, atol=1e-7)


def test_columns_that_differ_are_no_group():
    across = np.array([[0.5, 0.5 + 1e-12, 0.5 + 1e-6, -0.5]])
    assert [group.tolist() for group in equal_columns(across)] == [[0, 1], [2], [3]]
