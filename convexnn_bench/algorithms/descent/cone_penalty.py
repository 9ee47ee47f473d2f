"""The augmented Lagrangian's term for the ReLU cones.

It has a value, a gradient in U and an update of its multipliers.

The constraints are h = K_k U_k >= 0 for the facets of every cone k. With multipliers lambda >= 0 and a penalty rho the
term and the update are

    1 / (2 rho) sum ((lambda - rho h)_+^2 - lambda^2),    lambda <- (lambda - rho h)_+

(Nocedal & Wright, Numerical Optimization, section 17.4). The multipliers are bounded, and the penalty grows where the
violation does not fall (Birgin & Martinez, Practical Augmented Lagrangian Methods, 2014, section 4).
"""

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.algorithms.relu import padded_rows
from convexnn_bench.cones import HULL_DIMENSIONS
from convexnn_bench.operator import Operator
from convexnn_bench.problem import Problem

LARGEST_MULTIPLIER = 1e6  # in units of beta max ||u||, the size of the gradient that the multipliers balance
LARGEST_GROWTH = 1e6  # largest penalty rho, relative to its first value
GROWTH, SUFFICIENT_FALL = 4.0, 0.5  # rho grows by the first unless the violation falls to the second of its last value


class FacetRows:
    """The constraints h = K_k U_k, P x F x m, with the facets of every cone.

    They are padded with zero rows (0 >= 0).
    """

    def __init__(self, problem: Problem, operator: Operator):
        assert problem.cones is not None
        rows = padded_rows(problem.cones, np.arange(problem.P))
        self.rows = torch.as_tensor(rows).to(device=operator.device, dtype=operator.dtype)

    def slack(self, U: Float[torch.Tensor, "P p m"]) -> Float[torch.Tensor, "P F m"]:
        return self.rows @ U

    def pull(self, pushed: Float[torch.Tensor, "P F m"]) -> Float[torch.Tensor, "P p m"]:
        """Return K_k^T pushed_k, the adjoint of `slack`."""
        return self.rows.transpose(1, 2) @ pushed


class AllRows:
    """The constraints h = (2 D_k - I) Phi U_k with unit rows, N x P x m.

    They are for cones whose facets take long to find.
    """

    def __init__(self, operator: Operator):
        self.sign = 2.0 * operator.masks.to(operator.dtype)[:, :, None] - 1.0  # N x P x 1
        norms = torch.linalg.vector_norm(operator.Phi, dim=1, keepdim=True)
        self.unit = operator.Phi / torch.where(norms > 0, norms, torch.ones_like(norms))

    def slack(self, U: Float[torch.Tensor, "P p m"]) -> Float[torch.Tensor, "N P m"]:
        # One product with the unit rows for all blocks, N x (P m); the sign of row i in block k is 2 D_k,ii - 1.
        stacked = self.unit @ U.permute(1, 0, 2).reshape(self.unit.shape[1], -1)
        return self.sign * stacked.view(self.unit.shape[0], U.shape[0], -1)

    def pull(self, pushed: Float[torch.Tensor, "N P m"]) -> Float[torch.Tensor, "P p m"]:
        pulled = self.unit.T @ (self.sign * pushed).reshape(self.unit.shape[0], -1)
        return pulled.view(self.unit.shape[1], pushed.shape[1], -1).permute(1, 0, 2)


class ConePenalty:
    """The term for all blocks at once. rho: the first penalty.

    violation: the largest -h at the last update, relative to the longest column.
    """

    def __init__(self, problem: Problem, operator: Operator, U: Float[torch.Tensor, "P p m"], rho: float):
        self.rows = FacetRows(problem, operator) if problem.p <= HULL_DIMENSIONS else AllRows(operator)
        self.rho, self.beta = rho, problem.beta
        self.multipliers = torch.zeros_like(self.rows.slack(U))
        self._largest_rho = LARGEST_GROWTH * rho
        self._last = torch.inf
        self.violation = torch.inf

    def value_and_gradient(
        self, U: Float[torch.Tensor, "P p m"]
    ) -> tuple[Float[torch.Tensor, ""], Float[torch.Tensor, "P p m"]]:
        """Return 1/(2 rho) sum ((lambda - rho h)_+^2 - lambda^2) and its gradient -K^T (lambda - rho h)_+."""
        pushed = (self.multipliers - self.rho * self.rows.slack(U)).clamp_min(0)
        value = (pushed.square().sum() - self.multipliers.square().sum()) / (2 * self.rho)
        return value, -self.rows.pull(pushed)

    def update(self, U: Float[torch.Tensor, "P p m"]) -> None:
        """Update the multipliers, then the penalty.

        The penalty grows unless max |min(h, lambda / rho)| has fallen, which measures both infeasibility and lack of
        complementarity.
        """
        slack = self.rows.slack(U)
        size = max(float(torch.linalg.vector_norm(U, dim=1).max()), 1e-300)
        # min(h, lambda / rho) = 0 if and only if h >= 0, lambda >= 0 and lambda h = 0.
        lack = float(torch.minimum(slack, self.multipliers / self.rho).abs().max())
        bound = LARGEST_MULTIPLIER * self.beta * size
        self.multipliers = (self.multipliers - self.rho * slack).clamp(0, bound)
        self.violation = float((-slack).clamp_min(0).max()) / size
        if lack > SUFFICIENT_FALL * self._last:
            self.rho = min(GROWTH * self.rho, self._largest_rho)
        self._last = lack
