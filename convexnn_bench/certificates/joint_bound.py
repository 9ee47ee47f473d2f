"""Lower bounds on the optimum of a ReLU network, by moving the multiplier together with the rules that bound its norm.

Weak duality holds for every multiplier Lambda: p* >= -F*(s Lambda) with s = beta / h, for any upper bound h on
||R^T (Phi u)_+|| over the unit vectors u, R = C^*(Lambda). The gradient at a network is the best multiplier if the
network is optimal and h is exact. With a bound h(Lambda, rule) that is not exact another multiplier is better:

    maximise over z and the rule   -F*(s grad F(z)),   s = min(1, beta / h(grad F(z), rule)),

is differentiable. Lambda = grad F(z) stays in the domain of F* for every z, and its derivative is `curvature`.
For fixed signs of Lambda h is a convex function of multiplier and rule in suitable coordinates, so that the ascent does
not depend much on its start. Every iterate gives a bound that holds. `JointBound` certifies the good ones by
`lower_bound` and keeps the best.
"""

import math
import time
from collections.abc import Callable

import torch
from jaxtyping import Float

from convexnn_bench.certificates.bounds import lower_bound
from convexnn_bench.deadline import seconds_left, time_is_up
from convexnn_bench.losses import BaseLoss, OutputBias, Predictions
from convexnn_bench.norms import Adam
from convexnn_bench.problem import Problem

# chosen by trial on breast_cancer and digits, 40 s of CPU each
RULE_ALONE = 0.2  # part of the ascent in which the rule moves and the multiplier does not
MULTIPLIER_STEP = 0.02  # first step of z, in units of logits, or of the root mean square of the residual
CERTIFIED_AFTER = 2e-4  # relative rise of the ascent's own value after which its point is certified
DIRECTIONS = (16, 12, 8, 6)  # in one plane: the first number with which the time suffices for LEAST_STEPS
LEAST_STEPS = 200


class JointBound:
    """The best lower bound so far on the optimum of a problem over all activation patterns.

    Parameters
    ----------
    problem : Problem
        A ReLU problem whose patterns are not all enumerated.
    z : tensor n_out x c
        Predictions at whose gradient the multiplier starts.
    seconds : float
        Time that an ascent may take, from which the number of directions for several outputs is chosen.

    Attributes
    ----------
    dual : float
        The best bound, minus infinity before the first one.
    multiplier : tensor n_out x c
        The feasible multiplier that proves it.
    """

    def __init__(self, problem: Problem, z: Predictions, seconds: float):
        self.problem, self.loss = problem, problem.loss
        self.operator = problem.operator()
        self.z = z.detach().clone()
        self.dual, self.multiplier = -math.inf, torch.zeros_like(z)
        R = self.operator.second_layer_adjoint(self.loss.gradient(self.z, self.operator.Y)).numpy()
        # Time one evaluation with few directions, and take as many as the time allows for LEAST_STEPS.
        complete = problem.all_patterns
        self.moving = complete.moving(R, DIRECTIONS[-1])
        if R.shape[1] > 1 and self.moving is not None:
            left, started = seconds_left(), time.perf_counter()
            self._evaluate([tensor.requires_grad_(True) for tensor, _ in self.moving.parameters])
            used = left - seconds_left() if math.isfinite(left) else time.perf_counter() - started
            each = used / DIRECTIONS[-1]
            most = next((most for most in DIRECTIONS if most * each * LEAST_STEPS <= seconds), DIRECTIONS[-1])
            self.moving = complete.moving(R, most)

    def ascend(
        self,
        seconds: float,
        steps: int | None = None,
        improved: Callable[[], None] = lambda: None,
    ) -> None:
        """Move multiplier and rule for so many seconds, or for `steps` if that is sooner.

        The steps of Adam become shorter towards the end of the time. `improved` is called after every better bound.
        """
        if self.moving is None:
            return
        rules = [(Adam(tensor.requires_grad_(True), rate)) for tensor, rate in self.moving.parameters]
        multiplier = Adam(self.z, MULTIPLIER_STEP * self._unit())
        total, step, certified = min(seconds, seconds_left()), 0, -math.inf
        end = seconds_left() - total  # what is left of the deadline, on its own clock, when the ascent is over
        started = time.perf_counter()
        while True:
            # 1. Value and derivatives at the present multiplier and rule.
            used = time.perf_counter() - started if math.isinf(end) else total + end - seconds_left()
            part = used / total if total > 0 else 1.0
            part = part if steps is None else max(part, step / steps)
            try:
                value, slope, slopes = self._evaluate([adam.x for adam in rules])
            except torch.linalg.LinAlgError:  # the rules have left the range of float64; the bounds so far hold
                return
            # 2. Certify what is visibly better than before, and the last point.
            over = part >= 1.0 or time_is_up() or not math.isfinite(value)
            if value > certified + (0.0 if over else CERTIFIED_AFTER * abs(value)):
                certified = value
                if self._certify():
                    improved()
            if over:
                return
            # 3. Step; the multiplier waits until its rule is good.
            factor = (1.02 - part) ** 2 if part > RULE_ALONE else 1.0
            for adam, each in zip(rules, slopes, strict=True):
                adam.step(each, factor)
            if part > RULE_ALONE:
                multiplier.step(slope, factor)
            step += 1

    def _unit(self) -> float:
        """Return the size of a typical entry of z - Y, or one for a loss of labels."""
        if self.loss.labels is not None:
            return 1.0
        residual = self.loss.gradient(self.z, self.operator.Y)
        return float(residual.square().mean().sqrt()) or 1.0

    def _evaluate(self, parameters: list[torch.Tensor]) -> tuple[float, Predictions, list[torch.Tensor]]:
        """Return -F*(s Lambda) and derivatives.

        They are that of F*(s Lambda) by z, and those of each rule's own log h_k^2.

        A smaller h_k never lowers the value, and only its own rule changes it. So every rule descends by itself, also
        where another direction decides the norm.
        """
        assert self.moving is not None
        operator, Y = self.operator, self.operator.Y
        Lambda = self.loss.gradient(self.z, Y).detach().requires_grad_(True)
        R = operator.second_layer_adjoint(Lambda.detach()).requires_grad_(True)
        with torch.enable_grad():
            # 1. The bound h_k^2 of every direction, with derivatives by its rule and its weights.
            weights = (self.problem.all_patterns.merged(R) @ self.moving.directions).T
            inner = weights.detach().requires_grad_(True)
            squares = self.moving.squares(inner)
            by_weights, *slopes = torch.autograd.grad(squares.log().sum(), [inner, *parameters], allow_unused=True)
            # 2. The value, with derivatives by the multiplier and by every h_k^2.
            outer = squares.detach().requires_grad_(True)
            scale = (self.problem.beta / self.moving.norm(outer)).clamp(max=1.0)
            conjugate = _conjugate(self.loss, scale * Lambda, Y)
            first, by_squares = torch.autograd.grad(conjugate, [Lambda, outer])
            # 3. By the chain rule through the weights and R = C^*(Lambda), whose adjoint is C, and Lambda = grad F(z).
            (second,) = torch.autograd.grad(weights, R, (by_squares * outer.detach())[:, None] * by_weights)
        slope = first + operator.second_layer(second)
        slope = self.loss.curvature(self.z, Y)(slope[:, :, None])[:, :, 0]
        clean = [
            torch.zeros_like(x) if one is None else one.nan_to_num() for x, one in zip(parameters, slopes, strict=True)
        ]
        return -float(conjugate.detach()), slope.nan_to_num(), clean

    def _certify(self) -> bool:
        """Bound the optimum by the present multiplier and rules.

        Return whether that is the best bound so far.
        """
        Lambda = self.loss.project_dual(self.loss.gradient(self.z, self.operator.Y), self.operator.Y)
        dual, _, multiplier = lower_bound(self.problem, Lambda, "complete", moving=self.moving)
        if not dual > self.dual:
            return False
        self.dual, self.multiplier = dual, multiplier
        return True


def _conjugate(loss: BaseLoss, L: Predictions, Y: Predictions) -> Float[torch.Tensor, ""]:
    """Return F*(L), differentiable; for a free output bias without the test that the columns of L sum to zero."""
    if isinstance(loss, OutputBias) and loss.beta is None:
        return loss.loss.conjugate(L, Y)
    return loss.conjugate(L, Y)
