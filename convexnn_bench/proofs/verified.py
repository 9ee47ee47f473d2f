"""The verified certificate: its rounding errors follow from IEEE 754 alone.

Blocks without a cone are bounded in float64, at about the cost of the certificate itself. The adjoint and the
predictions are sums of products, whose error is at most gamma_K times the sum of the magnitudes, in any order of
summation (`operator/rounding.py`). Norms, the value of F* and the objective follow by `intervals.py` and
`loss_bounds.py`. For ReLU the bounds are those of an exact proof (`prover.py`).
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates import Certificate, PointLike, as_point, relative_gap
from convexnn_bench.certificates import certify as certify_in_float
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.formulations import Point
from convexnn_bench.losses import OutputBias
from convexnn_bench.operator import adjoint_rounding, prediction_rounding
from convexnn_bench.problem import Problem
from convexnn_bench.proofs.grid import on_grid
from convexnn_bench.proofs.intervals import UNDERFLOW, U, above, gamma, largest_spectral_norm, lengths_above, sum_above
from convexnn_bench.proofs.loss_bounds import CONICAL, LossParts
from convexnn_bench.proofs.prover import check_known, prove

MODERATE = (1e-100, 1e100)  # sizes between which no square, and no product of two numbers, underflows or overflows
LONGER = 2.0**-40  # part by which a multiplier may be lengthened, where the domain of F* allows it


def certify(
    problem: Problem,
    point: PointLike,
    scope: str | None = None,
    *,
    time_limit: float | None = None,
    verified: bool = False,
) -> Certificate:
    """Certify a point: bound how far its objective is above the global optimum.

    Parameters
    ----------
    problem : Problem
        The training problem.
    point : Result, Point, array, pair of arrays or torch.nn.Module
        A result, blocks (P x p x q), factors (U, V), network weights (W1, W2), or a torch module without biases that
        is a network of this problem.
    scope : {"sampled", "complete"}, optional
        The program that the bound is about: the one with the problem's blocks, or that of the original ReLU network,
        with every activation pattern. The default is "complete" for a ReLU network and the problem's own scope for
        every other point. A point of a sampled ReLU program may take "complete" too, because its neurons form a
        network.
    time_limit : float, optional
        Seconds after which the bound on the dual norms is improved no further, which weakens the lower bound and keeps
        it valid. None for no limit. A verified certificate takes a little longer, for ReLU much longer.
    verified : bool
        State objective, bound and gap in verified arithmetic: no result of a mathematical library is trusted, and every
        rounding error is bounded. For ReLU they are those of an exact proof, as `prove` makes it.

    Returns
    -------
    Certificate
        Objective, lower bound, gap and their scope, all in float64. Its field `verified` repeats the argument.

    Raises
    ------
    InputError
        The point or the scope does not fit the problem.
    UnsupportedError
        The norm of vector-output ReLU blocks could not be evaluated; or, with scope="sampled", a ReLU network has
        patterns that are not among the problem's blocks; or verified bounds do not know a part of the problem.

    Notes
    -----
    Weak duality: p* >= -F*(Lambda) for every Lambda with ||A_k^* Lambda||^dual <= beta in every block k. The
    multiplier is grad F at the point, scaled to the best admissible length (Sahiner et al., ICLR 2024, section 3).

    With ``verified=True``, primal, dual and gap are enclosures. What is trusted: that + - * / and square roots of
    float64 are rounded to nearest, that a matrix product is a sum of products in some order, and `math.fsum`. The
    fields that say more about a point (`stationarity_bound`, `max_dual_norm`, ranks) stay those of float64.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
    >>> certificate = cnn.certify(problem, cnn.solve(problem, "bm_newton"), verified=True)
    >>> certificate.gap <= 1e-6, certificate.scope, certificate.verified
    (True, 'complete', True)
    """
    certificate = certify_in_float(problem, point, scope, time_limit=time_limit)
    if not verified:
        return certificate
    check_verifiable(problem)
    return verify(problem, as_point(problem, point), certificate)


def check_verifiable(problem: Problem) -> None:
    """Raise UnsupportedError for a problem of which no bound can be verified."""
    if problem.has_cone:
        check_known(problem)
    LossParts.of(problem.loss, problem.operator().Y.cpu().numpy())


def verify(problem: Problem, point: Point, certificate: Certificate) -> Certificate:
    """Return the certificate of a point with verified bounds.

    certificate: that in float64.
    """
    if problem.has_cone:
        return _by_proof(problem, point, certificate)
    parts = LossParts.of(problem.loss, problem.operator().Y.cpu().numpy())
    dual, multiplier = _lower_bound(problem, parts, certificate)
    primal = _objective_above(problem, parts, point)
    return _concluded(certificate, primal, dual, multiplier)


def _concluded(certificate: Certificate, primal: float, dual: float, multiplier: np.ndarray | None) -> Certificate:
    refused = certificate.refused
    if refused is None and not math.isfinite(primal):
        refused = "its objective could not be verified"
    gap = relative_gap(primal, dual) if refused is None else math.nan
    fields: dict[str, Any] = {"primal": primal, "dual": dual, "gap": gap, "refused": refused, "multiplier": multiplier}
    return replace(certificate, verified=True, **fields)


def _by_proof(problem: Problem, point: Point, certificate: Certificate) -> Certificate:
    """Return a certificate with the bounds of an exact proof, rounded outwards."""
    proof = prove(problem, point, certificate.scope)
    dual = float(proof.bound)
    dual = math.nextafter(dual, -math.inf) if dual > proof.bound else dual
    primal = math.inf if proof.primal is None else float(proof.primal)
    if proof.primal is not None and primal < proof.primal:
        primal = math.nextafter(primal, math.inf)
    return _concluded(certificate, primal, dual, certificate.multiplier)


def _lower_bound(problem: Problem, parts: LossParts, certificate: Certificate) -> tuple[float, np.ndarray]:
    """Return a lower bound on the optimum, and its multiplier.

    For the multiplier L on the grid, let N be a bound on all ||A_k^* L||_2: a bound on the computed blocks plus one on
    the rounding of all of them. s <= beta / N makes s L feasible.
    """
    # 1. A multiplier in dom F*.
    L = None if certificate.multiplier is None else on_grid(parts, np.asarray(certificate.multiplier))
    if L is None:
        L = np.zeros_like(parts.Y)
    largest = float(np.abs(L).max(initial=0.0))
    _check_moderate("beta", problem.beta)
    _check_moderate("the multiplier", largest)
    # 2. The dual norms.
    operator, Lambda = problem.operator(), torch.as_tensor(L)
    G = operator.adjoint(Lambda).numpy()
    norm, _ = largest_spectral_norm(G)
    norm = (norm + adjoint_rounding(operator, Lambda) * (1 + 8 * U)) * (1 + 4 * U)
    if not norm < MODERATE[1]:
        _check_moderate("the largest dual norm", norm)
    # 3. The largest s that is certain to be admissible.
    s = 1 + LONGER if parts.name in CONICAL else 1.0
    if norm > 0:
        s = min(s, problem.beta / norm * (1 - 4 * U))
    return -parts.conjugate_above(L, s), s * L


def _check_moderate(name: str, size: float) -> None:
    if size != 0 and not MODERATE[0] < size < MODERATE[1]:
        raise UnsupportedError(
            f"{name} is {size:.3g}, too close to the ends of float64 for verified bounds: rescale X, Y and beta"
        )


def _objective_above(problem: Problem, parts: LossParts, point: Point) -> float:
    """Return an upper bound on the objective of the point in its own formulation.

    With an output bias, which every b bounds from above, b is the best one in float64.
    """
    at = point.evaluate(problem, "cpu")
    bias = np.zeros(problem.c)
    if isinstance(problem.loss, OutputBias):
        bias = problem.loss.best_bias(at.predictions, problem.operator().Y).numpy()
    error = prediction_rounding(problem.operator(), at.sizes, at.columns).numpy()
    F = parts.value_above(at.predictions.numpy(), error * (1 + 4 * U), bias)
    R = _regulariser_above(problem, point)
    return sum_above(np.array([F, math.nextafter(problem.beta * R, math.inf)]))


def _regulariser_above(problem: Problem, point: Point) -> float:
    """Return an upper bound on the regulariser of a point without cones."""
    if point.blocks is None:
        pair = point.to_network(problem) if point.network is not None else point.to_factors(problem)
        return 0.5 * _squares_above(*(part.cpu().numpy() for part in pair))
    Z = point.to_blocks(problem).cpu().numpy()
    Z = Z[np.any(Z != 0, axis=(1, 2))]
    if not len(Z):
        return 0.0
    if min(Z.shape[1:]) == 1:
        return sum_above(lengths_above(Z.reshape(len(Z), -1)))
    # For every A and B, ||Z||_* <= 1/2 (||A||^2 + ||B||^2) + sqrt(r) ||Z - A B^T||_F, r the smaller side.
    left, values, right = np.linalg.svd(Z, full_matrices=False)
    A, B = left * np.sqrt(values)[:, None, :], right * np.sqrt(values)[:, :, None]
    lengths = [lengths_above(part.reshape(len(Z), -1)) for part in (A, B)]
    rest = lengths_above((Z - A @ B).reshape(len(Z), -1)) * (1 + 4 * U) + gamma(len(values[0]) + 4) * (
        lengths[0] * lengths[1]
    ) * (1 + 8 * U)
    r = min(Z.shape[1:])
    return sum_above(np.array([0.5 * _squares_above(A, B), sum_above(above(rest * r**0.5) * (1 + 4 * U))]))


def _squares_above(*arrays: np.ndarray) -> float:
    """Return an upper bound on the sum of the squares of all entries."""
    entries = np.concatenate([array[array != 0] for array in arrays])
    return sum_above(above(entries * entries) + UNDERFLOW)
