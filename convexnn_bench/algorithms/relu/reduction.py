"""Fewer neurons with the same predictions, by Caratheodory's theorem; the objective never rises.

With fixed directions, the predictions and the regulariser are linear in the neurons' sizes s_j >= 0: they are
sum_j s_j a_j and beta sum_j s_j, where a_j are the predictions of neuron j alone. Moving the sizes along a null vector
of (a_j) whose entries do not sum to more than zero keeps the predictions, and the sum does not grow. The first size to
reach zero removes its neuron. At most rank(a_j) neurons are left.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float

from convexnn_bench.algorithms.relu.neurons import Lefts, NeuronObjective, ReluNeurons, Rights

NULL = 1e-10  # singular values below this part of the largest count as zero


def reduce_neurons(objective: NeuronObjective, neurons: ReluNeurons) -> ReluNeurons:
    """Return at most as many neurons as there are predictions, with parallel neurons merged."""
    neurons = neurons.balanced()
    outputs = int(objective.operator.Y.numel())
    if len(neurons) > outputs:
        sizes = neurons.sizes
        new = reduce_sizes(sizes, unit_predictions(objective, neurons.U, neurons.V, neurons.masks))
        kept = new > 0
        ratio = np.sqrt(new[kept] / sizes[kept])[:, None]
        left = neurons.take(kept)
        neurons = left.moved(left.U * ratio, left.V * ratio)
    return neurons.merged()


def unit_predictions(
    objective: NeuronObjective, U: Lefts, V: Rights, masks: Bool[np.ndarray, "J N"]
) -> Float[np.ndarray, "n_out_c J"]:
    """Return the predictions of every neuron alone, scaled to ||u|| ||v|| = 1."""
    U = U / np.linalg.norm(U, axis=1, keepdims=True)
    V = V / np.linalg.norm(V, axis=1, keepdims=True)
    H = (objective.Phi @ U.T) * masks.T
    alone = [objective.operator.second_layer(torch.as_tensor(np.outer(H[:, j], V[j]))) for j in range(len(U))]
    return np.stack([each.numpy().ravel() for each in alone], axis=1)


def reduce_sizes(
    sizes: Float[np.ndarray, " J"], predictions: Float[np.ndarray, "outputs J"]
) -> Float[np.ndarray, " J"]:
    """Return sizes with the same predictions and no larger sum.

    At most rank(predictions) of them are positive.
    """
    # 1. a basis of the null vectors of (a_j); with more outputs than neurons the small factor of QR has the same ones
    tall = predictions.shape[0] > predictions.shape[1]
    square = np.linalg.qr(predictions).R if tall else predictions
    _, values, basis = np.linalg.svd(square, full_matrices=True)
    rank = int(np.sum(values > NULL * values.max(initial=0.0)))
    null = basis[rank:].T.copy()  # J x (J - rank)
    kept = sizes > 0
    now = sizes.copy()
    while null.shape[1]:
        # 2. move along one on which the sum does not grow, until the first size is zero
        d = _downward(null)
        falling = kept & (d < 0)
        if not falling.any():
            break
        with np.errstate(over="ignore"):  # a size that hardly falls is zero last, after an infinite step
            ratios = np.where(falling, now / np.where(falling, -d, 1.0), np.inf)
        first = int(np.argmin(ratios))
        now = np.where(kept, np.maximum(now + ratios[first] * d, 0.0), 0.0)
        # 3. remove that neuron, and the null vectors that would move it
        now[first], kept[first] = 0.0, False
        null = _vanishing_at(null, first)
    return now


def _downward(null: Float[np.ndarray, "J r"]) -> Float[np.ndarray, " J"]:
    """Return a null vector whose entries sum to at most zero."""
    # d = -null (null^T 1) has the sum -||null^T 1||^2. If that is zero every null vector keeps the sum, and any will
    # do.
    sums = null.sum(axis=0)
    d = -null @ sums
    if np.abs(d).max(initial=0.0) <= 1e-8 * np.abs(null).max(initial=0.0):
        d = null[:, 0] if sums[0] <= 0 else -null[:, 0]
    # The entries sum to at most zero, so that one of them falls by at least 1 / J.
    return d / (np.abs(d).max(initial=0.0) or 1.0)


def _vanishing_at(null: Float[np.ndarray, "J r"], index: int) -> Float[np.ndarray, "J r_left"]:
    """Return a basis of the null vectors that vanish at one index, by one step of elimination."""
    pivot = int(np.argmax(np.abs(null[index])))
    if null[index, pivot] == 0:
        return null
    # A multiple of the pivot's vector, subtracted from every other one, makes their entries at the index zero.
    column = null[:, pivot] / null[index, pivot]
    rest = np.delete(null, pivot, axis=1)
    rest = rest - np.outer(column, rest[index])
    rest[index] = 0.0
    return rest
