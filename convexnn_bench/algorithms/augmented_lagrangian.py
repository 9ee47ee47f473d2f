"""Augmented Lagrangian for the ReLU cones of the Burer-Monteiro formulation.

min f(U, V) subject to h = S * (Phi U) >= 0 with S = 2 D - 1 row by row. With multipliers lambda >= 0 and penalty rho,
    L(U, V) = f(U, V) + 1 / (2 rho) sum ((lambda - rho h)_+^2 - lambda^2),   lambda <- (lambda - rho h)_+
(Nocedal & Wright, Numerical Optimization, section 17.4). The pre-activations Phi U are at hand, so the constraints
cost one product with Phi^T an evaluation.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.first_order import StepDone, Vector
from convexnn_bench.operator import Operator

if TYPE_CHECKING:
    from convexnn_bench.algorithms.bm_objective import BMObjective

INNER_STEPS, OUTER_STEPS = 1000, 200


class ConePenalty:
    """The penalty term, its gradient in U, and the multiplier update, for all blocks at once."""

    def __init__(self, operator: Operator, m: int, rho: float):
        self.operator = operator
        self.sign = 2.0 * operator.masks.to(operator.dtype)[:, :, None] - 1.0  # N x P x 1
        self.rho = rho
        self.multipliers = torch.zeros(operator.N, operator.P, m, dtype=operator.dtype, device=operator.device)
        self._largest_rho = 1e6 * rho
        self._last_violation = torch.inf

    def _slack(self, U: Float[torch.Tensor, "P p m"]) -> Float[torch.Tensor, "N P m"]:
        """h = (2 D_k - I) Phi U_k."""
        stacked = self.operator.Phi @ U.permute(1, 0, 2).reshape(self.operator.p, -1)
        return self.sign * stacked.view(self.operator.N, self.operator.P, -1)

    def value_and_gradient(
        self, U: Float[torch.Tensor, "P p m"]
    ) -> tuple[Float[torch.Tensor, ""], Float[torch.Tensor, "P p m"]]:
        """1/(2 rho) sum ((lambda - rho h)_+^2 - lambda^2) and its gradient -K^T (lambda - rho h)_+."""
        pushed = (self.multipliers - self.rho * self._slack(U)).clamp_min(0)
        value = (pushed.square().sum() - self.multipliers.square().sum()) / (2 * self.rho)
        pulled = self.operator.Phi.T @ (self.sign * pushed).reshape(self.operator.N, -1)
        return value, -pulled.view(self.operator.p, self.operator.P, -1).permute(1, 0, 2)

    def update(self, U: Float[torch.Tensor, "P p m"]) -> None:
        """Multiplier step; the penalty grows fourfold (to a limit) where the violation has not been halved."""
        slack = self._slack(U)
        self.multipliers = (self.multipliers - self.rho * slack).clamp_min(0)
        violation = float((-slack).clamp_min(0).max())
        if violation > 0.5 * self._last_violation:
            self.rho = min(4.0 * self.rho, self._largest_rho)
        self._last_violation = violation


def outer_loop(
    objective: "BMObjective", inner: Callable[[Vector, StepDone], str | None], x: Vector, step_done: StepDone
) -> str | None:
    """Minimise `objective` by `inner`; for ReLU inside an augmented Lagrangian for the cones.

    Without cones this is one call of `inner`. With them `inner` runs until the largest entry of the gradient falls
    below a tolerance that is halved with every multiplier update, for at most INNER_STEPS steps. Iterates may leave
    the cones by what the penalty allows; `objective.point` projects them.
    """
    if not objective.problem.has_cone:
        return inner(x, step_done)
    objective.add_cone_penalty()
    assert objective.penalty is not None
    first = float(objective(x)[1].abs().max())
    current, running, said, tolerance = x, True, None, 0.1 * first
    for _ in range(OUTER_STEPS):
        steps = 0

        def limited(point: Vector, tolerance: float = tolerance) -> bool:
            nonlocal current, running, steps
            current, steps = point.clone(), steps + 1
            running = step_done(current)
            return running and steps <= INNER_STEPS and float(objective.gradient_size) > tolerance

        said = inner(current, limited)
        if not running:
            return None
        objective.penalty.update(objective.factors(current)[0])
        tolerance = max(0.5 * tolerance, 1e-12 * first)
    return said or f"{OUTER_STEPS} multiplier updates did not reach the target"
