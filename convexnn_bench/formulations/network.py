"""The original network: min F(C(phi(Phi W1) W2^T)) + beta/2 (||W1||_F^2 + ||W2||_F^2) (eq. 1).

Gradients come from autograd, apart from the hand-written ones of the Burer-Monteiro formulation.
With gated ReLU the M neurons are dealt out over the P gates in turn: neuron j carries gate j mod P.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.activations.linear import Linear
from convexnn_bench.checks import check_array
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.formulations import burer_monteiro
from convexnn_bench.instance import Instance
from convexnn_bench.norms.spectral import EPS
from convexnn_bench.operator.lifted import Operator

First = Float[torch.Tensor, "p M"]
Second = Float[torch.Tensor, "q M"]


def check_weights(problem: Instance, W1: Any, W2: Any) -> tuple[First, Second]:
    """Weights as float64 tensors. Raises InputError for wrong shapes and non-finite entries."""
    W1, W2 = check_array("W1", W1), check_array("W2", W2)
    M = W1.shape[1] if W1.ndim == 2 else -1
    if W1.shape != (problem.p, M) or W2.shape != (problem.q, M):
        raise InputError(
            f"network weights must be W1: p x M and W2: q x M with p, q = {problem.p}, {problem.q}; "
            f"got W1 {W1.shape} and W2 {W2.shape}"
        )
    return torch.as_tensor(W1), torch.as_tensor(W2)


def gate_masks(problem: Instance, operator: Operator, M: int) -> torch.Tensor:
    """N x M masks of the neurons' gates, as numbers (empty for activations without gates)."""
    if not problem.activation.has_gates:
        return operator.masks[:, :0]
    masks = operator.masks[:, :M].to(operator.dtype)  # products with numbers are quicker than with bools
    return masks.repeat(1, -(-M // problem.P))[:, :M]


def forward(problem: Instance, operator: Operator, W1: First, W2: Second) -> Float[torch.Tensor, "n_out c"]:
    """C(phi(Phi W1) W2^T), for the rows held by `operator`, all at once."""
    if isinstance(problem.activation, Linear):
        return operator.apply_factors(W1[None], W2[None])
    masks = gate_masks(problem, operator, W1.shape[1])
    return operator.combine_neurons(problem.activation.apply(operator.first_layer(W1), masks), W2)


def parts(problem: Instance, operator: Operator, M: int) -> list[Operator]:
    """The operator on some samples at a time, so few that what is held of M neurons stays in the cache.

    Parts are whole samples, since a second layer may mix the rows of a sample, and views: nothing is copied.
    """
    if isinstance(problem.activation, Linear):
        return [operator]  # may do without hidden units
    samples = len(operator.X)
    rows, outputs = operator.N // samples, operator.n_out // samples  # of one sample, consecutive
    step = max(1, 2 * operator.part_size(M) // rows)  # twice, since autograd has a cost of its own a part
    slices = [[slice(i * each, (i + step) * each) for each in (1, rows, outputs)] for i in range(0, samples, step)]
    return [operator.restricted(*part) for part in slices]


def predict(problem: Instance, W1: First, W2: Second) -> Float[torch.Tensor, "n_out c"]:
    """The network's predictions on the problem's data, float64, some samples at a time."""
    return torch.cat([forward(problem, part, W1, W2) for part in parts(problem, problem.operator(), W1.shape[1])])


def regulariser(W1: First, W2: Second) -> float:
    """1/2 (||W1||^2 + ||W2||^2)."""
    return 0.5 * float(W1.square().sum() + W2.square().sum())


def objective(problem: Instance, W1: First, W2: Second) -> float:
    """The network objective."""
    loss = problem.loss.value(predict(problem, W1, W2), problem.operator().Y)
    return float(loss) + problem.beta * regulariser(W1, W2)


def default_width(problem: Instance) -> int:
    """M: as many neurons as the Burer-Monteiro default has columns; for ReLU at most 1000 of them."""
    columns = problem.P * burer_monteiro.default_columns(problem)
    return min(columns, 1000) if problem.has_cone else columns


def start(problem: Instance, operator: Operator, M: int, seed: int, scale: float = 0.1) -> tuple[First, Second]:
    """Gaussian weights at the scale of the Burer-Monteiro start."""
    generator = torch.Generator().manual_seed(seed)
    W1 = torch.randn(problem.p, M, generator=generator, dtype=operator.dtype).to(operator.device)
    W2 = torch.randn(problem.q, M, generator=generator, dtype=operator.dtype).to(operator.device)
    total = scale * burer_monteiro.natural_scale(problem, operator) * problem.P
    size = total / (M * float(np.sqrt(problem.p * problem.q)))
    return W1 * size**0.5, W2 * size**0.5


def _pattern_blocks(problem: Instance, W1: np.ndarray) -> np.ndarray:
    """For each ReLU neuron the block whose cone holds it, -1 for a neuron that no row activates.

    The pattern 1{Phi u >= 0} is looked up; a neuron on a boundary (or within rounding of it) may belong to a
    neighbouring block instead, found by testing the cones. Raises UnsupportedError where no block fits.
    """
    H = problem.Phi @ W1
    rounding = 8 * (problem.p + 8) * EPS * (np.abs(problem.Phi) @ np.abs(W1))  # of every entry of H
    known = {np.packbits(problem.masks[:, k]).tobytes(): k for k in range(problem.P - 1, -1, -1)}
    blocks = np.full(W1.shape[1], -2)
    for j in range(W1.shape[1]):
        h, tolerance = H[:, j], rounding[:, j]
        if (h <= tolerance).all():
            blocks[j] = -1
            continue
        blocks[j] = known.get(np.packbits(h >= 0).tobytes(), -2)
        if blocks[j] == -2:
            # rows that contradict the mask must be zero to rounding
            fits = (np.where(problem.masks, -h[:, None], h[:, None]) <= tolerance[:, None]).all(axis=0)
            if fits.any():
                blocks[j] = int(fits.argmax())
    missing = int((blocks == -2).sum())
    if missing:
        raise UnsupportedError(
            f"{missing} of {W1.shape[1]} ReLU neurons have activation patterns that are not among the {problem.P} "
            "blocks of the problem, so the network is no point of its convex program; use patterns='all', or "
            "add the network's own patterns to the masks"
        )
    return blocks


def to_factors(problem: Instance, W1: First, W2: Second) -> tuple[torch.Tensor, torch.Tensor]:
    """Burer-Monteiro factors with the same neurons: each goes to the block of its gate, or of its own pattern.

    Neurons that no row activates are dropped. The objective never rises. Raises UnsupportedError where a
    ReLU neuron's pattern is not among the blocks.
    """
    M = W1.shape[1]
    blocks = _pattern_blocks(problem, W1.cpu().numpy()) if problem.has_cone else np.arange(M) % problem.P
    kept = np.flatnonzero(blocks >= 0)
    order = kept[np.argsort(blocks[kept], kind="stable")]
    sorted_blocks = blocks[order]
    counts = np.bincount(sorted_blocks, minlength=problem.P)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    columns = np.arange(len(order)) - starts[sorted_blocks]
    m = max(1, int(counts.max(initial=0)))
    U = W1.new_zeros(problem.P, problem.p, m)
    V = W2.new_zeros(problem.P, problem.q, m)
    index = (torch.as_tensor(sorted_blocks), slice(None), torch.as_tensor(columns))
    U[index] = W1[:, torch.as_tensor(order)].T
    V[index] = W2[:, torch.as_tensor(order)].T
    return U, V
