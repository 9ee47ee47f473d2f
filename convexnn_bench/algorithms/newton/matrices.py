"""The Hessian of f on a set of neurons as a matrix.

For MLPs, also the N x N matrix of the same Newton system.
"""

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.newton.point import PointState
from convexnn_bench.operator import CHUNK_ELEMENTS


def hessian_matrix(point: PointState) -> Float[torch.Tensor, "size size"]:
    """Return the Hessian, with rows and columns in the order of a step (p + q) x J, row by row.

    With scalar outputs it has the p rows of a only. On directions b along y, in which nothing turns, it is beta / s.
    """
    W, Y = point.neurons.left, point.neurons.right
    (p, J), q = W.shape, Y.shape[0]
    turning = q if q > 1 else 0
    K = torch.zeros(p + turning, J, p + turning, J, dtype=W.dtype, device=W.device)
    # 1. The Gauss-Newton part J^T F'' J of dz = sum_j D_j Phi (a_j y_j^T + w_j b_j^T / s_j).
    E = (point.operator.Phi[:, :, None] * point.masks[:, None, :]).reshape(len(point.masks), -1)  # N x pJ
    if point.working.loss.unit_curvature:
        _unit_gauss_newton(point, E, K)
    else:
        _gauss_newton(point, E, K)
    # 2. The curvature beta / s (I - w w^T / s^2) of beta ||w||.
    each, norm_curvature = torch.arange(J, device=W.device), point.beta / point.sizes
    unit = point.directions
    eye = torch.eye(p, dtype=W.dtype, device=W.device)
    K[:p, each, :p, each] += norm_curvature[:, None, None] * (eye - unit.T[:, :, None] * unit.T[:, None, :])
    if turning:
        # 3. The cross terms G (I - y y^T) / s of a and b.
        P = _projections(Y)
        G = (E.T @ point.operator.second_layer_adjoint(point.loss_gradient)).view(p, J, q).permute(1, 0, 2)
        cross = (G @ P) / point.sizes[:, None, None]
        K[:p, each, p:, each] += cross
        K[p:, each, :p, each] += cross.transpose(1, 2)
        # 4. The curvature of turning y, and beta / s along y.
        along = norm_curvature[:, None, None] * (Y.T[:, :, None] * Y.T[:, None, :])
        K[p:, each, p:, each] += point.turning_curvature[:, None, None] * P + along
    return K.view((p + turning) * J, -1)


def add_rotation_curvatures(point: PointState, K: Float[torch.Tensor, "size size"]) -> None:
    """Add the outer products of the rotations within a block to the Hessian.

    `PointState.rotation_curvatures` are their factors.
    """
    if point.rotation_curvatures is None:
        return
    first, second = torch.nonzero(torch.triu(point.rotation_curvatures), as_tuple=True)
    both = torch.cat([point.directions, point.neurons.right])
    turns = torch.zeros(*both.shape, len(first), dtype=K.dtype, device=K.device)
    pair = torch.arange(len(first), device=K.device)
    turns[:, second, pair], turns[:, first, pair] = both[:, first], -both[:, second]
    turns *= 0.5 * point.rotation_curvatures[first, second].sqrt()
    K.addmm_(turns.view(len(K), -1), turns.view(len(K), -1).T)


def _projections(Y: Float[torch.Tensor, "q J"]) -> Float[torch.Tensor, "J q q"]:
    """Return I - y y^T for every neuron."""
    eye = torch.eye(Y.shape[0], dtype=Y.dtype, device=Y.device)
    return eye - Y.T[:, :, None] * Y.T[:, None, :]


def _unit_gauss_newton(point: PointState, E: Float[torch.Tensor, "N pJ"], K: Float[torch.Tensor, "r J r J"]) -> None:
    """Write J^T J into K, from inner products of the columns of E and of the hidden units."""
    Y, p, J = point.neurons.right, point.neurons.left.shape[0], len(point.neurons)
    K[:p, :, :p] = (E.T @ E).view(p, J, p, J) * (Y.T @ Y)[:, None, :]
    if K.shape[0] == p:
        return
    P, H = _projections(Y), point.hidden / point.sizes
    mixed = torch.einsum("kcd,dj->cjk", P, Y)  # (I - y_k y_k^T) y_j
    cross = (E.T @ H).view(p, J, 1, J) * mixed.permute(1, 0, 2)[None]
    K[:p, :, p:] = cross
    K[p:, :, :p] = cross.permute(2, 3, 0, 1)
    K[p:, :, p:] = torch.einsum("jce,ked->cjdk", P, P) * (H.T @ H)[:, None, :]


def _gauss_newton(point: PointState, E: Float[torch.Tensor, "N pJ"], K: Float[torch.Tensor, "r J r J"]) -> None:
    """Add J^T F''(z) J to K, some samples at a time."""
    Y, p, J = point.neurons.right, point.neurons.left.shape[0], len(point.neurons)
    P, H, q = _projections(Y), point.hidden / point.sizes, Y.shape[0]
    flat = K.view(K.shape[0] * J, -1)
    # An output bias couples all samples, so that they are taken together.
    separable = point.working.loss.separable
    step = max(1, CHUNK_ELEMENTS // (flat.shape[0] * q)) if separable else len(E)
    for rows in (slice(start, start + step) for start in range(0, len(E), step)):
        columns = [(E[rows].view(-1, 1, p, J) * Y[:, None, :]).flatten(2)]
        if K.shape[0] > p:
            columns.append((H[rows, None, None, :] * P.permute(1, 2, 0)).flatten(2))
        jacobian = torch.cat(columns, dim=2)  # rows x q x size
        curve = point.working.curvature(point.z[rows], rows) if separable else point.curvature
        curved = curve(jacobian)
        flat += jacobian.flatten(0, 1).T @ curved.flatten(0, 1)


def sample_matrix(point: PointState, root: Float[torch.Tensor, "N 1"]) -> Float[torch.Tensor, "N N"]:
    """Return R sum_j (s_j / beta) D_j Phi (I - w_j w_j^T / s_j^2) Phi^T D_j R with R = diag(root) (scalar outputs).

    It is formed as (Phi Phi^T) o (D diag(s / beta) D^T) minus the outer products of D_j Phi w_j, which takes N^2 J
    operations instead of N^2 J p.
    """
    rows = root * point.operator.Phi
    weights = (point.sizes / point.beta).sqrt()
    masks = point.masks * weights
    lines = root * (point.hidden / point.sizes) * weights
    return (rows @ rows.T).mul_(masks @ masks.T).addmm_(lines, lines.T, alpha=-1.0)
