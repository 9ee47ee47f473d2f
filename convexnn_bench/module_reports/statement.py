"""State the training problem of a network, for any weight decay of its parts.

1. Weight decay lam_1 on the first layer and lam_2 on the second one: with t = (lam_1 / lam_2)^(1/4) the weights t W_1
   and W_2 / t give the same outputs, and the same penalty with beta = (lam_1 lam_2)^(1/2) on both.
2. Weight decay lam_b on the biases of the first layer: they are weights of a constant feature (lam_1 / lam_b)^(1/2).
3. No weight decay on them: a hidden neuron can be a constant at no cost, so that the infimum is that of the network
   with a free output bias, and the rows are those of `WithBias`, whose optimum is not larger.

All numbers of the problem are rounded so that its optimum is not larger than that of the user's training problem.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from convexnn_bench.architectures import CNN, MLP, BaseArchitecture, WithBias, centre_of
from convexnn_bench.certificates import loss_upper_bound, objective_upper_bound
from convexnn_bench.checks import check_scale
from convexnn_bench.errors import NotFiniteError
from convexnn_bench.formulations import network
from convexnn_bench.labels import Targets
from convexnn_bench.losses import BaseLoss, OutputBias
from convexnn_bench.modules import Decay, Reading
from convexnn_bench.operator import EPS, Operator, prediction_rounding, sum_rounding
from convexnn_bench.patterns import (
    Patterns,
    enumerate_patterns,
    enumeration_cost,
    patterns_of_neurons,
    with_scaled_feature,
)
from convexnn_bench.problem import Problem

ENUMERATION_SECONDS, ENUMERATED = 2.0, 5000  # limits of time and number, up to which all patterns are enumerated
MOST_MASK_ENTRIES = 2**28  # N x M entries of neurons' masks, above which the problem has one sampled pattern instead
# The constant feature of biases without weight decay, over the radius of the rows. The optimum of the problem is within
# a relative 2^-21 of that of the network.
FREE_BIAS_SIZE = 2.0**10
CONSTANT = 2.0**20  # value of a hidden neuron that stands for an output bias, whose penalty then hardly counts


@dataclass(frozen=True)
class Statement:
    """A network as a point (W1, W2) of its training problem.

    Attributes
    ----------
    reading : Reading
        The network in the user's terms.
    data : array
        The user's samples.
    decay : Decay
        Weight decay of every parameter beside F, a sum over samples.
    architecture : BaseArchitecture
        The architecture of the problem, which takes `inputs`.
    inputs : array
        The samples of the problem.
    W1, W2 : array
        The weights in the problem's terms, with the same outputs up to an output bias.
    beta, unrelaxed_beta : float
        The weight decay of the problem, and the same before a relaxation of biases without weight decay lowered it.
    output_bias : float or None
        Weight decay of the output bias, zero for a free one. None without an output bias.
    factor : float
        t of step 1: W1 is t times the weights of the network.
    """

    reading: Reading
    data: np.ndarray
    decay: Decay
    architecture: BaseArchitecture
    inputs: np.ndarray
    W1: np.ndarray
    W2: np.ndarray
    beta: float
    unrelaxed_beta: float
    output_bias: float | None
    factor: float

    @cached_property
    def outputs(self) -> np.ndarray:
        """The outputs of the network on the data, n_out x c."""
        return self.reading.predict(self.data)

    def problem(self, targets: Targets, loss: BaseLoss) -> Problem:
        """Return the training problem.

        Its optimum is not larger than that of the user's network, of any width.
        """
        known = {None: None, 0.0: "free", self.beta: "penalised"}
        if self.output_bias in known:
            kind = known[self.output_bias]
        else:  # the bias has a weight decay of its own
            loss, kind = OutputBias(loss, self.output_bias), None
        return Problem(
            self.inputs, targets, self.architecture, self.reading.activation, loss, self.beta,
            patterns=self._patterns(), output_bias=kind,
        )  # fmt: skip

    def _patterns(self) -> Any:
        """Return all patterns if they are quick to enumerate, else those of the neurons.

        The lower bound is over all patterns in both cases.
        """
        if self.reading.activation != "relu":
            return "all"
        Phi = self.architecture.phi_rows(torch.as_tensor(self.inputs)).numpy()
        # A complete set of blocks is bounded block by block, any other one over all patterns at once.
        cost = enumeration_cost(Phi)
        if cost.seconds <= ENUMERATION_SECONDS and cost.patterns <= ENUMERATED:
            return "all" if self.architecture.bias_radius is None else _patterns_with_bias(Phi)
        neurons: Patterns | None = None
        if len(Phi) * self.W1.shape[1] <= MOST_MASK_ENTRIES:
            neurons = patterns_of_neurons(Phi, self.W1)
        return 1 if neurons is None else neurons

    def reading_of(self, W1: np.ndarray, W2: np.ndarray, bias: np.ndarray | None) -> Reading:
        """Return a network of the problem as a network of the user's kind.

        bias: the output bias of that network, or None.
        """
        # 1. Undo the constant feature and the scale of the layers.
        rows = W1
        if isinstance(self.architecture, WithBias):
            b = self.architecture.size * W1[-1:] - self.architecture.shift @ W1[:-1]
            rows = np.vstack([W1[:-1], b])
        elif self.reading.first_bias and len(W1) < len(self.reading.W1):
            rows = np.vstack([W1, np.zeros((1, W1.shape[1]))])
        rows, W2 = rows / self.factor, W2 * self.factor
        # 2. If the output bias has weight decay, or the network has none, a hidden neuron is the constant.
        if bias is not None and self.decay.first_bias == 0 and self.decay.second_bias != 0:
            rows, W2 = self._with_constant(rows, W2, bias)
            bias = None if self.reading.output_bias is None else np.zeros_like(bias)
        return replace(self.reading, W1=rows, W2=W2, output_bias=bias)

    def _with_constant(self, W1: np.ndarray, W2: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights with one more neuron, whose outputs are the bias.

        The value of this neuron is CONSTANT on every row.
        """
        # The outputs of a constant neuron are linear in its second-layer weights v; take the shortest v.
        architecture, q, c = self.reading.architecture, len(W2), len(bias)
        data = torch.as_tensor(self.reading.data(self.data[:1]))
        N = len(architecture.phi_rows(data))
        units = torch.eye(q, dtype=torch.float64)
        maps = [architecture.combine(data.new_ones(N, 1), unit[:, None], data, c)[0] for unit in units]
        v = np.linalg.pinv(torch.stack(maps, dim=1).numpy()) @ bias / CONSTANT
        first = np.zeros((len(W1), 1))
        first[-1] = CONSTANT
        return np.hstack([W1, first]), np.hstack([W2, v[:, None]])

    def output_bias_in(self, problem: Problem) -> np.ndarray | None:
        """Return the output bias that belongs to (W1, W2) as a point of the problem."""
        if self.decay.first_bias != 0:
            return self.reading.output_bias
        z = network.predict(problem, torch.as_tensor(self.W1), torch.as_tensor(self.W2))
        return problem.output_bias_at(z.numpy())

    def objective(self, problem: Problem, loss: BaseLoss, reading: Reading) -> tuple[float, float]:
        """Return a lower and an upper bound on the objective of the user's network.

        The objective is F + the sum of lam/2 times the squared parameters.
        """
        Y, z = torch.as_tensor(problem.Y), torch.as_tensor(reading.predict(self.data))
        if not bool(torch.isfinite(z).all()):
            raise NotFiniteError("the network's predictions overflow float64")
        operator = problem.operator()
        # The rows of the problem may be shorter than those of the network.
        if self.architecture is not reading.architecture or problem.p != len(reading.W1):
            rows = np.ones((problem.N, 1), dtype=bool)
            operator = Operator(reading.architecture, reading.data(self.data), problem.Y, rows, "cpu")
        sizes = torch.as_tensor(np.abs(reading.W1) @ np.abs(reading.W2).T)
        error = prediction_rounding(operator, sizes, reading.W1.shape[1])
        if reading.output_bias is not None:
            error = error + 2 * EPS * (z.abs() + torch.as_tensor(reading.output_bias).abs())
        value = float(loss.value(z, Y))
        F = loss_upper_bound(loss, z, Y, value, loss.gradient(z, Y), error)
        # The certificate's primal is taken at the best output bias, and would understate a module with another.
        decayed = self._decayed(reading)
        rounding = sum_rounding(sum(weight.size for _, weight in decayed)) + 8 * EPS
        penalty = _penalty(decayed)
        high = objective_upper_bound(F, 1.0, penalty, rounding)
        # The errors have no sign, so that the objective is above the computed value by at most as much as below it.
        return 2 * (value + penalty) - high, high

    def penalty_of_layers(self) -> float:
        """Return the sum of lam/2 times the squares of all but the output bias."""
        return _penalty(self._decayed(self.reading)[:3])

    def _decayed(self, reading: Reading) -> list[tuple[float, np.ndarray]]:
        """Return the weight decay and the values of the weights and the biases."""
        decay = self.decay
        weights, biases = (reading.W1[:-1], reading.W1[-1:]) if reading.first_bias else (reading.W1, None)
        pairs = [
            (decay.first, weights), (decay.second, reading.W2), (decay.first_bias, biases),
            (decay.second_bias, reading.output_bias),
        ]  # fmt: skip
        return [(lam or 0.0, np.zeros(0) if values is None else values) for lam, values in pairs]


def _penalty(decayed: list[tuple[float, np.ndarray]]) -> float:
    return 0.5 * sum(lam * float(torch.as_tensor(weight).square().sum()) for lam, weight in decayed)


def stated(reading: Reading, data: np.ndarray, decay: Decay) -> Statement:
    """Return the network as a point of its training problem.

    decay: the weight decay in units of F.
    """
    # 1. Biases that the network does not have.
    if not reading.first_bias:
        decay = replace(decay, first_bias=None)
    if reading.output_bias is None:
        decay = replace(decay, second_bias=None)
    # 2. One weight decay for both layers.
    beta, t = decay.first, 1.0
    if decay.first != decay.second:
        beta = math.sqrt(decay.first) * math.sqrt(decay.second) * (1 - 4 * EPS)
        t = (decay.first / decay.second) ** 0.25
    W1, W2 = t * reading.W1, reading.W2 / t
    own = Statement(
        reading, data, decay, reading.architecture, reading.data(data), W1, W2, beta, beta, decay.second_bias, t
    )
    # 3. The biases of the first layer.
    if decay.first_bias in (None, decay.first):
        return own
    if decay.first_bias == 0:
        return _with_free_biases(own)
    size = math.sqrt(decay.first / decay.first_bias) * (1 + 4 * EPS)
    return _with_biases(own, np.zeros(len(W1) - 1), size)


def _with_biases(own: Statement, shift: np.ndarray, size: float, radius: float | None = None) -> Statement:
    """Return the statement with the rows (phi_i - shift, size).

    Its optimum is not larger.
    """
    u, b = own.W1[:-1], own.W1[-1:] + shift @ own.W1[:-1]
    beta = own.beta
    if radius is not None:
        # A neuron beyond the radius is linear or zero on the data. At the radius it differs by a constant, which
        # belongs to the output bias.
        reach = radius * np.linalg.norm(u, axis=0)
        b = np.clip(b, -reach, reach)
        beta = beta / math.hypot(1.0, radius / size) * (1 - 8 * EPS)
    W1 = np.vstack([u, b / size])
    inner, inputs = _without_biases(own)
    return replace(own, architecture=WithBias(inner, shift, size, radius), inputs=inputs, W1=W1, beta=beta)


def _with_free_biases(own: Statement) -> Statement:
    """Return the statement for biases of the first layer without weight decay."""
    own = replace(own, output_bias=0.0)
    inner, inputs = _without_biases(own)
    if own.reading.activation == "linear":  # the biases of the first layer are part of the output bias
        return replace(own, architecture=inner, inputs=inputs, W1=own.W1[:-1])
    rows = inner.phi_rows(torch.as_tensor(inputs)).numpy()
    check_scale("X", rows)
    shift = centre_of(rows)
    radius = float(np.linalg.norm(rows - shift, axis=1).max()) * (1 + (rows.shape[1] + 8) * EPS) or 1.0
    size = FREE_BIAS_SIZE * 2.0 ** math.ceil(math.log2(radius))
    return _with_biases(own, shift, size, radius)


def _without_biases(own: Statement) -> tuple[BaseArchitecture, np.ndarray]:
    """Return the architecture without biases of the first layer, and its data."""
    architecture, samples = own.reading.architecture, own.reading.samples(own.data)
    if isinstance(architecture, CNN):
        architecture = CNN(architecture.patch, architecture.stride, architecture.padding, architecture.pool, bias=False)
    assert isinstance(architecture, MLP | CNN)
    return architecture, samples


def _patterns_with_bias(Phi: np.ndarray) -> Patterns:
    """Return all patterns of rows whose last column is a large constant."""
    # With a constant of the size of the other entries hyperplanes meet at larger angles.
    smaller = Phi.copy()
    smaller[:, -1] /= FREE_BIAS_SIZE
    return with_scaled_feature(enumerate_patterns(smaller), Phi, FREE_BIAS_SIZE)
