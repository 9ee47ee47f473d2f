"""Upper bounds on max sum_i (a_i^T u)_+ - sum_j (b_j^T u)_+ over ||u|| <= 1.

They do not look at patterns one by one.

With delta_i in [0, 1] for (a_i^T u)_+ = max delta_i a_i^T u, and alpha_j in [0, 1] for -(b_j^T u)_+ = min -alpha_j
b_j^T u, the maximum is max_delta min_alpha ||sum delta_i a_i - sum alpha_j b_j||. Letting alpha be an affine function
of delta, within [0, 1] for every delta, bounds it from above (an affine decision rule: Ben-Tal, Goryashko, Guslitzer
& Nemirovski, Mathematical Programming 2004). There remains the largest norm over a zonotope, max over signs of
||W^T e|| <= ((sum d) lambda_max(sum_i w_i w_i^T / d_i))^(1/2) for every d > 0, at most (pi/2)^(1/2) too large at the
best d (Nesterov, Optimization Methods and Software 1998). Gradient steps choose the rule and d, and the bound holds
for every choice.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from convexnn_bench.deadline import seconds_left, time_is_up

EPS = torch.finfo(torch.float64).eps
GROUPS = 320  # rows of either side that have a weight of their own in the rule; more of them share weights
AFFINITY = 6.0  # log weight of a row of the same direction in the starting rule
LONGEST, SHORTEST = 200, 20  # gradient steps, at most and at least
WORK = 1e11  # multiplications for one R, about ten seconds, which reduce the steps to SHORTEST at most

Rows = Float[torch.Tensor, "rows p"]


def positive_bound(
    A: Float[torch.Tensor, "i p"], B: Float[torch.Tensor, "j p"], enough: float, work: float = WORK
) -> float:
    """Return an upper bound on max sum_i (a_i^T u)_+ - sum_j (b_j^T u)_+.

    The maximum is over the unit ball. The bound is never below zero.

    A, B: rows a_i and b_j, whose squares must not over- or underflow. enough: a bound at which the search ends, such as
    a value that is attained. work: the number of multiplications to spend. After a deadline it is sum_i ||a_i||.
    """
    if A.shape[0] == 0:
        return 0.0
    mass = float(_lengths(A).sum() + _lengths(B).sum())
    if mass == 0.0:
        return 0.0
    if time_is_up():
        return float(_lengths(A).sum()) * (1 + 4 * (A.numel() + 8) * EPS)
    # The maximum is homogeneous in the rows; with sum ||a_i|| + sum ||b_j|| = 1 the rounding of a rule is absolute.
    rule = Rule(A / mass, B / mass)
    return rule.minimise(enough / mass, int(work / step_cost(A.shape[0], B.shape[0], A.shape[1]))) * mass


def step_cost(first: int, second: int, p: int) -> float:
    """Return the multiplications of one gradient step, for the rule and the Gram matrix."""
    return 12.0 * (min(first, GROUPS) * min(second, GROUPS) * (p + 30) + first * p**2) + 1e6


def _lengths(X: Rows) -> Float[torch.Tensor, " rows"]:
    return torch.linalg.vector_norm(X, dim=1)


def _directions(X: Rows) -> Rows:
    return X / _lengths(X).clamp_min(1e-300)[:, None]


def group_rows(X: Rows, most: int) -> Int[torch.Tensor, " rows"]:
    """Return the index of the group of every row, at most `most` groups of similar directions.

    The longest rows are the centres, and two rounds of k-means follow.
    """
    n = X.shape[0]
    if n <= most:
        return torch.arange(n)
    unit = _directions(X)
    centres = unit[_lengths(X).topk(most).indices]
    for _ in range(2):
        nearest = (unit @ centres.T).argmax(dim=1)
        centres = _directions(centres.new_zeros(centres.shape).index_add(0, nearest, X) + 1e-12 * centres)
    return (unit @ centres.T).argmax(dim=1).unique(return_inverse=True)[1]


def zonotope_bound(W: Float[torch.Tensor, "M p"], d: Float[torch.Tensor, " M"]) -> float:
    """Return ((sum d) lambda_max(sum_i w_i w_i^T / d_i))^(1/2), raised by the rounding of the computation."""
    trace = float((W.square().sum(1) / d).sum())
    rounding = 4.0 * (W.shape[0] + 8 * W.shape[1] + 16) * EPS * trace * float(d.sum())
    return math.sqrt(max(float(Rule.largest(W, d)), 0.0) * (1 + 16 * W.shape[0] * EPS) + rounding)


@dataclass
class _Best:
    value: float
    parameters: tuple[torch.Tensor, ...]


class Adam:
    """Adam (Kingma & Ba, ICLR 2015) on one tensor.

    The version in torch loads a compiler first, which takes seconds.
    """

    MEAN, SQUARE = 0.9, 0.99  # decay per step of the averages of the gradient and of its square

    def __init__(self, x: torch.Tensor, rate: float):
        self.x, self.rate, self.steps = x, rate, 0
        self.mean, self.square = torch.zeros_like(x), torch.zeros_like(x)

    def step(self, slope: torch.Tensor, factor: float) -> None:
        """Move x in place by a step of `factor` times the rate."""
        self.steps += 1
        self.mean.lerp_(slope, 1 - self.MEAN)
        self.square.lerp_(slope * slope, 1 - self.SQUARE)
        mean, square = self.mean / (1 - self.MEAN**self.steps), self.square / (1 - self.SQUARE**self.steps)
        with torch.no_grad():
            self.x -= factor * self.rate * mean / (square.sqrt() + 1e-8)


class Rule:
    """alpha_h = sum_g x_gh delta_g + sum_g y_gh (1 - delta_g) + z_h, with (x, y, z, slack)_h a point of the simplex.

    Groups g of rows a_i, delta_g their average weighted by length; groups h of rows b_j, which share alpha_h. Every
    literal lies in [0, 1], so that alpha_h does. In terms of signs e, delta = (1 + e) / 2:
    sum delta_i a_i - sum alpha_h b_h = centre + 1/2 sum e_i w_i. After `minimise`, `parameters` are the best logits and
    log d.
    """

    def __init__(self, A: Float[torch.Tensor, "i p"], B: Float[torch.Tensor, "j p"], groups: int | None = None):
        self.A = A
        most = GROUPS if groups is None else groups
        self.group = group_rows(A, most)
        lengths = _lengths(A)
        weight = lengths + 1e-12 * lengths.max()
        self.g = int(self.group.max()) + 1
        total = weight.new_zeros(self.g).index_add(0, self.group, weight)
        self.share = (weight / total[self.group])[:, None]
        self.negative = group_rows(B, most) if B.shape[0] else torch.zeros(0, dtype=torch.int64)
        self.h = int(self.negative.max()) + 1 if B.shape[0] else 0
        self.B = self.summed(B)
        sums = A.new_zeros(self.g, A.shape[1]).index_add(0, self.group, A)
        cosine = AFFINITY * _directions(sums) @ _directions(self.B).T
        size = (total / total.max()).log()[:, None]
        slack = torch.full((2, self.h), math.log(self.g), dtype=A.dtype)
        # A softmax over the literals (x, y, z, slack) is a point of the simplex for any logits: every step is a valid
        # rule.
        self.logits = torch.cat([cosine + size, -cosine + size, slack])
        self.logd = torch.cat([weight.sum()[None], weight]).log()
        self.slack = 16.0 * (A.shape[0] + B.shape[0] + self.g + self.h + A.shape[1] + 16) * EPS

    def summed(self, B: Float[torch.Tensor, "j p"]) -> Float[torch.Tensor, "h p"]:
        """Return the sums b_h of the rows of every group."""
        return B.new_zeros(self.h, B.shape[1]).index_add(0, self.negative, B)

    def generators(
        self, logits: torch.Tensor, A: torch.Tensor | None = None, B: torch.Tensor | None = None
    ) -> Float[torch.Tensor, "M p"]:
        """Return the rows [centre; w / 2] of a rule.

        A, B: other rows a_i and sums b_h in place of its own.
        """
        A, B = (self.A if A is None else A), (self.B if B is None else B)
        x, y, z = (weights := torch.softmax(logits, 0))[: self.g], weights[self.g : 2 * self.g], weights[-2]
        # delta_i = (1 + e_i) / 2 enters with the vector w_i = a_i - share_i sum_h (x - y)_gh b_h. The part without
        # signs is the centre, which gets a sign of its own: the set is symmetric then, and contains the zonotope.
        w = A - self.share * ((x - y) @ B)[self.group]
        centre = 0.5 * w.sum(0) - (z + y.sum(0)) @ B
        return torch.cat([centre[None], 0.5 * w])

    @staticmethod
    def largest(W: Float[torch.Tensor, "M p"], d: Float[torch.Tensor, " M"]) -> Float[torch.Tensor, ""]:
        """Return (sum d) lambda_max(sum_i w_i w_i^T / d_i) >= max ||W^T e||^2."""
        return d.sum() * torch.linalg.eigvalsh((W / d[:, None]).T @ W)[-1]

    def minimise(self, enough: float, steps: int) -> float:
        """Minimise the logarithm of the bound by Adam; return the best bound.

        The variables are the logits of the rule and log d.

        At least one step is evaluated, and no more of them than a deadline allows.
        """
        logits, logd = self.logits.requires_grad_(True), self.logd.requires_grad_(True)
        parts = [Adam(logits, 0.3), Adam(logd, 0.1)]
        total = min(max(steps, SHORTEST), LONGEST)
        best, step, left = _Best(math.inf, ()), 0, seconds_left()
        while step < total:
            with torch.enable_grad():
                value = self.largest(self.generators(logits), logd.exp())
                slopes = torch.autograd.grad(value.clamp_min(1e-60).log(), (logits, logd))
            reached = float(value.detach())
            if reached < best.value:
                best = _Best(reached, (logits.detach().clone(), logd.detach().clone()))
            if best.value <= max(enough, 0.0) ** 2 or time_is_up():
                break
            if step == 0 and left < math.inf:  # the rates fall to zero at the last step, so that their number matters
                total = min(total, max(1, int(left / max(left - seconds_left(), 1e-9))))
            for part, slope in zip(parts, slopes, strict=True):
                part.step(slope, 1.02 - step / total)
            step += 1
        self.parameters = best.parameters
        return self.above(*best.parameters)

    def above(self, logits: torch.Tensor, logd: torch.Tensor) -> float:
        """Return the bound, raised by the rounding of the rule, of the Gram matrix and of its eigenvalue.

        That of the rule is `slack` times the mass, which is one.
        """
        return zonotope_bound(self.generators(logits), logd.exp()) + self.slack
