"""A primal-dual interior-point method for min_Z F(A(Z)) + beta sum_k ||Z_k||_*, on its dual.

The unknowns are the multiplier Lambda, with slacks S_k as in `cones.py`, their multipliers X_k, and the predictions z:

    Lambda = grad F(z),   z = A(Z), Z_k = 2 X_k[:p, p:],   S_k = [[beta I, G_k], [G_k^T, beta I]], G = A^* Lambda,
    X_k S_k = mu I.

Lambda stays strictly inside the cones. Newton's method on these equations, with Nesterov and Todd's scaling of S and X
(Todd, Toh and Tutuncu, SIAM J. Optim. 8, 1998) and Mehrotra's correction (SIAM J. Optim. 2, 1992):

    1. Scale every pair (S_k, X_k).
    2. Factorise the normal matrix (`newton_system.py`), by `chain.py` or `dense.py`.
    3. Predict: the direction to mu = 0.
    4. Correct: the direction to the mu that the prediction suggests, with the products of its parts.
    5. Go a part of the way to the boundary of the cones.
    6. Compare the objective of Z with the bound of Lambda; end once the gap is at most the target or no longer falls.

A step takes no longer where more blocks are active, and the number of steps hardly depends on the problem.
"""

import math
from collections.abc import Iterator

import torch

from convexnn_bench.algorithms.interior_point.chain import ChainSystem
from convexnn_bench.algorithms.interior_point.cones import Scaling, slacks
from convexnn_bench.algorithms.interior_point.dense import DenseSystem
from convexnn_bench.algorithms.interior_point.newton_system import Direction, NewtonSystem, State
from convexnn_bench.algorithms.interior_point.route import chain_of
from convexnn_bench.algorithms.interior_point.rows import rows_of
from convexnn_bench.certificates import lower_bound, relative_gap
from convexnn_bench.formulations import convex
from convexnn_bench.losses import OutputBias
from convexnn_bench.norms import max_dual_norm
from convexnn_bench.operator import Blocks, Predictions
from convexnn_bench.problem import Problem

# Where no source is named, a value was chosen by trials on spirals and teachers (docs/measurements.md).
FIRST_LENGTH = 0.5  # of the first multiplier, relative to the longest feasible one
TO_BOUNDARY = 0.99  # part of the way to the boundary of the cones that a step may take
NEAR = 100.0  # all norms are computed once the estimated gap is at most so many times the target
PATIENCE, LATE = 6, 1e-4  # steps that together have to halve the gap, once it is below LATE
MOST_STEPS = 200
TINY = 1e-300  # keeps quotients finite


class InteriorPoint:
    """The state of the method, run by `steps` until the relative gap is at most `target` or no longer falls."""

    def __init__(self, problem: Problem, device: str, target: float | None):
        self.problem, self.device, self.target = problem, device, target
        operator = problem.operator(device)
        self.Y, self.beta, self.loss = operator.Y, problem.beta, problem.loss
        chain = chain_of(problem)
        self.system = DenseSystem(operator) if chain is None else ChainSystem(chain, operator.Phi, operator.c)
        self.route = "dense" if chain is None else "chain"
        # The best point and bound so far: the zero network, and none.
        self.best = self.Y.new_zeros(problem.P, problem.p, problem.q)
        self.objective = float(self.loss.value(torch.zeros_like(self.Y), self.Y))
        self.multiplier, self.bound, self.gap = torch.zeros_like(self.Y), -math.inf, math.inf
        self.gaps: list[float] = []
        self.newton_steps = 0
        self.message: str | None = None
        self.state = self._start()

    def summary(self) -> str:
        """Return what was done, in words."""
        return f"{self.newton_steps} interior-point steps, {self.route} normal matrix"

    def point(self) -> tuple[Blocks, Predictions]:
        """Return the best blocks and multiplier so far, or the current ones while none were compared."""
        if math.isfinite(self.gap):
            return self.best, self.multiplier
        return self.state.blocks, self.state.Lambda

    def _start(self) -> State:
        """Begin at a multiple of grad F(0), and at multiples of the identity as X whose complementarity is F(0)."""
        P, p, q = self.best.shape
        loss = self.loss.loss if isinstance(self.loss, OutputBias) else self.loss
        gradient = loss.gradient(torch.zeros_like(self.Y), self.Y)
        G = self.system.adjoint(gradient)
        norm = max_dual_norm(None, G).value
        scale = FIRST_LENGTH * min(1.0, self.beta / max(norm, TINY))
        G = scale * G
        mu = max(self.objective, TINY) / (P * (p + q))
        X = (mu / self.beta) * torch.eye(p + q, dtype=G.dtype, device=G.device).repeat(P, 1, 1)
        rows = rows_of(loss, self.Y)
        bias = self.Y.new_zeros(self.Y.shape[1])
        penalty = self.loss.penalty if isinstance(self.loss, OutputBias) else None
        return State(self.system, rows, scale * gradient, G, X, rows.begin(gradient, scale, mu), bias, penalty)

    def steps(self) -> Iterator[None]:
        """Run the steps of the module's docstring, and yield after each; `message` says why it ended."""
        self._judge()
        while self.message is None:
            # 1. Scale.
            scaling = Scaling.of(slacks(self.state.G, self.beta), self.state.X)
            if scaling is None:
                self._compare()
                self.message = f"rounding hides the inside of the cones at the gap {self.gap:.1e}: {self.summary()}"
                break
            # 2. Factorise.
            try:
                newton = NewtonSystem(self.state, scaling)
            except torch.linalg.LinAlgError:
                self._compare()
                self.message = f"rounding hides the normal matrix at the gap {self.gap:.1e}: {self.summary()}"
                break
            # 3. Predict.
            predictor = newton.solve(0.0)
            # 4. Correct.
            direction = newton.solve(self._centring(scaling, predictor), predictor)
            # 5. Go.
            self.state.move(min(1.0, TO_BOUNDARY * self._longest(scaling, direction)), scaling, direction)
            self.newton_steps += 1
            # 6. Judge.
            self._judge()
            yield

    def _longest(self, scaling: Scaling, direction: Direction) -> float:
        """Return the longest step that leaves nothing outside its cone."""
        rows = self.state.rows.longest(direction.Lambda, direction.z + direction.bias, direction.pair)
        return min(scaling.longest(direction.X, direction.S), rows)

    def _centring(self, scaling: Scaling, predictor: Direction) -> float:
        """Return mu (mu' / mu)^3, where the predictor's longest step leads from mu to mu' (Mehrotra)."""

        def mean(length: float) -> float:
            s = torch.diag_embed(scaling.values)
            cones = float(((s + length * predictor.X) * (s + length * predictor.S)).sum())
            rows, number = self.state.rows.complementarity(length, predictor.Lambda, predictor.pair)
            return (cones + rows) / (scaling.values.numel() + number)

        mu = mean(0.0)
        ratio = mean(min(1.0, self._longest(scaling, predictor))) / mu
        return mu * min(max(ratio, 0.0), 1.0) ** 3

    def _judge(self) -> None:
        """Compare the point with the bound, and end if the gap is at most the target or no longer falls."""
        Lambda = self.state.Lambda
        # 1. Estimate the gap: beta tr X is at least beta ||Z||_*, and costs nothing.
        value = float(self.loss.value(self.system.apply(self.state.blocks), self.Y))
        above = value + self.beta * float(self.state.X.diagonal(dim1=1, dim2=2).sum())
        if self.loss.unit_curvature:  # dom F* is everything, so that Lambda needs no projection
            estimate = relative_gap(above, -float(self.loss.conjugate(Lambda, self.Y)))
        else:
            estimate = relative_gap(above, self._raise_bound(Lambda))
        # 2. Compare.
        if self.target is None or estimate <= NEAR * self.target or self.newton_steps >= MOST_STEPS:
            self._compare()
        # 3. End or go on.
        self.gaps.append(min(self.gap, estimate))
        late = self.gaps[-PATIENCE - 1 :]
        if self.gap <= (self.target or 0.0):
            self.message = f"gap {self.gap:.1e} by its own bound: {self.summary()}"
        elif self.newton_steps >= MOST_STEPS or (
            len(late) > PATIENCE and min(late[1:]) > 0.5 * late[0] and late[0] < LATE
        ):
            self.message = f"gap {self.gap:.1e} by its own bound no longer falls: {self.summary()}"

    def _compare(self) -> None:
        """Compute the objective of Z and the bound of Lambda, and keep the better ones."""
        Z = self.state.blocks
        value = float(self.loss.value(self.system.apply(Z), self.Y))
        objective = value + self.beta * float(convex.nuclear_norms(Z).sum())
        if objective < self.objective:
            self.objective, self.best = objective, Z
        self._raise_bound(self.state.Lambda)
        self.gap = relative_gap(self.objective, self.bound)

    def _raise_bound(self, Lambda: Predictions) -> float:
        """Return the lower bound of Lambda, and keep the largest one."""
        bound, _, multiplier = lower_bound(self.problem, self.loss.project_dual(Lambda, self.Y), device=self.device)
        if bound > self.bound:
            self.bound, self.multiplier = bound, multiplier
        return bound
