"""The objective of bm_newton on sets of neurons.

It holds the problem, its operator, and values that are cached between points.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float, Int

from convexnn_bench.algorithms.newton.neurons import BlockNeurons
from convexnn_bench.operator import CompactMatrix, Operator
from convexnn_bench.problem import Problem


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors hold the same numbers; one and the same tensor is not read from a GPU."""
    return one is other or torch.equal(one, other)


class WorkingProblem:
    """f on sets of neurons, in float64 on one device."""

    def __init__(self, problem: Problem, device: str, single: bool = True):
        self.single = single  # whether Hessian products may be float32; f and its gradient never are
        self.problem, self.loss, self.device = problem, problem.loss, device
        self.beta = problem.beta  # may be set above the problem's for a while
        self.operator: Operator = problem.operator(device)
        self.targets = self.operator.Y
        self.products = 0  # Hessian products so far
        self.curvature_floor = 0.0  # least F'' of the quadratic model, in units of the loss's largest curvature
        self._last_masks: tuple[torch.Tensor, torch.Tensor] | None = None
        self._last_operators: tuple[torch.Tensor, dict[torch.dtype, Operator]] | None = None

    def no_neurons(self) -> BlockNeurons:
        """Return the empty set of neurons."""
        none = torch.zeros(0, dtype=self.operator.dtype, device=self.operator.device)
        p, q = self.problem.p, self.problem.q
        return BlockNeurons(none.to(torch.int64), none.view(1, 0).expand(p, 0), none.view(1, 0).expand(q, 0))

    def masks(self, blocks: Int[torch.Tensor, " J"]) -> Float[torch.Tensor, "N J"]:
        """Return the masks of the neurons' blocks as numbers; the last result is cached."""
        if self._last_masks is None or not _same(self._last_masks[0], blocks):
            self._last_masks = blocks, self.operator.masks[:, blocks].to(self.operator.dtype)
        return self._last_masks[1]

    def on_blocks(self, blocks: Int[torch.Tensor, " B"], dtype: torch.dtype) -> Operator:
        """Return the operator of these blocks alone; recent operators are cached."""
        if self._last_operators is None or not _same(self._last_operators[0], blocks):
            self._last_operators = blocks, {}
        operators = self._last_operators[1]
        if dtype not in operators:
            operators[dtype] = self.problem.operator(self.device, dtype).on_blocks(blocks)
        return operators[dtype]

    def curvature(self, z: torch.Tensor, rows: slice | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return products with F''(z) + floor L, where L is the largest curvature of the loss.

        rows: the rows of z, by default all. F may be flat at z and curved nearby, as Huber's loss is where residuals
        are large. The floor prevents too long steps there.
        """
        loss, targets = (self.loss, self.targets) if rows is None else (self.loss.rows(rows), self.targets[rows])
        exact, floor = loss.curvature(z, targets.to(z.dtype)), self.curvature_floor * self.loss.smoothness
        return exact if floor == 0 else lambda D: exact(D).add(D, alpha=floor)

    def row_gram(self, weights: Float[torch.Tensor, " N"]) -> torch.Tensor:
        """Return Phi^T diag(weights) Phi, p x p, or its diagonal alone for sparse data."""
        if isinstance(self.operator.X, CompactMatrix):
            return self.operator.X.gram(weights)
        return self._feature_rows.T @ (weights[:, None] * self._feature_rows)

    @cached_property
    def _feature_rows(self) -> Float[torch.Tensor, "N p"]:
        """Phi, formed where the architecture has it by structure only."""
        if self.operator.has_rows:
            return self.operator.Phi
        unit = torch.eye(self.problem.p, dtype=self.operator.dtype, device=self.operator.device)
        return self.operator.first_layer(unit)
