"""A feasible point of the vector-output ReLU program from a solution of its doubly non-negative relaxation."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.formulations.burer_monteiro import balance
from convexnn_bench.norms.cone_factors import Frame, Relaxation, extreme_rays, factor_block
from convexnn_bench.problem import Problem

ZERO = 1e-6  # blocks below this part of the largest are zero
CLOSED = 1e-7  # relative distance of the factors' objective from the relaxation's value at which they are left alone
MOST_RAYS, SMALL = 40, 1e-3  # extreme rays tried for a block that could not be factored, and the size of their v
STALLED = 1e-12  # relative decrease of a step at which the descent ends
ROUNDS, STEPS = 4, 150  # of the descent from there: in V, then in U, each by accelerated proximal gradients

Lefts = Float[torch.Tensor, "J p"]
Rights = Float[torch.Tensor, "J q"]
Factors = tuple[Float[np.ndarray, "P p m"], Float[np.ndarray, "P q m"]]


def round_relaxation(problem: Problem, relaxation: Relaxation, improve: bool = True) -> Factors:
    """(U, V) with the columns of U_k in cone k; U_k V_k^T = Z_k where every S_k could be factored, and, with improve, a
    point of lower objective nearby where that is not so."""
    weights, p = relaxation.weights, problem.p
    kept = np.flatnonzero(weights > ZERO * max(float(np.max(weights)), 0.0))
    pairs, inexact = {}, []
    for k in kept.tolist():
        left, right, exact = factor_block(
            relaxation.frames[k], relaxation.inner[k, :p, :p], relaxation.inner[k, :p, p:]
        )
        pairs[k] = left, right
        if not exact:
            inexact.append(k)
    U, V = _stacked(problem, pairs)
    value = problem.factored_objective(U, V)
    if problem.factored_objective(0 * U, 0 * V) <= value:
        return 0 * U, 0 * V
    if improve and value > relaxation.value + CLOSED * abs(relaxation.value):
        pairs |= {k: _with_rays(relaxation.frames[k], *pairs[k]) for k in inexact}
        lower = descend(problem, *_stacked(problem, pairs))
        if problem.factored_objective(*lower) < value:
            return lower
    return U, V


def _stacked(problem: Problem, pairs: dict[int, tuple[np.ndarray, np.ndarray]]) -> Factors:
    """The pairs of some blocks as (U, V), columns of zeros added, and U projected on its cones."""
    assert problem.cones is not None
    m = max([problem.p, *(left.shape[1] for left, _ in pairs.values())])
    U, V = np.zeros((problem.P, problem.p, m)), np.zeros((problem.P, problem.q, m))
    for k, (left, right) in pairs.items():
        U[k, :, : left.shape[1]], V[k, :, : left.shape[1]] = left, right
    return np.asarray(problem.cones.project(U)), V


def _with_rays(frame: Frame, U: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extreme rays of the cone added, with small v for the descent to start from."""
    rays = frame.map @ extreme_rays(frame.rows)[:MOST_RAYS].T
    small = SMALL * np.linalg.norm(V) * np.random.default_rng(0).standard_normal((len(V), rays.shape[1]))
    return np.concatenate([U, rays], axis=1), np.concatenate([V, small], axis=1)


def descend(problem: Problem, U: np.ndarray, V: np.ndarray) -> Factors:
    """A point of the factored program below (U, V): alternately in V and in U, in either of which it is convex,

        min F(A(U V^T)) + beta sum_j ||u_j|| ||v_j||   with u_j in its cone, the other factor's columns of length one,

    a group lasso. Columns only ever leave.
    """
    assert problem.cones is not None
    for _ in range(ROUNDS):
        for side in (_descend_right, _descend_left):
            block, place = np.nonzero(np.any(U != 0, axis=1) & np.any(V != 0, axis=1))
            u, v = side(problem, block, torch.as_tensor(U[block, :, place]), torch.as_tensor(V[block, :, place]))
            U, V = np.zeros_like(U), np.zeros_like(V)
            U[block, :, place], V[block, :, place] = u.numpy(), v.numpy()
    left, right = balance(torch.as_tensor(U), torch.as_tensor(V))
    return np.asarray(problem.cones.project(left.numpy())), right.numpy()


def _slope(problem: Problem, mask: torch.Tensor, u: Lefts, v: Rights) -> tuple[float, torch.Tensor, torch.Tensor]:
    """F at the columns' predictions, their pre-activations (N x J), and C^*(grad F)."""
    operator = problem.operator()
    H = mask * (operator.Phi @ u.T)
    z = operator.second_layer(H @ v)
    value = float(problem.loss.value(z, operator.Y))
    return value, H, operator.second_layer_adjoint(problem.loss.gradient(z, operator.Y))


def _descend_right(problem: Problem, block: np.ndarray, u: Lefts, v: Rights) -> tuple[Lefts, Rights]:
    """The best v for the directions u; block, ascending: which block a column belongs to."""
    mask = problem.operator().masks[:, torch.as_tensor(block)].to(u.dtype)
    u, v = _shift(u, v)

    def smooth(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        value, H, R = _slope(problem, mask, u, x)
        return value, H.T @ R

    return u, group_lasso(smooth, lambda x: x, v, problem.beta, STEPS)


def _descend_left(problem: Problem, block: np.ndarray, u: Lefts, v: Rights) -> tuple[Lefts, Rights]:
    """The best u in their cones for the directions v; block as before."""
    operator, cones = problem.operator(), problem.cones
    assert cones is not None
    mask = operator.masks[:, torch.as_tensor(block)].to(u.dtype)
    place = np.arange(len(block)) - np.searchsorted(block, block)
    v, u = _shift(v, u)

    def smooth(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        value, _, R = _slope(problem, mask, x, v)
        return value, (mask * (R @ v.T)).T @ operator.Phi

    def project(x: torch.Tensor) -> torch.Tensor:
        full = np.zeros((problem.P, problem.p, int(place.max(initial=0)) + 1))
        full[block, :, place] = x.numpy()
        return torch.as_tensor(np.asarray(cones.project(full))[block, :, place])

    return group_lasso(smooth, project, u, problem.beta, STEPS), v


def _shift(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of x at length one, or zero, their length given to y."""
    lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(lengths > 0, lengths, torch.ones_like(lengths)), y * lengths


def group_lasso(
    smooth: Callable[[torch.Tensor], tuple[float, torch.Tensor]],
    project: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    beta: float,
    steps: int,
) -> torch.Tensor:
    """min smooth(x) + beta sum_j ||x_j|| over rows x_j in cones: accelerated proximal gradients (Beck & Teboulle 2009)
    with backtracking, restarted where the objective rises. The proximal map projects, then shortens."""

    def total(value: float, x: torch.Tensor) -> float:
        return value + beta * float(torch.linalg.vector_norm(x, dim=1).sum())

    point, momentum, best, step = x, 1.0, np.inf, 1.0
    for _ in range(steps):
        value, gradient = smooth(point)
        while True:
            new = project(point - step * gradient)
            lengths = torch.linalg.vector_norm(new, dim=1, keepdim=True)
            new = new * (1 - step * beta / lengths.clamp_min(1e-300)).clamp_min(0)
            move = new - point
            there = smooth(new)[0]
            bound = value + float((gradient * move).sum() + move.square().sum() / (2 * step))
            if there <= bound + 1e-12 * abs(bound) or step < 1e-12:
                break
            step *= 0.5
        reached = total(there, new)
        if reached > best:
            if momentum == 1.0:
                break
            point, momentum = x, 1.0
            continue
        after = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        if best - reached <= STALLED * abs(reached):
            return new
        point = new + (momentum - 1) / after * (new - x)
        x, best, momentum = new, reached, after
        step *= 1.1
    return x
