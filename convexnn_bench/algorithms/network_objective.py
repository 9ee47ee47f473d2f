"""The network objective on a flat vector, by autograd, on all samples or on minibatches."""

from functools import cached_property

import numpy as np
import torch

from convexnn_bench.activations.linear import Linear
from convexnn_bench.algorithms.first_order import Vector
from convexnn_bench.formulations import network
from convexnn_bench.formulations.point import Point
from convexnn_bench.operator import Operator
from convexnn_bench.problem import Problem

Part = tuple[Operator, torch.Tensor]  # the operator on some samples, and the masks of the neurons there


class NetworkObjective:
    """Value and gradient at x = (W1, W2) flattened, on a device."""

    def __init__(self, problem: Problem, width: int | None, seed: int, device: str):
        self.problem = problem
        self.operator = problem.operator(device)
        self.width = width if width is not None else network.default_width(problem)
        self.masks = network.gate_masks(problem, self.operator, self.width)
        W1, W2 = network.start(problem, self.operator, self.width, seed)
        self.start = torch.cat([W1.reshape(-1), W2.reshape(-1)])

    def weights(self, x: Vector) -> tuple[torch.Tensor, torch.Tensor]:
        """(W1, W2) as views of x."""
        split = self.problem.p * self.width
        return x[:split].view(self.problem.p, -1), x[split:].view(self.problem.q, -1)

    def loss_and_gradient(self, x: Vector, operator: Operator, masks: torch.Tensor) -> tuple[torch.Tensor, Vector]:
        """F on the operator's rows, and its gradient."""
        leaf = x.detach().requires_grad_(True)
        z = network.forward(self.problem, operator, *self.weights(leaf), masks)
        loss = self.problem.loss.value(z, operator.Y)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    @cached_property
    def _parts(self) -> list[Part]:
        """All samples, so few at a time that their hidden units stay in the cache, there and back."""
        problem, operator = self.problem, self.operator
        if isinstance(problem.activation, Linear) or not problem.loss.separable:
            return [(operator, self.masks)]  # a linear network may do without hidden units
        samples = problem.X.shape[0]
        rows, outputs = operator.N // samples, operator.n_out // samples  # of one sample, consecutive
        step = max(1, 2 * operator.part_size(self.width) // rows)  # twice, since autograd has a cost of its own a part
        parts = []
        for start in range(0, samples, step):
            own, of_rows, of_outputs = (slice(start * each, (start + step) * each) for each in (1, rows, outputs))
            masks = self.masks[of_rows] if problem.activation.has_gates else self.masks
            parts.append((operator.restricted(own, of_rows, of_outputs), masks))
        return parts

    def __call__(self, x: Vector) -> tuple[torch.Tensor, Vector]:
        """F(x) + beta/2 ||x||^2 and its gradient."""
        value, gradient = 0.5 * self.problem.beta * x.square().sum(), self.problem.beta * x
        for operator, masks in self._parts:
            loss, slope = self.loss_and_gradient(x, operator, masks)
            value, gradient = value + loss, gradient.add_(slope)
        return value, gradient

    def batches(self, size: int) -> "Minibatches":
        """The same objective over random minibatches of samples."""
        return Minibatches(self, size)

    def point(self, x: Vector) -> Point:
        """The network at x."""
        return Point(network=self.weights(x))

    def entry_scale(self) -> float:
        """Typical size of an entry of the start point, the unit of Adam's step."""
        return float(self.start.abs().mean())


class Minibatches:
    """Minibatch gradients: the loss of a batch of b samples counts n / b times, the weight decay in full.

    An epoch visits every sample once in an order drawn from `seed`.
    """

    def __init__(self, full: NetworkObjective, size: int):
        self.full = full
        self.samples = full.problem.X.shape[0]
        self.size = min(size, self.samples)
        self.rows = full.problem.N // self.samples  # rows of Phi per sample, consecutive
        self.outputs = full.problem.n_out // self.samples

    def epoch(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Index arrays of the batches of one epoch."""
        order = generator.permutation(self.samples)
        return [order[start : start + self.size] for start in range(0, self.samples, self.size)]

    def gradient(self, x: Vector, batch: np.ndarray) -> Vector:
        """An unbiased estimate of the full gradient."""
        problem, operator = self.full.problem, self.full.operator
        rows = (batch[:, None] * self.rows + np.arange(self.rows)).reshape(-1)
        outputs = (batch[:, None] * self.outputs + np.arange(self.outputs)).reshape(-1)
        index = torch.as_tensor(rows, device=operator.device)
        part = operator.restricted(
            torch.as_tensor(batch, device=operator.device),
            index,
            torch.as_tensor(outputs, device=operator.device),
        )
        masks = self.full.masks[index] if problem.activation.has_gates else self.full.masks
        loss_gradient = self.full.loss_and_gradient(x, part, masks)[1]
        return problem.beta * x + self.samples / len(batch) * loss_gradient
