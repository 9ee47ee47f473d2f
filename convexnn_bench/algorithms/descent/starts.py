"""Start points of descent methods: random points, or the caller's start with further neurons.

The gradient at a pair (u, v) = (0, 0) is zero, so that a gradient method never leaves zero columns, and takes long to
leave tiny ones (Sahiner et al., ICLR 2024, Theorem 3.3, says along which directions the objective falls there). Such
columns are therefore replaced by small random ones, FILLING times as long as those of a random start.
"""

from typing import Any

import torch
from jaxtyping import Float

from convexnn_bench.errors import InputError
from convexnn_bench.formulations import Point, burer_monteiro, convex, network
from convexnn_bench.operator import Operator
from convexnn_bench.problem import Problem

FILLING = 1e-2  # length of the columns that replace tiny ones, relative to those of a random start

Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]
First = Float[torch.Tensor, "p M"]
Second = Float[torch.Tensor, "q M"]
Columns = tuple[Float[torch.Tensor, "P p r"], Float[torch.Tensor, "P q r"]]
Neurons = tuple[Float[torch.Tensor, "p J"], Float[torch.Tensor, "q J"]]


def factors_from(problem: Problem, operator: Operator, start: Point, m: int | None, seed: int, fill: bool) -> Columns:
    """Return the start's factors on the operator's device.

    m: the number of columns; None for the default, or more if the start needs more. fill: replace tiny columns by
    random ones, drawn from the seed. Raise InputError if the blocks of the start need more than m columns.
    """
    assert start.factors is not None
    U, V = (torch.as_tensor(part).to(operator.Y) for part in start.factors)
    wanted = burer_monteiro.default_columns(problem) if m is None else m
    if U.shape[2] > wanted:
        U, V = _fewest_columns(problem, U, V)
    used = U.shape[2]
    if m is not None and used > m:
        raise InputError(
            f"start: its blocks need {used} columns, and the solver has m = {m}: give m >= {used}, or None"
        )
    U, V = (torch.nn.functional.pad(part, (0, max(wanted - used, 0))) for part in (U, V))
    if not fill:
        return U, V
    drawn = burer_monteiro.start(problem, operator, U.shape[2], seed)
    return _filled(U, V, FILLING * drawn[0], FILLING * drawn[1])


def _filled(U: torch.Tensor, V: torch.Tensor, fill_U: torch.Tensor, fill_V: torch.Tensor) -> tuple[Any, Any]:
    """Return the pairs of columns, with pairs smaller than `fill_U`, `fill_V` replaced by these."""
    size, least = (
        torch.linalg.vector_norm(left, dim=-2, keepdim=True) * torch.linalg.vector_norm(right, dim=-2, keepdim=True)
        for left, right in ((U, V), (fill_U, fill_V))
    )
    return torch.where(size < least, fill_U, U), torch.where(size < least, fill_V, V)


def _fewest_columns(problem: Problem, U: Left, V: Right) -> Columns:
    """Return the same blocks with merged columns; the objective does not rise."""
    if not problem.has_cone:  # the SVD of every block
        return convex.to_factors(problem, burer_monteiro.to_blocks(U, V))
    if problem.q == 1:  # sums of columns of one sign stay in the cone
        Z, split = burer_monteiro.to_blocks(U, V), burer_monteiro.to_split(U, V)
        U, V = convex.to_factors(problem, Z, split=split)
    # Move zero columns to the end, and remove them.
    sizes = torch.linalg.vector_norm(U, dim=1) * torch.linalg.vector_norm(V, dim=1)
    used = max(1, int((sizes > 0).sum(dim=1).max()))
    order = torch.argsort(sizes, dim=1, descending=True, stable=True)[:, None, :used]
    return U.gather(2, order.expand(-1, problem.p, -1)), V.gather(2, order.expand(-1, problem.q, -1))


def weights_from(problem: Problem, operator: Operator, start: Point, M: int | None, seed: int, fill: bool) -> Neurons:
    """Return the start's weights on the operator's device.

    M: the number of neurons; None for the default, or more if the start needs more. fill: replace tiny neurons by
    random ones, drawn from the seed. Raise InputError if the start needs more than M neurons.
    """
    assert start.network is not None
    W1, W2 = (torch.as_tensor(part).to(operator.Y) for part in start.network)
    wanted = network.default_width(problem) if M is None else M
    if W1.shape[1] > wanted:
        W1, W2 = _fewest_neurons(problem, W1, W2)
    used = W1.shape[1]
    if M is not None and used > M:
        raise InputError(
            f"start: the network needs {used} neurons, and the solver has width = {M}: give width >= {used}, or None"
        )
    W1, W2 = (torch.nn.functional.pad(part, (0, max(wanted - used, 0))) for part in (W1, W2))
    if not fill:
        return W1, W2
    drawn = network.start(problem, operator, W1.shape[1], seed)
    return _filled(W1, W2, FILLING * drawn[0], FILLING * drawn[1])


def _fewest_neurons(problem: Problem, W1: First, W2: Second) -> Neurons:
    """Return the same network with merged neurons; the objective does not rise."""
    alive = (W1 != 0).any(dim=0) & (W2 != 0).any(dim=0)
    if problem.has_cone:
        return W1[:, alive], W2[:, alive]
    # Neuron j has gate j mod P. Merge the neurons of a gate, and remove the last neurons if they are zero.
    U, V = network.to_factors(problem, W1, W2)
    W1, W2 = burer_monteiro.to_network(problem, *convex.to_factors(problem, burer_monteiro.to_blocks(U, V)))
    width = int(torch.nonzero((W1 != 0).any(dim=0)).max()) + 1 if bool(W1.any()) else 1
    return W1[:, :width], W2[:, :width]
