"""Reduce a network without a change of its predictions on the data."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.algorithms.newton import BlockNeurons
from convexnn_bench.certificates import certify, strengthened
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.formulations import Point, burer_monteiro, convex
from convexnn_bench.operator import CHUNK_ELEMENTS, Operator
from convexnn_bench.optima.sizes import basic_sizes, without_smallest
from convexnn_bench.problem import Problem
from convexnn_bench.running import Result

UNCHANGED = 1e-8  # largest change of the predictions, relative to their norm
SPARED = 5e-9  # largest sum of the norms of predictions that are left out, relative to their norm; half of UNCHANGED
NEGLIGIBLE = 1e-14  # size up to which a neuron counts as rounding, relative to the largest one


def minimal_network(result: Result, *, time_limit: float | None = None) -> Result:
    """Return a result with as few neurons as its predictions on the data need.

    Parameters
    ----------
    result : Result
        A result with a certified point of any formulation.
    time_limit : float, optional
        Seconds after which the bound of the new certificate is improved no further, as for `certify`. The bound that
        `result` has proven is kept in any case. None for no limit.

    Returns
    -------
    Result
        A point of the same formulation with at most ``n_out * c`` neurons and never more than before, an objective
        that is not larger, and the same predictions on the data to 1e-8 (relative). It has a new certificate. Its
        `reason` says how many neurons are left. Solver, status, times and curve are those of `result`.

    Raises
    ------
    InputError
        `result` is no Result.
    UnsupportedError
        No network is known for the point, or it has no certified gap.

    Notes
    -----
    1. Merge neurons that one neuron can replace, also between blocks with equal masks. Without cones a singular value
       decomposition of every block merges them. With ReLU and one output, neurons of one pattern and sign are added.
    2. Leave out the smallest neurons, whose predictions add up to at most 5e-9 of the predictions, and solve a linear
       program for the sizes s = ||u|| ||v|| of the others. With fixed directions, predictions sum_j s_j a_j and penalty
       sum_j s_j are linear in the sizes. A basic solution of min sum_j s_j with the same predictions and s >= 0 has
       linearly independent a_j (Caratheodory's theorem; Mishkin & Pilanci, Optimal sets and solution paths of ReLU
       networks, ICML 2023).
    3. Certify the point. If the objective rose or the predictions changed by more than 1e-8, repeat step 2 with all
       neurons. Interior-point methods return many neurons that step 2 leaves out.
    4. Keep the point of `result` if rounding made the certified objective larger, or if the predictions changed by
       more than 1e-8.

    Predictions on other data may change, since neurons that agree on the data replace each other. `optimal_set` bounds
    this change for global optima.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [-0.5, 0.75**0.5]], [1.0, 1.0], beta=0.1)
    >>> result = cnn.solve(problem, "fista", gap=1e-9)
    >>> small = cnn.minimal_network(result)
    >>> small.objective <= result.objective, int(small.blocks.any(axis=(1, 2)).sum())
    (True, 1)
    """
    problem, point = _checked(result)
    assert result.certificate is not None
    known = result.certificate
    # 1. Merge neurons that one neuron can replace.
    before, neurons, operator = _neurons(problem, point)
    A, sizes = _images(operator, neurons), neurons.sizes
    for part in (SPARED, 0.0):
        # 2. Minimise the sum of their sizes for the same predictions, first without the smallest neurons.
        reduced = _resized(neurons, torch.as_tensor(basic_sizes(A, without_smallest(A, sizes.numpy(), part))))
        # 3. Certify the point. The bound of `result` holds for every point of the program. The copy is aligned as
        # arrays from a file are, so that the certificate of the saved point has the same bits.
        smaller = _point(problem, point, reduced).copy()
        smaller.dual = known.multiplier
        certificate = strengthened(certify(problem, smaller, known.scope, time_limit=time_limit), known)
        change = _change(problem, point, smaller)
        better = certificate.primal <= known.primal and change <= UNCHANGED
        if better:
            break
    # 4. Keep the better point.
    words = f"{len(reduced)} of {before} neurons are left, predictions changed by {change:.0e} (relative)"
    if len(reduced) == before:
        words = f"none of {before} neurons can be left out"
    if not better:
        smaller, certificate = point, known
        if len(reduced) < before:
            words = f"the point is kept, because rounding made the reduced one worse ({words})"
    return replace(result, point=smaller, certificate=certificate, reason=f"{words}; {result.reason}")


def _checked(result: Result) -> tuple[Problem, Point]:
    """Return the problem and the point of a result.

    Raise if the point cannot be reduced.
    """
    if not isinstance(result, Result):
        raise InputError(f"result must be a Result, as `solve` returns it, got {type(result).__name__}")
    if result.point is None or result.certificate is None:
        raise UnsupportedError(f"the result has no point to reduce: {result.status}, {result.reason}")
    if result.certificate.refused is not None:
        raise UnsupportedError(f"the point is not certified, so that it is not reduced: {result.certificate.refused}")
    return result.problem, result.point


def _neurons(problem: Problem, point: Point) -> tuple[int, BlockNeurons, Operator]:
    """Return the number of neurons of a point, its merged neurons, and an operator on their blocks."""
    if problem.has_cone and point.formulation == "network":
        # The patterns of a ReLU network need not be among the problem's blocks. Here each neuron is a block.
        W1, W2 = point.to_network(problem)
        operator = Operator(problem.architecture, problem.X, problem.Y, problem.Phi @ W1.numpy() >= 0)
        blocks = torch.arange(W1.shape[1])
    else:
        U, V = (factor.cpu() for factor in point.to_factors(problem))
        operator = problem.operator()
        W1, W2 = U.permute(1, 0, 2).reshape(problem.p, -1), V.permute(1, 0, 2).reshape(problem.q, -1)
        blocks = torch.arange(problem.P).repeat_interleave(U.shape[2])
    blocks = _first_of_equal(operator.masks)[blocks]
    neurons = _alive(BlockNeurons(blocks, *_scaled(W1, W2)))
    count = len(neurons)
    if not problem.has_cone:
        Z = burer_monteiro.to_blocks(*neurons.factors(problem.P)) if count else None
        return count, neurons if Z is None else _singular(problem, Z), operator
    return count, _added(neurons) if problem.q == 1 and count else neurons, operator


def _first_of_equal(masks: torch.Tensor) -> torch.Tensor:
    """Return for every block the index of the first block with the same mask."""
    packed = np.packbits(masks.numpy(), axis=0)
    _, first, inverse = np.unique(packed, axis=1, return_index=True, return_inverse=True)
    return torch.as_tensor(first[inverse.reshape(-1)])


def _scaled(W1: torch.Tensor, W2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (w, y) with w y^T = u v^T and ||y|| = 1 for every column pair; w = 0 where v is zero."""
    lengths = torch.linalg.vector_norm(W2, dim=0)
    safe = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    return W1 * lengths, W2 / safe


def _alive(neurons: BlockNeurons) -> BlockNeurons:
    """Return the neurons that are not zero up to rounding."""
    sizes = neurons.sizes
    return neurons.selected((sizes > 0) & (sizes > NEGLIGIBLE * sizes.max())) if len(neurons) else neurons


def _singular(problem: Problem, Z: torch.Tensor) -> BlockNeurons:
    """Return the singular pairs of every block as neurons, as many as its rank."""
    U, V = convex.to_factors(problem, Z)
    W1, W2 = U.permute(1, 0, 2).reshape(problem.p, -1), V.permute(1, 0, 2).reshape(problem.q, -1)
    return _alive(BlockNeurons(torch.arange(problem.P).repeat_interleave(U.shape[2]), *_scaled(W1, W2)))


def _added(neurons: BlockNeurons) -> BlockNeurons:
    """Return one neuron for each block and sign, the sum of its vectors, which stays in the cone."""
    keys = torch.stack([neurons.blocks, neurons.right[0].sign().long()])
    keys, owner = torch.unique(keys, dim=1, return_inverse=True)
    left = neurons.left.new_zeros(len(neurons.left), keys.shape[1]).index_add_(1, owner, neurons.left)
    return BlockNeurons(keys[0], left, keys[1:].to(left))


def _images(operator: Operator, neurons: BlockNeurons) -> Float[np.ndarray, "e J"]:
    """Return the predictions a_j of every neuron at size one, as columns."""
    directions = neurons.left / neurons.sizes
    A = directions.new_empty(operator.n_out * operator.c, len(neurons))
    step = max(1, CHUNK_ELEMENTS // (operator.N * operator.q))
    for part in (slice(start, start + step) for start in range(0, len(neurons), step)):
        E = directions.T[part, :, None] * neurons.right.T[part, None, :]
        A[:, part] = operator.images(E, neurons.blocks[part]).reshape(len(A), -1)
    return A.numpy()


def _resized(neurons: BlockNeurons, sizes: torch.Tensor) -> BlockNeurons:
    """Return the neurons with other sizes, without those that become zero."""
    return _alive(BlockNeurons(neurons.blocks, neurons.left / neurons.sizes * sizes, neurons.right))


def _point(problem: Problem, point: Point, neurons: BlockNeurons) -> Point:
    """Return neurons as a point of the formulation of `point`."""
    if problem.has_cone and point.formulation == "network":
        roots = neurons.sizes.sqrt()
        return Point(network=(neurons.left / roots, neurons.right * roots))
    if len(neurons):
        U, V = neurons.factors(problem.P)
    else:
        U, V = torch.zeros(problem.P, problem.p, 1).double(), torch.zeros(problem.P, problem.q, 1).double()
    if point.formulation == "burer_monteiro":
        return Point(factors=(U, V))
    if point.formulation == "network":
        return Point(network=burer_monteiro.to_network(problem, U, V))
    Z = burer_monteiro.to_blocks(U, V)
    if problem.vector_cone:
        return Point(blocks=Z, cone_factors=(U, V))
    if problem.has_cone:
        split = [(U * (sign * V).clamp_min(0)).sum(dim=2) for sign in (1, -1)]
        return Point(blocks=Z, split=torch.stack(split, dim=2))
    return Point(blocks=Z)


def _change(problem: Problem, point: Point, other: Point) -> float:
    """Return the norm of the change of the predictions, relative to those of the first point."""
    first, second = (at.evaluate(problem, "cpu").predictions for at in (point, other))
    size = float(torch.linalg.vector_norm(first))
    return float(torch.linalg.vector_norm(second - first)) / size if size > 0 else float(second.abs().max())
