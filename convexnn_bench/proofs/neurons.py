"""The point of a proof: neurons with integer weights, in the cones of blocks."""

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.formulations import Point
from convexnn_bench.losses import OutputBias
from convexnn_bench.problem import Problem

GRID_BITS = 70  # bits of the largest weight: float64 has 53, and small weights keep theirs
STEPS_INTO_CONE = [
    0.0,
    *(2.0**-k for k in range(54, 9, -4)),
]  # lengths of a step along the gate, relative to the neuron

Column = Float[np.ndarray, " k"]


def integer_neurons(
    problem: Problem, point: Point, of: Any, every_mask: bool, own: bool = False, bias: np.ndarray | None = None
) -> dict[str, Any] | None:
    """Return the point as the checker reads it, or None.

    None means that a ReLU neuron cannot be moved into its cone.

    Parameters
    ----------
    problem : Problem
    point : Point
    of : Problem of the checker
        The exact data.
    every_mask : bool
        Whether the neurons are those of a ReLU network, whose masks follow from the data.
    own : bool
        Keep the network as it is, without balancing its layers, and with the output bias `bias`.
    bias : array c, optional
        Zero if None. Without `own` it is the best output bias.
    """
    balanced = _neurons(problem, point, every_mask)
    # 1. Balance the two layers of every neuron, which gives the least squared norms for the same product.
    if not own:
        balanced = [_balanced(*neuron) for neuron in balanced if all(np.any(part) for part in neuron[1:])]
    if not balanced:  # the zero network
        balanced = [(0, np.zeros(problem.p), np.zeros(problem.q))]
    if bias is None:
        bias = np.zeros(problem.c) if own else _bias(problem, point)
    # 2. Round to one grid.
    largest = max(float(np.abs(part).max()) for _, u, v in balanced for part in (u, v, bias))
    bits = max(0, GRID_BITS - int(np.frexp(largest)[1])) if largest > 0 else 0
    # 3. Move neurons that are outside their cone by rounding along a direction in its interior.
    first = []
    for block, u, _ in balanced:
        inside = _into_cone(problem, of, block, u, bits) if problem.has_cone and not every_mask else _integers(u, bits)
        if inside is None:
            return None
        first.append(inside)
    return {
        "bits": bits,
        "blocks": [block for block, _, _ in balanced],
        "first": first,
        "second": [_integers(v, bits) for _, _, v in balanced],
        "bias": _integers(bias, bits),
    }


def _neurons(problem: Problem, point: Point, every_mask: bool) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return (block, u, v) of every neuron of which not both vectors are zero."""
    if every_mask:
        W1, W2 = (np.asarray(part) for part in point.to_network(problem))
        columns = [(0, W1[:, j], W2[:, j]) for j in range(W1.shape[1])]
    else:
        U, V = (np.asarray(part.cpu()) for part in point.to_factors(problem))
        columns = [(k, U[k, :, j], V[k, :, j]) for k in range(U.shape[0]) for j in range(U.shape[2])]
    return [(k, u, v) for k, u, v in columns if np.any(u) or np.any(v)]


def _balanced(block: int, u: np.ndarray, v: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    ratio = np.sqrt(np.linalg.norm(v) / np.linalg.norm(u))
    return block, u * ratio, v / ratio


def _bias(problem: Problem, point: Point) -> Float[np.ndarray, " c"]:
    if not isinstance(problem.loss, OutputBias):
        return np.zeros(problem.c)
    at = point.evaluate(problem, "cpu")
    best: torch.Tensor = problem.loss.best_bias(at.predictions, torch.as_tensor(problem.Y))
    return best.numpy()


def _integers(values: Float[np.ndarray, " k"], bits: int) -> list[int]:
    """Return the nearest integers to 2^bits times the values."""
    return [round(Fraction(value) * 2**bits) for value in values.tolist()]


def _into_cone(problem: Problem, of: Any, block: int, u: Column, bits: int) -> list[int] | None:
    """Return integers near 2^bits u that are exactly in the cone of a block, or None."""
    mask, size = problem.masks[:, block], float(np.linalg.norm(u))
    for step in STEPS_INTO_CONE:
        gate = np.zeros_like(u)
        if step > 0:
            interior = None if problem.cones is None else problem.cones.interior(block)
            if interior is None:
                return None
            gate = interior * (step * size)
        moved = [a + b for a, b in zip(_integers(u, bits), _integers(gate, bits), strict=True)]
        values = (sum(x * y for x, y in zip(row, moved, strict=True)) for row in of.phi)
        if all(value >= 0 if on else value <= 0 for value, on in zip(values, mask, strict=True)):
            return moved
    return None
