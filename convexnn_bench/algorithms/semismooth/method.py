"""Semismooth Newton augmented Lagrangian for min_Z F(A(Z)) + beta sum_k ||Z_k||_*.

The proximal point method (Rockafellar, SIAM J. Control Optim. 14, 1976): Z0 is replaced by the minimiser of the
objective plus 1/(2 sigma) ||Z - Z0||^2 + nu/2 ||A (Z - Z0)||^2, found by Newton's method on the dual
(`semismooth_step`), with sigma growing and nu falling, on a working set of blocks (`semismooth_working_set`). Each
step ends with a price for every block and a lower bound.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int

from convexnn_bench.algorithms.semismooth.prox import Shrinkage
from convexnn_bench.algorithms.semismooth.step import Centre, ProximalStep, Trial
from convexnn_bench.algorithms.semismooth.system import Effort
from convexnn_bench.algorithms.semismooth.working_set import LEAST, MANY, first_set, violators
from convexnn_bench.certificates import lower_bound
from convexnn_bench.certificates.certificate import relative_gap
from convexnn_bench.problem import Problem

Blocks = Float[torch.Tensor, "P p q"]
Predictions = Float[torch.Tensor, "n_out c"]

FIRST_SIGMA = 100.0  # in units of 1 / (smoothness ||A||^2), the step of proximal gradient descent
GROWTH, LARGEST_SIGMA = 10.0, 1e12  # of sigma, and its limit in the same units
QUICK, MOST = 6, 20  # Newton steps for one proximal step up to which sigma grows, and after which it is given up
PATIENCE = 8  # proximal steps that do not halve the gap together, before the end
RETREATS = 10  # proximal steps in a row that are given up, before the end


class SemismoothNewton:
    """The state of the method; `steps` runs it.

    target: the relative gap at which it ends, None: where the gap no longer falls. working: the blocks it works on.
    centre: Z0. z: where the next step begins. objective: of the best point so far, which `blocks` returns. bound,
    multiplier: the best lower bound that was proven, and the Lambda it was proven with. gap: between the two, relative.
    """

    def __init__(self, problem: Problem, device: str, target: float | None):
        self.problem, self.device, self.target = problem, device, target
        self.all = problem.operator(device)
        self.Y, self.beta, self.loss = self.all.Y, problem.beta, problem.loss
        self.z = torch.zeros_like(self.Y)
        self.multiplier, self.bound, self.gap = self.z, -math.inf, math.inf
        self.objective = float(self.loss.value(self.z, self.Y))
        self.working = self._best = torch.zeros(0, dtype=torch.int64, device=self.Y.device)
        self._best_blocks = self._zeros(0)
        self.effort = Effort()
        self.outer = self.newton = self.retreats = 0
        self.gaps: list[float] = []
        self.message: str | None = None

    def _zeros(self, blocks: int) -> Blocks:
        return self.Y.new_zeros(blocks, self.problem.p, self.problem.q)

    def blocks(self) -> Blocks:
        """The best point so far, P x p x q."""
        Z = self._zeros(self.problem.P)
        Z[self._best] = self._best_blocks
        return Z

    def summary(self) -> str:
        """What was done, in words."""
        return (
            f"{self.newton} Newton steps for {self.outer} proximal point steps, {len(self._best)} of {self.problem.P} "
            f"blocks not zero, {len(self.working)} in the working set"
        )

    # -- the proximal point method ----------------------------------------------------------------------

    def steps(self) -> Iterator[None]:
        """Run to the end; a yield after each Newton step. `message` says why it ended."""
        self._start()
        while self.message is None:
            step, taken = self._step(), 0
            trial: Trial | None = step.try_(self.z)
            while trial is not None and trial.divergence > step.enough(trial):
                trial = step.newton(trial, taken == 0) if taken < MOST else None
                if trial is not None:
                    taken += 1
                    self.newton += 1
                    self._record(trial)
                    yield
            if trial is None:
                self._retreat()
            else:
                self._accept(trial, taken)

    def _step(self) -> ProximalStep:
        nu = FIRST_SIGMA * self.unit / self.sigma * self.loss.smoothness  # the smoothness of F at first
        target = self.target or 0.0
        return ProximalStep(self.loss, self.beta, self.operator, self.centre, self.sigma, nu, target, self.effort)

    def _start(self) -> None:
        """Price all blocks at Z = 0; choose the working set and the first sigma."""
        Lambda = self.loss.gradient(self.z, self.Y)
        G = self.all.adjoint(Lambda)
        self._prove(Lambda, G)
        self._work_on(first_set(G, self.beta, self.Y.numel()))
        Z = self._zeros(len(self.working))
        self.centre = Centre(Z, Shrinkage(Z, self.beta), self.working[:0], self.z)
        self.unit = 1.0 / (self.loss.smoothness * max(self.operator.norm_squared(5), 1e-300))
        self.sigma = FIRST_SIGMA * self.unit
        self._judge(True)

    def _work_on(self, working: Int[torch.Tensor, " w"]) -> None:
        self.working = working
        self.whole = torch.equal(working, torch.arange(self.problem.P, device=working.device))
        self.operator = self.all if self.whole else self.all.on_blocks(working)

    def _accept(self, trial: Trial, taken: int) -> None:
        """Z0 <- Z(z). Price all blocks, let in what is above beta, choose the next sigma."""
        G = trial.G if self.whole else self.all.adjoint(trial.Lambda)
        self._record(trial)
        self._prove(trial.Lambda, G)
        self.outer += 1
        self.retreats = 0
        active = trial.shrinkage.active
        new = violators(G, self.beta, self.working, max(LEAST, len(active)))
        if len(new):
            self._work_on(torch.cat([self.working, new]))
        Z = self._zeros(len(self.working))
        Z[active] = trial.shrinkage.Z
        self.z, self.centre = trial.fit, Centre(Z, trial.shrinkage, active, trial.fit)
        if taken <= QUICK and MANY * len(new) <= len(active):
            self.sigma = min(self.sigma * GROWTH, LARGEST_SIGMA * self.unit)
        self._judge(len(new) > 0)

    def _retreat(self) -> None:
        """The same Z0 with a smaller sigma; where sigma < 1 / (smoothness ||A||^2) the map z -> A Z(z) contracts."""
        self.sigma /= GROWTH**2
        self.z = self.centre.fit
        self.retreats += 1
        if self.retreats == RETREATS:
            self.message = f"no shorter proximal step is solved either: {self.summary()}"

    def _record(self, trial: Trial) -> None:
        if trial.objective < self.objective:
            self.objective = trial.objective
            self._best, self._best_blocks = self.working[trial.shrinkage.active], trial.shrinkage.Z

    def _prove(self, Lambda: Predictions, G: Blocks) -> None:
        """The lower bound from Lambda, G = A^* Lambda of all blocks."""
        feasible = self.loss.project_dual(Lambda, self.Y)
        given = G if torch.equal(feasible, Lambda) else None
        bound, _, multiplier = lower_bound(self.problem, feasible, device=self.device, G=given)
        if bound > self.bound:
            self.bound, self.multiplier = bound, multiplier

    def _judge(self, changed: bool) -> None:
        """Whether the gap is reached, or no longer falls. changed: the working set has just grown."""
        self.gap = relative_gap(self.objective, self.bound)
        self.gaps = [*([] if changed else self.gaps[-PATIENCE:]), self.gap]
        halved = len(self.gaps) <= PATIENCE or self.gap <= 0.5 * self.gaps[0]
        if self.gap <= (self.target or 0.0):
            self.message = f"own gap {self.gap:.1e}: {self.summary()}"
        elif not halved:
            self.message = f"own gap {self.gap:.1e} no longer falls: {self.summary()}"
