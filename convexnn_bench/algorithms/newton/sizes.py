"""The best sizes of given neurons: min over s >= 0 of F(C(sum_j s_j D_j Phi x_j y_j^T)) + beta sum_j s_j, convex.

This is what decides which neurons stay: new ones enter with size zero and get the size that lowers f most, and old ones
whose weight others have taken over leave.
"""

from functools import cached_property

import torch
from jaxtyping import Bool, Float

from convexnn_bench.algorithms.newton.neurons import Neurons
from convexnn_bench.algorithms.newton.point import WorkingProblem
from convexnn_bench.operator.lifted import CHUNK_ELEMENTS

RIDGE = 1e-11  # of the mean diagonal entry: neighbouring neurons are all but parallel
MAJORANT = 1e-3
STEPS = 30  # Newton steps; one for the squared loss
SETTLED = 1e-9  # relative decrease of f below which the sizes are good enough
NEGLIGIBLE = 1e-13
PIVOTS, PATIENCE = 200, 10

Sizes = Float[torch.Tensor, " J"]
Gram = Float[torch.Tensor, "J J"]


class Atoms:
    """z = sum_j s_j A_j with A_j = C(D_j Phi x_j y_j^T), never formed all at once."""

    def __init__(self, working: WorkingProblem, neurons: Neurons):
        self.working, self.operator, self.Y = working, working.operator, neurons.Y
        self.H = self.operator.first_layer(neurons.W).mul_(working.masks(neurons.blocks))

    def predict(self, s: Sizes) -> torch.Tensor:
        return self.operator.combine_neurons(self.H, self.Y * s)

    def pull(self, L: torch.Tensor) -> Sizes:
        """<A_j, L>."""
        return (self.operator.combine_adjoint(self.H, self.Y, L)[1] * self.Y).sum(dim=0)

    def gram(self, z: torch.Tensor) -> Gram:
        """<A_i, F''(z) A_j> + MAJORANT L <A_i, A_j>, L the largest curvature: F may be flat here and not nearby."""
        loss, targets, J = self.working.loss, self.working.targets, self.H.shape[1]
        if loss.unit_curvature:
            return self._inner
        K = max(MAJORANT, self.working.floor) * loss.smoothness * self._inner
        if not self._plain:
            return K + self._all.T @ loss.curvature(z, targets)(self._all.view(*z.shape, J)).reshape(-1, J)
        step = max(1, CHUNK_ELEMENTS // (J * z.shape[1]))
        for rows in (slice(start, start + step) for start in range(0, len(z), step)):
            A = self.H[rows, None, :] * self.Y
            K += A.view(-1, J).T @ loss.curvature(z[rows], targets[rows])(A).view(-1, J)
        return K

    @property
    def _plain(self) -> bool:
        return self.operator.architecture.second_layer_is_identity

    @cached_property
    def _all(self) -> Float[torch.Tensor, "outputs J"]:
        """The A_j as columns, where C has a structure of its own."""
        each = torch.vmap(lambda h, y: self.operator.combine_neurons(h[:, None], y[:, None]))
        return each(self.H.T, self.Y.T).flatten(1).T

    @cached_property
    def _inner(self) -> Gram:
        """<A_i, A_j>, for C the identity <H_i, H_j> <y_i, y_j>."""
        return (self.H.T @ self.H) * (self.Y.T @ self.Y) if self._plain else self._all.T @ self._all


def best_sizes(working: WorkingProblem, neurons: Neurons, s: Sizes, settled: float = SETTLED) -> Sizes:
    """The minimiser from s >= 0, by Newton's method with a non-negative quadratic program a step; f never rises.

    neurons: W holds the unit vectors x. settled: relative fall of f in a step that ends it.
    """
    atoms, loss, beta = Atoms(working, neurons), working.loss, working.beta

    def value(z: torch.Tensor, s: Sizes) -> float:
        return float(loss.value(z, working.targets) + beta * s.sum())

    z = atoms.predict(s)
    f = value(z, s)
    for _ in range(STEPS):
        K, gradient = atoms.gram(z), atoms.pull(loss.gradient(z, working.targets)) + beta
        K = K + RIDGE * torch.eye(len(s), dtype=K.dtype, device=K.device) * K.diagonal().mean()
        move = nonnegative_minimum(K, gradient - K @ s, (s > 0) | (gradient < 0)) - s
        slope, length = float(gradient @ move), 1.0
        if not slope < -NEGLIGIBLE * abs(f):
            break
        while True:
            moved = s + length * move
            z_moved = atoms.predict(moved)
            lower = value(z_moved, moved)
            if lower <= f + 1e-4 * length * slope or length < 1e-12:
                break
            length *= 0.5
        if not lower < f:
            break
        done = f - lower <= settled * abs(f) or (loss.unit_curvature and length == 1.0)
        s, z, f = moved, z_moved, lower
        if done:
            break
    return s


def nonnegative_minimum(K: Gram, linear: Sizes, positive: Bool[torch.Tensor, " J"]) -> Sizes:
    """argmin over x >= 0 of 1/2 x^T K x + linear^T x for positive definite K, by block principal pivoting.

    positive: the first guess of where x > 0. All entries of the wrong sign change sides at once, and one at a time
    where that does not help (Judice & Pires, Comput. Oper. Res. 21, 1994; Kim & Park, SIAM J. Sci. Comput. 33, 2011).
    """
    tolerance = 1e-11 * float(linear.abs().max())
    fewest, left = len(linear) + 1, PATIENCE
    x = torch.zeros_like(linear)
    for _ in range(PIVOTS):
        inside = torch.nonzero(positive)[:, 0]
        factor = torch.linalg.cholesky_ex(K[inside][:, inside])[0]
        x = torch.zeros_like(linear)
        x[inside] = -torch.cholesky_solve(linear[inside, None], factor)[:, 0]
        slack = K @ x + linear
        wrong = torch.where(positive, x < 0, slack < -tolerance)
        count = int(wrong.sum())
        if count == 0:
            break
        if count < fewest:
            fewest, left = count, PATIENCE
        elif left > 0:
            left -= 1
        else:
            wrong = torch.zeros_like(wrong).index_fill_(0, torch.nonzero(wrong)[-1], True)
        positive = positive ^ wrong
    return x.clamp_min(0)
