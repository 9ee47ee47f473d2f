"""First-order solvers against the textbook optimum: never below it, and no further above than their gap allows."""

import numpy as np
import pytest
import torch
from problems import combinations, random_problem
from textbook import textbook_optimum

import convexnn_bench as cnn
from convexnn_bench.algorithms.descent.methods import lbfgs, momentum_sgd

SOLVERS = (
    *("fista", "bm_gd", "bm_scaled_gd", "bm_adam", "bm_lbfgs"),
    *("network_gd", "network_sgd", "network_adam", "network_lbfgs"),
)
LINE_SEARCH = ("bm_gd", "bm_scaled_gd", "network_gd", "bm_lbfgs", "network_lbfgs")  # each step lowers the objective
NO_CONES = ("bm_scaled_gd",)
PAIRS = combinations()


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def solved(request):
    """(problem, its optimum by the textbook program) for every loss and activation."""
    problem = random_problem(1, *request.param, n=9, d=2, patterns="all")
    return problem, textbook_optimum(problem)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_objective_bound_and_optimum(solved, solver):
    problem, optimum = solved
    result = cnn.solve(problem, solver, gap=1e-5, iterations=100, time_limit=None)
    if problem.has_cone and solver in NO_CONES:
        assert result.status == "skipped"
        assert "ReLU" in result.reason
        return
    slack = 1e-8 * (1 + optimum)  # what Clarabel's tolerance leaves open
    certificate = result.certificate
    assert result.status in ("gap_reached", "stalled")
    assert certificate.refused is None
    assert certificate.dual <= optimum + slack
    assert min(objective for _, objective, _ in result.curve) >= optimum - slack
    assert result.objective - optimum <= certificate.gap * abs(certificate.dual) + slack
    assert certificate.infeasibility <= 1e-8
    if solver in LINE_SEARCH and not (solver == "bm_lbfgs" and problem.has_cone):  # its penalty moves
        objectives = np.array([objective for _, objective, _ in result.curve])
        assert (np.diff(objectives) <= 1e-12 * objectives[:-1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["fista", "bm_lbfgs", "network_lbfgs"])
@pytest.mark.parametrize("loss", ["squared", "cross_entropy", "logistic", "squared_hinge", "huber"])
@pytest.mark.parametrize("activation", ["linear", "gated_relu"])
def test_a_small_gap_on_tiny_problems(solver, loss, activation):
    problem = random_problem(2, loss, activation, n=10, d=3, patterns=6)
    result = cnn.solve(problem, solver, gap=1e-4, time_limit=600)
    assert result.status == "gap_reached", result.reason
    assert result.certificate.gap <= 1e-4
    optimum = textbook_optimum(problem)
    assert 0 <= result.objective - optimum + 1e-8 * (1 + optimum) <= 2e-4 * optimum


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "gap"), [("fista", 1e-2), ("bm_gd", 3e-2)])
@pytest.mark.parametrize("loss", ["squared", "logistic", "squared_hinge", "huber"])
def test_a_small_gap_under_relu(solver, gap, loss):
    problem = random_problem(3, loss, "relu", n=9, d=2, patterns="all")
    result = cnn.solve(problem, solver, gap=gap, time_limit=600)
    assert result.status == "gap_reached", result.reason
    assert result.certificate.infeasibility <= 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["bm_gd", "bm_adam", "bm_lbfgs"])
@pytest.mark.parametrize("seed", range(3))
def test_relu_factors_end_in_their_cones(solver, seed):
    """Checked against the rows of (2 D_k - I) X themselves, for every point that is scored."""
    problem = random_problem(10 + seed, "squared", "relu", n=15, d=3, patterns=8)
    signs = 2.0 * problem.masks.T[:, :, None] - 1  # P x N x 1
    result = cnn.solve(problem, solver, gap=1e-6, iterations=100, time_limit=None, seed=seed)
    U, _ = result.factors
    slack = signs * (problem.X @ U)
    assert slack.min() >= -1e-8 * np.abs(slack).max()
    assert result.certificate.infeasibility <= 1e-8
    # inside the cones the gated prediction is that of a ReLU network
    W1, W2 = result.network
    np.testing.assert_allclose(
        np.maximum(problem.X @ W1, 0) @ W2.T,
        problem.operator().apply_factors(*map(torch.as_tensor, result.factors)),
        atol=1e-7,
    )


@pytest.mark.slow
def test_more_columns_than_needed_do_no_harm():
    problem = random_problem(4, n=10, d=3, c=2, patterns=5)
    optimum = textbook_optimum(problem)
    for m in (2, 5):
        result = cnn.solve(problem, "bm_lbfgs", m=m, gap=1e-5, time_limit=600)
        assert result.objective == pytest.approx(optimum, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4, 1000])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_minibatches_come_close(batch, momentum):
    problem = random_problem(5, n=12, d=2, patterns=4, beta_fraction=0.2)
    result = cnn.solve(
        problem, "network_sgd", batch=batch, momentum=momentum, gap=0.02, iterations=1000, time_limit=None
    )
    optimum = textbook_optimum(problem)
    assert result.status in ("gap_reached", "stalled")
    assert optimum * (1 - 1e-8) <= result.objective <= 1.05 * optimum
    # an epoch that diverges is cut short
    assert max(objective for _, objective, _ in result.curve) < 1e8 * optimum


@pytest.mark.slow
def test_a_solver_that_cannot_start_is_no_endless_loop():
    """A start at which nothing moves: zero targets, so the zero network is optimal."""
    problem = random_problem(6)
    still = cnn.Problem(problem.X, np.zeros_like(problem.Y), beta=0.1, patterns=problem.masks)
    for solver in SOLVERS:
        result = cnn.solve(still, solver, gap=1e-6, iterations=60, time_limit=None)
        assert result.objective >= 0
        if solver == "fista":
            assert result.status == "gap_reached"


# -- the algorithms on functions whose minimum is known ------------------------------------------------------


def quadratic(scale: float):
    """f(x) = scale / 2 x^T A x with A of condition 100, minimum 0 at 0; and a start point."""
    A = torch.diag(torch.logspace(-2, 0, 12, dtype=torch.float64))
    return lambda x: (0.5 * scale * x @ A @ x, scale * A @ x)


@pytest.mark.parametrize("unit", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_lbfgs_does_not_care_for_units(unit, scale):
    """The same steps whatever the units of f and x, apart from rounding."""
    f, x = quadratic(scale), unit * torch.ones(12, dtype=torch.float64)
    steps: list[torch.Tensor] = []

    def step_done(point: torch.Tensor) -> bool:
        steps.append(point.clone())
        return len(steps) <= 60

    lbfgs(f, x, step_done)
    values = torch.stack([f(point)[0] for point in steps]) / f(x)[0]
    assert (values.diff() <= 0).all()
    assert values[-1] < 1e-12


# -- GPU -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
def test_cuda_gives_certified_points(solver, activation):
    """The same problem on the GPU: certified on the CPU, in agreement with the optimum; arrays come back as numpy."""
    problem = random_problem(1, "squared", activation, n=9, d=2, patterns="all")
    optimum = textbook_optimum(problem)
    result = cnn.solve(problem, solver, gap=1e-4, time_limit=3, device="cuda")
    if problem.has_cone and solver in NO_CONES:
        assert result.status == "skipped"
        return
    assert result.device.startswith("cuda")
    assert result.status in ("gap_reached", "time_limit", "stalled")
    assert isinstance(result.blocks, np.ndarray)
    assert result.objective >= optimum - 1e-8 * (1 + optimum)
    assert result.certificate.dual <= optimum + 1e-8 * (1 + optimum)
    assert result.curve[-1][0] <= result.solve_seconds + 1e-3


@pytest.mark.parametrize("height", [2.0**-12, 2.0**-40])
def test_minibatch_steps_do_not_depend_on_a_small_unit_of_the_objective(height):
    """The first step moves x by about its own length, where a step of one would take for ever."""
    centre = torch.linspace(1.0, 2.0, 5, dtype=torch.float64)
    visited = []

    def objective(x):
        return 0.5 * height * (x - centre).square().sum(), height * (x - centre)

    def step_done(x):
        visited.append(x.clone())
        return len(visited) < 300

    start = torch.full((5,), 0.1, dtype=torch.float64)
    gradient = [lambda x: objective(x)[1]]
    momentum_sgd(objective, lambda generator: gradient, start, step_done, momentum=0.5, seed=0, decay=height)
    assert torch.linalg.vector_norm(visited[-1] - centre) <= 1e-3 * torch.linalg.vector_norm(centre)
