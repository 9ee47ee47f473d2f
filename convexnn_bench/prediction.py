"""Predictions of a point on new data, with the gates or neurons of its problem.

    linear       f(x) = C(phi(x) Z)
    gated ReLU   f(x) = C(sum_k 1{phi(x) g_k >= 0} phi(x) Z_k)           with the gates g_k of the problem
    others       f(x) = C(sigma(phi(x) W1) W2^T)                         with the network of the point

Here phi(x) are the rows that the architecture makes of a sample x, and sigma is the activation. On the training data
1{phi(x) g_k >= 0} are the masks of the problem, so that the values of f there are the certified predictions. The same
holds for the network of a ReLU point, because the vectors u of block k lie in the cone where D_k Phi u = max(Phi u, 0).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.activations import Linear
from convexnn_bench.checks import Array
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.formulations import ConvexPoint, Point, network
from convexnn_bench.operator import CHUNK_ELEMENTS, DataArray, Operator, Rows, read_data
from convexnn_bench.problem import Problem


def predict(problem: Problem, point: Point, X_new: Array) -> np.ndarray:
    """Return the predictions of a point on new data.

    Parameters
    ----------
    problem : Problem
        The problem that the point belongs to.
    point : Point
        Blocks, factors or a network.
    X_new : array
        Samples of the same shape as those of `problem.X`, one for each index of the first axis.

    Returns
    -------
    array, n_new x c
        The scores, in the shape in which the architecture takes targets: n_new x s x c for attention with an output for
        each token. They include the output bias if the problem has one.

    Raises
    ------
    InputError
        X_new has samples of another shape, or the point does not fit the problem.
    UnsupportedError
        The activation has gates and the problem has masks alone, or no network of a ReLU point is known.
    """
    return Predictor(problem, point)(X_new)


@dataclass(frozen=True)
class Neurons:
    """The active neurons: W1 (p x M), W2 (q x M), and gates (p x M) or None."""

    W1: torch.Tensor
    W2: torch.Tensor
    gates: torch.Tensor | None


class Predictor:
    """The function x -> f(x) of a point. What does not depend on x is computed once.

    Attributes
    ----------
    problem, point : Problem, Point
        The point, and its problem.
    sample_shape : tuple
        The shape of a sample's outputs, (c,) or (s, c).
    output_bias : array c, or None
        The best bias for the predictions on the training data, if the problem has an output bias.
    """

    def __init__(self, problem: Problem, point: Point):
        self.problem, self.point = problem, point
        self.sample_shape = shape_of_a_sample(problem)
        # 1. Collect the parameters of f. Blocks that are zero, or have zero columns only, add nothing.
        self._gates: np.ndarray | None = None
        self._neurons: tuple[torch.Tensor, torch.Tensor] | None = None
        self._matrices: tuple[torch.Tensor, ...] = ()  # blocks (Z,) or factors (U, V)
        if problem.activation.has_gates:
            gates = gates_of(problem)
            convex = isinstance(point, ConvexPoint)
            matrices = (point.to_blocks(problem),) if convex else point.to_factors(problem)
            active = torch.stack([(matrix != 0).flatten(1).any(dim=1) for matrix in matrices]).all(dim=0)
            self._gates = np.ascontiguousarray(gates[:, active.numpy()])
            self._matrices = tuple(matrix[active] for matrix in matrices)
        elif isinstance(problem.activation, Linear):
            self._matrices = (point.to_blocks(problem),)
        else:
            self._neurons = point.to_network(problem)
        # 2. Choose the bias that minimises the loss at the predictions on the training data.
        self.output_bias: np.ndarray | None = None
        if problem.output_bias is not None:
            self.output_bias = problem.output_bias_at(self.scores(problem.X))

    def __call__(self, X_new: Array) -> np.ndarray:
        """Return f(X_new), see `predict`."""
        scores = self.scores(check_samples(self.problem, X_new))
        scores = scores if self.output_bias is None else scores + self.output_bias
        return scores.reshape(-1, *self.sample_shape)

    def neurons(self) -> Neurons:
        """Return the active neurons of the point's network, or one zero neuron.

        Raise UnsupportedError if no network is known.
        """
        problem = self.problem
        W1, W2 = self._neurons or self.point.to_network(problem)
        active = torch.nonzero((W1 != 0).any(dim=0) & (W2 != 0).any(dim=0))[:, 0]
        # Neuron j of a gated network has gate j mod P.
        if len(active) == 0:  # layers of torch need at least one neuron
            W1, W2, active = W1.new_zeros(problem.p, 1), W2.new_zeros(problem.q, 1), active.new_zeros(1)
        gates = torch.as_tensor(gates_of(problem))[:, active % problem.P] if problem.activation.has_gates else None
        return Neurons(W1[:, active], W2[:, active], gates)

    def scores(self, X: DataArray) -> Float[np.ndarray, "n_out c"]:
        """Return the predictions without the output bias for checked samples.

        They are computed for some samples at a time.
        """
        problem = self.problem
        rows = problem.N // problem.X.shape[0]  # of one sample
        neurons = 0 if self._neurons is None else self._neurons[0].shape[1]
        blocks = 1 if self._gates is None else self._gates.shape[1]
        step = max(1, CHUNK_ELEMENTS // (rows * max(problem.p, neurons, blocks)))
        return np.concatenate([self._scores_of_part(X[start : start + step]) for start in range(0, X.shape[0], step)])

    def _scores_of_part(self, X: DataArray) -> np.ndarray:
        problem = self.problem
        samples = problem.X.shape[0]
        targets = np.zeros((X.shape[0] * (problem.n_out // samples), problem.c))  # their shape alone is used
        if self._gates is not None and self._gates.shape[1] == 0:  # the zero network
            return targets
        masks = np.ones((X.shape[0] * (problem.N // samples), 1), dtype=bool)
        if self._gates is not None:
            masks = np.asarray(Rows(problem.architecture, X) @ self._gates) >= 0
        operator = Operator(problem.architecture, X, targets, masks)
        if self._neurons is not None:
            return network.forward(problem, operator, *self._neurons).numpy()
        single = len(self._matrices) == 1
        scores = operator.apply(*self._matrices) if single else operator.apply_factors(*self._matrices)
        return scores.numpy()


def shape_of_a_sample(problem: Problem) -> tuple[int, ...]:
    """Return (s, c) if the architecture takes targets n x s x c, else (c,)."""
    n = problem.X.shape[0]
    each = (problem.n_out // n, problem.c)
    try:
        taken = problem.architecture.target_rows(np.zeros((n, *each)), problem.X).shape
    except InputError:  # it has no such targets
        return each[1:]
    return each if taken == problem.Y.shape else each[1:]


def gates_of(problem: Problem) -> Float[np.ndarray, "p P"]:
    """Return the gates of the masks.

    Raise UnsupportedError if the problem has masks alone.
    """
    if problem.gates is None:
        raise UnsupportedError(
            "the problem has masks without gates, so that it is not known which blocks are active on other data than "
            'its own: give patterns=NUMBER, patterns="all", or the result of cnn.sample_patterns or '
            "cnn.enumerate_patterns as patterns, instead of an array of masks"
        )
    return problem.gates


def check_samples(problem: Problem, X_new: Any) -> DataArray:
    """Return X_new as `read_data` does.

    Raise InputError if its samples have another shape than X.
    """
    X = read_data(X_new, problem.architecture, name="X_new")
    sample = problem.X.shape[1:]
    if X.shape[1:] != sample or X.shape[0] == 0:
        one = "; one sample is X_new[None]" if X.shape == sample else ""
        raise InputError(
            f"X_new must hold at least one sample of the shape of the training data, n_new x "
            f"{' x '.join(map(str, sample))} where X is {' x '.join(map(str, problem.X.shape))}, got shape "
            f"{X.shape}{one}"
        )
    return X
