"""The trust-region subproblem of one Newton step, solved by whichever of three routes costs least.

The step d = (a, b) lowers the quadratic model g d + d H d / 2 of f, while the trust region keeps it short. Lengths are
measured by d^T D d with D = 1 / s for every neuron: in the units of the columns (u, v) that is the Euclidean norm.

    hessian   (H + mu beta D) d = -g by Cholesky                               J (p + q) unknowns
    samples   the same system through an N x N matrix                          N unknowns, scalar outputs
    products  preconditioned conjugate gradients on exact Hessian products,    d^T D d <= radius^2 sum_j s_j
              which end at the radius or at negative curvature

The third is Steihaug's method (SIAM J. Numer. Anal. 20, 1983; Nocedal & Wright, Numerical Optimization, section 7.2).
`trust_region.py` chooses mu and the radius.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from convexnn_bench.algorithms.newton.matrices import add_rotation_curvatures, hessian_matrix, sample_matrix
from convexnn_bench.algorithms.newton.point import PointState, Step
from convexnn_bench.algorithms.newton.preconditioner import KroneckerPreconditioner

# Where no source is named, a value was chosen by trials on the ladder (docs/measurements.md).
TYPICAL_PRODUCTS = 15.0  # Hessian products that conjugate gradients are expected to take before any were counted
PRODUCT_OVERHEAD = 1.3e7  # cost of calling a Hessian product, in operations
PRODUCT_SLOWNESS = 3.0  # time of an operation in a product's thin matrices and masks, relative to one large product
LARGEST_MATRIX = 2**26  # entries of a matrix that is formed, and of the array it is formed from: 512 MiB of float64
MOST_CG_STEPS = 500
FLOAT32_DISAGREEMENT = 0.1  # relative difference of the predicted decreases beyond which float64 takes over
# Added to the diagonal in units of its mean: rotations within a block change nothing and may leave the matrix singular.
DIAGONAL_SHIFT = 1e-13


@dataclass(frozen=True)
class TrialStep:
    """A step within the trust region."""

    step: Step
    predicted_decrease: float  # of the quadratic model
    at_boundary: bool  # whether the radius ended conjugate gradients
    products: int = 0  # Hessian products that conjugate gradients took


class NewtonSystem:
    """The subproblem at one point.

    Its matrix is formed once for all dampings that are tried.
    """

    def __init__(self, point: PointState, cg_products: float = TYPICAL_PRODUCTS):
        self.point = point
        self.route = cheapest_route(point, cg_products)
        self._matrix: torch.Tensor | None = None

    def trial_step(self, damping: float, radius: float, accuracy: float) -> TrialStep | None:
        """Return the step, or None if the damped Hessian is not positive definite.

        `damping` is mu of the direct routes, `accuracy` the relative residual at which conjugate gradients end.
        """
        if self.route == "products":
            return self._checked_conjugate_gradients(radius, accuracy)
        step = self._by_hessian(damping) if self.route == "hessian" else self._by_samples(damping)
        if step is None:
            return None
        # The decrease is -(g d + d H d / 2), where d (H + mu beta D) d = -g d.
        point = self.point
        damped = damping * point.beta * float((step.square() / point.sizes).sum())
        return TrialStep(step, -0.5 * float((point.gradient * step).sum()) + 0.5 * damped, False)

    # -- products ---------------------------------------------------------------------------------------

    def _checked_conjugate_gradients(self, radius: float, accuracy: float) -> TrialStep:
        """Return the step, or repeat it in float64 and for the rest of the run where float32 misleads."""
        trial = self._by_conjugate_gradients(radius, accuracy)
        if not self.point.single:
            return trial
        # The predicted decrease is computed once more, in float64.
        exact = -float((trial.step * (self.point.gradient + 0.5 * self.point.model_product(trial.step))).sum())
        if abs(exact - trial.predicted_decrease) <= FLOAT32_DISAGREEMENT * abs(trial.predicted_decrease):
            return replace(trial, predicted_decrease=exact)
        self.point.working.single = False
        return replace(self._by_conjugate_gradients(radius, accuracy), products=trial.products)

    @cached_property
    def _preconditioner(self) -> KroneckerPreconditioner:
        return KroneckerPreconditioner(self.point)

    def _by_conjugate_gradients(self, radius: float, accuracy: float) -> TrialStep:
        """Run Steihaug's method from d = 0, with residual r = -g - H d.

        1. Multiply the Hessian by the search direction c.
        2. Go to the minimum along c, or to the boundary if that comes first or the curvature is not positive.
        3. End at the boundary.
        4. Precondition the residual, and end where it is small.
        5. Make the next direction conjugate to c.
        """
        point, precondition = self.point, self._preconditioner
        metric, limit = 1 / point.sizes, radius**2 * float(point.sizes.sum())
        d, r = torch.zeros_like(point.gradient), -point.gradient
        y = precondition(r)
        c, rho, length_squared, at_boundary = y, float((r * y).sum()), 0.0, False
        first, products = rho, 0
        for _ in range(MOST_CG_STEPS):
            # 1. Multiply. The three inner products reach the host in one transfer.
            image = point.model_product(c, point.single)
            products += 1
            curvature, crossed, along = torch.stack(
                [(c * image).sum(), (metric * d * c).sum(), (metric * c.square()).sum()]
            ).tolist()
            # 2. Go. ||d + t c||_D = radius at the positive root t of a quadratic equation.
            boundary = (-crossed + math.sqrt(max(0.0, crossed**2 + along * (limit - length_squared)))) / along
            length = rho / curvature if curvature > 0 else math.inf
            at_boundary = length >= boundary
            length = min(length, boundary)
            d, r = d + length * c, r - length * image
            length_squared += 2 * length * crossed + length**2 * along
            # 3. End at the boundary.
            if at_boundary:
                break
            # 4. Precondition.
            y = precondition(r)
            following = float((r * y).sum())
            if following <= accuracy**2 * first:
                break
            # 5. Next direction.
            c, rho = y + (following / rho) * c, following
        # The decrease is -(g d + d H d / 2) with H d = -g - r.
        decrease = -0.5 * float((point.gradient * d).sum()) + 0.5 * float((r * d).sum())
        return TrialStep(d, decrease, at_boundary, products)

    # -- direct routes ----------------------------------------------------------------------------------

    def _by_hessian(self, mu: float) -> Step | None:
        """Solve (H + mu beta D) d = -g by Cholesky.

        Return None if the matrix is not positive definite.
        """
        point = self.point
        if self._matrix is None:
            self._matrix = hessian_matrix(point)
            add_rotation_curvatures(point, self._matrix)
        rows = self._matrix.shape[0] // len(point.neurons)
        damped = self._matrix.clone()
        diagonal = damped.diagonal()
        diagonal += DIAGONAL_SHIFT * diagonal.abs().mean() + (mu * point.beta / point.sizes).repeat(rows)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if int(failed):
            return None
        step = torch.zeros_like(point.gradient)
        right = -point.gradient[:rows].reshape(-1, 1)
        step[:rows] = torch.cholesky_solve(right, factor).view(rows, -1)
        return step

    def _by_samples(self, mu: float) -> Step | None:
        """Solve the same system for scalar outputs through y, R times the change of the predictions.

        With R = F''^(1/2), split d and g into parts t, g_t along w/s and d, g_d orthogonal to it. Then with
        S = R sum_j (s_j / beta) D_j Phi (I - w w^T / s^2) Phi^T D_j R, the columns Q = R D_j Phi w_j / s_j,
        theta = s / (beta (1 + mu)) and E = mu beta / s,

            d = -theta (g_d + (I - w w^T / s^2) Phi^T D R y),    E t + Q^T y = -g_t,
            (I + S / (1 + mu)) y = Q t - R sum_j D_j Phi theta_j g_d.
        """
        point, p = self.point, self.point.neurons.left.shape[0]
        unit, sign = point.directions, point.neurons.right
        root = point.curvature(torch.ones_like(point.z)[:, :, None]).sqrt()[:, 0]  # N x 1
        # 1. Factorise I + S / (1 + mu).
        if self._matrix is None:
            self._matrix = sample_matrix(point, root)
        K = self._matrix / (1 + mu)
        K.diagonal().add_(1.0)
        factor = torch.linalg.cholesky_ex(K)[0]
        # 2. Eliminate y, which leaves a J x J system for t.
        g = point.gradient[:p]
        g_t = (unit * g).sum(dim=0)
        g_d, theta = g - unit * g_t, point.sizes / (point.beta * (1 + mu))
        Q = root * (point.hidden / point.sizes) * sign
        shift = -root * ((point.operator.first_layer(theta * g_d) * point.masks) @ sign.T)
        solved = torch.cholesky_solve(torch.cat([Q, shift], dim=1), factor)
        small = Q.T @ solved[:, :-1]
        small.diagonal().add_(mu * point.beta / point.sizes + DIAGONAL_SHIFT * small.diagonal().abs().mean())
        inner, failed = torch.linalg.cholesky_ex(small)
        if int(failed):
            return None
        t = torch.cholesky_solve(-g_t[:, None] - Q.T @ solved[:, -1:], inner)
        # 3. Recover y and d.
        y = solved[:, :-1] @ t + solved[:, -1:]
        back = point.operator.first_layer_adjoint(point.masks * (root * y)) * sign
        d = -theta * (g_d + back - unit * (unit * back).sum(dim=0))
        step = torch.zeros_like(point.gradient)
        step[:p] = unit * t[:, 0] + d
        return step


def cheapest_route(point: PointState, cg_products: float = TYPICAL_PRODUCTS) -> str:
    """Return "hessian", "samples" or "products", whichever takes the fewest operations for one step."""
    operator, loss = point.operator, point.working.loss
    N, J, p = operator.N, len(point.neurons), point.neurons.left.shape[0]
    q = point.neurons.right.shape[0]
    size = J * (p + (q if q > 1 else 0))
    costs = {"products": cg_products * (8 * N * J * (p + q) * PRODUCT_SLOWNESS + PRODUCT_OVERHEAD)}
    if operator.is_plain:
        outputs = 1 if loss.unit_curvature else q
        if (max(N, size) if loss.separable else max(N * q, size)) * size <= LARGEST_MATRIX:
            costs["hessian"] = 2 * N * outputs * size**2 + size**3 / 3
        if q == 1 and N * N <= LARGEST_MATRIX and loss.separable:
            costs["samples"] = 6 * N * N * J + N**3 / 3
    return min(costs, key=lambda route: costs[route])
