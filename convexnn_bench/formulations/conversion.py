"""Convert a point to another formulation.

Pairs are balanced, and vectors lie in the ReLU cones.

The maps are those of the three formulations (Sahiner et al., ICLR 2024): Z_k = U_k V_k^T, the SVD of Z_k, a neuron for
each column pair, and the block of the pattern of each neuron. None of them raises the objective beyond rounding.
"""

from convexnn_bench.formulations import burer_monteiro
from convexnn_bench.formulations.evaluation import Pair
from convexnn_bench.formulations.point import ConvexPoint, Point
from convexnn_bench.instance import Instance


def converted(problem: Instance, point: Point, formulation: str) -> Point:
    """Return the point in another formulation, in float64 on the CPU.

    Its multiplier stays.

    Factors outside the ReLU cones are projected onto them first. Raise InputError if arrays do not fit the problem, and
    UnsupportedError if the point has no counterpart: a ReLU network with patterns that are not among the blocks, or
    vector-output ReLU blocks that could not be factored.
    """
    if formulation == "convex":
        return _in_blocks(problem, point)
    if formulation == point.formulation == "network":  # a ReLU network need not have a block for every neuron
        W1, W2 = burer_monteiro.balance(*(W[None] for W in point.to_network(problem)))
        return Point(network=(W1[0], W2[0]), dual=point.dual)
    U, V = _in_cones(problem, point.to_factors(problem))
    if formulation == "burer_monteiro":
        return Point(factors=(U, V), dual=point.dual)
    return Point(network=burer_monteiro.to_network(problem, U, V), dual=point.dual)


def _in_cones(problem: Instance, factors: Pair) -> Pair:
    """Return balanced factors whose left columns are in their cones."""
    U, V = factors
    return burer_monteiro.balance(burer_monteiro.project(problem, U), V)


def _in_blocks(problem: Instance, point: Point) -> Point:
    """Return blocks; for ReLU with the cone vectors whose differences they are."""
    if not problem.has_cone:
        return Point(blocks=point.to_blocks(problem), dual=point.dual)
    if isinstance(point, ConvexPoint) and not problem.vector_cone and point.split is not None:
        return Point(blocks=point.to_blocks(problem), split=point.split, dual=point.dual)
    U, V = _in_cones(problem, point.to_factors(problem))
    Z = burer_monteiro.to_blocks(U, V)
    if problem.vector_cone:
        return Point(blocks=Z, cone_factors=(U, V), dual=point.dual)
    return Point(blocks=Z, split=burer_monteiro.to_split(U, V), dual=point.dual)
