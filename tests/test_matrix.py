"""{MLP, CNN, attention} x {linear, gated ReLU, ReLU} x {convex, Burer-Monteiro, network} x five losses: 135 cells.

Every cell is solved and certified on a tiny problem. With linear and gated ReLU activation the three formulations have
one optimum (Sahiner et al., ICLR 2024, section 3). With ReLU and all patterns Burer-Monteiro and the network have one
optimum, and so has the convex program; what is solved of it for vector outputs is its doubly non-negative relaxation,
whose value is a lower bound on it.
"""

import functools
import itertools

import numpy as np
import pytest
from problems import LOSS_NAMES, targets

import convexnn_bench as cnn

ARCHITECTURES = ("mlp", "cnn", "attention")
ACTIVATIONS = ("linear", "gated_relu", "relu")
SOLVERS = {"convex": "cvxpy_clarabel", "burer_monteiro": "bm_lbfgs", "network": "network_lbfgs"}
AGREEMENT = 1e-6  # relative
GAP = 1e-7  # certified, at which a solver is stopped
PROBLEMS = list(itertools.product(ARCHITECTURES, ACTIVATIONS, LOSS_NAMES))
CELLS = list(itertools.product(ARCHITECTURES, ACTIVATIONS, LOSS_NAMES, SOLVERS))


@functools.cache
def problem_of(architecture: str, activation: str, loss: str) -> "cnn.Problem":
    """A tiny problem; scalar outputs where architecture and loss allow, all patterns for ReLU."""
    rng = np.random.default_rng(7)
    shape, choice, rows = {
        "mlp": ((6, 2), cnn.MLP(), 6),
        "cnn": ((4, 1, 2, 3), cnn.CNN(patch=2), 4),
        "attention": ((2, 2, 2), cnn.Attention(), 4),  # one output a token
    }[architecture]
    return cnn.Problem(
        rng.standard_normal(shape),
        targets(loss, rows, 1, rng),
        architecture=choice,
        activation=activation,
        loss=loss,
        beta_fraction=0.1,
        patterns="all" if activation == "relu" else 5,
    )


@functools.cache
def results_of(architecture: str, activation: str, loss: str, formulation: str) -> tuple:
    """One run, or several starts where the objective is not convex and cones leave no guarantee."""
    problem = problem_of(architecture, activation, loss)
    starts = 1 if formulation == "convex" or activation != "relu" else 2
    return tuple(
        cnn.solve(problem, SOLVERS[formulation], gap=GAP, time_limit=600.0, seed=seed) for seed in range(starts)
    )


def least(*cell: str) -> float:
    return min(result.objective for result in results_of(*cell))


def best_bound(*problem: str) -> float:
    """The highest bound proven by any cell of the problem; all of one scope."""
    return max(r.certificate.dual for formulation in SOLVERS for r in results_of(*problem, formulation))


def is_exact(problem: "cnn.Problem") -> bool:
    """Whether the conic program is the convex program: always without a cone or with a scalar output; otherwise where
    no cone has more than four facets, since a doubly non-negative 4 x 4 matrix is completely positive."""
    return not problem.vector_cone or max(len(facets) for facets in problem.cones.facets) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_cell_is_solved_and_certified(cell):
    problem = cell[:3]
    least_of_all = min(least(*problem, other) for other in SOLVERS)
    for result in results_of(*cell):
        assert result.status in ("gap_reached", "solved", "stalled", "time_limit"), result.reason
        certificate = result.certificate
        assert certificate.refused is None
        assert certificate.infeasibility <= 1e-9
        assert certificate.dual <= least_of_all * (1 + 1e-9)
        assert 0 <= certificate.gap < np.inf
        if cell[1] == "relu":
            assert certificate.scope == "complete"


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS, ids="-".join)
def test_the_formulations_agree_or_are_ordered(problem):
    convex, factored, network = (least(*problem, formulation) for formulation in SOLVERS)
    bound = best_bound(*problem)
    assert network == pytest.approx(factored, rel=AGREEMENT)
    if is_exact(problem_of(*problem)):
        assert convex == pytest.approx(factored, rel=AGREEMENT)
        assert bound == pytest.approx(factored, rel=AGREEMENT)
    else:  # the relaxation is below the optimum, and its point, rounded into the cones, above
        assert bound <= factored * (1 + 1e-9)
        assert convex >= factored * (1 - AGREEMENT)
