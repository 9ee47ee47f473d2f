"""One proximal point step by semismooth Newton on its dual.

    min_Z F(A Z) + beta sum_k ||Z_k||_* + 1/(2 sigma) ||Z - Z0||^2 + nu/2 ||A Z - z0||^2,  z0 = A Z0           (*)

With F_nu = F + nu/2 ||. - z0||^2 and the prox of sigma beta ||.||_*, the dual of (*) is to minimise the augmented
Lagrangian psi(Lambda) = F_nu^*(Lambda) + 1/(2 sigma) ||prox(Z0 - sigma A^* Lambda)||^2 (Li, Sun & Toh, SIAM J. Optim.
28, 2018; Zhang, Zhang, Sun & Toh, Math. Program. 179, 2020). With Lambda = grad F_nu(z) the unknown is z:

    h(z) = z - A Z(z) = 0,   Z(z) = prox(Z0 - sigma A^* grad F_nu(z)),   (I + sigma A M A^* W) dz = -h,

W = F_nu''(z), M from the generalised Jacobian of the prox. <h, W dz> < 0: dz is a descent direction of psi. The term
with nu makes W definite. Where grad F is constant (Huber beyond delta, squared hinge beyond the margin) psi would be
flat in z without it, and the line search could not tell one step from another.

The duality gap of (*) at Z(z) is the Bregman divergence D(A Z, z) = F_nu(A Z) - F_nu(z) - <grad F_nu(z), A Z - z>. The
step is solved (criterion B of Rockafellar, SIAM J. Control Optim. 14, 1976) once

    D <= delta (1/(2 sigma) ||Z(z) - Z0||^2 + nu/2 ||A Z(z) - z0||^2).

The first Newton step takes V in Z = prox(V), V = Z0 - sigma A^* grad F_nu(z) as an unknown of its own, and starts at
the V0 nearest to zero with prox(V0) = Z0. After sigma has grown, Z0 - sigma A^* Lambda overshoots and loses the active
set of Z0, while V0 has it. On group lasso this halved the Newton steps and made line searches rare.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int

from convexnn_bench.algorithms.semismooth.prox import TINY, Shrinkage
from convexnn_bench.algorithms.semismooth.system import SemismoothSystem, SystemHistory
from convexnn_bench.losses import BaseLoss
from convexnn_bench.operator import Blocks, Operator, Predictions

DELTA = 0.5  # of criterion B; any value below 1 gives its rate of convergence
GAP_FRACTION = 0.1  # a divergence below this multiple of the target gap always ends the step
ARMIJO, SHORTEST = 1e-4, 2.0**-12  # least ratio of the decrease to the predicted one, and length, of the line search
GAP_FALL = 0.25  # a fall of the duality gap to this multiple is progress whatever psi does; chosen by trials
LOOSEST, TIGHTEST = 0.1, 1e-10  # relative residuals of the Newton system
ROUNDING = 4 * torch.finfo(torch.float64).eps  # of psi and of the divergence, relative to their terms


@dataclass
class ProximalCentre:
    """The centre Z0 on the working set."""

    Z: Blocks
    shrinkage: Shrinkage  # the prox that gave the blocks which are not zero
    active: Int[torch.Tensor, " J"]  # the indices of those blocks
    fit: Predictions  # z0 = A Z0


@dataclass
class DualTrial:
    """One z and what follows from it."""

    z: Predictions
    Lambda: Predictions  # grad F_nu(z)
    G: Blocks  # A^* Lambda on the working set
    shrinkage: Shrinkage  # Z(z)
    operator: Operator  # A on the active blocks of Z(z)
    fit: Predictions  # A Z(z)
    psi: float  # the merit function
    divergence: float  # D(fit, z), the duality gap of (*)
    rounding: float  # the error that psi and divergence may have
    proximal: float  # the two proximal terms of (*) at Z(z)
    objective: float  # F(fit) + beta sum_k ||Z(z)_k||_*


@dataclass
class ProximalStep:
    """The problem (*) around a centre."""

    loss: BaseLoss
    beta: float
    operator: Operator  # A on the working set
    centre: ProximalCentre
    sigma: float
    nu: float
    target: float  # target of the relative gap of the whole program, or 0
    history: SystemHistory

    def at(self, z: Predictions) -> DualTrial:
        """Evaluate the dual at z; all numbers reach the host in one transfer."""
        loss, Y, centre = self.loss, self.operator.Y, self.centre
        Lambda = loss.gradient(z, Y) + self.nu * (z - centre.fit)
        G = self.operator.adjoint(Lambda)
        shrinkage = Shrinkage(centre.Z - self.sigma * G, self.sigma * self.beta)
        operator, Z0 = self.operator.on_blocks(shrinkage.active), centre.Z[shrinkage.active]
        fit = _apply(operator, shrinkage.Z)
        numbers = [
            loss.value(z, Y),
            loss.value(fit, Y),
            (Lambda * z).sum(),
            (Lambda * (fit - z)).sum(),
            shrinkage.shrunk.sum(),
            shrinkage.shrunk.square().sum() / (2 * self.sigma),
            centre.Z.square().sum() - Z0.square().sum() + (shrinkage.Z - Z0).square().sum(),
            0.5 * self.nu * (z - centre.fit).square().sum(),
            0.5 * self.nu * (fit - centre.fit).square().sum(),
        ]
        at_z, at_fit, inner, along, norm, quadratic, moved, near_z, near_fit = torch.stack(numbers).tolist()
        psi = inner - at_z - near_z + quadratic
        divergence = max(at_fit + near_fit - at_z - near_z - along, 0.0)
        rounding = ROUNDING * (abs(at_z) + abs(at_fit) + abs(inner) + quadratic)
        proximal = max(moved, 0.0) / (2 * self.sigma) + near_fit
        objective = at_fit + self.beta * norm
        return DualTrial(z, Lambda, G, shrinkage, operator, fit, psi, divergence, rounding, proximal, objective)

    def enough(self, trial: DualTrial) -> float:
        """Return the divergence at which the Newton steps end."""
        asked = GAP_FRACTION * self.target * abs(trial.objective)
        return max(DELTA * trial.proximal, asked, trial.rounding)

    def newton(self, trial: DualTrial, first: bool) -> DualTrial | None:
        """Return the next trial, which lowers psi or the duality gap of (*), or None if no step does."""
        # 1. At the first step, start from (V0, z) and take the full step if it makes progress.
        if first and len(self.centre.active):
            ahead = self.at(trial.z + self._from_centre(trial))
            if _better(ahead, trial, 0.0):
                return ahead
        # 2. Solve the Newton system at z.
        h = trial.z - trial.fit
        system = self._system(trial, trial.operator, trial.shrinkage)
        direction = system.solve(-h, self._tolerance(trial))
        # 3. Halve the step until it makes progress.
        slope, length = float((h * system.weigh(direction)).sum()), 1.0
        while length >= SHORTEST:
            following = self.at(trial.z + length * direction)
            if _better(following, trial, ARMIJO * length * min(slope, 0.0)):
                return following
            length *= 0.5
        return None

    def _from_centre(self, trial: DualTrial) -> Predictions:
        """Return the Newton step from (V0, z).

        It solves z+ = A (Z0 + M (Z0 - sigma A^* grad F_nu(z+) - V0)), linearised.
        """
        threshold = self.sigma * self.beta
        V = self.centre.shrinkage.preimage(threshold)
        shrinkage = Shrinkage(V, threshold)
        blocks, V = self.centre.active[shrinkage.active], V[shrinkage.active]
        operator, Z0 = self.operator.on_blocks(blocks), self.centre.Z[blocks]
        Z = Z0 + shrinkage.jacobian(Z0 - self.sigma * trial.G[blocks] - V)
        return self._system(trial, operator, shrinkage).solve(_apply(operator, Z) - trial.z, self._tolerance(trial))

    def _system(self, trial: DualTrial, operator: Operator, shrinkage: Shrinkage) -> SemismoothSystem:
        curve, nu = self.loss.curvature(trial.z, self.operator.Y), self.nu
        return SemismoothSystem(operator, shrinkage, lambda D: curve(D) + nu * D, self.sigma, self.history)

    def _tolerance(self, trial: DualTrial) -> float:
        """Return the residual of the Newton system, from a square root because D is quadratic in it."""
        ratio = self.enough(trial) / max(trial.divergence, TINY)
        return min(max(0.1 * math.sqrt(ratio), TIGHTEST), LOOSEST)


def _better(following: DualTrial, trial: DualTrial, decrease: float) -> bool:
    """Return whether psi fell by `decrease` (a negative number) or the duality gap to GAP_FALL."""
    fell = following.divergence <= GAP_FALL * trial.divergence
    return fell or following.psi <= trial.psi + decrease + trial.rounding


def _apply(operator: Operator, Z: Blocks) -> Predictions:
    """Return A Z, also where there is no block."""
    return operator.apply(Z) if len(Z) else torch.zeros_like(operator.Y)
