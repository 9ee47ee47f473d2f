"""Newton's method on the faces of the ReLU cones.

Each step finds for every neuron the face of its cone on which the steepest feasible descent lies (the multipliers of
the facets it sits on, by non-negative least squares), and minimises the damped quadratic model of f there within all
other facets (sequential quadratic programming: Nocedal & Wright, Numerical Optimization, section 18.1), so that the
facets of the optimum are found many at a time and the last steps converge quadratically. Indefinite Hessians are
replaced by their absolute values. Where that fails, a projected gradient step is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.algorithms.relu.neurons import NeuronObjective, Neurons
from convexnn_bench.cones.nearest_point import least_distance, nearest_point, unit_rows

Array = Float[np.ndarray, "..."]
Tick = Callable[[Neurons], bool]

NEWTON_SIZE = 600  # variables up to which Hessians are formed
SINGULAR = 1e-11  # eigenvalues below this part of the largest are raised to it
ARMIJO = 1e-4
TRIALS = 16  # dampings of a Newton step, then the gradient has its turn
HALVINGS = 60  # of a gradient step
PASSES = 20  # of the facets that a step is held to
IDLE = 4  # steps without a fall of f that can be seen
DEAD = 1e-18  # ||u||^2 or ||v||^2 as a part of all neurons' that counts as none
ROUNDING = 4e-15  # of f: no decrease can be seen below this


@dataclass
class Slope:
    """Gradient at a point, the steepest feasible descent -down in U, and bases of the faces that it stays on."""

    left: Float[np.ndarray, "J p"]
    right: Float[np.ndarray, "J q"]
    down: Float[np.ndarray, "J p"]
    bases: list[Float[np.ndarray, "p _"]]

    @property
    def size(self) -> float:
        """Norm of the projected gradient: zero at a stationary point."""
        return float(np.sqrt(np.sum(self.down**2) + np.sum(self.right**2)))


def slope_at(neurons: Neurons, left: Float[np.ndarray, "J p"], right: Float[np.ndarray, "J q"]) -> Slope:
    """The gradient projected on the cones of feasible directions, and the faces."""
    down, bases = left.copy(), []
    p = neurons.U.shape[1]
    active = neurons.active()
    for j in range(len(neurons)):
        bases.append(np.eye(p))
        if active[j].any():
            rows = neurons.rows[j][active[j]]
            down[j] = -nearest_point(rows, -left[j])[0]
            bases[-1] = null_space(rows[-rows @ down[j] <= 1e-9 * np.linalg.norm(left[j])])
    return Slope(left, right, down, bases)


def null_space(rows: Float[np.ndarray, "F p"]) -> Float[np.ndarray, "p r"]:
    """Orthonormal basis of {u : rows u = 0}, for unit rows."""
    if not rows.size:
        return np.eye(rows.shape[1])
    _, values, basis = np.linalg.svd(rows)
    return basis[int(np.sum(values > 1e-9)) :].T


class Model:
    """The quadratic model of f on the faces, its Hessian H replaced by |H| + mu, within the cones.

    With |H| + mu = Q diag(e) Q^T and y = e^(1/2) Q^T d + e^(-1/2) Q^T g the step d is the shortest y with A d >= -s, A
    and s the rows and slacks of the facets (Lawson & Hanson, 1974, problem LDP), found with the facets that matter.
    """

    def __init__(self, objective: NeuronObjective, neurons: Neurons, R: Float[np.ndarray, "N q"], slope: Slope):
        self.neurons, self.several = neurons, neurons.V.shape[1] > 1
        J, p = neurons.U.shape
        bases = slope.bases
        if self.several:
            bases = [basis @ null_space(unit_rows(u[None] @ basis)) for basis, u in zip(bases, neurons.U, strict=True)]
        widths = [basis.shape[1] for basis in bases]
        self.split, self.owner = sum(widths), np.repeat(np.arange(J), widths)
        self.basis = np.zeros((J, p, self.split))  # u-part of a step: basis[j] d
        for j, (start, basis) in enumerate(zip(np.cumsum([0, *widths]), bases, strict=False)):
            self.basis[j, :, start : start + widths[j]] = basis
        values, self.vectors = np.linalg.eigh(objective.hessian(neurons, R, bases))
        self.values = np.maximum(np.abs(values), SINGULAR * np.abs(values).max(initial=0.0))
        gradient = np.einsum("jpr,jp->r", self.basis, slope.left)
        if self.several:
            gradient = np.concatenate([gradient, slope.right.ravel()])
        self.along = self.vectors.T @ gradient
        self.slack = np.maximum(neurons.slack(neurons.U), 0.0)
        self.rows = neurons.rows @ self.basis  # J x F x r
        self.free = np.linalg.norm(self.rows, axis=2) > 1e-7
        self.working = neurons.active() & self.free

    def step(self, mu: float) -> tuple[Array, Array] | None:
        root = np.sqrt(self.values + mu)
        back = self.vectors / root  # d = back (y - along / root)
        target = self.along / root
        working = self.working.copy()
        for _ in range(PASSES):
            y = self._shortest(back, target, working)
            if y is None:
                return None
            d = back @ (y - target)
            left = self.basis @ d[: self.split]
            values = self.rows @ d[: self.split] + self.slack
            lengths = np.linalg.norm(self.neurons.U + left, axis=1)[:, None]
            missed = self.free & ~working & (values < -1e-12 * lengths)
            if not missed.any():
                right = d[self.split :].reshape(self.neurons.V.shape) if self.several else 0.0 * self.neurons.V
                return left, right
            working |= missed & (values <= values.min(axis=1, keepdims=True))
        return None

    def _shortest(
        self, back: Array, target: Array, working: Bool[np.ndarray, "J F"]
    ) -> Float[np.ndarray, " size"] | None:
        if not working.any():
            return np.zeros(len(target))
        F = self.rows[working] @ back[: self.split]
        scale = np.linalg.norm(F, axis=1)
        F = F / scale[:, None]
        return least_distance(F, F @ target - self.slack[working] / scale)


class Descent:
    """Steps from one point to the next, f falling."""

    def __init__(self, objective: NeuronObjective):
        self.objective = objective
        self.step = 1.0 / objective.beta

    def newton(self, neurons: Neurons, value: float, slope: Slope, R: Array) -> tuple[Neurons, float] | None:
        """A damped Newton step, the damping raised until f falls enough."""
        if neurons.V.size + neurons.U.size > NEWTON_SIZE:  # the Hessian would be too large
            return None
        model = Model(self.objective, neurons, R, slope)
        for trial in range(TRIALS):
            step = model.step(self.objective.damping)
            found = None if step is None else self._attempt(neurons, value, slope, *step)
            if found is not None:
                self.objective.damping *= 1.0 if trial else 0.1
                return found
            self.objective.damping = max(6.0 * self.objective.damping, 1e-6 * self.objective.beta)
        return None

    def gradient(self, neurons: Neurons, value: float, slope: Slope) -> tuple[Neurons, float] | None:
        """A projected gradient step, halved until f falls enough."""
        for _ in range(HALVINGS):
            found = self._attempt(neurons, value, slope, -self.step * slope.down, -self.step * slope.right)
            if found is not None:
                self.step *= 2
                return found
            self.step *= 0.5
        return None

    def _attempt(
        self, neurons: Neurons, value: float, slope: Slope, left: Array, right: Array
    ) -> tuple[Neurons, float] | None:
        V = neurons.V + right
        V = np.where(np.sum(V * neurons.V, axis=1, keepdims=True) > 0, V, 0.0)  # a neuron that turns round is gone
        candidate = neurons.moved(neurons.project(neurons.U + left), V).rescaled()
        change = candidate.U - neurons.U, candidate.V - neurons.V
        expected = float(np.sum(slope.left * change[0]) + np.sum(slope.right * change[1]))
        new = self.objective.value(candidate)
        enough = expected < 0 and new <= value + ARMIJO * expected + ROUNDING * abs(value)
        return (candidate, new) if enough else None


def descend(
    objective: NeuronObjective, neurons: Neurons, tolerance: float, steps: int, tick: Tick
) -> tuple[Neurons, bool]:
    """(point, going on) after steps on faces, f falling, until the projected gradient is at most `tolerance` times
    beta ||(U, V)||, or `steps` are done, or rounding ends it, or `tick` says no."""
    neurons, descent, idle = neurons.balanced(), Descent(objective), 0
    value = objective.value(neurons)
    for _ in range(steps):
        if not len(neurons):
            break
        R = objective.residual(neurons)
        slope = slope_at(neurons, *objective.gradient(neurons, R))
        size = float(np.sqrt(np.sum(neurons.U**2) + np.sum(neurons.V**2)))
        if slope.size <= tolerance * objective.beta * size:
            break
        found = descent.newton(neurons, value, slope, R) or descent.gradient(neurons, value, slope)
        idle = 0 if found is not None and found[1] < value * (1 - 1e-15) else idle + 1
        if found is None or idle == IDLE:
            break
        neurons, value = found
        smaller = np.minimum(np.sum(neurons.U**2, axis=1), np.sum(neurons.V**2, axis=1))
        if (smaller <= DEAD * size**2).any():
            neurons = neurons.take(smaller > DEAD * size**2)
            value = objective.value(neurons)
        if not tick(neurons):
            return neurons, False
    return neurons, True
