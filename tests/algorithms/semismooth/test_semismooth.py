"""semismooth_newton: against CVXPY's optimum, its pieces against finite differences and explicit matrices."""

import numpy as np
import pytest
import torch
from problems import LOSS_NAMES, random_problem, targets
from textbook import textbook_optimum

import convexnn_bench as cnn
from convexnn_bench.algorithms.semismooth import system as system_module
from convexnn_bench.algorithms.semismooth import working_set
from convexnn_bench.algorithms.semismooth.method import SemismoothNewton
from convexnn_bench.algorithms.semismooth.prox import Shrinkage
from convexnn_bench.algorithms.semismooth.system import SemismoothSystem, SystemHistory
from convexnn_bench.formulations.convex import soft_threshold

SHAPES = [(4, 3), (3, 4), (5, 1), (1, 4), (3, 3), (2, 3)]


def solve(problem: cnn.Problem, gap: float | None = 1e-9, **options) -> cnn.Result:
    return cnn.solve(problem, "semismooth_newton", gap=gap, time_limit=300, show_progress=False, **options)


def cases() -> list[tuple[str, str, int]]:
    """Every loss with linear and gated activations, scalar and vector outputs where the loss has them."""
    return [
        (loss, activation, c)
        for loss in LOSS_NAMES
        for activation in ("linear", "gated_relu")
        for c in (1, 3)
        if not (loss == "cross_entropy" and c == 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "activation", "c"), cases())
def test_the_optimum_is_that_of_cvxpy(loss, activation, c):
    problem = random_problem(3, loss, activation, n=14, d=3, c=c, beta_fraction=0.1, patterns=8)
    result = solve(problem)
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(textbook_optimum(problem), rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.05, 0.5])
def test_losses_whose_curvature_vanishes_on_most_samples(delta):
    """Huber far from its targets, and squared hinge with large margins: W is singular."""
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((40, 4)), 3 * rng.standard_normal((40, 2))
    huber = cnn.Problem(X, Y, loss=cnn.Huber(delta=delta), beta_fraction=0.05, patterns=20)
    hinge = cnn.Problem(X, np.sign(X @ rng.standard_normal((4, 2))), loss="squared_hinge", beta=0.01, patterns=20)
    for problem in (huber, hinge):
        assert solve(problem, gap=1e-8).status == "gap_reached"


@pytest.mark.slow
def test_fitted_labels_under_cross_entropy():
    rng = np.random.default_rng(6)
    X = rng.standard_normal((40, 4))
    problem = cnn.Problem(X, np.argmax(X[:, :3], axis=1), loss="cross_entropy", beta_fraction=1e-4, patterns=20)
    assert solve(problem, gap=1e-7).status == "gap_reached"


# -- the proximal map and its generalised Jacobian ---------------------------------------------------------------------


@pytest.mark.parametrize(("p", "q"), SHAPES)
def test_jacobian_is_the_derivative_of_the_prox(p, q):
    rng, tau, step = np.random.default_rng(p + 10 * q), 1.2, 1e-6
    V, H = torch.as_tensor(rng.standard_normal((12, p, q))), torch.as_tensor(rng.standard_normal((12, p, q)))
    shrinkage = Shrinkage(V, tau)
    active = shrinkage.active
    assert len(active) > 0
    prox = torch.zeros_like(V)
    prox[active] = shrinkage.Z
    torch.testing.assert_close(prox, soft_threshold(V, tau), rtol=0, atol=1e-13)
    difference = (soft_threshold(V + step * H, tau) - soft_threshold(V - step * H, tau)) / (2 * step)
    exact = torch.zeros_like(V)
    exact[active] = shrinkage.jacobian(H[active])
    torch.testing.assert_close(exact, difference, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("p", "q"), SHAPES)
def test_three_forms_of_the_jacobian_agree(p, q):
    rng = np.random.default_rng(p + 10 * q)
    V = torch.as_tensor(rng.standard_normal((12, p, q)))
    shrinkage = Shrinkage(V, 1.2)
    H = torch.as_tensor(rng.standard_normal((len(shrinkage.active), p, q)))
    plain = shrinkage.jacobian(H)
    E, owner = shrinkage.eigenmatrices()
    assert len(E) == shrinkage.rank
    inner = (E * H[owner]).sum(dim=(1, 2))
    torch.testing.assert_close(torch.zeros_like(H).index_add(0, owner, inner[:, None, None] * E), plain)
    U, W = shrinkage.factors()
    owner = shrinkage.directions[0]
    S, T = shrinkage.jacobian_factors(H[owner] @ W, H[owner].transpose(1, 2) @ U)
    parts = U @ T.transpose(1, 2) + S @ W.transpose(1, 2)
    torch.testing.assert_close(torch.zeros_like(H).index_add(0, owner, parts), plain)


@pytest.mark.parametrize(("p", "q"), [(4, 3), (3, 4), (3, 3)])
def test_equal_singular_values(p, q):
    """Equal ones above tau, one below, in random bases: the prox is differentiable there."""
    rng, tau, step = np.random.default_rng(7), 1.0, 1e-6
    left, right = (np.linalg.qr(rng.standard_normal((size, 3)))[0] for size in (p, q))
    V = torch.as_tensor((left * [2.0, 2.0, 0.5]) @ right.T)[None]
    H = torch.as_tensor(rng.standard_normal((1, p, q)))
    difference = (soft_threshold(V + step * H, tau) - soft_threshold(V - step * H, tau)) / (2 * step)
    shrinkage = Shrinkage(V, tau)
    torch.testing.assert_close(shrinkage.jacobian(H), difference, rtol=0, atol=1e-7)
    E, _ = shrinkage.eigenmatrices()
    torch.testing.assert_close(
        torch.einsum("epq,e->pq", E, (E * H).sum(dim=(1, 2)))[None], difference, rtol=0, atol=1e-7
    )


@pytest.mark.parametrize(("p", "q"), SHAPES)
def test_the_preimage_is_mapped_to_the_proximal_point(p, q):
    V = torch.as_tensor(np.random.default_rng(p + 10 * q).standard_normal((12, p, q)))
    shrinkage = Shrinkage(V, 1.2)
    torch.testing.assert_close(soft_threshold(shrinkage.preimage(30.0), 30.0), shrinkage.Z, rtol=0, atol=1e-12)


# -- the Newton system -------------------------------------------------------------------------------------------------


def structured(name: str) -> cnn.Problem:
    rng = np.random.default_rng(8)
    if name == "cnn":
        X, Y = rng.standard_normal((12, 2, 4, 4)), rng.standard_normal((12, 2))
        return cnn.Problem(X, Y, architecture=cnn.CNN(patch=2, pool=2), beta_fraction=0.05, patterns=6)
    if name == "attention":
        X, Y = rng.standard_normal((8, 3, 2)), rng.standard_normal((8, 3, 2))
        return cnn.Problem(X, Y, architecture="attention", beta_fraction=0.05, patterns=6)
    loss, c = name.split("-")
    return random_problem(2, loss, n=12, d=4, c=int(c), beta_fraction=0.05, patterns=6)


NAMES = ["squared-1", "logistic-1", "squared_hinge-1", "huber-3", "cross_entropy-3", "logistic-2", "cnn", "attention"]


def product(system: SemismoothSystem, x: torch.Tensor) -> torch.Tensor:
    """x + sigma A M A^* W x."""
    return x + system.sigma * system.push(system.weigh(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_routes_agree_with_the_explicit_matrix(name):
    """A M A^* column by column from the operator, W from its products; and every route that applies."""
    problem = structured(name)
    operator, rng = problem.operator(), np.random.default_rng(9)
    V = torch.as_tensor(rng.standard_normal((problem.P, problem.p, problem.q)))
    shrinkage = Shrinkage(V, 1.0)
    part = operator.on_blocks(shrinkage.active)
    z = torch.as_tensor(rng.standard_normal(problem.Y.shape))
    curve, sigma = problem.loss.curvature(z, operator.Y), 0.7
    size = problem.Y.size
    units = torch.eye(size, dtype=z.dtype).view(size, *z.shape)
    S = torch.stack([part.apply(shrinkage.jacobian(part.adjoint(unit))).flatten() for unit in units], dim=1)
    W = torch.stack([curve(unit[:, :, None])[:, :, 0].flatten() for unit in units], dim=1)
    b = torch.as_tensor(rng.standard_normal(problem.Y.shape))
    exact = torch.linalg.solve(torch.eye(size, dtype=z.dtype) + sigma * S @ W, b.flatten()).view(b.shape)
    system = SemismoothSystem(part, shrinkage, curve, sigma, SystemHistory())
    torch.testing.assert_close(product(system, exact), b)
    routes = [system.columns(b), system.small(b)]
    assert ("samples" in system.costs()) == name.endswith("-1")
    if name.endswith("-1"):
        routes.append(system.samples(b))
    for thin in (False, True):
        system.thin = thin
        x, steps, done = system.conjugate_gradients(b, 1e-12, 500)
        assert done
        assert 1 <= steps <= 4 * size
        routes.append(x)
    for x in routes:
        # what W does not see needs not be solved for by conjugate gradients
        torch.testing.assert_close(W @ (x - exact).flatten(), torch.zeros(size, dtype=z.dtype), rtol=0, atol=1e-9)
    for x in routes[:-2]:
        torch.testing.assert_close(x, exact)


@pytest.mark.slow
def test_direct_solution_where_conjugate_gradients_take_too_long(monkeypatch):
    problem = structured("squared-1")
    shrinkage = Shrinkage(torch.ones(problem.P, problem.p, 1, dtype=torch.float64), 0.1)
    operator = problem.operator()
    curve = problem.loss.curvature(operator.Y, operator.Y)
    monkeypatch.setattr(system_module, "CALL_OVERHEAD", 0.0)
    system = SemismoothSystem(operator, shrinkage, curve, 1e3, SystemHistory(cg_steps=0))
    x = system.solve(operator.Y, 1e-15)
    assert system.history.route in ("samples", "columns", "small")
    torch.testing.assert_close(product(system, x), operator.Y)


# -- whole problems ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "attention"])
def test_other_architectures_reach_the_optimum_of_the_conic_solver(name):
    problem = structured(name)
    conic = cnn.solve(problem, "cvxpy_clarabel", gap=1e-8, show_progress=False)
    result = solve(problem)
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(conic.objective, rel=1e-7)


@pytest.mark.slow
def test_spiral_value():
    problem = cnn.make_problem("spiral", n=45)
    result = solve(problem)
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(6.4407344, abs=5e-8)


@pytest.mark.slow
def test_without_a_target_it_ends_where_the_gap_no_longer_falls():
    result = solve(cnn.make_problem("spiral", n=45), gap=None)
    assert result.status == "solved"
    assert result.certificate.gap <= 1e-10
    assert "Newton steps" in result.reason


@pytest.mark.slow
def test_few_blocks_to_begin_with(monkeypatch):
    """From a working set of two blocks to the same optimum."""
    problem = cnn.make_problem("spiral", n=60)
    every = solve(problem)
    monkeypatch.setattr(working_set, "LEAST_BLOCKS", 2)
    monkeypatch.setattr(working_set, "FIRST_FRACTION", 1000)
    assert len(working_set.first_set(problem.operator().adjoint(-problem.operator().Y), problem.beta, 4)) == 2
    method = SemismoothNewton(problem, "cpu", 1e-9)
    monkeypatch.setattr("convexnn_bench.algorithms.semismooth.method.first_set", lambda G, *_: torch.tensor([3, 70]))
    for _ in method.steps():
        assert method.working.unique().numel() == len(method.working)
    assert method.gap <= 1e-9
    assert method.objective == pytest.approx(every.objective, rel=2e-9)
    assert problem.objective(method.blocks().numpy()) == pytest.approx(method.objective, rel=1e-12)


def test_violators_are_those_above_beta():
    rng = np.random.default_rng(4)
    G = torch.as_tensor(rng.standard_normal((50, 3, 2)))
    norms = torch.linalg.matrix_norm(G, 2)
    beta, working = float(norms.median()), torch.arange(0, 50, 3)
    found = working_set.violators(G, beta, working, 100)
    expected = {k for k in range(50) if norms[k] > beta and k % 3}
    assert set(found.tolist()) == expected
    few = working_set.violators(G, beta, working, 4)
    assert len(few) == 4
    assert int(few[0]) == max(expected, key=lambda k: norms[k])


@pytest.mark.slow
def test_two_runs_give_the_same_numbers():
    problem = cnn.make_problem("spiral", n=60)
    one, other = solve(problem), solve(problem)
    assert np.array_equal(np.asarray(one.blocks), np.asarray(other.blocks))


# -- data that break things --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize("kind", ["duplicates", "constant", "one sample", "zero row"])
def test_degenerate_data(kind, c, loss):
    rng = np.random.default_rng(11)
    n = 1 if kind == "one sample" else 12
    X, Y = rng.standard_normal((n, 3)), targets(loss, n, c, rng)
    if kind == "duplicates":
        X[6:], Y[6:] = X[:6], Y[:6]
    if kind == "constant":
        X[:, 1:] = 1.0
    if kind == "zero row":
        X[0] = 0.0
    problem = cnn.Problem(X, Y, loss=loss, beta_fraction=0.1, patterns=6)
    result = solve(problem, gap=1e-8)
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(textbook_optimum(problem), rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("x", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("y", [1e-6, 1.0, 1e6])
def test_scales_of_the_data_change_nothing(x, y):
    """Squared loss: Y -> y Y, X -> x X, beta -> x y beta scales the optimum by y^2."""
    base = random_problem(12, n=20, d=3, c=2, patterns=10)
    scaled = cnn.Problem(x * base.X, y * base.Y, beta=x * y * base.beta, patterns=base.masks)
    assert solve(scaled).status == "gap_reached"
    assert solve(scaled).objective == pytest.approx(y**2 * solve(base).objective, rel=2e-9)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [1.0 + 1e-12, 2.0])
def test_large_beta_gives_zero(fraction):
    problem = random_problem(13, c=2, beta_fraction=fraction)
    result = solve(problem)
    assert result.status == "gap_reached"
    assert not np.any(np.asarray(result.blocks))


@pytest.mark.slow
def test_zero_targets():
    problem = cnn.Problem(np.random.default_rng(0).standard_normal((6, 2)), np.zeros(6), beta=0.1)
    result = solve(problem)
    assert result.objective == 0.0
    assert result.status == "gap_reached"


@pytest.mark.slow
def test_relu_is_passed_over_with_what_to_use_instead():
    problem = random_problem(1, activation="relu")
    assert "fista" in solve(problem).reason
