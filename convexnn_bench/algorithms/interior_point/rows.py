"""How Lambda and the predictions z are tied, row by row: Lambda = grad F(z), in a form that Newton's method can take.

Each form gives dLambda = C dz - r with C = R R^T symmetric and positive semidefinite.

    SmoothRows   C = F''(z), r = Lambda - grad F(z).
    BoxedRows    for a loss whose gradient has kinks, because F* is finite only where low <= Lambda <= high. There

                     z = grad F*(Lambda) + u - l,   u (high - Lambda) = mu,   l (Lambda - low) = mu,   u, l > 0,

                 and Lambda stays strictly inside. Eliminating du and dl gives C^-1 = F*'' + u / (high - Lambda) +
                 l / (Lambda - low). With F'' in place of C, which is zero beyond a kink, Newton's method may cycle.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float

from convexnn_bench.losses import BaseLoss
from convexnn_bench.operator import Predictions

Roots = Float[torch.Tensor, "n c c"]

# Chosen by trials with logistic losses and cross-entropy, at 1e-5 to 0.1 beta_max.
FIRST_FIT = 0.03  # least scale of the first z
MOST_CHANGE = 10.0  # of a prediction in one step; without a limit Newton's method may diverge where F'' nearly vanishes
TINY = 1e-300  # keeps quotients finite


class Pair(NamedTuple):
    """u and l, or a direction of theirs."""

    u: Predictions
    l: Predictions  # noqa: E741


def rows_of(loss: BaseLoss, Y: Predictions) -> "SmoothRows":
    """Return the form for a loss."""
    return BoxedRows(loss, Y) if loss.has_kinks and not loss.rows_sum_to_zero else SmoothRows(loss, Y)


class SmoothRows:
    """Lambda = grad F(z)."""

    root: Roots | None  # R, None for the identity

    def __init__(self, loss: BaseLoss, Y: Predictions):
        self.loss, self.Y = loss, Y

    def begin(self, gradient: Predictions, scale: float, mu: float) -> Predictions:
        """Return the first z for Lambda = scale * gradient, the gradient at zero.

        It is grad F*(Lambda), but for no smaller a scale than FIRST_FIT, since a step from a very small Lambda can only
        add about one to the logarithm of it.
        """
        return self.dual_gradient((scale if self.loss.unit_curvature else max(scale, FIRST_FIT)) * gradient)

    def dual_gradient(self, Lambda: Predictions) -> Predictions:
        """Return grad F*(Lambda), with zeros where that is not finite."""
        if self.loss.unit_curvature:
            return Lambda + self.Y
        with torch.enable_grad():
            at = Lambda.detach().requires_grad_()
            (z,) = torch.autograd.grad(self.loss.conjugate(at, self.Y), at)
        return torch.where(torch.isfinite(z), z, 0.0)

    def linearise(self, Lambda: Predictions, z: Predictions) -> None:
        """Prepare for steps from these values."""
        self.root = None if self.loss.unit_curvature else _root(self.loss, z, self.Y)
        self.r = Lambda - self.loss.gradient(z, self.Y)

    def right(self, mu: float, predictor: tuple[Predictions, Pair] | None) -> Predictions:
        """Return r for a step to mu; predictor: dLambda with its pair, whose products are corrected."""
        return self.r

    def pair(self, dLambda: Predictions, mu: float, predictor: tuple[Predictions, Pair] | None) -> Pair:
        """Return the direction of (u, l)."""
        return Pair(torch.zeros_like(dLambda), torch.zeros_like(dLambda))

    def longest(self, dLambda: Predictions, dz: Predictions, pair: Pair) -> float:
        """Return the longest step that keeps Lambda inside, u and l positive, and F''(z) a model of the loss."""
        return math.inf if self.loss.unit_curvature else MOST_CHANGE / max(float(dz.abs().max()), TINY)

    def complementarity(self, length: float, dLambda: Predictions, pair: Pair) -> tuple[float, int]:
        """Return the sum of the products u (high - Lambda) and l (Lambda - low) after a step, and their number."""
        return 0.0, 0

    def move(self, length: float, pair: Pair) -> None:
        """Step."""


class BoxedRows(SmoothRows):
    """z = grad F*(Lambda) + u - l, with Lambda in the box of F*'s domain."""

    def begin(self, gradient: Predictions, scale: float, mu: float) -> Predictions:
        Lambda = scale * gradient
        everything = torch.full_like(gradient, torch.inf)
        self.low = self.loss.project_dual(-everything, self.Y)
        self.high = self.loss.project_dual(everything, self.Y)
        self.free = self.high > self.low  # a row with the weight zero has Lambda = 0
        below, above = self._rooms(Lambda)
        self.now = Pair(mu / above, mu / below)
        return self.dual_gradient(Lambda) + self.now.u - self.now.l

    def _rooms(self, Lambda: Predictions) -> tuple[Predictions, Predictions]:
        below, above = Lambda - self.low, self.high - Lambda
        return torch.where(self.free, below, 1.0), torch.where(self.free, above, 1.0)

    def linearise(self, Lambda: Predictions, z: Predictions) -> None:
        self.below, self.above = self._rooms(Lambda)
        inner = self.dual_gradient(Lambda)
        root = _root(self.loss, inner, self.Y).diagonal(dim1=1, dim2=2)
        inverse = root.square().reciprocal() + self.now.u / self.above + self.now.l / self.below
        self.C = torch.where(self.free, inverse.reciprocal(), 0.0)
        self.root = torch.diag_embed(self.C.sqrt())
        self.offset = inner - z

    def _targets(self, mu: float, predictor: tuple[Predictions, Pair] | None) -> Pair:
        """Return the products u (high - Lambda) and l (Lambda - low) to aim at, less those of the predictor."""
        if predictor is None:
            return Pair(torch.full_like(self.C, mu), torch.full_like(self.C, mu))
        dLambda, pair = predictor
        return Pair(mu + pair.u * dLambda, mu - pair.l * dLambda)

    def right(self, mu: float, predictor: tuple[Predictions, Pair] | None) -> Predictions:
        target = self._targets(mu, predictor)
        return self.C * (self.offset + target.u / self.above - target.l / self.below)

    def pair(self, dLambda: Predictions, mu: float, predictor: tuple[Predictions, Pair] | None) -> Pair:
        target, now = self._targets(mu, predictor), self.now
        du = (target.u + now.u * dLambda) / self.above - now.u
        dl = (target.l - now.l * dLambda) / self.below - now.l
        return Pair(du, dl)

    def longest(self, dLambda: Predictions, dz: Predictions, pair: Pair) -> float:
        now, ends = self.now, [TINY]
        changes = ((now.u, pair.u), (now.l, pair.l), (self.below, dLambda), (self.above, -dLambda))
        ends += [
            float((-change / value)[self.free & (value > 0)].amax())
            for value, change in changes
            if bool((self.free & (value > 0)).any())
        ]
        return 1.0 / max(ends)

    def complementarity(self, length: float, dLambda: Predictions, pair: Pair) -> tuple[float, int]:
        above = (self.now.u + length * pair.u) * (self.above - length * dLambda)
        below = (self.now.l + length * pair.l) * (self.below + length * dLambda)
        finite = [self.free & torch.isfinite(room) for room in (self.above, self.below)]
        total = float(above[finite[0]].sum() + below[finite[1]].sum())
        return total, int(finite[0].sum() + finite[1].sum())

    def move(self, length: float, pair: Pair) -> None:
        self.now = Pair(self.now.u + length * pair.u, self.now.l + length * pair.l)


def _root(loss: BaseLoss, z: Predictions, Y: Predictions) -> Roots:
    """Return R with R R^T = F''(z), row by row."""
    n, c = z.shape
    W = loss.curvature(z, Y)(torch.eye(c, dtype=z.dtype, device=z.device).expand(n, c, c).contiguous())
    diagonal = W.diagonal(dim1=1, dim2=2)
    if not bool((W - torch.diag_embed(diagonal)).any()):
        return torch.diag_embed(diagonal.clamp_min(0).sqrt())
    values, vectors = torch.linalg.eigh(0.5 * (W + W.transpose(1, 2)))
    return vectors * values.clamp_min(0).sqrt()[:, None, :]
