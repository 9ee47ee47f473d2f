"""Newton's method on the faces of the ReLU cones.

Every step solves a quadratic model of the objective within the cones (sequential quadratic programming: Nocedal &
Wright, Numerical Optimization, section 18.1), so that many facets of the optimum are found at a time and the last steps
converge quadratically. `descend` repeats:

1. Project the gradient onto the feasible directions: for each neuron the multipliers of its facets, a non-negative
   least squares problem, say which facets the steepest descent stays on. They define the neuron's face.
2. Take a Newton step: minimise the model with the Hessian |H| + mu on the faces, subject to all other facets, and raise
   the damping mu until the objective falls enough. |H| has the absolute values of H's eigenvalues.
3. If no damping helps, take a projected gradient step.
4. Drop the neurons that have become negligible.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.algorithms.relu.neurons import Lefts, NeuronObjective, ReluNeurons, Residual, Rights
from convexnn_bench.cones import least_distance, nearest_point, unit_rows

AfterStep = Callable[[ReluNeurons], bool]  # called after every step; returns False to stop
Trial = tuple[ReluNeurons, float]  # a point and its objective
Coordinates = Float[np.ndarray, " size"]

ARMIJO = 1e-4  # part of the predicted decrease that a step must attain (Nocedal & Wright, section 3.1)
ROUNDING = 4e-15  # of the objective, about 18 units of rounding; no smaller decrease can be seen
SINGULAR = 1e-11  # eigenvalues below this part of the largest are raised to it, so that |H| stays invertible
LARGEST_ENTRY = 1e100  # largest entry at the end of a step; squares of larger entries may overflow
LONGEST = 1e10  # largest first length of a gradient step, relative to the norm of all neurons
DEAD = 1e-18  # ||u||^2 or ||v||^2 below this part of the squared norm of all neurons counts as zero
# the others were chosen by trial (commit 384fbfb)
NEWTON_SIZE = 600  # most entries of (U, V) for which Hessians are formed; their eigenvalues take a second there
DAMPINGS = 16  # Newton steps tried with a damping raised sixfold each time, before a gradient step is taken
HALVINGS = 60  # halvings of a gradient step's length
FACET_PASSES = 20  # passes that add the facets which a Newton step would violate to its constraints
IDLE_STEPS = 4  # steps in a row without a visible decrease, after which the descent ends


@dataclass
class ProjectedGradient:
    """The gradient (left, right) at a point, and a basis of every neuron's face.

    -down is the projection of the gradient in U.
    """

    left: Lefts
    right: Rights
    down: Lefts
    bases: list[Float[np.ndarray, "p _"]]

    @property
    def norm(self) -> float:
        """Norm of the projected gradient, which is zero at a stationary point."""
        return float(np.sqrt(np.sum(self.down**2) + np.sum(self.right**2)))


def projected_gradient(neurons: ReluNeurons, left: Lefts, right: Rights) -> ProjectedGradient:
    """Project the gradient onto the cones of feasible directions.

    Find the faces on which the descent stays.
    """
    down, bases = left.copy(), []
    p = neurons.U.shape[1]
    active = neurons.active()
    for j in range(len(neurons)):
        bases.append(np.eye(p))
        if active[j].any():
            rows = neurons.rows[j][active[j]]
            # The feasible directions at u_j are {d : rows d >= 0}, for the facets that u_j lies on. The steepest
            # descent is the projection of -gradient onto them, and the face keeps the facets that it does not leave.
            down[j] = -nearest_point(rows, -left[j])[0]
            bases[-1] = null_space(rows[-rows @ down[j] <= 1e-9 * np.linalg.norm(left[j])])
    return ProjectedGradient(left, right, down, bases)


def null_space(rows: Float[np.ndarray, "F p"]) -> Float[np.ndarray, "p r"]:
    """Return an orthonormal basis of {u : rows u = 0}, for unit rows."""
    if not rows.size:
        return np.eye(rows.shape[1])
    _, values, basis = np.linalg.svd(rows)
    return basis[int(np.sum(values > 1e-9)) :].T


class FaceModel:
    """The quadratic model g^T d + d^T (|H| + mu) d / 2 of the objective on the faces.

    It is minimised within the cones.

    With |H| + mu = Q diag(e) Q^T and y = e^(1/2) Q^T d + e^(-1/2) Q^T g the minimiser d is the shortest y subject to
    A d >= -s, where A and s are the rows and slacks of the facets (Lawson & Hanson, 1974, problem LDP).
    """

    def __init__(self, objective: NeuronObjective, neurons: ReluNeurons, R: Residual, projected: ProjectedGradient):
        self.neurons, self.several = neurons, neurons.V.shape[1] > 1
        J, p = neurons.U.shape
        bases = projected.bases
        if self.several:  # v_j alone carries the size of a neuron: u_j moves at right angles to itself
            bases = [basis @ null_space(unit_rows(u[None] @ basis)) for basis, u in zip(bases, neurons.U, strict=True)]
        widths = [basis.shape[1] for basis in bases]
        self.split = sum(widths)
        self.basis = np.zeros((J, p, self.split))  # u_j changes by basis[j] d[:split]
        for j, (start, basis) in enumerate(zip(np.cumsum([0, *widths]), bases, strict=False)):
            self.basis[j, :, start : start + widths[j]] = basis
        values, self.vectors = np.linalg.eigh(objective.hessian(neurons, R, bases))
        self.values = np.maximum(np.abs(values), SINGULAR * np.abs(values).max(initial=0.0))
        gradient = np.einsum("jpr,jp->r", self.basis, projected.left)
        if self.several:
            gradient = np.concatenate([gradient, projected.right.ravel()])
        self.along = self.vectors.T @ gradient
        self.slack = np.maximum(neurons.slack(neurons.U), 0.0)
        self.rows = neurons.rows @ self.basis  # J x F x r
        self.free = np.linalg.norm(self.rows, axis=2) > 1e-7  # facets that a step can approach or leave
        self.working = neurons.active() & self.free

    def step(self, mu: float) -> tuple[Lefts, Rights] | None:
        """Return the minimiser's changes of U and V, or None if no step satisfying all facets was found."""
        root = np.sqrt(self.values + mu)
        back = self.vectors / root  # d = back (y - target)
        target = self.along / root
        working = self.working.copy()
        for _ in range(FACET_PASSES):
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
            # Of every neuron's missed facets the most violated one enters: the others often hold once it does.
            working |= missed & (values <= values.min(axis=1, keepdims=True))
        return None

    def _shortest(
        self, back: Float[np.ndarray, "size size"], target: Coordinates, working: Bool[np.ndarray, "J F"]
    ) -> Coordinates | None:
        """Return the shortest y for which d satisfies the working facets."""
        if not working.any():
            return np.zeros(len(target))
        # A d >= -s with d = back (y - target), every row divided by its length: F y >= F target - s.
        F = self.rows[working] @ back[: self.split]
        scale = np.linalg.norm(F, axis=1)
        if not scale.all():  # squares of small rows underflow; zero rows constrain nothing
            largest = np.abs(F).max(axis=1)
            scale = np.where(scale > 0, scale, np.where(largest > 0, largest, 1.0))
        F = F / scale[:, None]
        return least_distance(F, F @ target - self.slack[working] / scale)


class FaceSteps:
    """Newton and gradient steps that lower the objective.

    The gradient's step length is kept between calls.
    """

    def __init__(self, objective: NeuronObjective):
        self.objective = objective
        self.length = 1.0 / objective.beta

    def newton(self, neurons: ReluNeurons, value: float, projected: ProjectedGradient, R: Residual) -> Trial | None:
        """Return the first Newton step that lowers the objective enough while its damping is raised."""
        if neurons.V.size + neurons.U.size > NEWTON_SIZE:
            return None
        model = FaceModel(self.objective, neurons, R, projected)
        for trial in range(DAMPINGS):
            step = model.step(self.objective.damping)
            accepted = None if step is None else self._accepted(neurons, value, projected, *step)
            if accepted is not None:
                # A model that was right at once is trusted more next time.
                self.objective.damping *= 1.0 if trial else 0.1
                return accepted
            self.objective.damping = max(6.0 * self.objective.damping, 1e-6 * self.objective.beta)
        return None

    def gradient(self, neurons: ReluNeurons, value: float, projected: ProjectedGradient) -> Trial | None:
        """Return the first projected gradient step that lowers the objective enough while it is halved."""
        size = float(np.sqrt(np.sum(neurons.U**2) + np.sum(neurons.V**2)))
        while self.length * projected.norm > LONGEST * size:
            self.length *= 0.5
        for _ in range(HALVINGS):
            step = -self.length * projected.down, -self.length * projected.right
            accepted = self._accepted(neurons, value, projected, *step)
            if accepted is not None:
                self.length *= 2
                return accepted
            self.length *= 0.5
        return None

    def _accepted(
        self, neurons: ReluNeurons, value: float, projected: ProjectedGradient, left: Lefts, right: Rights
    ) -> Trial | None:
        """Return the projected and rebalanced end of a step if it satisfies Armijo's condition, else None."""
        U, V = neurons.U + left, neurons.V + right
        if not max(np.abs(U).max(), np.abs(V).max()) <= LARGEST_ENTRY:
            return None
        V = np.where(
            np.sum(V * neurons.V, axis=1, keepdims=True) > 0, V, 0.0
        )  # a neuron whose v turns round is dropped
        candidate = neurons.moved(neurons.project(U), V).rescaled()
        change = candidate.U - neurons.U, candidate.V - neurons.V
        expected = float(np.sum(projected.left * change[0]) + np.sum(projected.right * change[1]))
        new = self.objective.value(candidate)
        enough = expected < 0 and new <= value + ARMIJO * expected + ROUNDING * abs(value)
        return (candidate, new) if enough else None


def descend(
    objective: NeuronObjective, neurons: ReluNeurons, tolerance: float, most_steps: int, after_step: AfterStep
) -> tuple[ReluNeurons, bool]:
    """Descend on the faces.

    Return the point, and False if `after_step` stopped the descent.

    It ends once the projected gradient is at most `tolerance` beta ||(U, V)||, after `most_steps` steps, or when
    rounding hides all progress. The steps are numbered as at the top of this module.
    """
    neurons, steps, idle = neurons.balanced(), FaceSteps(objective), 0
    value = objective.value(neurons)
    for _ in range(most_steps):
        if not len(neurons):
            break
        # 1. the projected gradient and the faces
        R = objective.residual(neurons)
        projected = projected_gradient(neurons, *objective.gradient(neurons, R))
        norm = float(np.sqrt(np.sum(neurons.U**2) + np.sum(neurons.V**2)))
        if projected.norm <= tolerance * objective.beta * norm:
            break
        # 2. a Newton step, 3. else a gradient step
        step = steps.newton(neurons, value, projected, R) or steps.gradient(neurons, value, projected)
        idle = 0 if step is not None and step[1] < value * (1 - 1e-15) else idle + 1
        if step is None or idle == IDLE_STEPS:
            break
        neurons, value = step
        # 4. without negligible neurons
        smaller = np.minimum(np.sum(neurons.U**2, axis=1), np.sum(neurons.V**2, axis=1))
        if (smaller <= DEAD * norm**2).any():
            neurons = neurons.take(smaller > DEAD * norm**2)
            value = objective.value(neurons)
        if not after_step(neurons):
            return neurons, False
    return neurons, True
