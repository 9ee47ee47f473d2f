"""Points that need no solve: the zero network, and mixtures of two points."""

import math

import torch

from convexnn_bench.formulations import Point, converted
from convexnn_bench.problem import Problem


def zero_point(problem: Problem, formulation: str) -> Point:
    """Return the zero network as a point of a formulation."""

    def zeros(*sizes: int) -> torch.Tensor:
        return torch.zeros(*sizes, dtype=torch.float64)

    P, p, q = problem.P, problem.p, problem.q
    if formulation == "network":
        return Point(network=(zeros(p, 1), zeros(q, 1)))
    factors = zeros(P, p, 1), zeros(P, q, 1)
    if formulation == "burer_monteiro":
        return Point(factors=factors)
    if problem.vector_cone:
        return Point(blocks=zeros(P, p, q), cone_factors=factors)
    return Point(blocks=zeros(P, p, q), split=zeros(P, p, 2) if problem.has_cone else None)


def mixed_point(problem: Problem, first: Point, second: Point, t: float) -> Point:
    """Return a point with predictions (1 - t) z_1 + t z_2.

    Its regulariser is at most (1 - t) R_1 + t R_2.

    The point is in the formulation of `first`. Blocks are mixed, for scalar-output ReLU together with their splits. For
    vector-output ReLU and for ReLU networks, the columns or neurons of both points are joined, scaled by sqrt(1 - t)
    and sqrt(t).
    """
    s, formulation = 1 - t, first.formulation
    if problem.has_cone and formulation == "network":
        pairs = [point.to_network(problem) for point in (first, second)]
        return Point(network=_joined(pairs, s, t))
    if problem.vector_cone:
        pairs = [converted(problem, point, "burer_monteiro").to_factors(problem) for point in (first, second)]
        return converted(problem, Point(factors=_joined(pairs, s, t)), formulation)
    one, other = (converted(problem, point, "convex") for point in (first, second))
    blocks = s * torch.as_tensor(one.blocks).cpu() + t * torch.as_tensor(other.blocks).cpu()
    split = None
    if problem.has_cone:
        split = s * torch.as_tensor(one.split) + t * torch.as_tensor(other.split)
        blocks = (split[:, :, :1] - split[:, :, 1:]).contiguous()
    return converted(problem, Point(blocks=blocks, split=split), formulation)


def _joined(pairs: list[tuple[torch.Tensor, torch.Tensor]], s: float, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the columns of two pairs side by side, scaled by sqrt(s) and sqrt(t)."""
    (first_left, first_right), (second_left, second_right) = pairs
    a, b = math.sqrt(s), math.sqrt(t)
    left = torch.cat([a * first_left.cpu(), b * second_left.cpu()], dim=-1)
    return left, torch.cat([a * first_right.cpu(), b * second_right.cpu()], dim=-1)
