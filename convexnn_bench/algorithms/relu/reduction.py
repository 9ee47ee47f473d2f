"""Fewer neurons for the same predictions, by Caratheodory's theorem; the objective never rises.

With directions fixed, predictions and regulariser are linear in the neurons' sizes s_j >= 0: sum_j s_j a_j and
beta sum_j s_j. Along a null vector of (a_j) on which the sum does not grow, sizes move until one is zero; at most
rank(a_j) neurons are left.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float

from convexnn_bench.algorithms.relu.neurons import NeuronObjective, Neurons

NULL = 1e-10  # singular values below this part of the largest count as zero


def reduced(objective: NeuronObjective, neurons: Neurons) -> Neurons:
    """At most as many neurons as there are predictions, parallel ones merged."""
    neurons = neurons.balanced()
    outputs = int(objective.operator.Y.numel())
    if len(neurons) > outputs:
        sizes = neurons.sizes
        new = fewer(sizes, unit_predictions(objective, neurons.U, neurons.V, neurons.masks))
        kept = new > 0
        ratio = np.sqrt(new[kept] / sizes[kept])[:, None]
        left = neurons.take(kept)
        neurons = left.moved(left.U * ratio, left.V * ratio)
    return neurons.merged()


def unit_predictions(
    objective: NeuronObjective,
    U: Float[np.ndarray, "J p"],
    V: Float[np.ndarray, "J q"],
    masks: Bool[np.ndarray, "J N"],
) -> Float[np.ndarray, "n_out_c J"]:
    """Predictions of every neuron alone, for ||u|| ||v|| = 1."""
    U = U / np.linalg.norm(U, axis=1, keepdims=True)
    V = V / np.linalg.norm(V, axis=1, keepdims=True)
    H = (objective.Phi @ U.T) * masks.T
    alone = [objective.operator.second_layer(torch.as_tensor(np.outer(H[:, j], V[j]))) for j in range(len(U))]
    return np.stack([each.numpy().ravel() for each in alone], axis=1)


def fewer(sizes: Float[np.ndarray, " J"], predictions: Float[np.ndarray, "outputs J"]) -> Float[np.ndarray, " J"]:
    """Sizes with the same predictions and a sum that is no larger, at most rank(predictions) of them above zero."""
    _, values, basis = np.linalg.svd(predictions, full_matrices=True)
    rank = int(np.sum(values > NULL * values.max(initial=0.0)))
    null = basis[rank:].T.copy()  # J x (J - rank)
    kept = sizes > 0
    now = sizes.copy()
    while null.shape[1]:
        d = _downward(null)
        falling = kept & (d < 0)
        if not falling.any():
            break
        ratios = np.where(falling, now / np.where(falling, -d, 1.0), np.inf)
        gone = int(np.argmin(ratios))
        now = np.where(kept, np.maximum(now + ratios[gone] * d, 0.0), 0.0)
        now[gone], kept[gone] = 0.0, False
        null = _without(null, gone)
    return now


def _downward(null: Float[np.ndarray, "J r"]) -> Float[np.ndarray, " J"]:
    """A null vector whose entries sum to at most zero."""
    sums = null.sum(axis=0)
    d = -null @ sums
    if np.abs(d).max(initial=0.0) <= 1e-8 * np.abs(null).max(initial=0.0):
        d = null[:, 0] if sums[0] <= 0 else -null[:, 0]
    return d


def _without(null: Float[np.ndarray, "J r"], gone: int) -> Float[np.ndarray, "J r_left"]:
    """Basis of the null vectors that vanish at one index."""
    pivot = int(np.argmax(np.abs(null[gone])))
    if null[gone, pivot] == 0:
        return null
    column = null[:, pivot] / null[gone, pivot]
    rest = np.delete(null, pivot, axis=1)
    rest = rest - np.outer(column, rest[gone])
    rest[gone] = 0.0
    return rest
