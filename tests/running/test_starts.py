"""`solve(start=)`: where solvers begin, what ends a run before its first step, and which starts are refused."""

from functools import cache

import numpy as np
import pytest
import scipy.sparse
import torch
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.formulations import burer_monteiro, converted
from convexnn_bench.running.scaling import Scaling

STARTABLE = [name for name in cnn.SOLVERS.names() if cnn.SOLVERS.get(name).start_formulation is not None]
NEVER_HERE = ("column_generation",)  # solvers of ReLU problems only
EASY = [name for name in STARTABLE if name not in NEVER_HERE and name != "auto"]  # which has other formulations


@cache
def easy(beta=0.3):
    """A gated problem with one output on which also gradient methods come close to the optimum."""
    base = random_problem(7, c=1, n=12, patterns=5)
    return base.with_beta(fraction=beta)


@cache
def optimum(beta=0.3, gap=1e-9):
    return cnn.solve(easy(beta), "semismooth_newton", gap=gap)


@cache
def relu(c=1, beta=0.2):
    """A ReLU problem over all patterns of the plane."""
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((9, 2)), rng.standard_normal((9, c))
    return cnn.Problem(X, Y, activation="relu", beta_fraction=beta)


# -- a start within the gap ends the run -----------------------------------------------------------------------


@pytest.mark.parametrize("name", EASY)
def test_a_start_within_the_gap_is_the_result(name):
    """From another solver's point, in every formulation: nothing is set up, and no step is taken."""

    class Never(cnn.SOLVERS.get(name)):
        def set_problem(self, problem):
            raise AssertionError("the start suffices")

    result = cnn.solve(easy(), Never(), start=optimum(), gap=1e-6)
    assert result.status == "gap_reached"
    assert result.solve_seconds == 0
    assert len(result.curve) == 1
    assert result.curve[0][0] == 0
    assert result.objective == pytest.approx(optimum().objective, rel=1e-12)
    assert result.point.formulation == cnn.SOLVERS.get(name).start_formulation
    again = cnn.solve(easy(), name, start=result, gap=1e-6, iterations=1)
    assert (again.status, len(again.curve)) == ("gap_reached", 1)


def test_set_up_is_reported_once_and_scores_come_in_order():
    seen = []
    cnn.solve(
        easy(), "fista", start=optimum(), on_setup=lambda s: seen.append("set-up"), on_score=lambda s, c: seen.append(s)
    )
    assert seen == [0.0, "set-up"]
    seen.clear()
    further = cnn.solve(
        easy(), "fista", start=optimum(0.4), iterations=2, on_setup=lambda s: seen.append("set-up"),
        on_score=lambda s, c: seen.append(s),
    )  # fmt: skip
    assert seen[:2] == [0.0, "set-up"]
    assert seen[2:] == [point[0] for point in further.curve[1:]]
    assert further.curve[0][1] == pytest.approx(easy().objective(optimum(0.4).blocks), rel=1e-12)


# -- what a start may be ---------------------------------------------------------------------------------------


def test_a_start_may_be_blocks_factors_weights_a_point_or_a_module():
    solved = optimum()
    U, V = cnn.solve(easy(), "bm_newton", start=solved).factors
    starts = [solved, solved.point, solved.blocks, list(solved.blocks), torch.as_tensor(solved.blocks), (3 * U, V / 3)]
    for start in [*starts, solved.network, cnn.Point(network=solved.network)]:
        for name in ("fista", "bm_lbfgs", "network_lbfgs"):
            result = cnn.solve(easy(), name, start=start)
            assert (result.status, len(result.curve)) == ("gap_reached", 1)
            assert result.objective == pytest.approx(solved.objective, rel=1e-12)  # (3 U, V / 3) are balanced
    linear = random_problem(0, activation="linear", n=12, d=3, c=2)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.Linear(2, 2, bias=False)).double()
    result = cnn.solve(linear, "network_gd", start=module, iterations=1, gap=None)
    W1, W2 = (layer.weight.detach().numpy() for layer in module)
    assert result.curve[0][1] <= linear.network_objective(W1.T, W2) * (1 + 1e-12)


@pytest.mark.parametrize("name", ["bm_newton", "bm_gd", "fista", "network_lbfgs", "semismooth_newton"])
def test_the_callers_arrays_stay_as_they_are(name):
    arrays = [part.copy() for part in cnn.solve(easy(0.4), "bm_lbfgs", iterations=30).factors]
    kept = [part.copy() for part in arrays]
    result = cnn.solve(easy(), name, start=tuple(arrays), iterations=3)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, kept, strict=True))
    before = [np.asarray(part).copy() for part in result.point.arrays()]
    cnn.solve(easy(), name, start=result, iterations=3, gap=None)
    assert all(np.array_equal(a, b) for a, b in zip(result.point.arrays(), before, strict=True))


def test_the_same_seed_fills_zero_columns_alike_and_another_one_otherwise():
    def factors(seed):
        result = cnn.solve(easy(0.05), "bm_gd[m=3]", start=optimum(0.3), seed=seed, iterations=4, gap=None)
        return np.concatenate([part.ravel() for part in result.factors])

    assert np.array_equal(factors(1), factors(1))
    assert not np.array_equal(factors(1), factors(2))


@pytest.mark.slow
def test_gradient_methods_leave_zero_columns():
    """At zero every gradient vanishes, and almost so nearby; from there the optimum is reached all the same."""
    problem = easy()
    for size in (0.0, 1e-40):
        start = np.full((problem.P, problem.p, 1), size)
        for name in ("bm_lbfgs", "network_lbfgs"):
            result = cnn.solve(problem, name, start=start, iterations=400)
            assert result.status == "gap_reached"
            assert result.curve[0][1] > result.objective


@pytest.mark.parametrize("name", ["bm_lbfgs[m=1]", "network_lbfgs[width=5]"])
def test_more_columns_than_the_solver_has_are_merged_where_their_rank_allows(name):
    U, V = (np.concatenate([part, part], axis=2) for part in cnn.solve(easy(), "bm_newton").factors)
    result = cnn.solve(easy(), name, start=(U, V / 2))
    assert (result.status, len(result.curve)) == ("gap_reached", 1)
    three = random_problem(2, c=3, n=12, patterns=5)
    rng = np.random.default_rng(0)
    with pytest.raises(
        cnn.InputError, match=r"(need 3 columns|needs 15 neurons), and the solver has (m = 1|width = 5)"
    ):
        cnn.solve(three, name, start=rng.standard_normal((5, 3, 3)), gap=None)


@pytest.mark.parametrize("name", ["bm_newton", "semismooth_newton", "fista", "bm_lbfgs"])
def test_a_poor_start_costs_no_more_than_time(name):
    """From blocks a hundred times too large, in wrong directions, the optimum is reached all the same."""
    Z = 100 * np.random.default_rng(0).standard_normal(optimum().blocks.shape)
    result = cnn.solve(easy(), name, start=Z, iterations=2000)
    assert result.status == "gap_reached"
    assert result.curve[0][1] > 100 * result.objective
    assert result.objective == pytest.approx(optimum().objective, rel=2e-6)


# -- from another problem of the same data ---------------------------------------------------------------------

LIMITS = {
    "network_sgd": 1e-2,
    "network_adam": 1e-3,
    "network_gd": 1e-3,
    "bm_adam": 1e-3,
    "bm_gd": 1e-3,
    "bm_scaled_gd": 1e-3,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EASY)
def test_a_warm_start_takes_fewer_iterations_than_a_cold_one(name):
    """From the optimum at a weight decay 10 % larger, to the same gap."""
    calls = {}
    gap = LIMITS.get(name, 1e-6)

    class Counts(cnn.SOLVERS.get(name)):
        def run(self, callback):
            def counted():
                self.calls += 1
                return callback()

            self.calls = 0
            super().run(counted)

    start = optimum(0.33)
    assert cnn.certify(easy(), start).gap > gap or name == "network_sgd"
    for kind, begin in (("cold", None), ("warm", start)):
        solver = Counts()
        result = cnn.solve(easy(), solver, start=begin, gap=gap, iterations=20_000)
        assert result.status == "gap_reached"
        calls[kind] = getattr(solver, "calls", 0)
    assert calls["warm"] < calls["cold"]


def test_the_best_bound_is_kept():
    """The multiplier of a result that is nearly optimal proves its bound at a start of the same problem."""
    poor = cnn.Point(blocks=0 * optimum().blocks, dual=optimum().certificate.multiplier)
    result = cnn.solve(easy(), "fista", start=poor, iterations=1, gap=1e-12)
    assert result.certificate.dual == pytest.approx(optimum().certificate.dual, rel=1e-12)
    loose = cnn.solve(easy(), "bm_gd", iterations=1, gap=None)
    loose.certificate = optimum().certificate  # a point with a better multiplier than its own gradient
    assert cnn.solve(easy(), "fista", start=loose, iterations=1, gap=None).certificate.dual == pytest.approx(
        optimum().certificate.dual, rel=1e-9
    )


def test_a_start_is_mapped_into_the_units_of_the_solver():
    """Data in 1e6: the solver's problem and point are in other units, and the start is the same point there."""
    rng = np.random.default_rng(1)
    X, y = 1e6 * rng.standard_normal((12, 3)), 1e3 * rng.standard_normal(12)
    problem = cnn.Problem(X, y, patterns=4, beta_fraction=0.2)
    scaling = Scaling.of(problem)
    assert scaling.blocks != 1
    solved = cnn.solve(problem, "bm_newton", gap=1e-9)
    seen = {}

    for name in ("bm_newton", "fista", "network_lbfgs"):

        class Looks(cnn.SOLVERS.get(name)):
            def set_problem(self, scaled):
                seen[self.name] = cnn.certify(scaled, self.start).gap
                super().set_problem(scaled)

        result = cnn.solve(problem, Looks(), start=solved, gap=1e-14, iterations=3)
        assert seen[name] < 1e-8
        assert result.gap < 1e-8
    for point in (solved.point, converted(problem, solved.point, "convex")):
        back = scaling.restored(scaling.applied(point))
        assert all(np.array_equal(a, b) for a, b in zip(back.arrays(), point.arrays(), strict=True))


def test_other_losses_start_from_one_another():
    signs = np.sign(easy().Y)
    logistic, hinge = (
        cnn.Problem(easy().X, signs, loss=loss, beta_fraction=0.2, patterns=easy().masks)
        for loss in ("logistic", "squared_hinge")
    )
    start = cnn.solve(logistic, "bm_newton")
    assert cnn.solve(hinge, "fista", start=start).status == "gap_reached"
    assert cnn.solve(easy(), "semismooth_newton", start=start).status == "gap_reached"  # its Y are numbers


# -- ReLU ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bm_newton", "bm_lbfgs", "bm_gd", "fista", "column_generation", "network_lbfgs"])
def test_relu_points_of_every_formulation_start_every_solver(name):
    """From a larger beta, from blocks, factors and weights; the optimum is that of Clarabel."""
    problem = relu()
    exact = cnn.solve(problem, "cvxpy_clarabel", gap=1e-8)
    before = cnn.solve(problem.with_beta(1.1 * problem.beta), "cvxpy_clarabel", gap=1e-8)
    factors = converted(problem, before.point, "burer_monteiro").factors
    for start in (before, factors, before.network, exact):
        gap = 1e-4 if name == "fista" else 1e-6
        result = cnn.solve(problem, name, start=start, iterations=5000, gap=gap)
        assert result.status == "gap_reached", (name, result)
        assert result.objective == pytest.approx(exact.objective, rel=2 * gap)
    assert len(result.curve) == 1  # the last start was optimal


@pytest.mark.slow
def test_vector_relu_starts():
    """Factors in the cones stay in the cones; blocks become such factors, and networks neurons."""
    problem = relu(c=2)
    solved = cnn.solve(problem, "bm_newton", gap=1e-6)
    for name in ("bm_lbfgs", "network_lbfgs", "column_generation"):
        result = cnn.solve(problem.with_beta(0.9 * problem.beta), name, start=solved, iterations=500, gap=1e-5)
        assert result.status == "gap_reached", (name, result)
        assert result.certificate.infeasibility <= 1e-8


def test_factors_outside_their_cones_are_projected():
    problem = relu()
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((problem.P, 2, 2)), rng.standard_normal((problem.P, 1, 2))
    result = cnn.solve(problem, "bm_gd", start=(U, V), iterations=1, gap=None)
    inside = burer_monteiro.project(problem, torch.as_tensor(U)).numpy()
    assert result.certificate.infeasibility <= 1e-8
    assert result.curve[0][1] <= problem.factored_objective(inside, V) * (1 + 1e-12)


# -- what is refused -------------------------------------------------------------------------------------------


def refused(words, start, name="fista", problem=None, **arguments):
    with pytest.raises(cnn.InputError, match=words):
        cnn.solve(easy() if problem is None else problem, name, start=start, **arguments)


@pytest.mark.parametrize("name", ["cvxpy_clarabel", "cvxpy_scs"])
def test_solvers_that_run_once_refuse_a_start(name):
    refused(f"solver '{name}' cannot begin at a start: it solves once.*bm_newton", optimum(), name)


def test_a_solver_file_without_the_attribute_refuses_a_start_and_works_without_one():
    class Plain(cnn.BaseSolver):
        name, formulation = "plain", "convex"
        parameters = {"start": [3]}  # a parameter of this name is its own

        def set_problem(self, problem):
            self.Z = np.zeros((problem.P, problem.p, problem.q))

        def run(self, callback):
            assert self.start == 3
            callback()

        def get_result(self):
            return cnn.Point(blocks=self.Z)

    assert cnn.solve(easy(), Plain(), gap=None).status == "stalled"
    refused("'plain' cannot begin at a start: its class has no start_formulation", optimum(), Plain())


def test_a_wrong_start_formulation_is_named():
    class Wrong(cnn.SOLVERS.get("fista")):
        start_formulation = "dual"

    assert "start_formulation must be None or one of convex" in Wrong.declaration_error()


def test_arrays_that_do_not_fit():
    Z = optimum().blocks
    refused("start: Z must be P x p x q = 5 x 3 x 1", Z[:, :2])
    refused("start: Z has 1 NaN or infinite entries", np.where(Z.max() == Z, np.nan, Z))
    refused("start: its entries must be at most 1e\\+100", 1e200 * np.ones_like(Z))
    refused("start: factors must be U: P x p x m", (np.ones((5, 3, 2)), np.ones((5, 1, 1))))
    refused("start: network weights must be W1: p x M", (np.ones((2, 4)), np.ones((1, 4))))
    refused("start: point must be a Result", "zero")
    refused("start: .* masked", np.ma.masked_invalid(np.where(Z.max() == Z, np.nan, Z)))


def test_results_of_other_problems():
    other = random_problem(8, c=1, n=12, patterns=5)
    refused("other data or blocks: X and Y and the masks differ", cnn.solve(other, "fista", iterations=1))
    flipped = cnn.Problem(easy().X, easy().Y, beta=easy().beta, patterns=easy().masks[:, ::-1])
    refused("blocks: the masks differ; make the problem by", cnn.solve(flipped, "fista", iterations=1))
    targets = cnn.Problem(easy().X, 2 * easy().Y, beta=easy().beta, patterns=easy().masks)
    refused("blocks: Y differ", cnn.solve(targets, "fista", iterations=1))
    linear = cnn.Problem(easy().X, easy().Y, activation="linear", beta=easy().beta)
    refused("the activation and the masks differ", cnn.solve(linear, "fista", iterations=1))
    equal = cnn.Problem(easy().X, easy().Y, beta=2 * easy().beta, patterns=easy().masks)  # other arrays, same entries
    assert cnn.solve(easy(), "fista", start=cnn.solve(equal, "fista")).status == "gap_reached"


@pytest.mark.slow
def test_results_on_sparse_data():
    """Sparse matrices are compared by their entries."""
    X = scipy.sparse.random(12, 6, density=0.4, random_state=0, format="csr")
    y = np.random.default_rng(0).standard_normal(12)
    problem = cnn.Problem(X, y, patterns=4, beta_fraction=0.2)
    start = cnn.solve(cnn.Problem(X.copy(), y, patterns=problem.masks, beta=problem.beta), "fista")
    assert cnn.solve(problem, "bm_newton", start=start).curve[0][2] <= 1e-6
    refused(
        "blocks: X differ",
        cnn.solve(cnn.Problem(2 * X, y, patterns=problem.masks, beta=1.0), "fista"),
        "fista",
        problem,
    )


def test_results_without_a_point():
    refused("start: the result has no point: skipped", cnn.solve(easy(), "column_generation"))


def test_relu_networks_outside_the_blocks_start_networks_only():
    problem = relu()
    few = cnn.Problem(problem.X, problem.Y, activation="relu", beta=problem.beta, patterns=problem.masks[:, :3])
    network = cnn.solve(problem, "bm_newton").network
    refused("start: it is no point that 'fista' can begin at: .* not among the 3 blocks", network, "fista", few)
    assert cnn.solve(few, "column_generation", start=network, gap=1e-5).status == "gap_reached"
    skipped = cnn.solve(easy(), "column_generation", start=optimum())
    assert skipped.status == "skipped"


@pytest.mark.parametrize("name", EASY)
def test_iterations_bound_every_iterative_solver(name):
    """`iterations` is the number of times that the callback lets the solver go on."""
    went_on = []

    class Counts(cnn.SOLVERS.get(name)):
        def run(self, callback):
            def counted():
                went_on.append(callback())
                return went_on[-1]

            super().run(counted)

    result = cnn.solve(easy(0.01), Counts(), iterations=1, gap=1e-14)
    assert result.status == "stalled"
    assert sum(went_on) == 1
