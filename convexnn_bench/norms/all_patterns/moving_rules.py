"""Bounds on max ||R^T (Phi u)_+|| that are differentiable in R.

Their affine decision rules move along with R.

The bound of decision_rule.py is a function of the rule and of the weights r = R v, which enter the generators linearly.
Both can be moved together, for the best lower bound on an objective (certificates/joint_bound.py). Every rule is valid
for every r: a row whose weight has turned negative is left out, and a row whose weight has turned positive becomes a
generator r_i phi_i without a part in the rule.

Several outputs are bounded as in outputs.py, in planes that together span the rows of R, with fixed directions in each.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.cones import EPS
from convexnn_bench.norms.all_patterns.decision_rule import GROUPS, Rule, group_rows, zonotope_bound
from convexnn_bench.norms.all_patterns.outputs import arc, outside

SHARPNESS = 500.0  # of the smooth maximum over directions, which exceeds the maximum by at most log(K) / SHARPNESS
LOGIT_STEP, SIZE_STEP = 0.3, 0.1  # first steps of Adam on the logits and on log d, as in decision_rule.py
# Groups of rows on either side of a rule, where several directions need one each: the fewest that are coherent. Fewer
# groups make a step quicker; digits lose nothing with 96, and Gaussian rows a sixth of their bound.
GROUPS_OF_MANY = (96, 200, GROUPS)
COHERENT = 0.97  # sum of the lengths of the groups' sums, relative to that of the rows' lengths
UNUSED = 1e-6  # size d of a generator that is zero at first, relative to the mean of the others

Rows = Float[torch.Tensor, "n p"]
Weights = Float[torch.Tensor, " n"]


class MovingRule:
    """A bound on h(r) = max sum_i r_i (phi_i^T u)_+ over the unit ball.

    It is for weights r near those of its start.

    groups: numbers of groups of rows on either side, of which the first one that keeps similar rows together is taken.
    parameters: the logits of the rule and the logarithms of the sizes d, which an optimiser may move in any way.
    """

    def __init__(self, rows: Rows, r: Weights, groups: tuple[int, ...]):
        self.rows, self.lengths = rows, torch.linalg.vector_norm(rows, dim=1)
        self.first, self.second, self.rest = (torch.nonzero(part)[:, 0] for part in (r > 0, r < 0, ~(r > 0)))
        mass = self._mass(r)
        self.rule: Rule | None = None
        self.parameters: list[torch.Tensor] = []
        if len(self.first) and float(mass) > 0:
            A, B = (rows[part] * (r[part] / mass).abs()[:, None] for part in (self.first, self.second))
            few = (most for most in groups if min(_coherence(A, most), _coherence(B, most)) >= COHERENT)
            self.rule = Rule(A, B, next(few, groups[-1]))
            unused = self.rule.logd[1:].mean() + math.log(UNUSED)
            self.parameters = [self.rule.logits, torch.cat([self.rule.logd, unused.expand(len(self.rest))])]

    def _mass(self, r: Weights) -> torch.Tensor:
        return (r.abs() * self.lengths).sum()

    def generators(self, r: Weights, logits: torch.Tensor) -> Float[torch.Tensor, "M p"]:
        """Return the generators of the zonotope at weights r."""
        assert self.rule is not None
        A = self.rows[self.first] * torch.relu(r[self.first])[:, None]
        B = self.rows[self.second] * torch.relu(-r[self.second])[:, None]
        rest = 0.5 * self.rows[self.rest] * torch.relu(r[self.rest])[:, None]
        W = self.rule.generators(logits, A, self.rule.summed(B))
        return torch.cat([(W[0] + rest.sum(0))[None], W[1:], rest])

    def squared(self, r: Weights) -> Float[torch.Tensor, ""]:
        """Return the square of the bound, differentiable in r and in the parameters."""
        if self.rule is None:
            return (torch.relu(r) * self.lengths).sum().square()
        logits, logd = self.parameters
        return Rule.largest(self.generators(r, logits), logd.exp())

    def above(self, r: Weights) -> float:
        """Return the bound, raised by all rounding errors."""
        counts = 16.0 * (4 * sum(self.rows.shape) + 16) * EPS
        if self.rule is None:
            return float((torch.relu(r) * self.lengths).sum()) * (1 + counts)
        mass = float(self._mass(r))
        if mass == 0.0:
            return 0.0
        with torch.no_grad():
            logits, logd = self.parameters
            return (zonotope_bound(self.generators(r / mass, logits), logd.exp()) + counts) * mass


def _coherence(X: Rows, most: int) -> float:
    """Return how well groups of rows agree in direction, at most 1.

    This is the length of the sums of the groups, relative to that of the rows.
    """
    if len(X) <= most:
        return 1.0
    group = group_rows(X, most)
    sums = X.new_zeros(most, X.shape[1]).index_add(0, group, X)
    lengths = torch.linalg.vector_norm(X, dim=1).sum().clamp_min(1e-300)
    return float(torch.linalg.vector_norm(sums, dim=1).sum() / lengths)


@dataclass
class _Plane:
    """One or two orthonormal columns, and rules for directions in their span.

    The directions are in the order of their angles.
    """

    basis: Float[torch.Tensor, "q k"]
    angles: list[float]
    rules: list[MovingRule]

    @property
    def vectors(self) -> Float[torch.Tensor, "k K"]:
        """The directions as columns, in coordinates of the basis."""
        if self.basis.shape[1] == 1:
            return self.basis.new_tensor([[1.0, -1.0]])
        return torch.stack([self.basis.new_tensor(self.angles).cos(), self.basis.new_tensor(self.angles).sin()])


class MovingBound:
    """A bound on max ||R^T (Phi u)_+|| for rows Phi (n x p) and any R (n x q) near the one of its start.

    most: the number of directions in a plane.
    """

    def __init__(self, rows: Float[np.ndarray, "n p"], R: Float[np.ndarray, "n q"], most: int):
        self.rows, start = torch.as_tensor(rows), torch.as_tensor(R)
        self.size = float(np.linalg.norm(rows)) * (1 + 4 * rows.size * EPS)
        _, values, right = torch.linalg.svd(start, full_matrices=False)
        self.basis = right[values > 1e-13 * values[0]].T
        groups = (GROUPS,) if self.basis.shape[1] == 1 else GROUPS_OF_MANY
        self.planes: list[_Plane] = []
        for k in range(0, self.basis.shape[1], 2):
            part = self.basis[:, k : k + 2]
            angles = [0.0, math.pi] if part.shape[1] == 1 else [2 * math.pi * j / most for j in range(most)]
            plane = _Plane(part, angles, [])
            plane.rules = [MovingRule(self.rows, start @ part @ v, groups) for v in plane.vectors.T]
            self.planes.append(plane)

    @property
    def parameters(self) -> list[tuple[torch.Tensor, float]]:
        """All parameters of the rules, each with the length of a step that suits it."""
        rules = [rule for plane in self.planes for rule in plane.rules if rule.parameters]
        return [pair for rule in rules for pair in zip(rule.parameters, (LOGIT_STEP, SIZE_STEP), strict=True)]

    @property
    def directions(self) -> Float[torch.Tensor, "q K"]:
        """The directions of all rules as columns, plane after plane."""
        return torch.cat([plane.basis @ plane.vectors for plane in self.planes], dim=1)

    def squares(self, weights: Float[torch.Tensor, "K n"]) -> Float[torch.Tensor, " K"]:
        """Return the square of each rule's bound at its weights r = R v.

        It is differentiable in the weights and the parameters.
        """
        rules = [rule for plane in self.planes for rule in plane.rules]
        squares = [rule.squared(r) for rule, r in zip(rules, weights, strict=True)]
        return torch.stack(squares).clamp_min(1e-60)

    def norm(self, squares: Float[torch.Tensor, " K"]) -> Float[torch.Tensor, ""]:
        """Return a smooth function slightly above the bound.

        squares: those of the rules' bounds, as `squares` returns them.
        """
        parts = squares.sqrt().split([len(plane.rules) for plane in self.planes])
        radii = [self._radius(plane, h) for plane, h in zip(self.planes, parts, strict=True)]
        return torch.stack(radii).square().sum().sqrt()

    def _radius(self, plane: _Plane, h: Float[torch.Tensor, " k"]) -> Float[torch.Tensor, ""]:
        if plane.basis.shape[1] == 2:
            # Tangents at angles with distance t meet at radius ((a - b)^2 + 4 a b sin(t/2)^2)^(1/2) / sin t.
            t, after = 2 * math.pi / len(h), h.roll(-1)
            h = ((h - after).square() + 4 * h * after * math.sin(t / 2) ** 2).sqrt() / math.sin(t)
        largest = h.max()
        return largest / SHARPNESS * torch.logsumexp(h * (SHARPNESS / largest), 0)

    def above(self, R: Float[np.ndarray, "n q"]) -> float:
        """Return the bound, raised by all rounding errors."""
        given = torch.as_tensor(R)
        # ||z|| is at most the norm of its part in the span of the basis, plus that of the rest.
        total = 0.0
        for plane in self.planes:
            weights = (given @ (plane.basis @ plane.vectors)).T
            lengths = torch.linalg.vector_norm(given, dim=1)
            # rounding of R v and of its products with the rows
            slack = 8 * (given.shape[1] + 8) * EPS * float((lengths * plane.rules[0].lengths).sum())
            h = [rule.above(r) + slack for rule, r in zip(plane.rules, weights, strict=True)]
            if plane.basis.shape[1] == 1:
                total += max(h) ** 2
                continue
            ends = zip(plane.angles, [*plane.angles[1:], 2 * math.pi], h, [*h[1:], h[0]], strict=True)
            total += max(arc(*end)[0] for end in ends) ** 2
        inside = math.sqrt(total) * (1 + 16 * (len(self.planes) + 4) * EPS)
        # The columns of the basis are orthonormal up to rounding.
        error = self.basis.T @ self.basis - torch.eye(self.basis.shape[1], dtype=self.basis.dtype)
        inside *= 1 + 4 * float(torch.linalg.matrix_norm(error)) + 64 * len(self.basis) * EPS
        return inside + outside(R, self.basis.numpy()) * self.size
