"""One Newton step on a set of neurons, kept short: least of the quadratic model with d^T D d <= radius^2 sum_j s_j.

D = 1 / s for every neuron: in the units of the columns (u, v) the plain Euclidean norm, and radius 1 is a step as long
as the point itself. Three routes, the cheapest by a count of operations: a Cholesky factorisation of the damped matrix
(H + mu beta D) d = -g, one of an N x N matrix for the same system (scalar outputs), and preconditioned conjugate
gradients on exact Hessian products, which end at the radius or where the curvature is negative (Steihaug, SIAM J.
Numer. Anal. 20, 1983; Nocedal & Wright, Numerical Optimization, section 7.2). The first two are controlled by mu.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.newton.matrices import hessian_matrix, sample_matrix, stiffen_rotations
from convexnn_bench.algorithms.newton.point import Here, Step

PRODUCTS = 15.0  # conjugate gradient steps that a direct solve is weighed against at first, then as many as were needed
START_RADIUS, SHORT = 0.5, 0.2  # a radius below SHORT says no more than SHORT does about the work left
FORGOTTEN = 0.95  # of that number and of a small radius, a direct step
PRODUCT_OVERHEAD = 1.3e7  # operations that a Hessian product costs beside its own
PRODUCT_SLOWNESS = 3.0  # of a product's thin matrices and masks against one large matrix product
LARGEST_MATRIX = 2**26  # entries of a matrix that is formed, and of the array it is formed from: 512 MiB
LONGEST = 500  # conjugate gradient steps
LEAST_DAMPING = 1e-3  # taken where none was too little
NO_DAMPING = 1e-8
GOOD, VERY_GOOD = 0.5, 0.8  # ratio of the fall of f to the model's, above which steps may be longer
LEAST_CURVATURE = 1e-6  # of a sample, as a part of the largest there can be
DISAGREEMENT = 0.1  # of float32 and float64 about what a step gains
SHIFT = 1e-13  # of the mean diagonal entry, against rotations within a block, which change nothing


@dataclass(frozen=True)
class Move:
    """step: (p + q) x J. predicted: by how much the quadratic model falls. cut: the radius ended it."""

    step: Step
    predicted: float
    cut: bool


@dataclass
class Control:
    """How short steps are held: mu of the direct routes, radius of conjugate gradients; each learns from its own.
    With every direct step what conjugate gradients learnt fades.

    products: Hessian products that a step by conjugate gradients is expected to take, radius apart.
    """

    damping: float = 1.0
    radius: float = START_RADIUS
    products: float = PRODUCTS

    @property
    def effort(self) -> float:
        """Hessian products that conjugate gradients need for as much as one step of full length achieves."""
        share = max(SHORT, min(START_RADIUS, self.radius)) / START_RADIUS
        return max(self.products, PRODUCTS / share)

    def shorter(self, route: str) -> None:
        if route == "products":
            self.radius *= 0.3
        else:
            self.damping = max(4 * self.damping, LEAST_DAMPING)

    def longer(self, route: str, move: Move, ratio: float) -> None:
        """After a step whose fall of f was `ratio` times the model's."""
        if route == "products":
            if ratio > VERY_GOOD and move.cut:
                self.radius = min(2 * self.radius, 1.0)
            return
        # what conjugate gradients last needed says less with every step
        self.radius = min(self.radius / FORGOTTEN, max(self.radius, START_RADIUS))
        self.products = max(PRODUCTS, FORGOTTEN * self.products)
        if ratio > GOOD:
            self.damping = self.damping / 8 if self.damping > NO_DAMPING else 0.0


class NewtonSystem:
    """The Hessian at a point, factorised or not, for any damping."""

    def __init__(self, here: Here, products: float = PRODUCTS):
        self.here = here
        self.route = cheapest_route(here, products)
        self._matrix: torch.Tensor | None = None

    def move(self, control: "Control", accuracy: float) -> Move | None:
        """The step; None where the damped Hessian is not positive definite.

        accuracy: relative residual that conjugate gradients end at.
        """
        if self.route == "products":
            before = self.here.working.products
            move = self._by_products(control.radius, accuracy)
            control.products = max(PRODUCTS, float(self.here.working.products - before))
            if self.here.single:
                exact = self._fall(move.step)
                if abs(exact - move.predicted) <= DISAGREEMENT * abs(move.predicted):
                    return replace(move, predicted=exact)
                self.here.working.single = False  # from here on
                move = self._by_products(control.radius, accuracy)
            return move
        mu = control.damping
        step = self._by_hessian(mu) if self.route == "hessian" else self._by_samples(mu)
        if step is None:
            return None
        # -(g d + d H d / 2) with d (H + mu beta D) d = -g d
        here = self.here
        damping = mu * here.beta * float((step.square() / here.sizes).sum())
        return Move(step, -0.5 * float((here.gradient * step).sum()) + 0.5 * damping, False)

    def _fall(self, step: Step) -> float:
        """By how much the quadratic model falls, -(g d + d H d / 2), in float64."""
        return -float((step * (self.here.gradient + 0.5 * self.here.stiffened(step))).sum())

    def _by_hessian(self, mu: float) -> Step | None:
        here = self.here
        if self._matrix is None:
            self._matrix = hessian_matrix(here)
            stiffen_rotations(here, self._matrix)
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

    @cached_property
    def _preconditioner(self) -> "Preconditioner":
        return Preconditioner(self.here)

    def _by_products(self, radius: float, accuracy: float) -> Move:
        here, solve = self.here, self._preconditioner
        metric, limit = 1 / here.sizes, radius**2 * float(here.sizes.sum())
        d = torch.zeros_like(here.gradient)
        r = -here.gradient
        y = solve(r)
        direction, inner, square, cut = y, float((r * y).sum()), 0.0, False
        first = inner
        for _ in range(LONGEST):
            image = here.stiffened(direction, here.single)
            bend, crossed, along = torch.stack(
                [(direction * image).sum(), (metric * d * direction).sum(), (metric * direction.square()).sum()]
            ).tolist()
            edge = (-crossed + math.sqrt(max(0.0, crossed**2 + along * (limit - square)))) / along
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
    """An approximate inverse of the Hessian in which neurons are coupled as if masks and rows of Phi were independent.

    With m_j the masks and F'' = curvature, the a-part of the Hessian has the blocks
    sum_i m_ij m_ik (y_j^T F''_i y_k) phi_i phi_i^T, taken as kappa_jk S with S = sum_i c_i phi_i phi_i^T, c_i the mean
    of the eigenvalues of F''_i, and kappa_jk = (sum_i c_i m_ij m_ik / sum_i c_i) y_j^T F'' y_k, F'' the mean: a
    Kronecker product, as in Martens & Grosse (ICML 2015). With beta / s_j on the diagonal it is inverted exactly, by
    the eigenvectors of S and those of the pencil (kappa, beta / s). The b-part is taken as diagonal.
    """

    def __init__(self, here: Here):
        Y, self.p = here.neurons.Y, here.neurons.W.shape[0]
        weights, mean = self._curvatures(here)
        rows, total = here.working.rows, weights.sum()
        values, self.vectors = torch.linalg.eigh(rows.T @ (weights[:, None] * rows))
        shared = (here.masks.T @ (weights[:, None] * here.masks) / total) * (Y.T @ mean @ Y)
        pull = here.beta / here.sizes
        roots = pull.rsqrt()
        pencil, mixed = torch.linalg.eigh(roots[:, None] * shared * roots)
        self.mixed = roots[:, None] * mixed
        self.scale = 1 / (1 + values.clamp_min(0)[:, None] * pencil.clamp_min(0))  # p x J
        self.turn = 1 / ((weights[:, None] * (here.H / here.sizes).square()).sum(dim=0) + pull)

    @staticmethod
    def _curvatures(here: Here) -> tuple[Float[torch.Tensor, " N"], Float[torch.Tensor, "q q"]]:
        """(c, F''), the mean scaled to the trace q; the largest curvature for all where C is not the identity."""
        operator, loss, q = here.operator, here.working.loss, here.neurons.Y.shape[0]
        eye = torch.eye(q, dtype=operator.dtype, device=operator.device)
        if loss.unit_curvature or not operator.architecture.second_layer_is_identity:
            return torch.full((operator.N,), loss.smoothness, dtype=operator.dtype, device=operator.device), eye
        each = here.curvature(eye.expand(operator.N, q, q).contiguous())
        weights = each.diagonal(dim1=1, dim2=2).mean(dim=1) + LEAST_CURVATURE * loss.smoothness
        return weights, each.sum(dim=0) / weights.sum()

    def __call__(self, r: Step) -> Step:
        a = self.vectors @ ((self.scale * (self.vectors.T @ r[: self.p] @ self.mixed)) @ self.mixed.T)
        return torch.cat([a, r[self.p :] * self.turn])


def cheapest_route(here: Here, products: float = PRODUCTS) -> str:
    """ "hessian", "samples" or "products", whichever needs the fewest operations for one step.

    products: Hessian products of a step by conjugate gradients.
    """
    operator, loss = here.operator, here.working.loss
    N, J, p = operator.N, len(here.neurons), here.neurons.W.shape[0]
    q = here.neurons.Y.shape[0]
    turning = q if q > 1 else 0
    size = J * (p + turning)
    product = 8 * N * J * (p + q) * PRODUCT_SLOWNESS + PRODUCT_OVERHEAD
    costs = {"products": products * product}
    if operator.architecture.second_layer_is_identity and not operator._structured_first:
        outputs = 1 if loss.unit_curvature else q
        if max(N, size) * size <= LARGEST_MATRIX:
            costs["hessian"] = 2 * N * outputs * size**2 + size**3 / 3
        if q == 1 and N * N <= LARGEST_MATRIX:
            costs["samples"] = 6 * N * N * J + N**3 / 3
    return min(costs, key=lambda route: costs[route] if math.isfinite(costs[route]) else math.inf)
