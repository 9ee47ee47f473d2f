"""The preconditioner of conjugate gradients.

It is a Kronecker approximation of the Hessian, inverted exactly.

With the masks m_j, the a-part of the Hessian has the blocks sum_i m_ij m_ik (y_j^T F''_i y_k) phi_i phi_i^T. As if
masks and rows of Phi were independent, each is taken as kappa_jk S, with

    S = sum_i c_i phi_i phi_i^T,   c_i the mean eigenvalue of F''_i,
    kappa_jk = (sum_i c_i m_ij m_ik / sum_i c_i) y_j^T F'' y_k,   F'' the mean over samples:

a Kronecker product, as in Martens & Grosse (ICML 2015). With beta / s_j on the diagonal it is inverted exactly by the
eigenvectors of S and those of the pencil (kappa, beta / s). The b-part is taken as diagonal. For sparse data S is too
large to form, and its diagonal takes its place.
"""

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.newton.point import PointState, Step

LEAST_CURVATURE = 1e-6  # added to every c_i, in units of the loss's largest curvature, so that S is never zero


class KroneckerPreconditioner:
    """The approximate inverse; calling it applies it to a residual."""

    def __init__(self, point: PointState):
        Y, self.p = point.neurons.right, point.neurons.left.shape[0]
        weights, mean = self._curvatures(point)
        S, total = point.working.row_gram(weights), weights.sum()
        self.vectors: torch.Tensor | None = None  # the identity where S is a diagonal
        values = S
        if S.ndim == 2:
            values, self.vectors = torch.linalg.eigh(S)
        kappa = (point.masks.T @ (weights[:, None] * point.masks) / total) * (Y.T @ mean @ Y)
        norm_curvature = point.beta / point.sizes
        roots = norm_curvature.rsqrt()
        pencil, mixed = torch.linalg.eigh(roots[:, None] * kappa * roots)
        self.mixed = roots[:, None] * mixed
        self.scale = 1 / (1 + values.clamp_min(0)[:, None] * pencil.clamp_min(0))  # p x J
        self.turn = 1 / ((weights[:, None] * (point.hidden / point.sizes).square()).sum(dim=0) + norm_curvature)

    @staticmethod
    def _curvatures(point: PointState) -> tuple[Float[torch.Tensor, " N"], Float[torch.Tensor, "q q"]]:
        """Return c and the mean of F'' scaled to the trace q.

        Where C is not the identity, all samples get the largest curvature of the loss.
        """
        operator, loss, q = point.operator, point.working.loss, point.neurons.right.shape[0]
        eye = torch.eye(q, dtype=operator.dtype, device=operator.device)
        if loss.unit_curvature or not operator.architecture.second_layer_is_identity:
            return torch.full((operator.N,), loss.smoothness, dtype=operator.dtype, device=operator.device), eye
        # An output bias lowers the curvature only along common shifts of all samples, which are ignored here.
        curve = point.curvature if loss.separable else loss.row_curvature(point.z, point.working.targets)
        each = curve(eye.expand(operator.N, q, q).contiguous())
        weights = each.diagonal(dim1=1, dim2=2).mean(dim=1) + LEAST_CURVATURE * loss.smoothness
        return weights, each.sum(dim=0) / weights.sum()

    def __call__(self, residual: Step) -> Step:
        a, b = residual[: self.p], residual[self.p :]
        a = a if self.vectors is None else self.vectors.T @ a
        a = (self.scale * (a @ self.mixed)) @ self.mixed.T
        return torch.cat([a if self.vectors is None else self.vectors @ a, b * self.turn])
