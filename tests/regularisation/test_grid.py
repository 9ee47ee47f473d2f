"""A list of weight decays is solved from the largest down, each from the last result."""

import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.regularisation import grid, solve_grid


@pytest.mark.parametrize("solver", ["bm_newton", "cvxpy_clarabel"])
def test_solves_begin_at_the_last_result_where_the_solver_can(solver, monkeypatch):
    starts = []

    def recording(*arguments, start=None, **options):
        starts.append(start)
        return cnn.solve(*arguments, start=start, **options)

    monkeypatch.setattr(grid, "solve", recording)
    problem = random_problem(c=1)
    betas = [fraction * problem.beta_max for fraction in (0.1, 1.0, 0.3)]
    results = list(solve_grid(problem, betas, solver, gap=1e-5))
    assert [result.problem.beta for result in results] == sorted(betas, reverse=True)
    assert all(result.gap <= 1e-5 for result in results)
    assert len({id(result.problem.masks) for result in results}) == 1
    # bm_newton ends at the zero network for beta_max, which is no start
    assert starts == [None, None, results[1] if solver == "bm_newton" else None]
