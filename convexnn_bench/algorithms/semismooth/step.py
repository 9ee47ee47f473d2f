"""One proximal point step by semismooth Newton on its dual.

    min_Z F(A Z) + beta sum_k ||Z_k||_* + 1/(2 sigma) ||Z - Z0||^2 + nu/2 ||A Z - z0||^2,  z0 = A Z0           (*)

With F_nu = F + nu/2 ||. - z0||^2 and the prox of sigma beta ||.||_*, the dual of (*) is to minimise the augmented
Lagrangian psi(Lambda) = F_nu^*(Lambda) + 1/(2 sigma) ||prox(Z0 - sigma A^* Lambda)||^2 (Li, Sun & Toh, SIAM J. Optim.
28, 2018; Zhang, Zhang, Sun & Toh, Math. Program. 179, 2020). With Lambda = grad F_nu(z) the unknown is z:

    h(z) = z - A Z(z) = 0,   Z(z) = prox(Z0 - sigma A^* grad F_nu(z)),   (I + sigma A M A^* W) dz = -h,

W = F_nu''(z), M from the generalised Jacobian of the prox. <h, W dz> < 0: dz is a descent direction of psi. The term
with nu makes W definite: where grad F is constant (Huber beyond delta, squared hinge beyond the margin) psi would be
flat in z, and its line search blind.

The duality gap of (*) at Z(z) is the Bregman divergence D(A Z, z) = F_nu(A Z) - F_nu(z) - <grad F_nu(z), A Z - z>. The
step is solved (criterion B of Rockafellar, SIAM J. Control Optim. 14, 1976) once

    D <= delta (1/(2 sigma) ||Z(z) - Z0||^2 + nu/2 ||A Z(z) - z0||^2).

The first Newton step takes V in Z = prox(V), V = Z0 - sigma A^* grad F_nu(z) as an unknown of its own, from the V0
nearest to zero with prox(V0) = Z0. After sigma has grown, Z0 - sigma A^* Lambda overshoots and loses the active set of
Z0; V0 has it. On group lasso this halved the Newton steps and made line searches rare.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from convexnn_bench.algorithms.semismooth.prox import Shrinkage
from convexnn_bench.algorithms.semismooth.system import Effort, NewtonSystem
from convexnn_bench.losses.base import BaseLoss
from convexnn_bench.operator.lifted import Operator

Blocks = Float[torch.Tensor, "P p q"]
Predictions = Float[torch.Tensor, "n_out c"]
EPS = torch.finfo(torch.float64).eps

DELTA = 0.5  # of the stopping rule
ARMIJO, SHORTEST = 1e-4, 2.0**-12  # of the line search
LOOSEST, TIGHTEST = 0.1, 1e-10  # relative residuals of the Newton system


@dataclass
class Centre:
    """Z0: all blocks of the working set, and those that are not zero as the prox they came from, with their places."""

    Z: Blocks
    shrinkage: Shrinkage
    active: Int[torch.Tensor, " J"]
    fit: Predictions


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


class ProximalStep:
    """(*) around a centre. operator: on the working set. target: relative gap of the whole program asked for, or 0."""

    def __init__(
        self,
        loss: BaseLoss,
        beta: float,
        operator: Operator,
        centre: Centre,
        sigma: float,
        nu: float,
        target: float,
        effort: Effort,
    ):
        self.loss, self.beta, self.operator, self.Y = loss, beta, operator, operator.Y
        self.centre, self.sigma, self.nu, self.target, self.effort = centre, sigma, nu, target, effort

    def try_(self, z: Predictions) -> Trial:
        Lambda = self.loss.gradient(z, self.Y) + self.nu * (z - self.centre.fit)
        G = self.operator.adjoint(Lambda)
        shrinkage = Shrinkage(self.centre.Z - self.sigma * G, self.sigma * self.beta)
        operator, there = self.operator.on_blocks(shrinkage.active), self.centre.Z[shrinkage.active]
        fit = _apply(operator, shrinkage.Z)
        numbers = [
            self.loss.value(z, self.Y),
            self.loss.value(fit, self.Y),
            (Lambda * z).sum(),
            (Lambda * (fit - z)).sum(),
            shrinkage.shrunk.sum(),
            shrinkage.shrunk.square().sum() / (2 * self.sigma),
            self.centre.Z.square().sum() - there.square().sum() + (shrinkage.Z - there).square().sum(),
            0.5 * self.nu * (z - self.centre.fit).square().sum(),
            0.5 * self.nu * (fit - self.centre.fit).square().sum(),
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

    def enough(self, trial: Trial) -> float:
        """The divergence at which the inner iteration ends; a tenth of the gap that is asked for is always enough."""
        asked = 0.1 * self.target * abs(trial.objective)
        return max(DELTA * trial.move, asked, trial.rounding)

    def newton(self, trial: Trial, first: bool) -> Trial | None:
        """The next trial, which lowers psi or the duality gap of (*); None where no step along the direction does."""
        if first and len(self.centre.active):
            ahead = self.try_(trial.z + self._from_centre(trial))
            if _better(ahead, trial, 0.0):
                return ahead
        h = trial.z - trial.fit
        system = self._system(trial, trial.operator, trial.shrinkage)
        direction = system.solve(-h, self._tolerance(trial))
        slope, length = float((h * system.weigh(direction)).sum()), 1.0
        while length >= SHORTEST:
            following = self.try_(trial.z + length * direction)
            if _better(following, trial, ARMIJO * length * min(slope, 0.0)):
                return following
            length *= 0.5
        return None

    def _from_centre(self, trial: Trial) -> Predictions:
        """The Newton step from (V0, z): z+ = A (Z0 + M (Z0 - sigma A^* grad F_nu(z+) - V0)), linearised in z+."""
        threshold = self.sigma * self.beta
        V = self.centre.shrinkage.anchor(threshold)
        shrinkage = Shrinkage(V, threshold)
        blocks, V = self.centre.active[shrinkage.active], V[shrinkage.active]
        operator, there = self.operator.on_blocks(blocks), self.centre.Z[blocks]
        Z = there + shrinkage.jacobian(there - self.sigma * trial.G[blocks] - V)
        return self._system(trial, operator, shrinkage).solve(_apply(operator, Z) - trial.z, self._tolerance(trial))

    def _system(self, trial: Trial, operator: Operator, shrinkage: Shrinkage) -> NewtonSystem:
        curve, nu = self.loss.curvature(trial.z, self.Y), self.nu
        return NewtonSystem(operator, shrinkage, lambda D: curve(D) + nu * D, self.sigma, self.effort)

    def _tolerance(self, trial: Trial) -> float:
        """Of the Newton system: D is a square of its residual, which need not be much smaller than it has to be."""
        ratio = self.enough(trial) / max(trial.divergence, 1e-300)
        return min(max(0.1 * math.sqrt(ratio), TIGHTEST), LOOSEST)


def _better(following: Trial, trial: Trial, decrease: float) -> bool:
    """Whether psi fell by as much, or the duality gap to a quarter: either makes for progress towards the solution."""
    fell = following.divergence <= 0.25 * trial.divergence
    return fell or following.psi <= trial.psi + decrease + trial.rounding


def _apply(operator: Operator, Z: Blocks) -> Predictions:
    """A Z, also where there is no block."""
    return operator.apply(Z) if len(Z) else torch.zeros_like(operator.Y)
