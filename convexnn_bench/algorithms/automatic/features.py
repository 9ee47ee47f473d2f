"""The numbers of a problem from which times of solvers are predicted.

They cost at most one gradient at the zero network: sizes, the activation, the loss and beta_max / beta. Sizes enter by
their decimal logarithms, so that a model which is linear in them is a product of powers of the sizes.
"""

import math
from collections.abc import Mapping

import torch

from convexnn_bench.losses import Squared, plain_loss
from convexnn_bench.problem import Problem

MOST_DECADES = 6.0  # of beta_max / beta: below 1e-6 the model was never fitted
FINEST = 8.0  # decades of 1 / gap, for the same reason

FEATURES = {
    "constant": "1",
    "rows": "log10 of N, the rows of the first layer",
    "inputs": "log10 of p, the rows of a block",
    "outputs": "log10 of q, the columns of a block",
    "blocks": "log10 of P",
    "decay": "log10 of beta_max / beta, between 0 and 6",
    "accuracy": "-log10 of the gap, between 0 and 8",
    "decay_blocks": "decay times blocks, because more blocks are active at a smaller beta",
    "several": "1 for several outputs, q > 1",
    "plane": "1 for p = 2, where the masks of neighbouring blocks differ in one row",
    "mixing": "1 if an output depends on several rows of the first layer, as for CNN and attention",
    "curved": "1 for a loss other than the squared one",
    "bias": "1 for an output bias, which is minimised in each evaluation of a loss that is not quadratic",
    "relu": "1 for ReLU",
}


def features_of(problem: Problem, gap: float) -> dict[str, float]:
    """Return the features of a problem that is to be solved to a relative gap."""
    curved = not isinstance(plain_loss(problem.loss), Squared)
    decay, blocks = _decades(largest_beta(problem) / problem.beta, MOST_DECADES), math.log10(problem.P)
    numbers = {
        "constant": 1.0,
        "rows": math.log10(problem.N),
        "inputs": math.log10(problem.p),
        "outputs": math.log10(problem.q),
        "blocks": blocks,
        "decay": decay,
        "accuracy": _decades(1.0 / gap, FINEST),
        "decay_blocks": decay * blocks,
        "several": float(problem.q > 1),
        "plane": float(problem.p == 2),
        "mixing": float(not problem.architecture.second_layer_is_identity),
        "curved": float(curved),
        "bias": float(curved and problem.output_bias is not None),
        "relu": float(problem.has_cone),
    }
    assert numbers.keys() == FEATURES.keys()
    return numbers


def largest_beta(problem: Problem) -> float:
    """Return beta_max, or for ReLU an upper bound on it that needs no norm over cones."""
    if not problem.has_cone:
        return problem.beta_max
    operator = problem.operator()
    G = operator.adjoint(problem.loss.gradient(torch.zeros_like(operator.Y), operator.Y))
    return float(torch.linalg.vector_norm(G, dim=(1, 2)).max())


def words(features: Mapping[str, float]) -> str:
    """Return the sizes of a problem in words."""
    sizes = ", ".join(
        f"{letter} = {10 ** features[name]:.0f}"
        for letter, name in (("N", "rows"), ("p", "inputs"), ("q", "outputs"), ("P", "blocks"))
    )
    return f"{sizes} and beta = {10 ** -features['decay']:.2g} beta_max"


def _decades(ratio: float, most: float) -> float:
    return min(max(math.log10(ratio), 0.0), most) if ratio > 0 else 0.0
