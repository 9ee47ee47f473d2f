"""Bounds on the optimum at other weight decays than that of a certified point.

The optimum p*(beta) = min_Z F(A(Z)) + beta R(Z) is a minimum of functions that are linear in beta, hence concave.

- From above: F(A(Z)) + beta R(Z) of one point Z bounds p*(beta) for every beta. For two points, (1 - t) Z_1 + t Z_2
  has the predictions (1 - t) z_1 + t z_2 and a regulariser of at most (1 - t) R_1 + t R_2, since R is convex. (So has a
  ReLU network with the neurons of both, scaled by sqrt(1 - t) and sqrt(t).)
- From below: where multipliers L_i are feasible at beta_i, (1 - t) L_1 + t L_2 is feasible at
  (1 - t) beta_1 + t beta_2, since dual norms are convex. As -F* is concave, its value is at least the chord of theirs.

With a penalised output bias b the term 1/2 ||b||^2 belongs to R.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float

from convexnn_bench.certificates.bounds import best_dual
from convexnn_bench.certificates.certificate import Certificate
from convexnn_bench.certificates.objective import loss_upper_bound, objective_upper_bound
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.formulations import Point
from convexnn_bench.losses import OutputBias
from convexnn_bench.operator import EPS, adjoint_rounding, multiplier_underflow, prediction_rounding
from convexnn_bench.problem import Problem

Predictions = Float[torch.Tensor, "n_out c"]


@dataclass(frozen=True)
class Line:
    """An upper bound loss + beta * regulariser on the optimum at every beta.

    `at` adds its rounding.
    """

    loss: float
    regulariser: float

    def at(self, beta: float) -> float:
        """Return the bound at one weight decay, rounded up."""
        return objective_upper_bound(self.loss, beta, self.regulariser, EPS)


@dataclass(frozen=True)
class Witness:
    """The numbers of a certified point that give bounds at other weight decays.

    They are float64 on the CPU.

    Attributes
    ----------
    beta : float
        The weight decay of the certificate.
    predictions, rounding : n_out x c
        The predictions A(Z), and bounds on their rounding.
    regulariser : float
        Upper bound on R(Z), without an output bias.
    multiplier : n_out x c
        A multiplier that is feasible at `beta`.
    """

    beta: float
    predictions: Predictions
    rounding: Predictions
    regulariser: float
    multiplier: Predictions


def witness(problem: Problem, point: Point, certificate: Certificate) -> Witness:
    """Return the witness of a certified point.

    Raise UnsupportedError if the certificate states no gap.
    """
    if certificate.refused is not None or certificate.multiplier is None:
        raise UnsupportedError(f"the point proves nothing at other betas: {certificate.refused or 'no multiplier'}")
    device = point.device(problem)
    at = point.evaluate(problem, device)
    rounding = prediction_rounding(problem.operator(device), at.sizes, at.columns)
    regulariser = at.regulariser * (1 + at.regulariser_rounding) * (1 + 2 * EPS)
    multiplier = torch.as_tensor(certificate.multiplier)
    return Witness(problem.beta, at.predictions.cpu(), rounding.cpu(), regulariser, multiplier)


def line(problem: Problem, predictions: Predictions, rounding: Predictions, regulariser: float) -> Line:
    """Return the line of a point with these predictions and the best output bias."""
    loss, Y = problem.loss, problem.operator().Y
    # A penalised bias b stays the same at other weight decays, and beta/2 ||b||^2 is linear in beta.
    if isinstance(loss, OutputBias) and loss.beta is not None:
        b = loss.best_bias(predictions, Y)
        predictions, loss = predictions + b, loss.loss
        rounding = rounding + 2 * EPS * predictions.abs()
        regulariser = (regulariser + 0.5 * float(b.square().sum())) * (1 + (len(b) + 4) * EPS)
    value, gradient = float(loss.value(predictions, Y)), loss.gradient(predictions, Y)
    return Line(loss_upper_bound(loss, predictions, Y, value, gradient, rounding), regulariser)


def mixed(problem: Problem, first: Witness, second: Witness) -> tuple[Line, float]:
    """Return the line and the bound of the mixture of two witnesses at the beta.

    Parameters
    ----------
    problem : Problem
        The problem, with a beta between those of the witnesses.
    first, second : Witness
        Witnesses of the same program at two different weight decays.

    Returns
    -------
    tuple of Line and float
        The line of the mixed point, and the value of the mixed multiplier, a lower bound at the problem's beta.
    """
    t = (problem.beta - first.beta) / (second.beta - first.beta)
    s = 1 - t
    # 1. The mixed point. Both products and their sum are rounded.
    predictions = s * first.predictions + t * second.predictions
    sizes = s * first.predictions.abs() + t * second.predictions.abs()
    rounding = s * first.rounding + t * second.rounding + 4 * EPS * sizes
    regulariser = (s * first.regulariser + t * second.regulariser) * (1 + 4 * EPS)
    above = line(problem, predictions, rounding, regulariser)
    # 2. The mixed multiplier, moved into dom F* where rounding has left it. Its dual norms are at most those of the
    # exact mixture and of what was changed; `adjoint_rounding` exceeds 16 EPS times the largest dual norm of the sizes.
    operator, loss = problem.operator(), problem.loss
    mixture = s * first.multiplier + t * second.multiplier
    sizes = s * first.multiplier.abs() + t * second.multiplier.abs()
    inside = loss.project_dual(mixture, operator.Y)
    moved = (inside - mixture).abs()
    norm = (s * first.beta + t * second.beta) * (1 + 8 * EPS) + adjoint_rounding(operator, sizes)
    if bool(moved.any()):
        norm += adjoint_rounding(operator, moved) / EPS
    below, _ = best_dual(loss, operator.Y, inside, problem.beta, norm, underflow=multiplier_underflow(operator))
    return above, below
