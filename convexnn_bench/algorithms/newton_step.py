"""One Newton step on a set of neurons, kept short: least of the quadratic model with d^T D d <= radius^2 sum_j s_j.

D = 1 / s for every neuron: in the units of the columns (u, v) the plain Euclidean norm, and radius 1 is a step as long
as the point itself. Three routes, the cheapest by a count of operations: a Cholesky factorisation of the damped matrix
(H + mu beta D) d = -g, one of an N x N matrix for the same system (scalar outputs), and preconditioned conjugate
gradients on exact Hessian products, which end at the radius or where the curvature is negative (Steihaug, SIAM J.
Numer. Anal. 20, 1983; Nocedal & Wright, Numerical Optimization, section 7.2). The first two are controlled by mu.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.newton_matrices import hessian_matrix, sample_matrix
from convexnn_bench.algorithms.newton_neurons import Here, Step

PRODUCTS = 100  # conjugate gradient steps that a direct solve is weighed against
PRODUCT_OVERHEAD = 2e7  # operations that a Hessian product costs beside its own
PRODUCT_SLOWNESS = 3.0  # of a product's thin matrices and masks against one large matrix product
LARGEST_MATRIX = 2**26  # entries of a matrix that is formed, and of the array it is formed from: 512 MiB
LONGEST = 500  # conjugate gradient steps
LEAST_DAMPING = 1e-3  # taken where none was too little
NO_DAMPING = 1e-8
GOOD, VERY_GOOD = 0.5, 0.8  # ratio of the fall of f to the model's, above which steps may be longer
SHIFT = 1e-13  # of the mean diagonal entry, against rotations within a block, which change nothing


@dataclass(frozen=True)
class Move:
    """step: (p + q) x J. predicted: by how much the quadratic model falls. cut: the radius ended it."""

    step: Step
    predicted: float
    cut: bool


@dataclass
class Control:
    """How short steps are held: mu of the direct routes, radius of conjugate gradients."""

    damping: float = 1.0
    radius: float = 0.5

    def shorter(self) -> None:
        self.damping = max(4 * self.damping, LEAST_DAMPING)
        self.radius *= 0.3

    def longer(self, move: Move, ratio: float) -> None:
        """After a step whose fall of f was `ratio` times the model's."""
        if ratio > GOOD:
            self.damping = self.damping / 8 if self.damping > NO_DAMPING else 0.0
        if ratio > VERY_GOOD and move.cut:
            self.radius = min(2 * self.radius, 1.0)


class NewtonSystem:
    """The Hessian at a point, factorised or not, for any damping."""

    def __init__(self, here: Here):
        self.here = here
        self.route = cheapest_route(here)
        self._matrix: torch.Tensor | None = None

    def move(self, control: "Control", accuracy: float) -> Move | None:
        """The step; None where the damped Hessian is not positive definite.

        accuracy: relative residual that conjugate gradients end at.
        """
        if self.route == "products":
            return self._by_products(control.radius, accuracy)
        mu = control.damping
        step = self._by_hessian(mu) if self.route == "hessian" else self._by_samples(mu)
        if step is None:
            return None
        # -(g d + d H d / 2) with d (H + mu beta D) d = -g d
        here = self.here
        damping = mu * here.beta * float((step.square() / here.sizes).sum())
        return Move(step, -0.5 * float((here.gradient * step).sum()) + 0.5 * damping, False)

    def _by_hessian(self, mu: float) -> Step | None:
        here = self.here
        if self._matrix is None:
            self._matrix = hessian_matrix(here)
        rows = self._matrix.shape[0] // len(here.neurons)
        damped = self._matrix.clone()
        diagonal = damped.diagonal()
        diagonal += SHIFT * diagonal.abs().mean() + (mu * here.beta / here.sizes).repeat(rows)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if int(failed):
            return None
        step = torch.zeros_like(here.gradient)
        right = -here.gradient[:rows].reshape(-1, 1)
        step[:rows] = torch.cholesky_solve(right, factor).view(rows, -1)
        return step

    def _by_samples(self, mu: float) -> Step | None:
        """Scalar outputs: w/s part t and orthogonal part d of a step, y = W^(1/2) of the change of the predictions.

        With S = W^(1/2) sum_j (s_j / beta) D_j Phi (I - w w^T / s^2) Phi^T D_j W^(1/2), the columns
        Q = W^(1/2) D_j Phi w_j / s_j, theta = s / (beta (1 + mu)), E = mu beta / s and g split likewise:

            d = -theta (g_d + (I - w w^T / s^2) Phi^T D W^(1/2) y),    E t + Q^T y = -g_t,
            (I + S / (1 + mu)) y = Q t - W^(1/2) sum_j D_j Phi theta_j g_d.
        """
        here, p = self.here, self.here.neurons.W.shape[0]
        unit, sign, root = here.directions, here.neurons.Y, here.curvature(torch.ones_like(here.z)[:, :, None]).sqrt()
        root = root[:, 0]  # N x 1
        if self._matrix is None:
            self._matrix = sample_matrix(here, root)
        K = self._matrix / (1 + mu)
        K.diagonal().add_(1.0)
        factor = torch.linalg.cholesky_ex(K)[0]
        g = here.gradient[:p]
        g_t = (unit * g).sum(dim=0)
        g_d, theta = g - unit * g_t, here.sizes / (here.beta * (1 + mu))
        Q = root * (here.H / here.sizes) * sign
        shift = -root * ((here.operator.first_layer(theta * g_d) * here.masks) @ sign.T)
        solved = torch.cholesky_solve(torch.cat([Q, shift], dim=1), factor)
        small = Q.T @ solved[:, :-1]
        small.diagonal().add_(mu * here.beta / here.sizes + SHIFT * small.diagonal().abs().mean())
        inner, failed = torch.linalg.cholesky_ex(small)
        if int(failed):
            return None
        t = torch.cholesky_solve(-g_t[:, None] - Q.T @ solved[:, -1:], inner)
        y = solved[:, :-1] @ t + solved[:, -1:]
        back = here.operator.first_layer_adjoint(here.masks * (root * y)) * sign
        d = -theta * (g_d + back - unit * (unit * back).sum(dim=0))
        step = torch.zeros_like(here.gradient)
        step[:p] = unit * t[:, 0] + d
        return step

    def _by_products(self, radius: float, accuracy: float) -> Move:
        here, solve = self.here, Preconditioner(self.here)
        metric, limit = 1 / here.sizes, radius**2 * float(here.sizes.sum())
        d = torch.zeros_like(here.gradient)
        r = -here.gradient
        y = solve(r)
        direction, inner, square, cut = y, float((r * y).sum()), 0.0, False
        first = inner
        for _ in range(LONGEST):
            image = here.product(direction)
            bend, crossed, along = torch.stack(
                [(direction * image).sum(), (metric * d * direction).sum(), (metric * direction.square()).sum()]
            ).tolist()
            edge = (-crossed + math.sqrt(crossed**2 + along * (limit - square))) / along
            length = inner / bend if bend > 0 else math.inf
            cut = length >= edge
            length = min(length, edge)
            d, r = d + length * direction, r - length * image
            square += 2 * length * crossed + length**2 * along
            if cut:
                break
            y = solve(r)
            after = float((r * y).sum())
            if after <= accuracy**2 * first:
                break
            direction, inner = y + (after / inner) * direction, after
        # H d = -g - r
        return Move(d, -0.5 * float((here.gradient * d).sum()) + 0.5 * float((r * d).sum()), cut)


class Preconditioner:
    """An approximate inverse of the Hessian from one eigendecomposition that all neurons share.

    The a-part of neuron j has about c Phi^T D_j Phi + (beta / s_j) (I - w w^T / s_j^2), c the largest curvature of the
    loss; Phi^T D_j Phi is taken as the part of Phi^T Phi that the mask's share of the rows is.
    """

    def __init__(self, here: Here):
        self.p = here.neurons.W.shape[0]
        values, self.vectors = here.working.spectrum
        lengths = torch.linalg.vector_norm(here.H, dim=0)
        curvature = here.working.loss.smoothness
        share = here.masks.mean(dim=0)
        pull = here.beta / here.sizes
        self.scale = 1 / (curvature * values[:, None] * share + pull)  # p x J
        self.turn = 1 / (curvature * (lengths / here.sizes).square() + pull)
        self.unit = here.directions
        self.image = self._spread(self.unit)
        # Sherman-Morrison: the direction of w itself does not bend the norm
        self.weight = pull / (1 - pull * (self.unit * self.image).sum(dim=0)).clamp_min(1e-12)

    def _spread(self, a: Float[torch.Tensor, "p J"]) -> Float[torch.Tensor, "p J"]:
        return self.vectors @ (self.scale * (self.vectors.T @ a))

    def __call__(self, r: Step) -> Step:
        a = self._spread(r[: self.p])
        a = a + self.image * (self.weight * (self.unit * a).sum(dim=0))
        return torch.cat([a, r[self.p :] * self.turn])


def cheapest_route(here: Here) -> str:
    """ "hessian", "samples" or "products", whichever needs the fewest operations for one step."""
    operator, loss = here.operator, here.working.loss
    N, J, p = operator.N, len(here.neurons), here.neurons.W.shape[0]
    q = here.neurons.Y.shape[0]
    turning = q if q > 1 else 0
    size = J * (p + turning)
    product = 8 * N * J * (p + q) * PRODUCT_SLOWNESS + PRODUCT_OVERHEAD
    costs = {"products": PRODUCTS * product}
    if operator.architecture.second_layer_is_identity and not operator._structured_first:
        outputs = 1 if loss.unit_curvature else q
        if max(N, size) * size <= LARGEST_MATRIX:
            costs["hessian"] = 2 * N * outputs * size**2 + size**3 / 3
        if q == 1 and N * N <= LARGEST_MATRIX:
            costs["samples"] = 6 * N * N * J + N**3 / 3
    return min(costs, key=lambda route: costs[route] if math.isfinite(costs[route]) else math.inf)
