"""From where a descent method has come on a ReLU problem to its optimum: few neurons, Newton on faces, the staircase.

The optimum holds most columns at zero and most others on facets (kinks), where gradients jump. Gradient methods
find the region and then crawl; what they leave is reduced to a few neurons here and taken on in the same formulation.
"""

from collections.abc import Callable

import numpy as np

from convexnn_bench.algorithms.relu.directions import NetworkPrices
from convexnn_bench.algorithms.relu.faces import NEWTON_SIZE
from convexnn_bench.algorithms.relu.neurons import NeuronObjective, Neurons
from convexnn_bench.algorithms.relu.pricing import BlockPrices
from convexnn_bench.algorithms.relu.reduction import fewer, unit_predictions
from convexnn_bench.algorithms.relu.staircase import Staircase
from convexnn_bench.formulations.point import Point
from convexnn_bench.problem import Problem

LARGEST_WIDTH = 50  # p + q; beyond, Hessians hold too few neurons
LARGEST_DATA = 1_000_000  # N (p + q)
LARGEST_START = 600  # neurons taken over
NEGLIGIBLE = 1e-9  # size of a neuron as a part of the largest that is left behind

Report = Callable[[Point | None], bool]


def affordable(problem: Problem) -> bool:
    """Whether the problem is small enough for second derivatives over its neurons."""
    width = problem.p + problem.q
    return problem.has_cone and width <= LARGEST_WIDTH and problem.N * width <= LARGEST_DATA


def finish_factors(
    problem: Problem, U: np.ndarray, V: np.ndarray, value: float, limit: int | None, report: Report
) -> str | None:
    """From factors (P x p x m and P x q x m, U in its cones) to a stationary point no block improves.

    value: the objective there. limit: columns a block may have, None for as many as it takes. report: is given every
    better point, None where there is none, and says whether to go on. Returns why it ended, None where it was stopped.
    """
    objective, prices = NeuronObjective(problem), BlockPrices(problem, limit)
    m = U.shape[2]
    left, right = U.transpose(0, 2, 1).reshape(-1, problem.p), V.transpose(0, 2, 1).reshape(-1, problem.q)
    blocks = np.repeat(np.arange(problem.P), m)
    sizes, kept = _fewest(objective, left, right, lambda chosen: problem.masks.T[blocks[chosen]])
    neurons = prices.start(*_resized(left[kept], right[kept], sizes), blocks[kept])

    def point(now: Neurons) -> Point:
        return Point(factors=_factors(problem, now))

    return _climb(objective, prices, neurons, value, point, report)


def finish_network(
    problem: Problem, W1: np.ndarray, W2: np.ndarray, value: float, seed: int, report: Report
) -> str | None:
    """From weights (p x M and q x M) to a stationary network which no direction found improves; at most M neurons."""
    objective = NeuronObjective(problem)
    prices = NetworkPrices(problem, W1.shape[1], seed)
    left, right = W1.T.copy(), W2.T.copy()
    sizes, kept = _fewest(objective, left, right, lambda chosen: left[chosen] @ problem.Phi.T > 0)
    neurons = prices.start(*_resized(left[kept], right[kept], sizes))

    def point(now: Neurons) -> Point:
        width = max(1, len(now))
        W1, W2 = np.zeros((problem.p, width)), np.zeros((problem.q, width))
        W1[:, : len(now)], W2[:, : len(now)] = now.U.T, now.V.T
        return Point(network=(W1, W2))

    return _climb(objective, prices, neurons, value, point, report)


def _climb(
    objective: NeuronObjective,
    prices: BlockPrices | NetworkPrices,
    neurons: Neurons,
    value: float,
    point: Callable[[Neurons], Point],
    report: Report,
) -> str | None:
    """The staircase; `report` is given points whose objective is below `value` and all before, else None."""
    best = value

    def tick(now: Neurons) -> bool:
        nonlocal best
        new = objective.value(now)
        if not new < best:
            return report(None)
        best = new
        return report(point(now))

    return Staircase(objective, prices).run(neurons, tick)


def _fewest(
    objective: NeuronObjective,
    U: np.ndarray,
    V: np.ndarray,
    masks: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """(sizes, indices) of the neurons to start from: the largest, reduced by Caratheodory's theorem, the largest."""
    sizes = np.linalg.norm(U, axis=1) * np.linalg.norm(V, axis=1)
    order = np.argsort(-sizes, kind="stable")[:LARGEST_START]
    order = order[sizes[order] > NEGLIGIBLE * sizes.max(initial=0.0)]
    if not len(order):
        return np.zeros(0), order
    new = fewer(sizes[order], unit_predictions(objective, U[order], V[order], masks(order)))
    best = np.argsort(-new, kind="stable")[: NEWTON_SIZE // (U.shape[1] + V.shape[1]) // 2 + 1]
    best = best[new[best] > 0]
    return new[best], order[best]


def _resized(U: np.ndarray, V: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same directions with ||u|| = ||v|| and ||u|| ||v|| as given."""
    root = np.sqrt(sizes)[:, None]
    return root * U / np.linalg.norm(U, axis=1, keepdims=True), root * V / np.linalg.norm(V, axis=1, keepdims=True)


def _factors(problem: Problem, neurons: Neurons) -> tuple[np.ndarray, np.ndarray]:
    """(U, V) with as many columns as the fullest block needs."""
    count = np.zeros(problem.P, dtype=int)
    columns = np.zeros(len(neurons), dtype=int)
    for j, k in enumerate(neurons.blocks):
        columns[j] = count[k]
        count[k] += 1
    m = max(1, int(count.max(initial=0)))
    U, V = np.zeros((problem.P, problem.p, m)), np.zeros((problem.P, problem.q, m))
    U[neurons.blocks, :, columns], V[neurons.blocks, :, columns] = neurons.U, neurons.V
    return U, V
