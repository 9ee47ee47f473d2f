"""Take a ReLU problem from where a descent method ended to its optimum, in the same formulation.

At the optimum most columns are zero and most others lie on facets (kinks), where gradients jump. Gradient methods find
the region and then crawl. This module takes over their point:

1. Take the largest neurons, and reduce them to few by Caratheodory's theorem (`reduction`).
2. Climb the staircase (`staircase`): Newton's method on the faces of the cones (`faces`), new neurons where the pricing
   finds directions that improve (`pricing` over blocks, `directions` over all patterns).
3. Report every point that is better than all before.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from convexnn_bench.algorithms.relu.directions import NetworkPricing
from convexnn_bench.algorithms.relu.faces import NEWTON_SIZE
from convexnn_bench.algorithms.relu.neurons import Lefts, NeuronObjective, ReluNeurons, Rights
from convexnn_bench.algorithms.relu.pricing import BlockPricing
from convexnn_bench.algorithms.relu.reduction import reduce_sizes, unit_predictions
from convexnn_bench.algorithms.relu.staircase import ADDED, NeuronStaircase
from convexnn_bench.formulations import Point
from convexnn_bench.problem import Problem

# chosen by trial (commit 384fbfb)
LARGEST_WIDTH = 50  # p + q; for wider neurons NEWTON_SIZE entries hold too few of them
LARGEST_DATA = 1_000_000  # N (p + q), the entries that one gradient reads
LARGEST_START = 600  # most neurons of the given point that are considered
NEGLIGIBLE = 1e-9  # neurons smaller than this part of the largest are left out

ReportPoint = Callable[[Point | None], bool]  # takes a better point, or None after a step without one; False stops
FirstLayer = Float[np.ndarray, "p M"]
SecondLayer = Float[np.ndarray, "q M"]
Left = Float[np.ndarray, "P p m"]
Right = Float[np.ndarray, "P q m"]


def affordable(problem: Problem) -> bool:
    """Return whether a ReLU problem is small enough for second derivatives with respect to its neurons."""
    width = problem.p + problem.q
    return problem.has_cone and width <= LARGEST_WIDTH and problem.N * width <= LARGEST_DATA


def finish_factors(
    problem: Problem, U: Left, V: Right, value: float, limit: int | None, report: ReportPoint
) -> str | None:
    """Improve factors (U in its cones) to a stationary point that no further column of any block improves.

    value: the objective of the given point; only better points are reported. limit: columns that a block may have, None
    for no limit. Return why it ended, or None if `report` stopped it.
    """
    objective, pricing = NeuronObjective(problem), BlockPricing(problem, limit)
    m = U.shape[2]
    left, right = U.transpose(0, 2, 1).reshape(-1, problem.p), V.transpose(0, 2, 1).reshape(-1, problem.q)
    blocks = np.repeat(np.arange(problem.P), m)
    sizes, kept = _first_neurons(objective, left, right, lambda chosen: problem.masks.T[blocks[chosen]])
    neurons = pricing.start(*_resized(left[kept], right[kept], sizes), blocks[kept])
    return _climb(objective, pricing, neurons, value, lambda now: Point(factors=_factors(problem, now)), report)


def finish_network(
    problem: Problem, W1: FirstLayer, W2: SecondLayer, value: float, seed: int, report: ReportPoint
) -> str | None:
    """Improve a network to a stationary one that no direction found improves, with at most M neurons."""
    objective = NeuronObjective(problem)
    pricing = NetworkPricing(problem, W1.shape[1], seed)
    left, right = W1.T.copy(), W2.T.copy()
    sizes, kept = _first_neurons(objective, left, right, lambda chosen: left[chosen] @ problem.Phi.T > 0)
    neurons = pricing.start(*_resized(left[kept], right[kept], sizes))

    def point(now: ReluNeurons) -> Point:
        width = max(1, len(now))
        W1, W2 = np.zeros((problem.p, width)), np.zeros((problem.q, width))
        W1[:, : len(now)], W2[:, : len(now)] = now.U.T, now.V.T
        return Point(network=(W1, W2))

    return _climb(objective, pricing, neurons, value, point, report)


def _climb(
    objective: NeuronObjective,
    pricing: BlockPricing | NetworkPricing,
    neurons: ReluNeurons,
    value: float,
    point: Callable[[ReluNeurons], Point],
    report: ReportPoint,
) -> str | None:
    """Climb the staircase, and report the points whose objective is below `value` and below all before."""
    best = value

    def after_step(now: ReluNeurons) -> bool:
        nonlocal best
        new = objective.value(now)
        if not new < best:
            return report(None)
        best = new
        return report(point(now))

    return NeuronStaircase(objective, pricing).run(neurons, after_step)


def _first_neurons(
    objective: NeuronObjective, U: Lefts, V: Rights, masks: Callable[[np.ndarray], Bool[np.ndarray, "J_chosen N"]]
) -> tuple[Float[np.ndarray, " kept"], Int[np.ndarray, " kept"]]:
    """Return the sizes and indices of the neurons to start from.

    The largest neurons are reduced. If a Hessian may have all of these and the neurons of a round of the staircase, all
    are kept. Otherwise the largest are kept, half as many as a Hessian may have.
    """
    sizes = np.linalg.norm(U, axis=1) * np.linalg.norm(V, axis=1)
    order = np.argsort(-sizes, kind="stable")[:LARGEST_START]
    order = order[sizes[order] > NEGLIGIBLE * sizes.max(initial=0.0)]
    if not len(order):
        return np.zeros(0), order
    new = reduce_sizes(sizes[order], unit_predictions(objective, U[order], V[order], masks(order)))
    best = np.argsort(-new, kind="stable")[: int((new > 0).sum())]
    most = NEWTON_SIZE // (U.shape[1] + V.shape[1])
    best = best if len(best) + ADDED <= most else best[: most // 2 + 1]
    return new[best], order[best]


def _resized(U: Lefts, V: Rights, sizes: Float[np.ndarray, " J"]) -> tuple[Lefts, Rights]:
    """Return the same directions with ||u|| = ||v|| and ||u|| ||v|| equal to the sizes."""
    root = np.sqrt(sizes)[:, None]
    return root * U / np.linalg.norm(U, axis=1, keepdims=True), root * V / np.linalg.norm(V, axis=1, keepdims=True)


def _factors(problem: Problem, neurons: ReluNeurons) -> tuple[Left, Right]:
    """Return (U, V) with as many columns as the fullest block needs."""
    # The neurons of a block take its columns in the order in which they come.
    count = np.zeros(problem.P, dtype=int)
    columns = np.zeros(len(neurons), dtype=int)
    for j, k in enumerate(neurons.blocks):
        columns[j] = count[k]
        count[k] += 1
    m = max(1, int(count.max(initial=0)))
    U, V = np.zeros((problem.P, problem.p, m)), np.zeros((problem.P, problem.q, m))
    U[neurons.blocks, :, columns], V[neurons.blocks, :, columns] = neurons.U, neurons.V
    return U, V
