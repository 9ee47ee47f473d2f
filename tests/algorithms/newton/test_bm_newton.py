"""bm_newton: its derivatives by finite differences, its routes against each other, its optima against CVXPY."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from problems import LOSS_NAMES, random_problem, targets
from textbook import textbook_optimum

import convexnn_bench as cnn
from convexnn_bench.algorithms.newton import system as newton_system
from convexnn_bench.algorithms.newton.matrices import add_rotation_curvatures, hessian_matrix
from convexnn_bench.algorithms.newton.neurons import BlockNeurons, singular_pairs
from convexnn_bench.algorithms.newton.point import PointState
from convexnn_bench.algorithms.newton.preconditioner import KroneckerPreconditioner
from convexnn_bench.algorithms.newton.sizes import best_sizes, nonnegative_minimum
from convexnn_bench.algorithms.newton.system import TYPICAL_PRODUCTS, NewtonSystem, TrialStep
from convexnn_bench.algorithms.newton.trust_region import SHORT_RADIUS, START_RADIUS, TrustRegion, TrustRegionNewton
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem
from convexnn_bench.algorithms.newton.working_set import WorkingSetNewton

ARCHITECTURES = {
    "cnn": lambda rng: (rng.standard_normal((6, 1, 4, 4)), cnn.CNN(patch=2, pool=2), 6),
    "attention": lambda rng: (rng.standard_normal((5, 3, 2)), "attention", 15),
}


def structured(name: str, activation: str, loss: str, seed: int = 0) -> "cnn.Problem":
    rng = np.random.default_rng(seed)
    X, architecture, rows = ARCHITECTURES[name](rng)
    Y = targets(loss, rows, 2, rng)
    Y = Y.reshape(len(X), -1, 2) if rows > len(X) else Y
    return cnn.Problem(
        X, Y, architecture=architecture, activation=activation, loss=loss, beta_fraction=0.05, patterns=6
    )


def somewhere(problem: "cnn.Problem", J: int = 5, seed: int = 0) -> PointState:
    """A point with J neurons in random blocks."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(problem.p, J, generator=g, dtype=torch.float64)
    Y = torch.randn(problem.q, J, generator=g, dtype=torch.float64)
    blocks = torch.randint(problem.P, (J,), generator=g)
    return PointState(WorkingProblem(problem, "cpu"), BlockNeurons(blocks, W, Y / torch.linalg.vector_norm(Y, dim=0)))


def weighted(loss: str, c: int, output_bias: str | None, n: int = 12) -> "cnn.Problem":
    """A problem with sample weights, some of them zero."""
    base = random_problem(3, loss, "gated_relu", n=n, d=3, c=c, patterns=5)
    weights = np.arange(n) % 4 / 2.0
    arguments = {"beta": base.beta, "patterns": base.masks, "sample_weight": weights, "output_bias": output_bias}
    return cnn.Problem(base.X, base.Y, loss=loss, **arguments)


# Every loss with one and with three outputs, and the two architectures with structure; made when a test runs.
PROBLEMS = {
    f"{loss}-{c}": partial(random_problem, 3, loss, "gated_relu", n=12, d=3, c=c, patterns=5)
    for loss in LOSS_NAMES
    for c in (1, 3)
    if c > 1 or loss != "cross_entropy"
} | {
    "cnn": partial(structured, "cnn", "gated_relu", "squared"),
    "attention": partial(structured, "attention", "gated_relu", "logistic"),
    "weighted-1": partial(weighted, "squared", 1, None),
    "weighted-3": partial(weighted, "cross_entropy", 3, "free"),
    "biased-1": partial(weighted, "logistic", 1, "penalised"),
}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]()


def test_gradient_and_hessian_by_central_differences(problem):
    """Along curves w + t a, y cos(t |b| / s) + sin(..) b / |b|, of which the step is the tangent."""
    point = somewhere(problem)
    rng = torch.Generator().manual_seed(1)
    step = torch.randn(problem.p + problem.q, 5, generator=rng, dtype=torch.float64)
    step[problem.p :] = point.tangent(step[problem.p :])

    def along(t: float) -> float:
        a, b = step[: problem.p], step[problem.p :] / point.sizes
        length = torch.linalg.vector_norm(b, dim=0).clamp_min(1e-300)
        Y = point.neurons.right * torch.cos(t * length) + torch.sin(t * length) * b / length
        return PointState(point.working, BlockNeurons(point.neurons.blocks, point.neurons.left + t * a, Y)).value

    h = 1e-4
    first = (along(h) - along(-h)) / (2 * h)
    assert float((point.gradient * step).sum()) == pytest.approx(first, rel=1e-6, abs=1e-6)
    if problem.loss.name in ("huber", "squared_hinge"):
        h = 1e-5  # kinks of the gradient are far away at this distance
    second = (along(h) - 2 * point.value + along(-h)) / h**2
    assert float((point.hessian_product(step) * step).sum()) == pytest.approx(second, rel=2e-4, abs=2e-4)


@pytest.mark.parametrize("problem", sorted(PROBLEMS.keys() - ARCHITECTURES.keys()), indirect=True)
def test_the_hessian_matrix_is_that_of_the_products(problem):
    point = somewhere(problem)
    K = hessian_matrix(point)
    rows = K.shape[0] // 5
    for seed in range(3):
        step = torch.randn(problem.p + problem.q, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        step[problem.p :] = point.tangent(step[problem.p :])
        product = point.hessian_product(step)
        found = (K @ step[:rows].reshape(-1)).view(rows, 5)
        assert torch.allclose(found, product[:rows], atol=1e-9)
        assert rows == problem.p + (problem.q if problem.q > 1 else 0)


def test_products_of_a_few_samples_at_a_time_are_those_of_all(monkeypatch):
    from convexnn_bench.operator import chunks

    problem = weighted("cross_entropy", 2, None, n=30)
    monkeypatch.setattr(chunks, "SMALLEST_PART", 7)
    monkeypatch.setattr(chunks, "PART_ELEMENTS", 8)
    point = somewhere(problem)
    step = torch.randn(problem.p + problem.q, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = point.tangent(step[problem.p :]) / point.sizes
    assert len(point.sample_parts(torch.float64)) == 5
    for one, other in zip(
        point._products_by_samples(step[: problem.p], b, False),
        point._products_by_neurons(step[: problem.p], b),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-12)


def test_products_through_blocks_are_those_through_neurons(problem):
    point = somewhere(problem)
    step = torch.randn(problem.p + problem.q, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = {}
    for way in (True, False):
        point.__dict__["_uses_blocks"] = way
        found[way] = point.hessian_product(step)
    size = float(found[False].abs().max())
    assert torch.allclose(found[True], found[False], rtol=1e-9, atol=1e-11 * size)
    if problem.architecture.name == "mlp":
        point.__dict__["_uses_blocks"] = True
        assert torch.allclose(point.hessian_product(step, single=True), found[False], rtol=1e-3, atol=1e-5 * size)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_products_in_float32_are_those_of_float64(loss):
    problem = random_problem(3, loss, n=30, d=3, patterns=5)
    step = torch.randn(problem.p + problem.q, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    point = somewhere(problem)
    exact, single = point.hessian_product(step), point.hessian_product(step, single=True)
    assert single.dtype == torch.float64
    assert 0 < float((single - exact).abs().max()) < 1e-5 * float(exact.abs().max())


@pytest.mark.slow
def test_float64_takes_over_where_float32_misleads(monkeypatch):
    """Products in float32 are made wrong; the optimum is found all the same."""
    problem = random_problem(3, "cross_entropy", n=30, d=3, patterns=5)
    right = PointState._products_by_samples

    def wrong(point, a, b, single):
        left, other = right(point, a, b, single)
        return (0.1 * left, 0.1 * other) if single else (left, other)

    monkeypatch.setattr(PointState, "_products_by_samples", wrong)
    monkeypatch.setattr("convexnn_bench.algorithms.newton.system.cheapest_route", lambda point, products: "products")
    working = WorkingProblem(problem, "cpu")
    assert WorkingSetNewton(working, 1e-7, lambda neurons, Lambda: True).run() is not None
    assert not working.single


def pair_in_one_block(problem: "cnn.Problem") -> PointState:
    """Two neurons that are the singular pairs of one block, and one of another block."""
    g = torch.Generator().manual_seed(3)
    Z = torch.randn(1, problem.p, problem.q, generator=g, dtype=torch.float64)
    left, values, right = singular_pairs(Z)
    W = torch.cat([left[0, :, :2] * values[0, :2], torch.randn(problem.p, 1, generator=g, dtype=torch.float64)], 1)
    Y = torch.cat([right[0, :, :2], torch.eye(problem.q, 1, dtype=torch.float64)], 1)
    return PointState(WorkingProblem(problem, "cpu"), BlockNeurons(torch.tensor([2, 2, 0]), W, Y))


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_rotations_within_a_block_change_nothing_and_only_they_are_stiffened(loss):
    problem = random_problem(4, loss, n=20, d=4, patterns=4)
    point = pair_in_one_block(problem)
    turn = torch.zeros(problem.p + problem.q, 3, dtype=torch.float64)
    x, y = point.directions, point.neurons.right
    turn[:, 0], turn[:, 1] = torch.cat([x[:, 1], y[:, 1]]), -torch.cat([x[:, 0], y[:, 0]])
    a, b = turn[: problem.p], turn[problem.p :] / point.sizes
    moved = torch.einsum("pj,qj->jpq", a, y) + torch.einsum("pj,qj->jpq", point.neurons.left, b)
    assert float((moved[0] + moved[1]).abs().max()) < 1e-12  # Z does not move
    assert abs(float((point.gradient * turn).sum())) < 1e-9 * float(point.gradient.abs().max())
    gamma = problem.beta / float((point.sizes[0] * point.sizes[1]).sqrt())
    assert torch.allclose(point.model_product(turn) - point.hessian_product(turn), gamma * turn, atol=1e-9 * gamma)
    g = torch.Generator().manual_seed(0)
    other = torch.randn(turn.shape, generator=g, dtype=torch.float64)
    other -= turn * (turn * other).sum() / turn.square().sum()
    assert torch.allclose(point.model_product(other), point.hessian_product(other), atol=1e-9)
    K = hessian_matrix(point)
    before = K.clone()
    add_rotation_curvatures(point, K)
    direction = turn.reshape(-1)
    assert torch.allclose((K - before) @ direction, gamma * direction, atol=1e-9 * gamma)
    assert torch.linalg.matrix_rank(K - before, hermitian=True) == 1


@pytest.mark.slow
def test_the_preconditioner_is_exact_where_all_masks_are_one():
    """There the a-part of the Hessian is (Y^T Y) x Phi^T Phi + beta / s, but for the terms of the direction of w."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((20, 4)), rng.standard_normal((20, 3))
    problem = cnn.Problem(X, Y, activation="gated_relu", patterns=np.ones((20, 2), bool), beta=0.7)
    point = somewhere(problem, J=3)
    gram = point.neurons.right.T @ point.neurons.right
    K = torch.kron(torch.as_tensor(X.T @ X), gram) + torch.diag((problem.beta / point.sizes).repeat(4))
    r = torch.randn(problem.p + problem.q, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.solve(K, r[:4].reshape(-1)).view(4, 3)
    assert torch.allclose(KroneckerPreconditioner(point)(r)[:4], expected, atol=1e-10)


def test_a_neuron_that_a_step_takes_through_zero_leaves_where_f_is_lower_without_it():
    problem = random_problem(4, "squared", n=20, d=4, patterns=4)
    point = pair_in_one_block(problem)
    W = point.neurons.left.clone()
    W[:, 2] *= 1e-9 / point.sizes[2]
    point = PointState(point.working, BlockNeurons(point.neurons.blocks, W, point.neurons.right))
    step = torch.zeros(problem.p + problem.q, 3, dtype=torch.float64)
    step[: problem.p, 2] = -2 * W[:, 2]
    assert point.crosses_zero(step).tolist() == [False, False, True]
    radial = float(point.gradient[: problem.p, 2] @ point.directions[:, 2])
    fewer = TrustRegionNewton(point.working)._without_crossing(point, TrialStep(step, 1.0, False))
    assert (fewer is not None and len(fewer.neurons) == 2) == (radial > 0)
    assert TrustRegionNewton(point.working)._without_crossing(point, TrialStep(-step, 1.0, False)) is None


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_three_routes_give_one_step(loss):
    """With scalar outputs the damped step by the Hessian and by the N x N matrix; the undamped one by products too."""
    problem = random_problem(5, loss, n=40, d=4, c=1, patterns=6, beta_fraction=0.2)
    point = somewhere(problem, J=4)
    system = NewtonSystem(point)
    steps = {}
    for route in ("hessian", "samples"):
        system.route, system._matrix = route, None
        steps[route] = [system.trial_step(mu, 1.0, 1e-12) for mu in (0.5, 1e-3)]
    for one, other in zip(*steps.values(), strict=True):
        assert torch.allclose(one.step, other.step, rtol=1e-6, atol=1e-8)
        assert one.predicted_decrease == pytest.approx(other.predicted_decrease, rel=1e-6)
        model = -float((point.gradient * one.step).sum() + 0.5 * (one.step * point.hessian_product(one.step)).sum())
        assert one.predicted_decrease == pytest.approx(model, rel=1e-8)
    system.route, system._matrix = "hessian", None
    undamped = system.trial_step(0.0, 1.0, 1e-12).step
    system.route = "products"
    assert point.single
    for single, tolerance in ((True, 1e-4), (False, 1e-9)):  # float32 products are as good as float32
        point.working.single = single
        far = system.trial_step(1.0, 1e6, 1e-13)
        assert not far.at_boundary
        assert torch.allclose(far.step, undamped, rtol=tolerance, atol=1e-2 * tolerance)


def test_steps_by_products_stay_within_the_radius():
    problem = random_problem(5, "cross_entropy", n=40, d=4, patterns=6)
    point = somewhere(problem, J=4)
    system = NewtonSystem(point)
    system.route = "products"
    for radius in (1e-3, 0.1, 1.0):
        trial = system.trial_step(1.0, radius, 1e-8)
        length = float((trial.step.square() / point.sizes).sum() / point.sizes.sum()) ** 0.5
        assert length <= radius * (1 + 1e-9)
        assert trial.at_boundary == (length >= radius * (1 - 1e-9))
        model = -float(
            (point.gradient * trial.step).sum() + 0.5 * (trial.step * point.hessian_product(trial.step)).sum()
        )
        assert trial.predicted_decrease == pytest.approx(model, rel=1e-8)
        assert trial.predicted_decrease > 0


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 3, 5), (4, 6, 1), (4, 1, 6), (4, 3, 3)])
def test_top_pairs_are_singular_pairs(shape):
    Z = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    Z[0], Z[1] = 0.0, Z[1, :, :1] @ Z[1, :1, :]  # zero, and of rank one
    left, values, right = singular_pairs(Z)
    assert torch.allclose((left * values[:, None]) @ right.transpose(1, 2), Z, atol=1e-12)
    assert torch.allclose(values, torch.linalg.svdvals(Z), atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_nonnegative_minimum_by_scipy(seed):
    from scipy.optimize import lsq_linear

    rng = np.random.default_rng(seed)
    A = rng.standard_normal((30, 12)) @ np.diag(10.0 ** rng.uniform(-2, 2, 12))
    y = rng.standard_normal(30)
    K, linear = torch.as_tensor(A.T @ A), torch.as_tensor(-A.T @ y)
    expected = lsq_linear(A, y, bounds=(0, np.inf), tol=1e-14).x
    for start in (linear < 0, torch.zeros(12, dtype=torch.bool), torch.ones(12, dtype=torch.bool)):
        assert np.allclose(nonnegative_minimum(K, linear, start), expected, atol=1e-5)


def test_best_sizes_meet_the_conditions_of_the_minimum(problem):
    """Derivative in every size zero where it is positive, and not negative where it is zero."""
    point = somewhere(problem, J=8)
    units = BlockNeurons(point.neurons.blocks, point.directions, point.neurons.right)
    sizes = best_sizes(point.working, units, torch.zeros(8, dtype=torch.float64))

    def value(s: torch.Tensor) -> float:
        return PointState(point.working, BlockNeurons(units.blocks, units.left * (s + 1e-300), units.right)).value

    assert value(sizes) <= value(torch.zeros(8, dtype=torch.float64))
    for j in range(8):
        unit = torch.zeros(8, dtype=torch.float64)
        unit[j] = 1e-6
        up = (value(sizes + unit) - value(sizes)) / 1e-6
        assert up >= -1e-4
        if sizes[j] > 1e-5:
            assert abs(value(sizes + unit) - value(sizes - unit)) / 2e-6 <= 1e-4


def test_merging_and_splitting_keep_the_predictions(problem):
    point = somewhere(problem, J=9)
    merged = PointState(point.working, point.neurons.merged(0.0))
    assert torch.allclose(merged.z, point.z, atol=1e-9)
    assert merged.value <= point.value * (1 + 1e-12)
    U, V = point.neurons.factors(problem.P)
    certificate = cnn.certify(problem, (U.numpy(), V.numpy()))
    assert certificate.primal == pytest.approx(point.value, rel=1e-12)


@pytest.mark.slow
def test_every_newton_step_lowers_the_objective():
    problem = random_problem(7, "cross_entropy", n=30, d=3, patterns=8)
    point, values = somewhere(problem, J=12), []
    TrustRegionNewton(point.working).run(point, 1e-10, 50, lambda there: values.append(there.value) or True)
    assert (np.diff([point.value, *values]) <= 0).all()
    assert len(values) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
@pytest.mark.parametrize("c", [1, 3])
def test_optimum_by_the_textbook_program(loss, activation, c):
    if loss == "cross_entropy" and c == 1:
        c = 2
    if activation == "relu" and c > 1:
        pytest.skip("the textbook program has no vector-output ReLU; tests/test_matrix.py covers it")
    problem = random_problem(4, loss, activation, n=12, d=3 if activation != "relu" else 2, c=c, patterns=6)
    result = cnn.solve(problem, "bm_newton", gap=1e-9, time_limit=300)
    assert result.status == "gap_reached", result.reason
    assert result.objective == pytest.approx(textbook_optimum(problem), rel=2e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("activation", ["linear", "gated_relu"])
@pytest.mark.parametrize("loss", ["squared", "cross_entropy", "huber"])
def test_structured_architectures_against_clarabel(name, activation, loss):
    problem = structured(name, activation, loss)
    result = cnn.solve(problem, "bm_newton", gap=1e-8, time_limit=300)
    assert result.status == "gap_reached", result.reason
    exact = cnn.solve(problem, "cvxpy_clarabel", gap=1e-6)
    assert result.objective == pytest.approx(exact.objective, rel=1e-6)


@pytest.mark.slow
def test_the_spiral_of_the_theory_page():
    problem = cnn.make_problem("spiral", n=45)
    one, other = (cnn.solve(problem, "bm_newton", gap=1e-9) for _ in range(2))
    assert one.objective == pytest.approx(6.4407344, abs=5e-8)
    assert one.status == "gap_reached"
    assert all(np.array_equal(a, b) for a, b in zip(one.factors, other.factors, strict=True))  # same numbers again


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_scales_and_degenerate_data(scale):
    rng = np.random.default_rng(0)
    X = np.hstack([rng.standard_normal((20, 3)), np.ones((20, 1)), np.zeros((20, 1))]) * scale
    X[10:] = X[:10]  # duplicate rows with different targets
    problem = cnn.Problem(X, rng.standard_normal((20, 2)) / scale, beta_fraction=0.05, patterns=9)
    result = cnn.solve(problem, "bm_newton", gap=1e-7, time_limit=300)
    assert result.status == "gap_reached", result.reason


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one sample", "zero optimum", "zero targets"])
def test_corner_cases(case):
    if case == "one sample":
        problem = cnn.Problem(np.array([[1.0, -2.0]]), np.array([3.0]), beta=0.1, patterns="all")
    elif case == "zero optimum":
        problem = random_problem(2, beta_fraction=1.5)
    else:
        problem = cnn.Problem(np.eye(3), np.zeros((3, 2)), beta=0.1, patterns=3)
    result = cnn.solve(problem, "bm_newton", gap=1e-8, time_limit=300)
    assert result.status in ("gap_reached", "stalled"), result.reason
    if case != "one sample":
        assert not np.any(result.blocks)
    assert result.objective - result.certificate.dual <= 1e-8 * (1 + abs(result.objective))


@pytest.mark.slow
def test_relu_beyond_its_size_is_skipped_with_the_way_out():
    rng = np.random.default_rng(0)
    problem = cnn.Problem(rng.standard_normal((20, 60)), rng.standard_normal(20), activation="relu", beta=1, patterns=3)
    result = cnn.solve(problem, "bm_newton")
    assert result.status == "skipped"
    assert "use bm_lbfgs or fista" in result.reason


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")
def test_cuda_gives_the_same_optimum():
    problem = cnn.make_problem("spiral", n=150)
    result = cnn.solve(problem, "bm_newton", gap=1e-7, device="cuda")
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(cnn.solve(problem, "bm_newton", gap=1e-7).objective, rel=1e-7)


def test_each_route_learns_how_short_its_steps_are_from_its_own():
    region = TrustRegion()
    for _ in range(50):
        region.shrink("hessian")
    assert region.radius == TrustRegion().radius
    damping = region.damping
    for _ in range(5):
        region.shrink("products")
    assert region.damping == damping
    assert region.radius < TrustRegion().radius


def test_conjugate_gradients_give_way_where_they_achieve_little():
    """Many products, or a small radius, make a direct solve the cheaper step; direct steps let that fade."""
    region = TrustRegion()
    assert region.cg_products == TYPICAL_PRODUCTS
    long, short = replace(region, products=200.0), replace(region, radius=0.01)
    assert long.cg_products == 200
    assert short.cg_products == TYPICAL_PRODUCTS * START_RADIUS / SHORT_RADIUS
    for learnt in (long, short):
        for _ in range(200):
            learnt.expand("hessian", TrialStep(torch.zeros(1, 1), 1.0, False), 1.0)
        assert learnt.cg_products == TYPICAL_PRODUCTS
    point = somewhere(random_problem(5, "squared", n=3000, d=6, patterns=6), J=60)
    assert [newton_system.cheapest_route(point, products) for products in (TYPICAL_PRODUCTS, 200.0)] == [
        "products",
        "hessian",
    ]


@pytest.mark.slow
def test_a_small_beta_takes_direct_steps(monkeypatch):
    """Where conjugate gradients get nowhere, on a spiral with beta = 0.001 beta_max, most steps are direct ones."""
    problem = cnn.make_problem("spiral", n=150, beta_fraction=1e-3)
    routes = []
    seen = newton_system.cheapest_route

    def counted(point, products):
        routes.append(seen(point, products))
        return routes[-1]

    monkeypatch.setattr(newton_system, "cheapest_route", counted)
    result = cnn.solve(problem, "bm_newton", gap=1e-6, time_limit=300, show_progress=False)
    assert result.status == "gap_reached"
    assert routes.count("hessian") > routes.count("products") > 0
    assert result.objective == pytest.approx(cnn.solve(problem, "cvxpy_clarabel", gap=1e-7).objective, rel=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("route", ["hessian", "products"])
def test_either_route_alone_reaches_the_optimum(monkeypatch, route):
    monkeypatch.setattr("convexnn_bench.algorithms.newton.system.cheapest_route", lambda point, products: route)
    result = cnn.solve(cnn.make_problem("spiral", n=45), "bm_newton", gap=1e-6, time_limit=300, show_progress=False)
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(6.4407344, abs=1e-5)


@pytest.mark.slow
def test_all_neurons_may_leave_in_one_step():
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((5, 6)), np.sign(rng.standard_normal((5, 3)))
    problem = cnn.Problem(X, Y, loss="squared_hinge", beta_fraction=2e-3, patterns=25, seed=0)
    assert cnn.solve(problem, "bm_newton", gap=1e-6, time_limit=300, show_progress=False).status == "gap_reached"
    point = pair_in_one_block(random_problem(4, "squared", n=20, d=4, patterns=4))
    step = torch.cat([-2 * point.neurons.left, torch.zeros_like(point.neurons.right)])
    assert len(point.moved(step)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["huber", "squared_hinge", "squared"])
def test_one_feature_and_several_outputs(loss):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 1))
    problem = cnn.Problem(X, targets(loss, 20, 3, rng), loss=loss, beta_fraction=0.05, patterns="all")
    result = cnn.solve(problem, "bm_newton", gap=1e-6, time_limit=300, show_progress=False)
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(textbook_optimum(problem), rel=2e-6)


@pytest.mark.slow
def test_zero_targets_end_the_run_without_a_gap_to_reach():
    problem = random_problem(6)
    still = cnn.Problem(problem.X, np.zeros_like(problem.Y), beta=1.0, patterns=problem.masks)
    result = cnn.solve(still, "bm_newton", gap=None, time_limit=300, show_progress=False)
    assert result.status == "solved"
    assert result.objective == 0


@pytest.mark.slow
@pytest.mark.parametrize("c", [1, 3])
def test_the_model_of_a_flat_loss_gets_a_floor(c):
    """Huber where all residuals are large: F'' = 0, and the model is that of F'' = floor L in products and matrix."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 4)), 100 * rng.standard_normal((40, c))
    problem = cnn.Problem(X, Y, loss="huber", beta_fraction=0.02, patterns=10, seed=0)
    point = somewhere(problem, J=4)
    step = torch.randn(point.gradient.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step[problem.p :] = point.tangent(step[problem.p :])
    flat = point.hessian_product(step)
    point.working.curvature_floor = 0.1
    point = PointState(point.working, point.neurons)
    a, b = step[: problem.p], point.tangent(step[problem.p :]) / point.sizes
    H = point.operator.first_layer(a) * point.masks
    dz = H @ point.neurons.right.T + point.hidden @ b.T
    added = float(((point.hessian_product(step) - flat) * step).sum())
    assert added == pytest.approx(0.1 * float(dz.square().sum()), rel=1e-9)
    K = hessian_matrix(point)
    rows = K.shape[0] // 4
    assert torch.allclose((K @ step[:rows].reshape(-1)).view(rows, 4), point.hessian_product(step)[:rows], atol=1e-8)
    point.working.curvature_floor = 0.0
    result = cnn.solve(problem, "bm_newton", gap=1e-6, time_limit=300, show_progress=False)
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(textbook_optimum(problem), rel=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("beta_fraction", [1e-4, 1e-6])
def test_a_small_beta_is_come_to_by_steps(c, beta_fraction):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((30, 3)), rng.standard_normal((30, c))
    problem = cnn.Problem(X, Y, loss="squared", beta_fraction=beta_fraction, patterns=20, seed=0)
    result = cnn.solve(problem, "bm_newton", gap=1e-6, time_limit=300, show_progress=False)
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(cnn.solve(problem, "cvxpy_clarabel").objective, rel=1e-5)
    working = WorkingProblem(problem, "cpu")
    assert WorkingSetNewton(working, 0.5, lambda neurons, Lambda: True).run() is not None
    assert working.beta < 1e-3 * problem.beta_max  # it stops at any beta whose point is good enough for its own


@pytest.mark.parametrize("activation", ["linear", "gated_relu"])
@pytest.mark.parametrize("architecture", [cnn.CNN(patch=1, pool=1), cnn.CNN(patch=2, pool=1, padding=1, bias=True)])
@pytest.mark.parametrize("c", [1, 2])
def test_the_pullback_of_a_pooled_image_may_share_memory(architecture, activation, c):
    """One image, averaged by sums: the gradient of its mean is one number, repeated."""
    X = np.random.default_rng(0).standard_normal((1, 2, 3, 3))
    problem = cnn.Problem(X, np.ones((1, c)), architecture, activation, beta_fraction=0.01, patterns=4)
    assert cnn.solve(problem, "bm_newton", iterations=60, time_limit=None).certificate.gap < 1e-6
