"""Certificates against exact arithmetic: closed forms in forty digits, rationals, and data of disparate scales."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.certificates import bounds, certification
from convexnn_bench.norms.spectral import spectral_norms

X2 = np.array([[1.0], [-1.0]])
BETAS = [1e-2, 1e-5, 1e-7, 1e-9, 1e-11, 1e-12, 1e-13, 1e-14]


def two_point_optimum(loss: str, beta: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """(p*, t*) of x = (1, -1), two classes, linear: the objective is a function of one number t."""
    with mpmath.workdps(40):
        beta = mpmath.mpf(beta)
        if loss == "cross_entropy":  # Z = (t, -t): 2 log(1 + e^(-2t)) + beta sqrt(2) t
            t = mpmath.log(4 / (beta * mpmath.sqrt(2)) - 1) / 2
            return 2 * mpmath.log1p(mpmath.e ** (-2 * t)) + beta * mpmath.sqrt(2) * t, t
        t = mpmath.log(2 / beta - 1)  # 2 log(1 + e^-t) + beta t
        return 2 * mpmath.log1p(mpmath.e ** (-t)) + beta * t, t


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("loss", ["cross_entropy", "logistic"])
def test_entropies_keep_their_digits_down_to_tiny_beta(loss, beta):
    """Nearly fitted data: 1 - probability carries the whole value, and must not be rounded away."""
    optimum, t = two_point_optimum(loss, beta)
    labels = np.array([0, 1]) if loss == "cross_entropy" else np.array([1.0, -1.0])
    problem = cnn.Problem(X2, labels, activation="linear", loss=loss, beta=beta)
    for k in range(-20, 21):
        z = float(t) * (1 + 1e-6 * k)
        Z = np.array([[[z, -z]]]) if loss == "cross_entropy" else np.array([[[z]]])
        certificate = cnn.certify(problem, Z)
        assert certificate.dual <= optimum
        assert certificate.primal >= optimum * (1 - mpmath.mpf(10) ** -14)
        assert certificate.gap >= 0
        assert certificate.refused is None
        if k == 0:
            assert certificate.gap < 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_holds_in_rational_arithmetic(seed):
    """Squared loss, c = 1: s Lambda is feasible and -F* at least the bound, every operation exact."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((40, 3)) * 10.0 ** rng.integers(-6, 7, size=(40, 1))
    problem = cnn.Problem(X, rng.standard_normal(40), beta_fraction=0.1, patterns=6)
    Y = torch.as_tensor(problem.Y)
    Lambda = torch.as_tensor(rng.standard_normal((40, 1)))
    used = []
    genuine = problem.loss.conjugate
    problem.loss.conjugate = lambda L, Y: used.append(L) or genuine(L, Y)
    value, _, _ = bounds.lower_bound(problem, Lambda)
    exact = [Fraction(float(entry)) for entry in used[-1][:, 0]]
    beta = Fraction(problem.beta)
    for k in range(problem.P):
        rows = np.flatnonzero(problem.masks[:, k])
        G = [sum(Fraction(float(problem.Phi[i, a])) * exact[i] for i in rows) for a in range(3)]
        assert sum(g * g for g in G) <= beta * beta
    dual = -sum(L * (L / 2 + Fraction(float(y))) for L, y in zip(exact, Y[:, 0], strict=True))
    assert Fraction(value) <= dual


def test_spectral_norms_are_never_below_the_exact_ones():
    rng = np.random.default_rng(0)
    G = torch.as_tensor(rng.standard_normal((60, 3, 2)) * 10.0 ** rng.integers(-8, 9, size=(60, 1, 1)))
    found = spectral_norms(G)
    with mpmath.workdps(40):
        for k in range(len(G)):
            A = mpmath.matrix(G[k].tolist())
            exact = mpmath.sqrt(max(mpmath.eigsy(A.T * A, eigvals_only=True)))
            assert mpmath.mpf(float(found[k])) >= exact
            assert float(found[k]) <= float(exact) * (1 + 1e-13)


def test_a_small_row_is_not_hidden_behind_a_large_one():
    """K u = -0.98 in the third row, while |Phi u| reaches 2e8 in the first."""
    X = np.array([[1e9, 0.0], [0.0, 1.0], [0.1, -1.0]])
    Y = np.array([2e8, 1.0, -0.98])
    problem = cnn.Problem(X, Y, activation="relu", beta=1e-2, patterns=np.ones((3, 1), bool))
    certificate = cnn.certify(problem, (np.array([[[0.2], [1.0]]]), np.ones((1, 1, 1))))
    assert certificate.refused is not None
    assert certificate.infeasibility == pytest.approx(1.0)


def test_a_short_infeasible_column_is_not_hidden_behind_a_long_one():
    problem = cnn.Problem(np.eye(2), np.ones(2), activation="relu", beta=0.1, patterns=np.ones((2, 1), bool))
    U = np.array([[[1.0, -1e-10], [1.0, 1e-10]]])
    V = np.array([[[1.0, 1e10]]])
    assert cnn.certify(problem, (U, V)).refused is not None


@pytest.mark.parametrize("place", [(0, 0), (0, 2), (3, 1), (3, 2)])
def test_a_violation_is_seen_wherever_it_is(place):
    problem = random_problem(5, "squared", "relu", n=12, patterns=4)
    U = problem.cones.project(np.random.default_rng(0).standard_normal((4, 3, 3)))
    assert cnn.certify(problem, (U, np.ones((4, 1, 3)))).refused is None
    k, j = place
    U[k, :, j] = -problem.gates[:, k]
    assert cnn.certify(problem, (U, np.ones((4, 1, 3)))).infeasibility > 1e-3


def test_a_neuron_just_outside_the_sampled_cones_is_refused():
    X = np.array([[1e10, 0.0], [0.0, 1.0]])
    problem = cnn.Problem(X, [1e14, 1.0], activation="relu", beta=1e-9, patterns=np.array([[1], [0]], bool))
    weights = (np.array([[1.0], [1e-4]]), np.array([[1e4]]))
    with pytest.raises(cnn.UnsupportedError, match="not among"):
        cnn.certify(problem, cnn.Point(network=weights, dual=np.array([0.0, -1.0])), scope="sampled")


def test_an_objective_below_the_bound_is_refused(monkeypatch):
    problem = random_problem(1)
    Z = np.zeros((problem.P, problem.p, problem.q))
    honest = cnn.certify(problem, Z)
    genuine = certification.lower_bound
    monkeypatch.setattr(
        certification, "lower_bound", lambda *args, **given: (honest.primal * 1.001, *genuine(*args, **given)[1:])
    )
    assert "below the proven bound" in cnn.certify(problem, Z).refused


def test_sampling_that_misses_a_thin_cell_is_not_called_complete():
    thin = cnn.Problem([[1.0, 0.0], [1.0, 1e-7], [0.0, 1.0]], [1.0, 2.0, 3.0], beta=0.1, patterns=100)
    assert thin.P < 6
    assert thin.scope == "sampled"
    assert cnn.certify(thin, np.zeros((thin.P, 2, 1))).scope == "sampled"
    wide = cnn.Problem([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], [1.0, 2.0, 3.0], beta=0.1, patterns="all")
    assert wide.scope == "complete"


def test_nearly_parallel_rows_are_told_apart():
    t = np.arange(5.0)
    problem = cnn.Problem(np.column_stack([np.ones(5), 1 + 1e-9 * t]), t + 1, beta=0.1, patterns="all")
    assert problem.P + problem.pattern_info.zero == 10


def test_a_tiny_huber_threshold_keeps_its_bound():
    loss = cnn.Huber(delta=1e-200)
    base = random_problem(2, c=1)
    problem = cnn.Problem(base.X, base.Y, loss=loss, beta=1e-199 * base.N * 100, patterns=base.masks)
    certificate = cnn.certify(problem, np.zeros((problem.P, problem.p, 1)))
    assert certificate.gap < 1e-9


def test_a_module_that_does_more_than_its_layers_is_refused():
    class Custom(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(2, 4, bias=False)
            self.act = torch.nn.ReLU()
            self.last = torch.nn.Linear(4, 1, bias=False)

        def forward(self, x):
            return 3 * self.last(self.act(self.first(x)))

    problem = cnn.Problem(np.random.default_rng(0).standard_normal((9, 2)), np.ones(9), activation="relu", beta=0.1)
    with pytest.raises(cnn.UnsupportedError, match=r"no chain|not among the operations"):
        cnn.certify(problem, Custom())


def test_a_loss_below_zero_gets_a_bound_below_zero():
    """A user's loss need not be non-negative for weak duality, and no bound may be lifted to zero."""

    class Shifted(cnn.Squared):
        name = "shifted"

        def value(self, z, Y):
            return super().value(z, Y) - 100.0

        def conjugate(self, L, Y):
            return super().conjugate(L, Y) + 100.0

    base = random_problem(3)
    problem = cnn.Problem(base.X, base.Y, loss=Shifted(), beta=base.beta, patterns=base.masks)
    plain = cnn.solve(base, "fista", gap=1e-9, time_limit=600)
    certificate = cnn.certify(problem, plain.blocks)
    assert certificate.dual <= plain.objective - 100.0 < 0
    assert certificate.gap < 1e-6
