"""The Hessian of f on a set of neurons as a matrix, and the N x N matrix of the same Newton system (MLPs)."""

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.newton.point import Here
from convexnn_bench.operator.lifted import CHUNK_ELEMENTS


def hessian_matrix(here: Here) -> Float[torch.Tensor, "size size"]:
    """Rows and columns ordered as a step (p + q) x J row by row; only the p rows of a for scalar outputs.

    On the directions b along y, in which nothing turns, it is beta / s.
    """
    W, Y = here.neurons.W, here.neurons.Y
    (p, J), q = W.shape, Y.shape[0]
    turning = q if q > 1 else 0
    K = torch.zeros(p + turning, J, p + turning, J, dtype=W.dtype, device=W.device)
    E = (here.operator.Phi[:, :, None] * here.masks[:, None, :]).reshape(len(here.masks), -1)  # N x pJ
    if here.working.loss.unit_curvature:
        _unit_gauss_newton(here, E, K)
    else:
        _gauss_newton(here, E, K)
    each, pull = torch.arange(J, device=W.device), here.beta / here.sizes
    unit = here.directions
    eye = torch.eye(p, dtype=W.dtype, device=W.device)
    bend = pull[:, None, None] * (eye - unit.T[:, :, None] * unit.T[:, None, :])
    K[:p, each, :p, each] += bend
    if turning:
        P = _projections(Y)
        G = (E.T @ here.operator.second_layer_adjoint(here.L)).view(p, J, q).permute(1, 0, 2)
        cross = (G @ P) / here.sizes[:, None, None]
        K[:p, each, p:, each] += cross
        K[p:, each, :p, each] += cross.transpose(1, 2)
        along = pull[:, None, None] * (Y.T[:, :, None] * Y.T[:, None, :])
        K[p:, each, p:, each] += here.pull[:, None, None] * P + along
    return K.view((p + turning) * J, -1)


def stiffen_rotations(here: Here, K: Float[torch.Tensor, "size size"]) -> None:
    """Adds to the Hessian the outer products of the rotations within a block, see `Here.rotations`."""
    if here.rotations is None:
        return
    first, second = torch.nonzero(torch.triu(here.rotations), as_tuple=True)
    both = torch.cat([here.directions, here.neurons.Y])
    turns = torch.zeros(*both.shape, len(first), dtype=K.dtype, device=K.device)
    place = torch.arange(len(first), device=K.device)
    turns[:, second, place], turns[:, first, place] = both[:, first], -both[:, second]
    turns *= 0.5 * here.rotations[first, second].sqrt()
    K.addmm_(turns.view(len(K), -1), turns.view(len(K), -1).T)


def _projections(Y: Float[torch.Tensor, "q J"]) -> Float[torch.Tensor, "J q q"]:
    """I - y y^T."""
    eye = torch.eye(Y.shape[0], dtype=Y.dtype, device=Y.device)
    return eye - Y.T[:, :, None] * Y.T[:, None, :]


def _unit_gauss_newton(here: Here, E: Float[torch.Tensor, "N pJ"], K: Float[torch.Tensor, "r J r J"]) -> None:
    """J^T J of dz = sum_j D_j Phi (a_j y_j^T + w_j b_j^T / s_j), from inner products of the columns of E and H."""
    Y, p, J = here.neurons.Y, here.neurons.W.shape[0], len(here.neurons)
    K[:p, :, :p] = (E.T @ E).view(p, J, p, J) * (Y.T @ Y)[:, None, :]
    if K.shape[0] == p:
        return
    P, H = _projections(Y), here.H / here.sizes
    mixed = torch.einsum("kcd,dj->cjk", P, Y)  # (I - y_k y_k^T) y_j
    cross = (E.T @ H).view(p, J, 1, J) * mixed.permute(1, 0, 2)[None]
    K[:p, :, p:] = cross
    K[p:, :, :p] = cross.permute(2, 3, 0, 1)
    K[p:, :, p:] = torch.einsum("jce,ked->cjdk", P, P) * (H.T @ H)[:, None, :]


def _gauss_newton(here: Here, E: Float[torch.Tensor, "N pJ"], K: Float[torch.Tensor, "r J r J"]) -> None:
    """J^T F''(z) J, some samples at a time."""
    Y, p, J = here.neurons.Y, here.neurons.W.shape[0], len(here.neurons)
    P, H, q = _projections(Y), here.H / here.sizes, Y.shape[0]
    targets, flat = here.working.targets, K.view(K.shape[0] * J, -1)
    step = max(1, CHUNK_ELEMENTS // (flat.shape[0] * q))
    for rows in (slice(start, start + step) for start in range(0, len(E), step)):
        columns = [(E[rows].view(-1, 1, p, J) * Y[:, None, :]).flatten(2)]
        if K.shape[0] > p:
            columns.append((H[rows, None, None, :] * P.permute(1, 2, 0)).flatten(2))
        jacobian = torch.cat(columns, dim=2)  # rows x q x size
        curved = here.working.curvature(here.z[rows], targets[rows])(jacobian)
        flat += jacobian.flatten(0, 1).T @ curved.flatten(0, 1)


def sample_matrix(here: Here, root: Float[torch.Tensor, "N 1"]) -> Float[torch.Tensor, "N N"]:
    """W^(1/2) sum_j (s_j / beta) D_j Phi (I - w_j w_j^T / s_j^2) Phi^T D_j W^(1/2), W = root^2 (scalar outputs).

    As (Phi Phi^T) o (D diag(s / beta) D^T) minus the outer products of D_j Phi w_j: N^2 J operations, not N^2 J p.
    """
    rows = root * here.operator.Phi
    weights = (here.sizes / here.beta).sqrt()
    masks = here.masks * weights
    lines = root * (here.H / here.sizes) * weights
    return (rows @ rows.T).mul_(masks @ masks.T).addmm_(lines, lines.T, alpha=-1.0)
