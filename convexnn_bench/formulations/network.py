"""The original network, eq. 1 of Sahiner et al., ICLR 2024.

min F(C(phi(Phi W1) W2^T)) + beta/2 (||W1||_F^2 + ||W2||_F^2).

Gradients come from autograd, which makes them independent of those that the Burer-Monteiro formulation writes out. With
gated ReLU neuron j uses gate j mod P.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.activations import Linear
from convexnn_bench.checks import check_array
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.formulations import burer_monteiro
from convexnn_bench.instance import Instance
from convexnn_bench.norms import EPS
from convexnn_bench.operator import Operator

First = Float[torch.Tensor, "p M"]
Second = Float[torch.Tensor, "q M"]

LARGEST_RELU_WIDTH = 1000  # most neurons by default: ReLU neurons choose their patterns, so that fewer suffice


def check_weights(problem: Instance, W1: Any, W2: Any) -> tuple[First, Second]:
    """Return weights as float64 tensors.

    Raise InputError for wrong shapes and non-finite entries.
    """
    W1, W2 = check_array("W1", W1), check_array("W2", W2)
    M = W1.shape[1] if W1.ndim == 2 else -1
    if W1.shape != (problem.p, M) or W2.shape != (problem.q, M):
        raise InputError(
            f"network weights must be W1: p x M and W2: q x M with p, q = {problem.p}, {problem.q}; "
            f"got W1 {W1.shape} and W2 {W2.shape}{_transposed(problem, W1, W2)}"
        )
    return torch.as_tensor(W1), torch.as_tensor(W2)


def _transposed(problem: Instance, W1: np.ndarray, W2: np.ndarray) -> str:
    """Return the remedy if the weights only have another orientation.

    It may be that of torch or of scikit-learn.
    """
    if W1.ndim != 2 or W2.ndim != 2:
        return ""
    ways = {
        "give W1.T and W2 (torch's Linear.weight is M x p)": (W1.T, W2),
        "give W1 and W2.T (scikit-learn's coefs_[1] is M x q)": (W1, W2.T),
        "give W1.T and W2.T": (W1.T, W2.T),
    }
    for way, (first, last) in ways.items():
        if first.shape[0] == problem.p and last.shape == (problem.q, first.shape[1]):
            return f"; {way}"
    return ""


def gate_masks(problem: Instance, operator: Operator, M: int) -> torch.Tensor:
    """Return the N x M masks of the neurons' gates as numbers.

    They are empty for activations without gates.
    """
    if not problem.activation.has_gates:
        return operator.masks[:, :0]
    # Neuron j has gate j mod P: the columns repeat after P, and a network narrower than P uses the first M.
    masks = operator.masks[:, :M].to(operator.dtype)  # products with numbers are quicker than with bools
    return masks.repeat(1, -(-M // problem.P))[:, :M]


def forward(problem: Instance, operator: Operator, W1: First, W2: Second) -> Float[torch.Tensor, "n_out c"]:
    """Return C(phi(Phi W1) W2^T) for the rows of `operator`, all at once."""
    if W1.shape[1] == 0:  # a network without neurons, to which no structured map of an architecture need apply
        return torch.zeros_like(operator.Y)
    # Without an activation C(Phi W1 W2^T) is the factored form of one block with M columns. It has no hidden layer.
    if isinstance(problem.activation, Linear):
        return operator.apply_factors(W1[None], W2[None])
    masks = gate_masks(problem, operator, W1.shape[1])
    return operator.combine_neurons(problem.activation.apply(operator.first_layer(W1), masks), W2)


def parts(problem: Instance, operator: Operator, M: int) -> list[Operator]:
    """Return views of the operator on a few samples each.

    The hidden layer of M neurons then fits in the cache.

    Parts are whole samples, since a second layer may mix the rows of a sample.
    """
    if isinstance(problem.activation, Linear):
        return [operator]  # a linear network needs no hidden units
    samples = len(operator.X)
    rows, outputs = operator.N // samples, operator.n_out // samples  # of one sample; they are consecutive
    step = max(1, 2 * operator.part_size(M) // rows)  # twice, since autograd has a fixed cost a part
    slices = [[slice(i * each, (i + step) * each) for each in (1, rows, outputs)] for i in range(0, samples, step)]
    return [operator.restricted(*part) for part in slices]


def predict(problem: Instance, W1: First, W2: Second) -> Float[torch.Tensor, "n_out c"]:
    """Return the network's predictions on the problem's data, in float64.

    They are computed for a few samples at a time.
    """
    return torch.cat([forward(problem, part, W1, W2) for part in parts(problem, problem.operator(), W1.shape[1])])


def regulariser(W1: First, W2: Second) -> float:
    """Return 1/2 (||W1||^2 + ||W2||^2)."""
    return 0.5 * float(W1.square().sum() + W2.square().sum())


def objective(problem: Instance, W1: First, W2: Second) -> float:
    """Return the network objective."""
    loss = problem.loss.value(predict(problem, W1, W2), problem.operator().Y)
    return float(loss) + problem.beta * regulariser(W1, W2)


def default_width(problem: Instance) -> int:
    """Return as many neurons as the Burer-Monteiro default has columns.

    For ReLU they are at most LARGEST_RELU_WIDTH.
    """
    columns = problem.P * burer_monteiro.default_columns(problem)
    return min(columns, LARGEST_RELU_WIDTH) if problem.has_cone else columns


def start(problem: Instance, operator: Operator, M: int, seed: int, scale: float = 0.1) -> tuple[First, Second]:
    """Return Gaussian weights at the scale of the Burer-Monteiro start."""
    generator = torch.Generator().manual_seed(seed)
    W1 = torch.randn(problem.p, M, generator=generator, dtype=operator.dtype).to(operator.device)
    W2 = torch.randn(problem.q, M, generator=generator, dtype=operator.dtype).to(operator.device)
    # P blocks of natural size are shared out over M neurons. A product u v^T of Gaussian vectors has norm sqrt(p q) in
    # the mean square.
    total = scale * burer_monteiro.natural_scale(problem, operator) * problem.P
    size = total / (M * float(np.sqrt(problem.p * problem.q)))
    return W1 * size**0.5, W2 * size**0.5


def _pattern_blocks(problem: Instance, W1: np.ndarray) -> np.ndarray:
    """Return, for each ReLU neuron, the block whose cone it lies in.

    It is -1 for a neuron that no row activates.

    The pattern 1{Phi u >= 0} is looked up. A neuron on a boundary, or within rounding of it, may belong to a
    neighbouring block instead, for which all cones are tested. Raise UnsupportedError where no block fits.
    """
    # 1. Pre-activations, and a bound on the rounding of each, which is at most p eps |Phi| |u|, with a margin.
    H = problem.Phi @ W1
    rounding = 8 * (problem.p + 8) * EPS * (np.abs(problem.Phi) @ np.abs(W1))
    # Counting down keeps the first of several blocks with the same pattern.
    known = {np.packbits(problem.masks[:, k]).tobytes(): k for k in range(problem.P - 1, -1, -1)}
    blocks = np.full(W1.shape[1], -2)
    for j in range(W1.shape[1]):
        h, tolerance = H[:, j], rounding[:, j]
        # 2. Where max(Phi u, 0) = 0 the neuron contributes nothing.
        if (h <= tolerance).all():
            blocks[j] = -1
            continue
        # 3. Look the pattern up.
        blocks[j] = known.get(np.packbits(h >= 0).tobytes(), -2)
        if blocks[j] == -2:
            # 4. On a boundary: a block fits where the rows that contradict its mask are zero up to rounding.
            fits = (np.where(problem.masks, -h[:, None], h[:, None]) <= tolerance[:, None]).all(axis=0)
            if fits.any():
                blocks[j] = int(fits.argmax())
    # The convex program on these blocks does not contain a network with other patterns.
    missing = int((blocks == -2).sum())
    if missing:
        raise UnsupportedError(
            f"{missing} of {W1.shape[1]} ReLU neurons have activation patterns that are not among the {problem.P} "
            "blocks of the problem, so the network is no point of its convex program; use patterns='all', or "
            "add the network's own patterns to the masks"
        )
    return blocks


def to_factors(problem: Instance, W1: First, W2: Second) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Burer-Monteiro factors with the same neurons.

    Each neuron is in the block of its gate, or of its own pattern.

    Neurons that no row activates are dropped. The objective never rises. Raise UnsupportedError where a
    ReLU neuron's pattern is not among the blocks.
    """
    # 1. The block of every neuron, and the neurons in the order of their blocks.
    M = W1.shape[1]
    blocks = _pattern_blocks(problem, W1.cpu().numpy()) if problem.has_cone else np.arange(M) % problem.P
    kept = np.flatnonzero(blocks >= 0)
    order = kept[np.argsort(blocks[kept], kind="stable")]
    sorted_blocks = blocks[order]
    # 2. The column of every neuron within its block; the fullest block sets m, and shorter ones end in zero columns.
    counts = np.bincount(sorted_blocks, minlength=problem.P)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    columns = np.arange(len(order)) - starts[sorted_blocks]
    m = max(1, int(counts.max(initial=0)))
    # 3. D_k Phi u v^T is the neuron's contribution in either formulation, so that u and v are copied.
    U = W1.new_zeros(problem.P, problem.p, m)
    V = W2.new_zeros(problem.P, problem.q, m)
    index = (torch.as_tensor(sorted_blocks), slice(None), torch.as_tensor(columns))
    U[index] = W1[:, torch.as_tensor(order)].T
    V[index] = W2[:, torch.as_tensor(order)].T
    return U, V
