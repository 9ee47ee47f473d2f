"""The best sizes of given neurons.

They solve a convex problem, which decides which neurons enter, stay and leave.

    min over s >= 0 of F(sum_j s_j A_j) + beta sum_j s_j,   A_j = C(D_j Phi x_j y_j^T),   ||x_j|| = ||y_j|| = 1.

New neurons enter with size zero and get the size that lowers f most. Old ones leave once others have taken over their
weight. Newton's method solves it, with one non-negative quadratic program per step.
"""

from functools import cached_property

import torch
from jaxtyping import Bool, Float

from convexnn_bench.algorithms.newton.neurons import BlockNeurons
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem
from convexnn_bench.operator import CHUNK_ELEMENTS

# Where no source is named, a value was chosen by trials on the ladder (docs/measurements.md).
RIDGE = 1e-11  # added to the diagonal in units of its mean, because neighbouring neurons are nearly parallel
LEAST_MODEL_CURVATURE = 1e-3  # of F'' in the quadratic program, in units of the largest curvature of the loss
MOST_STEPS = 30  # Newton steps; the squared loss takes one
SETTLED = 1e-9  # relative decrease of f in a step that ends the method, unless the caller asks for less
NO_DECREASE = 1e-13  # predicted decrease, relative to f, below which there is only rounding
ARMIJO, SHORTEST = 1e-4, 1e-12  # least ratio of the decrease to the predicted one, and length, of the line search
MOST_PIVOTS = 200
PATIENCE = 10  # block pivots in a row that may leave as many wrong signs as before (Kim & Park use 3)
WRONG_SIGN = 1e-11  # a slack below minus this multiple of the largest linear coefficient is negative

Sizes = Float[torch.Tensor, " J"]
Gram = Float[torch.Tensor, "J J"]


class Atoms:
    """The map s -> z = sum_j s_j A_j of given unit neurons.

    The A_j are not formed all at once.
    """

    def __init__(self, working: WorkingProblem, units: BlockNeurons):
        self.working, self.operator, self.right = working, working.operator, units.right
        self.hidden = self.operator.first_layer(units.left).mul_(working.masks(units.blocks))

    def predict(self, s: Sizes) -> torch.Tensor:
        """Return z."""
        return self.operator.combine_neurons(self.hidden, self.right * s)

    def correlations(self, L: torch.Tensor) -> Sizes:
        """Return <A_j, L>."""
        return (self.operator.combine_adjoint(self.hidden, self.right, L)[1] * self.right).sum(dim=0)

    def gram(self, z: torch.Tensor) -> Gram:
        """Return <A_i, F''(z) A_j> plus a multiple of <A_i, A_j>.

        F may be flat at z and curved nearby.
        """
        loss, targets, J = self.working.loss, self.working.targets, self.hidden.shape[1]
        if loss.unit_curvature:
            return self._inner
        K = max(LEAST_MODEL_CURVATURE, self.working.curvature_floor) * loss.smoothness * self._inner
        if not self._identity:
            return K + self._all.T @ loss.curvature(z, targets)(self._all.view(*z.shape, J)).reshape(-1, J)
        step = max(1, CHUNK_ELEMENTS // (J * z.shape[1])) if loss.separable else len(z)
        for rows in (slice(start, start + step) for start in range(0, len(z), step)):
            A = self.hidden[rows, None, :] * self.right
            part = loss.rows(rows) if loss.separable else loss
            K += A.view(-1, J).T @ part.curvature(z[rows], targets[rows])(A).view(-1, J)
        return K

    @property
    def _identity(self) -> bool:
        """Whether C is the identity."""
        return self.operator.architecture.second_layer_is_identity

    @cached_property
    def _all(self) -> Float[torch.Tensor, "outputs J"]:
        """The A_j as columns, where C is not the identity."""
        each = torch.vmap(lambda h, y: self.operator.combine_neurons(h[:, None], y[:, None]))
        return each(self.hidden.T, self.right.T).flatten(1).T

    @cached_property
    def _inner(self) -> Gram:
        """<A_i, A_j>; for C the identity that is <h_i, h_j> <y_i, y_j>."""
        if self._identity:
            return (self.hidden.T @ self.hidden) * (self.right.T @ self.right)
        return self._all.T @ self._all


def best_sizes(working: WorkingProblem, units: BlockNeurons, s: Sizes, settled: float = SETTLED) -> Sizes:
    """Return the minimiser, from the start s >= 0; f never rises.

    The left vectors of `units` have length 1. It ends with a step that lowers f by at most `settled`, relatively.
    """
    atoms, loss, beta = Atoms(working, units), working.loss, working.beta

    def value(z: torch.Tensor, s: Sizes) -> float:
        return float(loss.value(z, working.targets) + beta * s.sum())

    z = atoms.predict(s)
    f = value(z, s)
    for _ in range(MOST_STEPS):
        # 1. Minimise the quadratic model over s >= 0.
        K, gradient = atoms.gram(z), atoms.correlations(loss.gradient(z, working.targets)) + beta
        K = K + RIDGE * torch.eye(len(s), dtype=K.dtype, device=K.device) * K.diagonal().mean()
        direction = nonnegative_minimum(K, gradient - K @ s, (s > 0) | (gradient < 0)) - s
        slope, length = float(gradient @ direction), 1.0
        if not slope < -NO_DECREASE * abs(f):
            break
        # 2. Halve the step until f falls by ARMIJO times what the slope predicts.
        while True:
            candidate = s + length * direction
            z_candidate = atoms.predict(candidate)
            lower = value(z_candidate, candidate)
            if lower <= f + ARMIJO * length * slope or length < SHORTEST:
                break
            length *= 0.5
        if not lower < f:
            break
        # 3. Take the step. With the squared loss a full step is exact.
        done = f - lower <= settled * abs(f) or (loss.unit_curvature and length == 1.0)
        s, z, f = candidate, z_candidate, lower
        if done:
            break
    return s


def nonnegative_minimum(K: Gram, linear: Sizes, positive: Bool[torch.Tensor, " J"]) -> Sizes:
    """Return argmin over x >= 0 of 1/2 x^T K x + linear^T x.

    K is positive definite. The method is block principal pivoting.

    `positive` is the first guess of where x > 0. See Judice & Pires, Comput. Oper. Res. 21, 1994, and Kim & Park, SIAM
    J. Sci. Comput. 33, 2011, algorithm 1.
    """
    tolerance = WRONG_SIGN * float(linear.abs().max())
    fewest, patience = len(linear) + 1, PATIENCE
    x = torch.zeros_like(linear)
    for _ in range(MOST_PIVOTS):
        # 1. Solve for x on the entries taken to be positive.
        inside = torch.nonzero(positive)[:, 0]
        factor = torch.linalg.cholesky_ex(K[inside][:, inside])[0]
        x = torch.zeros_like(linear)
        x[inside] = -torch.cholesky_solve(linear[inside, None], factor)[:, 0]
        # 2. An entry is wrong if x or the slack K x + linear is negative.
        slack = K @ x + linear
        wrong = torch.where(positive, x < 0, slack < -tolerance)
        count = int(wrong.sum())
        if count == 0:
            break
        # 3. Change the side of all wrong entries, and of the last one only once that has not helped PATIENCE times.
        if count < fewest:
            fewest, patience = count, PATIENCE
        elif patience > 0:
            patience -= 1
        else:
            wrong = torch.zeros_like(wrong).index_fill_(0, torch.nonzero(wrong)[-1], True)
        positive = positive ^ wrong
    return x.clamp_min(0)
