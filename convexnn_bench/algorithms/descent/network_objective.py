"""The network objective on a flat vector x = (W1, W2).

Gradients are computed by autograd, on all samples or on minibatches.
"""

from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Int

from convexnn_bench.algorithms.descent.methods import Vector
from convexnn_bench.algorithms.descent.starts import weights_from
from convexnn_bench.formulations import Point, network
from convexnn_bench.losses import BaseLoss, OutputBias, weighted_part
from convexnn_bench.operator import Operator, Predictions
from convexnn_bench.problem import Problem


class NetworkObjective:
    """Value and gradient at x, on a device.

    width: number of neurons, None for the default of the formulation.

    start: the vector at which to begin, random or from the point `begin`; fill: whether tiny neurons of `begin` are
    replaced.
    """

    def __init__(
        self, problem: Problem, width: int | None, seed: int, device: str, begin: Point | None = None, fill: bool = True
    ):
        self.problem = problem
        self.operator = problem.operator(device)
        if begin is None:
            width = network.default_width(problem) if width is None else width
            W1, W2 = network.start(problem, self.operator, width, seed)
        else:
            W1, W2 = weights_from(problem, self.operator, begin, width, seed, fill)
        self.width = W1.shape[1]
        self.start = torch.cat([W1.reshape(-1), W2.reshape(-1)])

    def weights(self, x: Vector) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (W1, W2) as views of x."""
        split = self.problem.p * self.width
        return x[:split].view(self.problem.p, -1), x[split:].view(self.problem.q, -1)

    def loss_and_gradient(
        self, x: Vector, operator: Operator, bias: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Vector]:
        """Return F and its gradient on the rows of an operator, the whole one or a part.

        bias: a fixed output bias (c numbers), needed for a part if the loss has an output bias, which couples all rows.
        """
        # differentiate with respect to the matrices: the gradient of a slice of x would be a vector as long as x
        leaves = [W.requires_grad_(True) for W in self.weights(x.detach())]
        predictions = network.forward(self.problem, operator, *leaves)
        predictions = predictions if bias is None else predictions + bias
        loss = self._loss_of(operator).value(predictions, operator.Y)
        gradients = torch.autograd.grad(loss, leaves)
        return loss.detach(), torch.cat([gradient.reshape(-1) for gradient in gradients])

    def _loss_of(self, operator: Operator) -> BaseLoss:
        """Return the loss of the operator's rows."""
        loss = self.problem.loss
        return loss if operator is self.operator else weighted_part(loss).rows(operator.outputs)

    def predictions(self, x: Vector) -> Predictions:
        """Return the predictions of all samples without output bias, in parts of some samples."""
        W = self.weights(x.detach())
        parts = network.parts(self.problem, self.operator, self.width)
        return torch.cat([network.forward(self.problem, part, *W) for part in parts])

    @cached_property
    def _parts(self) -> list[Operator]:
        """Operators on a few samples each, or one on all samples if the loss is no sum over samples."""
        separable = self.problem.loss.separable
        return network.parts(self.problem, self.operator, self.width) if separable else [self.operator]

    def __call__(self, x: Vector) -> tuple[torch.Tensor, Vector]:
        """Return F(x) + beta/2 ||x||^2 and its gradient."""
        value, gradient = 0.5 * self.problem.beta * x.square().sum(), self.problem.beta * x
        # There are parts only where F is a sum over samples: their values and gradients add up, and the weight decay
        # counts once.
        for part in self._parts:
            loss, slope = self.loss_and_gradient(x, part)
            value, gradient = value + loss, gradient.add_(slope)
        return value, gradient

    def point(self, x: Vector) -> Point:
        return Point(network=self.weights(x))


class Minibatches:
    """Minibatch gradients.

    The loss of a batch of b samples counts n / b times, and the weight decay in full.

    An epoch visits every sample once, in an order drawn from its generator. An output bias is the best one for the
    latest predictions of all samples. These are computed at the start of an epoch, and updated for each batch.
    """

    def __init__(self, full: NetworkObjective, size: int):
        self.full = full
        self.samples = full.problem.X.shape[0]
        self.size = min(size, self.samples)
        self.rows = full.problem.N // self.samples  # rows of Phi per sample, consecutive
        self.outputs = full.problem.n_out // self.samples
        self._latest: Predictions | None = None  # latest predictions, which determine the output bias

    @property
    def count(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self.samples // self.size)

    def epoch(self, generator: np.random.Generator) -> list[Callable[[Vector], Vector]]:
        """Return the gradients of the batches of one epoch, as functions of x."""
        self._latest = None
        order = generator.permutation(self.samples)
        batches = (order[start : start + self.size] for start in range(0, self.samples, self.size))
        return [partial(self.gradient, batch) for batch in batches]

    def gradient(self, batch: Int[np.ndarray, " b"], x: Vector) -> Vector:
        """Return an estimate of the full gradient, unbiased for a given output bias."""
        problem, operator = self.full.problem, self.full.operator
        samples = torch.as_tensor(batch, device=operator.device)
        part = operator.restricted(samples, _of_samples(samples, self.rows), _of_samples(samples, self.outputs))
        loss_gradient = self.full.loss_and_gradient(x, part, self._bias(part, x))[1]
        return problem.beta * x + self.samples / len(batch) * loss_gradient

    def _bias(self, part: Operator, x: Vector) -> torch.Tensor | None:
        """Return the output bias at x, or None for a loss without one."""
        loss = self.full.problem.loss
        if not isinstance(loss, OutputBias):
            return None
        if self._latest is None:
            self._latest = self.full.predictions(x)
        else:
            self._latest[part.outputs] = network.forward(self.full.problem, part, *self.full.weights(x.detach()))
        return loss.best_bias(self._latest, self.full.operator.Y)


def _of_samples(samples: Int[torch.Tensor, " b"], each: int) -> Int[torch.Tensor, " b_each"]:
    """Return the indices of the rows of some samples, where each sample has `each` consecutive rows."""
    if each == 1:
        return samples
    return (samples[:, None] * each + torch.arange(each, device=samples.device)).reshape(-1)
