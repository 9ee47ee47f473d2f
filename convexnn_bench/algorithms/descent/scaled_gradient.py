"""The preconditioner of scaled gradient descent for factors Z_k = U_k V_k^T.

It is damped by the objective's curvature.

    U_k <- U_k - t (G_k V_k + beta U_k) (L_k V_k^T V_k + lambda_k I)^-1,   V_k likewise with U_k,

With beta = lambda = 0 this is the method of Tong, Ma & Chi (JMLR 22, 2021), whose products do not depend on how Z_k is
factored. With more columns than the rank of Z_k, V_k^T V_k is singular at the optimum, and Zhang, Fattahi & Zhang
(NeurIPS 2021) add a damping that follows the distance from it. Here the damping follows from the second derivative
along (X, Y) in one block, which is at most

    2 L_k (||X V_k^T||^2 + ||U_k Y^T||^2) + (beta + ||G_k||) (||X||^2 + ||Y||^2),   L_k = (smoothness of F) ||A_k||^2,

With lambda_k = (beta + ||G_k||) / 2 a step t <= 1/2 of one block alone therefore always satisfies the upper model. At
an optimum ||G_k|| <= beta, and far from one the damping grows with the gradient. The coupling between blocks is left to
backtracking. ||G_k|| is estimated from below by ||G_k V_k|| / ||V_k|| and ||G_k^T U_k|| / ||U_k||.
"""

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.descent.bm_objective import BMObjective
from convexnn_bench.algorithms.descent.methods import Vector
from convexnn_bench.operator import Operator

POWER_ITERATIONS = 10  # the norms set a damping, for which one digit is enough

Factor = Float[torch.Tensor, "P rows m"]
Other = Float[torch.Tensor, "P others m"]
Norms = Float[torch.Tensor, " P"]


def block_norms_squared(operator: Operator) -> Norms:
    """Return ||C||^2 ||D_k Phi||^2 >= ||A_k||^2, both norms estimated from below by power iterations."""
    generator = torch.Generator().manual_seed(0)
    L, u = (
        torch.randn(shape, generator=generator, dtype=operator.dtype).to(operator.device)
        for shape in ((operator.n_out, operator.c), (operator.p, operator.P))
    )
    size, sizes = torch.linalg.vector_norm(L), torch.linalg.vector_norm(u, dim=0)
    # One power iteration for C C^* on L, and P at once for (D_k Phi)^T D_k Phi on the columns of u.
    for _ in range(POWER_ITERATIONS):
        L = operator.second_layer(operator.second_layer_adjoint(L / size.clamp_min(1e-300)))
        size = torch.linalg.vector_norm(L)
        H = operator.hidden((u / sizes.clamp_min(1e-300)).T[:, :, None])
        u = operator.first_layer_adjoint(H[:, :, 0])
        sizes = torch.linalg.vector_norm(u, dim=0)
    return size * sizes


def scaled(gradient: Factor, other: Other, curvature: Norms, damping: Norms) -> Factor:
    """Return the scaled gradient of every block, by Cholesky's method.

    It is gradient_k (curvature_k other_k^T other_k + damping_k I)^-1.
    """
    metric = curvature[:, None, None] * (other.transpose(1, 2) @ other)
    metric.diagonal(dim1=1, dim2=2).add_(damping[:, None])
    factor = torch.linalg.cholesky_ex(metric).L  # _ex does not wait for a GPU to report failure
    return torch.cholesky_solve(gradient.transpose(1, 2), factor).transpose(1, 2)


class ScaledMetric:
    """The preconditioner (x, gradient) -> scaled direction, on the flat vectors of `BMObjective`."""

    def __init__(self, objective: BMObjective):
        self.objective = objective
        self.curvature = objective.problem.loss.smoothness * block_norms_squared(objective.operator)

    def damping(self, U: Factor, V: Other, left: Factor, right: Other) -> Norms:
        """Return (beta + ||G_k||) / 2, estimated from the gradient (left, right) of the objective."""
        # The gradient is (G_k V_k + beta U_k, G_k^T U_k + beta V_k), so that G_k V_k and G_k^T U_k need no further
        # product.
        beta = self.objective.problem.beta
        by_left = _norms(left - beta * U) / _norms(V).clamp_min(1e-300)
        by_right = _norms(right - beta * V) / _norms(U).clamp_min(1e-300)
        return 0.5 * (beta + torch.maximum(by_left, by_right))

    def __call__(self, x: Vector, gradient: Vector) -> Vector:
        (U, V), (left, right) = self.objective.factors(x), self.objective.factors(gradient)
        damping = self.damping(U, V, left, right)
        return self.objective.flatten(
            scaled(left, V, self.curvature, damping), scaled(right, U, self.curvature, damping)
        )


def _norms(factor: Factor) -> Norms:
    return torch.linalg.vector_norm(factor, dim=(1, 2))
