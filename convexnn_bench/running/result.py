"""What a solve leaves behind."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates import Certificate
from convexnn_bench.checks import as_numpy
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.formulations import burer_monteiro, convex, network
from convexnn_bench.formulations.point import Point
from convexnn_bench.problem import Problem


@dataclass
class Result:
    """One solver's run on one problem.

    objective: of the final point in the solver's own formulation, as certified (a sum over samples).
    status: gap_reached, solved, stalled, time_limit, diverged or skipped; `reason` says it in words.
    setup_seconds, solve_seconds: building and compiling; solving, the scoring of points left out.
    curve: (seconds, objective, gap) of every point scored, seconds as in solve_seconds.
    certificate: what was proven of the final point; None where there is no point.
    point: the solver's raw parameters.
    """

    problem: Problem = field(repr=False)
    solver: str
    parameters: dict[str, Any]
    status: str
    reason: str
    seed: int = 0
    device: str = "cpu"
    setup_seconds: float = float("nan")
    solve_seconds: float = float("nan")
    curve: list[tuple[float, float, float]] = field(default_factory=list, repr=False)
    certificate: Certificate | None = None
    point: Point | None = field(default=None, repr=False)

    @property
    def objective(self) -> float:
        """Objective of the final point; nan where there is none."""
        return self.certificate.primal if self.certificate is not None else float("nan")

    @property
    def gap(self) -> float:
        """Certified relative gap; nan where there is none."""
        return self.certificate.gap if self.certificate is not None else float("nan")

    @cached_property
    def _factors(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The point as (U, V), through the maps between formulations."""
        if self.point is None:
            return None
        if self.point.factors is not None:
            return burer_monteiro.check_factors(self.problem, *self.point.factors)
        if self.point.network is not None:
            weights = network.check_weights(self.problem, *self.point.network)
            try:
                return network.to_factors(self.problem, *weights)
            except UnsupportedError:  # a ReLU network outside the sampled patterns
                return None
        if self.point.cone_factors is not None:
            return burer_monteiro.check_factors(self.problem, *self.point.cone_factors)
        split = None if self.point.split is None else torch.as_tensor(as_numpy(self.point.split))
        return convex.to_factors(self.problem, self.problem._blocks(self.point.blocks), split=split)

    @cached_property
    def blocks(self) -> np.ndarray | None:
        """The point in the convex program, P x p x q; None where there is none.

        A ReLU network that uses activation patterns which are not among the problem's blocks is no point of it.
        """
        if self.point is None:
            return None
        if self.point.blocks is not None:
            return self.problem._blocks(self.point.blocks).numpy()
        return None if self._factors is None else burer_monteiro.to_blocks(*self._factors).numpy()

    @property
    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(U, V), P x p x m and P x q x m, for Burer-Monteiro solvers, else None."""
        if self.point is None or self.point.factors is None or self._factors is None:
            return None
        return self._factors[0].numpy(), self._factors[1].numpy()

    @cached_property
    def network(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(W1, W2), p x M and q x M, of a network with this point's predictions; None where no map is known."""
        if self.point is None:
            return None
        if self.point.network is not None:
            W1, W2 = network.check_weights(self.problem, *self.point.network)
            return W1.numpy(), W2.numpy()
        try:
            factors = self._factors
        except UnsupportedError:  # vector-output ReLU blocks whose decomposition into neurons was not found
            return None
        assert factors is not None
        W1, W2 = burer_monteiro.to_network(self.problem, *factors)
        return W1.numpy(), W2.numpy()
