"""Semismooth Newton augmented Lagrangian for min_Z F(A(Z)) + beta sum_k ||Z_k||_*.

It is the proximal point method (Rockafellar, SIAM J. Control Optim. 14, 1976) on a working set of blocks:

    1. Price all blocks at Z0, zero or the start; choose the working set (`working_set.py`) and the first sigma.
    2. Newton steps on the dual of min_Z objective(Z) + 1/(2 sigma) ||Z - Z0||^2 + nu/2 ||A (Z - Z0)||^2 (`step.py`),
       until the duality gap of this problem is small.
    3. If they did not get there: divide sigma, and go to 2 with the same Z0.
    4. Z0 <- the minimiser. Price all blocks for a lower bound, and let in the blocks outside that exceed beta.
    5. Let sigma grow and nu fall, if step 2 was quick and few blocks came in. Go to 2.
    6. End once the gap is at most the target or no longer falls.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int

from convexnn_bench.algorithms.semismooth.prox import TINY, Shrinkage
from convexnn_bench.algorithms.semismooth.step import DualTrial, ProximalCentre, ProximalStep
from convexnn_bench.algorithms.semismooth.system import SystemHistory
from convexnn_bench.algorithms.semismooth.working_set import LEAST_BLOCKS, first_set, violators
from convexnn_bench.certificates import lower_bound, relative_gap
from convexnn_bench.operator import Blocks, Predictions
from convexnn_bench.problem import Problem

# Chosen by trials on the ladder (docs/measurements.md).
FIRST_SIGMA, LARGEST_SIGMA = 100.0, 1e12  # in units of 1 / (smoothness ||A||^2), the step of proximal gradient descent
WARM_SIGMA = 1e6  # largest first sigma, in the same units; from a start, sigma begins at FIRST_SIGMA / gap of the start
NEGLIGIBLE = 1e-12  # singular values of a start up to this multiple of its largest entry count as zero
GROWTH = 10.0  # factor of sigma; a step that is given up divides it by the square
QUICK_STEPS = 6  # Newton steps of one proximal step up to which sigma grows
MOST_STEPS = 20  # Newton steps of one proximal step at which it is given up
MANY = 4  # sigma does not grow if more than one block came in for every MANY active ones
PATIENCE = 8  # proximal steps that together have to halve the gap
MOST_RETREATS = 10  # proximal steps in a row that may be given up


class SemismoothNewton:
    """The state of the method, which `steps` runs.

    It ends when the relative gap is at most `target`, or no longer falls.
    """

    def __init__(self, problem: Problem, device: str, target: float | None, start: Blocks | None = None):
        self.problem, self.device, self.target = problem, device, target
        self.whole_operator = problem.operator(device)
        self.Y, self.beta, self.loss = self.whole_operator.Y, problem.beta, problem.loss
        self.z = torch.zeros_like(self.Y)  # where the next proximal step begins
        # The best point so far and the best lower bound, the Lambda that proved it, and the gap between them.
        self.objective = float(self.loss.value(self.z, self.Y))
        self.multiplier, self.bound, self.gap = self.z, -math.inf, math.inf
        self.working = self._best = torch.zeros(0, dtype=torch.int64, device=self.Y.device)
        self._best_blocks = self._zeros(0)
        self._first_blocks = None if start is None else torch.as_tensor(start).to(self.Y)
        self.history = SystemHistory()
        self.proximal_steps = self.newton_steps = self.retreats = 0
        self.gaps: list[float] = []
        self.message: str | None = None

    def _zeros(self, blocks: int) -> Blocks:
        return self.Y.new_zeros(blocks, self.problem.p, self.problem.q)

    def blocks(self) -> Blocks:
        """Return the best point so far, P x p x q."""
        Z = self._zeros(self.problem.P)
        Z[self._best] = self._best_blocks
        return Z

    def summary(self) -> str:
        """Return what was done, in words."""
        return (
            f"{self.newton_steps} Newton steps for {self.proximal_steps} proximal point steps, {len(self._best)} of "
            f"{self.problem.P} blocks not zero, {len(self.working)} in the working set"
        )

    # -- the proximal point method ----------------------------------------------------------------------

    def steps(self) -> Iterator[None]:
        """Run the steps of the module's docstring, and yield after each Newton step.

        `message` says why it ended.
        """
        # 1. Price and choose.
        self._start()
        while self.message is None:
            # 2. Newton steps on the dual.
            step, taken = self._proximal_step(), 0
            trial: DualTrial | None = step.at(self.z)
            while trial is not None and trial.divergence > step.enough(trial):
                trial = step.newton(trial, taken == 0) if taken < MOST_STEPS else None
                if trial is not None:
                    taken += 1
                    self.newton_steps += 1
                    self._keep_best(trial)
                    yield
            # 3. A smaller sigma, or 4. to 6. a new centre.
            if trial is None:
                self._retreat()
            else:
                self._accept(trial, taken)

    def _proximal_step(self) -> ProximalStep:
        nu = FIRST_SIGMA * self.unit / self.sigma * self.loss.smoothness  # it begins at the smoothness of F
        target = self.target or 0.0
        return ProximalStep(self.loss, self.beta, self.operator, self.centre, self.sigma, nu, target, self.history)

    def _start(self) -> None:
        """Price all blocks at the first centre; choose the working set and the first sigma."""
        # Find the nonzero blocks of the start, without singular values of the size of rounding.
        Z = self._zeros(0) if self._first_blocks is None else self._first_blocks
        shrinkage = Shrinkage(Z, NEGLIGIBLE * float(Z.abs().amax()) if len(Z) else 0.0)
        active = shrinkage.active
        if len(active):
            self.z = self.whole_operator.on_blocks(active).apply(shrinkage.Z)
            self._best, self._best_blocks = active, shrinkage.Z
            self.objective = float(self.loss.value(self.z, self.Y) + self.beta * shrinkage.shrunk.sum())
        Lambda = self.loss.gradient(self.z, self.Y)
        G = self.whole_operator.adjoint(Lambda)
        self._prove(Lambda, G)
        first = first_set(G, self.beta, self.Y.numel())
        if len(first) < self.problem.P and len(active):
            first = torch.cat([active, violators(G, self.beta, active, max(LEAST_BLOCKS, len(active)))])
        self._work_on(first)
        inside = active if self.is_whole else torch.arange(len(active), device=active.device)
        Z = self._zeros(len(self.working))
        Z[inside] = shrinkage.Z
        self.centre = ProximalCentre(Z, shrinkage, inside, self.z)
        self.unit = 1.0 / (self.loss.smoothness * max(self.operator.norm_squared(5), TINY))
        self._judge(True)
        near = FIRST_SIGMA / max(min(self.gap, 1.0), FIRST_SIGMA / WARM_SIGMA) if len(active) else FIRST_SIGMA
        self.sigma = near * self.unit

    def _work_on(self, working: Int[torch.Tensor, " w"]) -> None:
        self.working = working
        self.is_whole = torch.equal(working, torch.arange(self.problem.P, device=working.device))
        self.operator = self.whole_operator if self.is_whole else self.whole_operator.on_blocks(working)

    def _accept(self, trial: DualTrial, taken: int) -> None:
        """Move the centre to Z(z), and prepare the next step."""
        # 4. New centre, bound and blocks. The blocks that come in are at most as many as are active.
        G = trial.G if self.is_whole else self.whole_operator.adjoint(trial.Lambda)
        self._keep_best(trial)
        self._prove(trial.Lambda, G)
        self.proximal_steps += 1
        self.retreats = 0
        active = trial.shrinkage.active
        new = violators(G, self.beta, self.working, max(LEAST_BLOCKS, len(active)))
        if len(new):
            self._work_on(torch.cat([self.working, new]))
        Z = self._zeros(len(self.working))
        Z[active] = trial.shrinkage.Z
        self.z, self.centre = trial.fit, ProximalCentre(Z, trial.shrinkage, active, trial.fit)
        # 5. Grow sigma.
        if taken <= QUICK_STEPS and MANY * len(new) <= len(active):
            self.sigma = min(self.sigma * GROWTH, LARGEST_SIGMA * self.unit)
        # 6. End or go on.
        self._judge(len(new) > 0)

    def _retreat(self) -> None:
        """Keep Z0 and divide sigma; below 1 / (smoothness ||A||^2) the map z -> A Z(z) contracts."""
        self.sigma /= GROWTH**2
        self.z = self.centre.fit
        self.retreats += 1
        if self.retreats == MOST_RETREATS:
            self.message = f"shorter proximal steps could not be solved either: {self.summary()}"

    def _keep_best(self, trial: DualTrial) -> None:
        if trial.objective < self.objective:
            self.objective = trial.objective
            self._best, self._best_blocks = self.working[trial.shrinkage.active], trial.shrinkage.Z

    def _prove(self, Lambda: Predictions, G: Blocks) -> None:
        """Raise the lower bound by Lambda if it can, given G = A^* Lambda of all blocks."""
        feasible = self.loss.project_dual(Lambda, self.Y)
        G_feasible = G if torch.equal(feasible, Lambda) else None
        bound, _, multiplier = lower_bound(self.problem, feasible, device=self.device, G=G_feasible)
        if bound > self.bound:
            self.bound, self.multiplier = bound, multiplier

    def _judge(self, changed: bool) -> None:
        """End once the gap is reached or no longer falls.

        A working set that `changed` starts the count again.
        """
        self.gap = relative_gap(self.objective, self.bound)
        self.gaps = [*([] if changed else self.gaps[-PATIENCE:]), self.gap]
        halved = len(self.gaps) <= PATIENCE or self.gap <= 0.5 * self.gaps[0]
        if self.gap <= (self.target or 0.0):
            self.message = f"gap {self.gap:.1e} by its own bound: {self.summary()}"
        elif not halved:
            self.message = f"gap {self.gap:.1e} by its own bound no longer falls: {self.summary()}"
