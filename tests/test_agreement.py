"""Four routes to one optimum, and the exact solver on every problem of the quickstart."""

import itertools

import pytest
from problems import combinations, random_problem

import convexnn_bench as cnn
from convexnn_bench.harness.campaign import find_campaign, load_campaign
from convexnn_bench.harness.plan import plan

QUICKSTART = {cell.problem_name: cell for cell in plan(*load_campaign(find_campaign("quickstart")))}


@pytest.mark.slow
@pytest.mark.parametrize("pair", combinations(), ids="-".join)
def test_conic_proximal_and_factored_solvers_agree_to_what_their_gaps_allow(pair):
    """Objectives differ by no more than the two certified gaps, and no bound exceeds another's objective."""
    problem = random_problem(12, *pair, n=10, d=2, patterns="all", beta_fraction=0.1)
    names = ["cvxpy_clarabel", "cvxpy_scs", "fista", "bm_lbfgs"]
    results = [cnn.solve(problem, name, gap=1e-7, iterations=3000, time_limit=600) for name in names]
    assert results[0].gap <= 1e-6
    # with cones L-BFGS takes longer than a second: its gap is wide then, and what it allows holds all the same
    assert all(result.gap <= 1e-3 for result in (results[:3] if problem.has_cone else results))
    for one, other in itertools.permutations(results, 2):
        assert one.certificate.dual <= other.objective
        allowed = max(one.certificate.absolute_gap, other.certificate.absolute_gap)
        assert abs(one.objective - other.objective) <= allowed


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICKSTART)
def test_clarabel_certifies_every_quickstart_problem(name):
    cell = QUICKSTART[name]
    problem = cnn.make_problem(cell.dataset, **cell.problem_arguments)
    result = cnn.solve(problem, "cvxpy_clarabel", gap=1e-6, time_limit=600)
    assert result.status == "gap_reached"
    assert result.gap <= 1e-6
