"""Semismooth Newton augmented Lagrangian for min_Z F(A(Z)) + beta sum_k ||Z_k||_*.

The proximal point method (Rockafellar, SIAM J. Control Optim. 14, 1976) solves, for one Z0 after another,

    min_Z F(A Z) + beta sum_k ||Z_k||_* + 1/(2 sigma) ||Z - Z0||^2 + nu/2 ||A Z - z0||^2,  z0 = A Z0           (*)

through its dual. With F_nu = F + nu/2 ||. - z0||^2 and the prox of sigma beta ||.||_*, psi(Lambda) = F_nu^*(Lambda) +
1/(2 sigma) ||prox(Z0 - sigma A^* Lambda)||^2 is the augmented Lagrangian of the dual program (Li, Sun & Toh, SIAM J.
Optim. 28, 2018; Zhang, Zhang, Sun & Toh, Math. Program. 179, 2020). With Lambda = grad F_nu(z) the unknown is z:

    h(z) = z - A Z(z) = 0,   Z(z) = prox(Z0 - sigma A^* grad F_nu(z)),   (I + sigma A M A^* W) dz = -h,

W = F_nu''(z), M from the generalised Jacobian of the prox. <h, W dz> < 0: dz is a descent direction of psi. The term
with nu makes W definite: where grad F is constant (Huber beyond delta, squared hinge beyond the margin) psi would be
flat in z.

The duality gap of (*) at Z(z) is the Bregman divergence D(A Z, z) = F_nu(A Z) - F_nu(z) - <grad F_nu(z), A Z - z>. It
ends the inner iteration (Rockafellar's criterion B): D <= delta (1/(2 sigma) ||Z(z) - Z0||^2 + nu/2 ||A Z(z) - z0||^2).

The first Newton step of every (*) takes V in Z = prox(V), V = Z0 - sigma A^* grad F_nu(z) as an unknown of its own,
from the V0 nearest to zero with prox(V0) = Z0. With a larger sigma, Z0 - sigma A^* Lambda overshoots and loses the
active set of Z0; V0 has it. On group lasso this halved the Newton steps and made line searches rare.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from convexnn_bench.algorithms.semismooth_prox import Shrinkage
from convexnn_bench.algorithms.semismooth_system import Effort, NewtonSystem
from convexnn_bench.algorithms.semismooth_working_set import LEAST, MANY, first_set, violators
from convexnn_bench.certificates import lower_bound
from convexnn_bench.certificates.certificate import relative_gap
from convexnn_bench.operator import Operator
from convexnn_bench.problem import Problem

Blocks = Float[torch.Tensor, "P p q"]
Predictions = Float[torch.Tensor, "n_out c"]
EPS = torch.finfo(torch.float64).eps

DELTA = 0.5  # of the inner stopping rule
FIRST_SIGMA = 100.0  # in units of 1 / (smoothness ||A||^2), the step of proximal gradient descent
GROWTH, LARGEST_SIGMA = 10.0, 1e12  # of sigma, and its limit in the same units
QUICK, MOST = 6, 20  # Newton steps for one (*) up to which sigma grows, and after which (*) is given up
ARMIJO, SHORTEST = 1e-4, 2.0**-12  # of the line search
LOOSEST, TIGHTEST = 0.1, 1e-10  # relative residuals of the Newton system
PATIENCE = 8  # proximal point steps that do not halve the gap together, before the end
RETREATS = 10  # proximal point steps in a row that are given up, before the end


@dataclass
class Trial:
    """One z and what follows from it.

    Lambda: grad F_nu(z). G: A^* Lambda on the working set. shrinkage: Z(z). operator: on its active blocks. fit: A
    Z(z). psi: the merit function. divergence: D(fit, z). rounding: what these two may be off by. move: the two proximal
    terms of (*) at Z(z). objective: F(fit) + beta sum_k ||Z(z)_k||_*.
    """

    z: Predictions
    Lambda: Predictions
    G: Blocks
    shrinkage: Shrinkage
    operator: Operator
    fit: Predictions
    psi: float
    divergence: float
    rounding: float
    move: float
    objective: float


class SemismoothNewton:
    """The state of the method; `steps` runs it.

    working: the blocks it works on. Z: the proximal centre Z0 on them, and centre, active: its blocks that are not zero
    and where they are. objective: of the best point so far, which `blocks` returns. bound, multiplier: the best lower
    bound that was proven and the Lambda behind it. gap: between the two, relative.
    """

    def __init__(self, problem: Problem, device: str, target: float | None):
        self.problem, self.device, self.target = problem, device, target
        self.all = problem.operator(device)
        self.Y, self.beta, self.loss = self.all.Y, problem.beta, problem.loss
        self.z = self.z0 = torch.zeros_like(self.Y)
        self.multiplier, self.bound, self.gap = self.z, -math.inf, math.inf
        self.objective = float(self.loss.value(self.z, self.Y))
        self.working = self._best = torch.zeros(0, dtype=torch.int64, device=self.Y.device)
        self._best_blocks = self._zeros(0)
        self.effort = Effort()
        self.outer = self.newton = self.retreats = 0
        self.gaps: list[float] = []
        self.message: str | None = None

    @property
    def nu(self) -> float:
        """The smoothness of F at first; it falls as sigma grows."""
        return FIRST_SIGMA * self.unit / self.sigma * self.loss.smoothness

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
            trial = self._try(self.z)
            first = True
            for taken in range(MOST + 1):
                if trial.divergence <= self._enough(trial):
                    self._accept(trial, taken)
                    break
                following = self._newton_step(trial, first) if taken < MOST else None
                if following is None:
                    self._retreat()
                    break
                trial, first = following, False
                self.newton += 1
                self._record(trial)
                yield

    def _start(self) -> None:
        """Price all blocks at Z = 0; choose the working set and the first sigma."""
        Lambda = self.loss.gradient(self.z, self.Y)
        G = self.all.adjoint(Lambda)
        self._prove(Lambda, G)
        self._work_on(first_set(G, self.beta, self.Y.numel()))
        self.Z = self._zeros(len(self.working))
        self.centre, self.active = Shrinkage(self.Z, self.beta), self.working[:0]
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
        self.z = self.z0 = trial.fit
        self.centre, self.active = trial.shrinkage, trial.shrinkage.active
        self.Z = torch.zeros_like(self.Z)
        self.Z[self.active] = self.centre.Z
        new = violators(G, self.beta, self.working, max(LEAST, len(self.active)))
        if len(new):
            self._work_on(torch.cat([self.working, new]))
            self.Z = torch.cat([self.Z, self._zeros(len(new))])
        if taken <= QUICK and MANY * len(new) <= len(self.active):
            self.sigma = min(self.sigma * GROWTH, LARGEST_SIGMA * self.unit)
        self._judge(len(new) > 0)

    def _retreat(self) -> None:
        """The same Z0 with a smaller sigma; where sigma < 1 / (smoothness ||A||^2) the map z -> A Z(z) contracts."""
        self.sigma /= GROWTH**2
        self.z = self.operator.apply(self.Z)
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

    # -- Newton's method for one proximal step ------------------------------------------------------------

    def _try(self, z: Predictions) -> Trial:
        Lambda = self.loss.gradient(z, self.Y) + self.nu * (z - self.z0)
        G = self.operator.adjoint(Lambda)
        shrinkage = Shrinkage(self.Z - self.sigma * G, self.sigma * self.beta)
        operator, there = self.operator.on_blocks(shrinkage.active), self.Z[shrinkage.active]
        fit = operator.apply(shrinkage.Z) if len(there) else torch.zeros_like(z)
        numbers = [
            self.loss.value(z, self.Y),
            self.loss.value(fit, self.Y),
            (Lambda * z).sum(),
            (Lambda * (fit - z)).sum(),
            shrinkage.shrunk.sum(),
            shrinkage.shrunk.square().sum() / (2 * self.sigma),
            self.Z.square().sum() - there.square().sum() + (shrinkage.Z - there).square().sum(),
            0.5 * self.nu * (z - self.z0).square().sum(),
            0.5 * self.nu * (fit - self.z0).square().sum(),
        ]
        at_z, at_fit, inner, along, norm, quadratic, move, near_z, near_fit = torch.stack(numbers).tolist()
        return Trial(
            z=z,
            Lambda=Lambda,
            G=G,
            shrinkage=shrinkage,
            operator=operator,
            fit=fit,
            psi=inner - at_z - near_z + quadratic,
            divergence=max(at_fit + near_fit - at_z - near_z - along, 0.0),
            rounding=4 * EPS * (abs(at_z) + abs(at_fit) + abs(inner) + quadratic),
            move=max(move, 0.0) / (2 * self.sigma) + near_fit,
            objective=at_fit + self.beta * norm,
        )

    def _enough(self, trial: Trial) -> float:
        """The divergence at which the inner iteration ends; a tenth of the gap that is asked for is always enough."""
        asked = 0.1 * (self.target or 0.0) * abs(trial.objective)
        return max(DELTA * trial.move, asked, trial.rounding)

    def _newton_step(self, trial: Trial, first: bool) -> Trial | None:
        """The next trial, which lowers psi or the duality gap of (*); None where no step along the direction does."""
        if first and len(self.active):
            ahead = self._try(trial.z + self._from_centre(trial))
            if _better(ahead, trial, 0.0):
                return ahead
        h = trial.z - trial.fit
        system = self._system(trial, trial.operator, trial.shrinkage)
        direction = system.solve(-h, self._tolerance(trial))
        slope, length = float((h * system.weigh(direction)).sum()), 1.0
        while length >= SHORTEST:
            following = self._try(trial.z + length * direction)
            if _better(following, trial, ARMIJO * length * min(slope, 0.0)):
                return following
            length *= 0.5
        return None

    def _from_centre(self, trial: Trial) -> Predictions:
        """The Newton step from (V0, z): z+ = A (Z0 + M (Z0 - sigma A^* grad F_nu(z+) - V0)), linearised in z+."""
        threshold = self.sigma * self.beta
        V = self.centre.anchor(threshold)
        shrinkage = Shrinkage(V, threshold)
        blocks, V = self.active[shrinkage.active], V[shrinkage.active]
        operator, there = self.operator.on_blocks(blocks), self.Z[blocks]
        Z = there + shrinkage.jacobian(there - self.sigma * trial.G[blocks] - V)
        return self._system(trial, operator, shrinkage).solve(operator.apply(Z) - trial.z, self._tolerance(trial))

    def _system(self, trial: Trial, operator: Operator, shrinkage: Shrinkage) -> NewtonSystem:
        curve, nu = self.loss.curvature(trial.z, self.Y), self.nu
        return NewtonSystem(operator, shrinkage, lambda D: curve(D) + nu * D, self.sigma, self.effort)

    def _tolerance(self, trial: Trial) -> float:
        """Of the Newton system: D is a square of its residual, which need not be much smaller than it has to be."""
        ratio = self._enough(trial) / max(trial.divergence, 1e-300)
        return min(max(0.1 * math.sqrt(ratio), TIGHTEST), LOOSEST)


def _better(following: Trial, trial: Trial, decrease: float) -> bool:
    fell = following.divergence <= 0.25 * trial.divergence
    return fell or following.psi <= trial.psi + decrease + trial.rounding
