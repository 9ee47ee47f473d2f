"""A feasible point of the vector-output ReLU program.

It is made from a solution of the doubly non-negative relaxation.

1. Factor every S_k into columns u u^T with u in cone k, which gives U_k V_k^T = Z_k if the relaxation is exact there.
2. If the objective of these factors exceeds the relaxation's value, add extreme rays to the blocks that were not exact.
3. Lower the objective from there by convex programs in V and in U alternately (`descend_factors`).
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.deadline import time_is_up
from convexnn_bench.formulations import balance
from convexnn_bench.norms import Frame, Relaxation, extreme_rays, factor_block
from convexnn_bench.problem import Problem

ZERO = 1e-6  # blocks below this part of the largest are errors of the conic solver
CLOSED = 1e-7  # relative distance from the relaxation's value up to which the factors are final
STALLED = 1e-12  # relative decrease of a proximal step at which a descent ends
# chosen by trial (commit 384fbfb)
MOST_RAYS, SMALL = 40, 1e-3  # most extreme rays added to a block, and the size of their v relative to the others
ROUNDS, STEPS = 4, 150  # pairs of descents in V and U, and the most proximal steps of each

Lefts = Float[torch.Tensor, "J p"]
Rights = Float[torch.Tensor, "J q"]
Factors = tuple[Float[np.ndarray, "P p m"], Float[np.ndarray, "P q m"]]


def round_relaxation(problem: Problem, relaxation: Relaxation, improve: bool = True) -> Factors:
    """Return (U, V) with the columns of U_k in cone k.

    improve: take steps 2 and 3 if step 1 was not exact.

    Blocks that have not been factored by the deadline are zero.
    """
    # 1. factor the blocks, the largest first
    weights, p = relaxation.weights, problem.p
    kept = np.flatnonzero(weights > ZERO * max(float(np.max(weights)), 0.0))
    pairs, inexact = {}, []
    for k in kept[np.argsort(-weights[kept], kind="stable")].tolist():
        if time_is_up():
            break
        left, right, exact = factor_block(
            relaxation.frames[k], relaxation.inner[k, :p, :p], relaxation.inner[k, :p, p:]
        )
        pairs[k] = left, right
        if not exact:
            inexact.append(k)
    U, V = _stacked(problem, pairs)
    value = problem.factored_objective(U, V)
    # For beta at or above beta_max the optimum is zero, which factors of a conic solver's answer miss by its errors.
    if problem.factored_objective(0 * U, 0 * V) <= value:
        return 0 * U, 0 * V
    if improve and not time_is_up() and value > relaxation.value + CLOSED * abs(relaxation.value):
        # 2. extreme rays, 3. descent
        pairs |= {k: _with_rays(relaxation.frames[k], *pairs[k]) for k in inexact}
        lower = descend_factors(problem, *_stacked(problem, pairs))
        if problem.factored_objective(*lower) < value:
            return lower
    return U, V


def _stacked(problem: Problem, pairs: dict[int, tuple[np.ndarray, np.ndarray]]) -> Factors:
    """Return the pairs of some blocks as (U, V), padded with zero columns, U projected onto its cones."""
    assert problem.cones is not None
    m = max([problem.p, *(left.shape[1] for left, _ in pairs.values())])
    U, V = np.zeros((problem.P, problem.p, m)), np.zeros((problem.P, problem.q, m))
    for k, (left, right) in pairs.items():
        U[k, :, : left.shape[1]], V[k, :, : left.shape[1]] = left, right
    return np.asarray(problem.cones.project(U)), V


def _with_rays(frame: Frame, U: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns with extreme rays of the cone added, whose v are small and random."""
    rays = frame.map @ extreme_rays(frame.rows)[:MOST_RAYS].T
    small = SMALL * np.linalg.norm(V) * np.random.default_rng(0).standard_normal((len(V), rays.shape[1]))
    return np.concatenate([U, rays], axis=1), np.concatenate([V, small], axis=1)


def descend_factors(problem: Problem, U: np.ndarray, V: np.ndarray) -> Factors:
    """Lower the objective from (U, V) by minimising in V and in U alternately.

    Columns may vanish; none is added.

    With the other factor's columns fixed at length one, each is the convex group lasso

        min F(A(U V^T)) + beta sum_j ||u_j|| ||v_j||   with u_j in its cone.
    """
    assert problem.cones is not None
    for _ in range(ROUNDS):
        for side in (_descend_right, _descend_left):
            block, column = np.nonzero(np.any(U != 0, axis=1) & np.any(V != 0, axis=1))
            u, v = side(problem, block, torch.as_tensor(U[block, :, column]), torch.as_tensor(V[block, :, column]))
            U, V = np.zeros_like(U), np.zeros_like(V)
            U[block, :, column], V[block, :, column] = u.numpy(), v.numpy()
    left, right = balance(torch.as_tensor(U), torch.as_tensor(V))
    return np.asarray(problem.cones.project(left.numpy())), right.numpy()


def _slope(problem: Problem, mask: torch.Tensor, u: Lefts, v: Rights) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Return F at the columns' predictions, their pre-activations (N x J), and C^*(grad F)."""
    operator = problem.operator()
    H = mask * (operator.Phi @ u.T)
    z = operator.second_layer(H @ v)
    value = float(problem.loss.value(z, operator.Y))
    return value, H, operator.second_layer_adjoint(problem.loss.gradient(z, operator.Y))


def _descend_right(problem: Problem, block: np.ndarray, u: Lefts, v: Rights) -> tuple[Lefts, Rights]:
    """Return the best v for the directions u.

    block: the block of every column, ascending.
    """
    mask = problem.operator().masks[:, torch.as_tensor(block)].to(u.dtype)
    u, v = _shift(u, v)

    def smooth(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        value, H, R = _slope(problem, mask, u, x)
        return value, H.T @ R

    return u, group_lasso(smooth, lambda x: x, v, problem.beta, STEPS)


def _descend_left(problem: Problem, block: np.ndarray, u: Lefts, v: Rights) -> tuple[Lefts, Rights]:
    """Return the best u in their cones for the directions v.

    block: the block of every column, ascending.
    """
    operator, cones = problem.operator(), problem.cones
    assert cones is not None
    mask = operator.masks[:, torch.as_tensor(block)].to(u.dtype)
    # The position of every column in its block, for blocks in ascending order.
    column = np.arange(len(block)) - np.searchsorted(block, block)
    v, u = _shift(v, u)

    def smooth(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        value, _, R = _slope(problem, mask, x, v)
        return value, (mask * (R @ v.T)).T @ operator.Phi

    def project(x: torch.Tensor) -> torch.Tensor:
        full = np.zeros((problem.P, problem.p, int(column.max(initial=0)) + 1))
        full[block, :, column] = x.numpy()
        return torch.as_tensor(np.asarray(cones.project(full))[block, :, column])

    return group_lasso(smooth, project, u, problem.beta, STEPS), v


def _shift(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x with rows of length one or zero, and y with its rows multiplied by the lengths that x had."""
    # u v^T and ||u|| ||v|| do not change: from here on the length is in y alone, and the penalty is beta sum_j ||y_j||.
    lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(lengths > 0, lengths, torch.ones_like(lengths)), y * lengths


def group_lasso(
    smooth: Callable[[torch.Tensor], tuple[float, torch.Tensor]],
    project: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    beta: float,
    steps: int,
) -> torch.Tensor:
    """Minimise smooth(x) + beta sum_j ||x_j|| over rows x_j in cones, by accelerated proximal gradients.

    1. Take a proximal step, which projects a row onto its cone and shortens it; halve the step until the quadratic
       model holds (Beck & Teboulle, 2009).
    2. If the objective has risen, go back to the last point and drop the momentum.
    3. Otherwise extrapolate with Nesterov's momentum, and let the step grow.
    """

    def total(value: float, x: torch.Tensor) -> float:
        return value + beta * float(torch.linalg.vector_norm(x, dim=1).sum())

    point, momentum, best, step = x, 1.0, np.inf, 1.0
    for _ in range(steps):
        # 1. the proximal step
        value, gradient = smooth(point)
        while True:
            new = project(point - step * gradient)
            lengths = torch.linalg.vector_norm(new, dim=1, keepdim=True)
            # The proximal map of step beta ||x|| over a cone: project, then shorten by step beta, or to zero.
            new = new * (1 - step * beta / lengths.clamp_min(1e-300)).clamp_min(0)
            move = new - point
            there = smooth(new)[0]
            bound = value + float((gradient * move).sum() + move.square().sum() / (2 * step))
            if there <= bound + 1e-12 * abs(bound) or step < 1e-12:
                break
            step *= 0.5
        # 2. restart
        reached = total(there, new)
        if reached > best:
            if momentum == 1.0:
                break
            point, momentum = x, 1.0
            continue
        # 3. extrapolate
        after = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        if best - reached <= STALLED * abs(reached):
            return new
        point = new + (momentum - 1) / after * (new - x)
        x, best, momentum = new, reached, after
        step *= 1.1
    return x
