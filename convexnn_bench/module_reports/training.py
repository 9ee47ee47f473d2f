"""Train a ReLU network further: L-BFGS on all weights, then new neurons.

A network is optimal among networks of any width if it is stationary and ||R^T (Phi u)_+|| <= beta for every unit vector
u, with R = C^*(grad F). Where that norm exceeds beta, a small neuron (u, v) with v = -R^T (Phi u)_+ / ||.|| lowers the
objective. `NetworkTraining` therefore alternates

1. `descend`: L-BFGS on all weights, at fixed width,
2. `prune`: remove the neurons without which the objective is no larger,
3. `grow`: add small neurons in the most violated directions that local search finds.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.algorithms.descent import NetworkObjective, Vector, lbfgs
from convexnn_bench.deadline import time_is_up
from convexnn_bench.formulations import Point, network
from convexnn_bench.norms import ascend
from convexnn_bench.problem import Problem

WINDOW = 50  # steps of L-BFGS between two looks at its progress
ALIKE = 0.99  # cosine of the hidden units of two directions from which only one of them is added
EXCESS = 1e-5  # relative excess of a direction's norm over beta from which it is added
NEGLIGIBLE = 1e-3  # size of a neuron, relative to the largest one, below which it is tried to do without it
TRIALS = 20  # sizes of new neurons, each four times the last one or a quarter of it

First = Float[torch.Tensor, "p M"]
Second = Float[torch.Tensor, "q M"]


class NetworkTraining:
    """The weights of a ReLU network, which change only where the objective falls."""

    def __init__(self, problem: Problem, W1: np.ndarray, W2: np.ndarray):
        self.problem = problem
        self.W1, self.W2 = _balanced(torch.as_tensor(W1), torch.as_tensor(W2))
        self.value = self._value(self.W1, self.W2)
        self._rounds = 0

    @property
    def width(self) -> int:
        """The number of neurons."""
        return int(self.W1.shape[1])

    def gradient(self) -> Float[torch.Tensor, "n_out c"]:
        """Return grad F at the predictions."""
        operator = self.problem.operator()
        return self.problem.loss.gradient(network.predict(self.problem, self.W1, self.W2), operator.Y)

    def descend(self, tolerance: float, stop: Callable[[], bool] = time_is_up) -> None:
        """Take steps of L-BFGS until they lower the objective too little.

        Too little is less than `tolerance` of its value in WINDOW steps.
        """
        if self.width == 0:
            return
        objective = NetworkObjective(
            self.problem, self.width, 0, "cpu", Point(network=(self.W1, self.W2)), fill=False
        )  # fmt: skip
        best, best_x, steps, last = self.value, objective.start, 0, self.value

        def recorded(x: Vector) -> tuple[torch.Tensor, Vector]:
            nonlocal best, best_x
            value, slope = objective(x)
            if float(value) < best:
                best, best_x = float(value), x.clone()
            return value, slope

        def step_done(x: Vector) -> bool:
            nonlocal steps, last
            steps += 1
            if steps % WINDOW == 0:
                slow, last = not best < last * (1 - tolerance), best
                if slow:
                    return False
            return not stop()

        lbfgs(recorded, objective.start, step_done)
        self._keep(*(part.clone() for part in objective.weights(best_x)))

    def prune(self) -> None:
        """Remove the smallest neurons, as many as possible without a larger objective."""
        sizes = torch.linalg.vector_norm(self.W1, dim=0) * torch.linalg.vector_norm(self.W2, dim=0)
        order = sizes.argsort(descending=True)
        most = int((sizes <= NEGLIGIBLE * sizes.max()).sum()) if len(sizes) else 0
        while most > 0:
            kept = order[: self.width - most]
            if self._keep(self.W1[:, kept], self.W2[:, kept]):
                return
            most //= 2

    def grow(self, count: int) -> float:
        """Add at most `count` neurons; return the largest norm over beta of a direction.

        The new neurons (sqrt(t) u, sqrt(t) v) share one size t. It starts at the minimiser of a quadratic bound on the
        objective, and is halved until the objective falls.
        """
        problem, operator = self.problem, self.problem.operator()
        R = operator.second_layer_adjoint(self.gradient())
        self._rounds += 1
        values, U = ascend(problem.Phi, R.numpy(), seed=self._rounds)
        chosen = self._distinct(torch.as_tensor(U[:, values > problem.beta * (1 + EXCESS)]), count)
        largest = float(values[0]) / problem.beta
        if chosen.shape[1] == 0:
            return largest
        images = R.T @ torch.relu(torch.as_tensor(problem.Phi) @ chosen)
        norms = torch.linalg.vector_norm(images, dim=0)
        V = -images / norms
        change = network.predict(problem, chosen, V)
        curvature = problem.loss.smoothness * float(change.square().sum())
        first = float((norms - problem.beta).sum()) / max(curvature, 1e-300)
        W1, W2 = self.W1, self.W2
        for factor in (4.0, 0.25):
            size = first if factor > 1 else 0.25 * first
            for _ in range(TRIALS):
                root = size**0.5
                if not self._keep(torch.cat([W1, root * chosen], dim=1), torch.cat([W2, root * V], dim=1)):
                    break
                size *= factor
        return largest

    def _distinct(self, U: First, count: int) -> Float[torch.Tensor, "p k"]:
        """Return at most `count` directions, none with nearly parallel hidden units."""
        hidden = torch.relu(torch.as_tensor(self.problem.Phi) @ U)
        hidden = hidden / torch.linalg.vector_norm(hidden, dim=0).clamp_min(1e-300)
        chosen: list[int] = []
        for j in range(U.shape[1]):
            if len(chosen) < count and not bool((hidden[:, chosen].T @ hidden[:, j] > ALIKE).any()):
                chosen.append(j)
        return U[:, chosen]

    def _keep(self, W1: First, W2: Second) -> bool:
        """Take these weights, balanced, if their objective is not larger.

        Return whether they were taken.
        """
        W1, W2 = _balanced(W1, W2)
        value = self._value(W1, W2)
        if not value <= self.value:
            return False
        self.W1, self.W2, self.value = W1, W2, value
        return True

    def _value(self, W1: First, W2: Second) -> float:
        return network.objective(self.problem, W1, W2)


def _balanced(W1: First, W2: Second) -> tuple[Float[torch.Tensor, "p k"], Float[torch.Tensor, "q k"]]:
    """Return the same neurons with ||u|| = ||v||, without those that are zero.

    The objective does not rise.
    """
    first, second = torch.linalg.vector_norm(W1, dim=0), torch.linalg.vector_norm(W2, dim=0)
    alive = (first > 0) & (second > 0)
    W1, W2, ratio = W1[:, alive], W2[:, alive], (second[alive] / first[alive]).sqrt()
    return W1 * ratio, W2 / ratio
