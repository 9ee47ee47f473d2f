"""First-order methods on a flat vector of parameters: (spectral projected) gradient descent, Adam, L-BFGS.

Each takes an `Objective` (value and gradient at x), a start point, and `step_done(x)`, which is called after
every step and returns False to stop. Each returns why it ended, or None when it was stopped.
Step sizes follow from the objective, none is set by hand.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

Vector = Float[torch.Tensor, " size"]
Objective = Callable[[Vector], tuple[torch.Tensor, Vector]]
StepDone = Callable[[Vector], bool]
Project = Callable[[Vector], Vector]
Precondition = Callable[[Vector, Vector], Vector]

ARMIJO_GROWTH = 1.5
SMALLEST_STEP = 1e-18  # relative to the first one
IDLE_STEPS = 1000  # without a new least value, which only rounding brings about
MEMORY = 10  # values that the line search of the spectral method looks back on
SPECTRAL_RANGE = 1e-10, 1e10  # of its step, relative to the first one
PLATEAU_STEPS = 50  # Adam looks at the objective once in so many steps


def gradient_descent(
    objective: Objective,
    x: Vector,
    step_done: StepDone,
    project: Project | None = None,
    first_step: float = 1.0,
    precondition: Precondition | None = None,
) -> str | None:
    """(Projected, or preconditioned) gradient descent with backtracking.

    x+ = Pi(x - t g) is accepted when f(x+) <= f(x) + <g, x+ - x> + ||x+ - x||^2 / (2 t): the quadratic upper
    model holds, so f falls by at least ||x+ - x||^2 / (2 t). The step grows by half after each success.

    precondition: (x, g) -> M(x)^-1 g with M(x) positive definite, which takes the place of g in the step, and the norm
    of M that of the Euclidean one. Not together with `project`, which would have to project in that norm.
    """
    if project is not None and precondition is not None:
        raise ValueError("gradient_descent takes project or precondition, not both")
    project = project or (lambda point: point)
    first, gradient = objective(x)
    value = float(first)
    step, best, idle = first_step, value, 0
    while step_done(x):
        direction = gradient if precondition is None else precondition(x, gradient)
        while True:
            candidate = project(x - step * direction)
            move = candidate - x
            found, new_gradient = objective(candidate)
            # <M move, move>, where M move = -t g
            square = move @ move if precondition is None else -step * (gradient @ move)
            # all that is decided on, at once: a GPU is waited for once a trial
            new_value, slope, length = torch.stack([found, gradient @ move, square]).tolist()
            model = value + slope + length / (2 * step)
            # rounding of f decides once the model's decrease falls below it
            if new_value <= model + 1e-15 * abs(value):
                break
            step *= 0.5
            if step < SMALLEST_STEP * first_step:
                return "no step lowers the objective any more"
        if not length > 0:
            return "the gradient step no longer moves the point"
        x, value, gradient = candidate, new_value, new_gradient
        step *= ARMIJO_GROWTH
        if value < best:
            best, idle = value, 0
        elif (idle := idle + 1) == IDLE_STEPS:
            return "the objective no longer falls"
    return None


def spectral_projected_gradient(
    objective: Objective, x: Vector, step_done: StepDone, project: Project, first_step: float = 1.0
) -> str | None:
    """Spectral projected gradient onto a convex set (Birgin, Martinez & Raydan, SIAM J. Optim. 10, 2000, SPG2).

    d = Pi(x - t g) - x with the step t = <s, s> / <s, y> of Barzilai and Borwein from the last move s and change of
    gradient y; x+ = x + a d with the largest a <= 1 found by which f falls below the largest of its last MEMORY values.
    f may rise from one iterate to the next: `step_done` is given the best one so far.
    """
    first, gradient = objective(x)
    value = float(first)
    recent, step, best, best_x, idle = [value], first_step, value, x, 0
    while step_done(best_x):
        move, length = project(x - step * gradient) - x, 1.0
        while True:
            candidate = x + length * move
            found, new_gradient = objective(candidate)
            moved, change = candidate - x, new_gradient - gradient
            # all that is decided on, at once: a GPU is waited for once a trial
            numbers = torch.stack([found, gradient @ move, moved @ moved, moved @ change])
            new_value, slope, square, curvature = numbers.tolist()
            # rounding of f decides once the expected decrease falls below it
            if new_value <= max(recent) + 1e-4 * length * slope + 1e-15 * abs(value):
                break
            bend = new_value - value - length * slope
            length *= min(max(-0.5 * length * slope / bend if bend > 0 else 0.5, 0.1), 0.5)
            if length < SMALLEST_STEP:
                return "no step lowers the objective any more"
        if not square > 0:
            return "the gradient step no longer moves the point"
        step = square / curvature if curvature > 0 else 10.0 * step
        step = min(max(step, SPECTRAL_RANGE[0] * first_step), SPECTRAL_RANGE[1] * first_step)
        x, value, gradient = candidate, new_value, new_gradient
        recent = [*recent[1 - MEMORY :], value]
        if value < best:
            best, best_x, idle = value, x, 0
        elif (idle := idle + 1) == IDLE_STEPS:
            return "the objective no longer falls"
    return None


def adam(objective: Objective, x: Vector, step_done: StepDone, rate: float, patience: int = 4) -> str | None:
    """Adam (Kingma & Ba, 2015); the rate is halved when the objective has not improved for `patience` looks.

    rate: length of a parameter's first step, in the units of the parameters.
    """
    parameter = x.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([parameter], lr=rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=patience, threshold=1e-5, min_lr=1e-12 * rate, eps=0.0
    )
    steps = 0
    while step_done(parameter.detach()):
        value, parameter.grad = objective(parameter.detach())
        optimiser.step()
        steps += 1
        if steps % PLATEAU_STEPS == 0:  # reading the value waits for the device: once in a while
            schedule.step(float(value))
            if optimiser.param_groups[0]["lr"] <= 1e-11 * rate:
                return "the step size has been halved to nothing"
    return None


def lbfgs(objective: Objective, x: Vector, step_done: StepDone, history: int = 20) -> str | None:
    """L-BFGS with a strong-Wolfe line search (torch.optim.LBFGS), restarted once from a clean memory when stuck.

    torch's has absolute tolerances (10^-10 for curvature, 10^-9 for brackets), which would mean something else on every
    scale of the data; it is given f(unit w) / height with w of size 10^3 and f / height of 10^8 at the start, where
    they are below rounding.
    """
    unit = 1e-3 * float(x.square().mean().sqrt()) or 1.0
    height = 1e-8 * float(objective(x)[0].abs()) or 1.0
    parameter = (x / unit).requires_grad_(True)

    def closure() -> torch.Tensor:
        value, gradient = objective(unit * parameter.detach())
        parameter.grad = gradient * (unit / height)
        return value / height

    def fresh() -> torch.optim.LBFGS:
        return torch.optim.LBFGS(
            [parameter],
            lr=1.0,
            max_iter=1,
            max_eval=25,
            history_size=history,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

    optimiser, stuck = fresh(), 0
    while step_done(unit * parameter.detach()):
        before = parameter.detach().clone()
        optimiser.step(closure)
        finite = bool(torch.isfinite(parameter.detach()).all())
        if not finite or torch.equal(before, parameter.detach()):
            # a line search on values at rounding may return nonsense: back to the last point, memory cleared
            with torch.no_grad():
                parameter.copy_(before)
            stuck += 1
            optimiser = fresh()
            if stuck == 2:
                return "the line search no longer moves the point"
        else:
            stuck = 0
    return None


@runtime_checkable
class Batches(Protocol):
    """Minibatches of a finite sum."""

    def epoch(self, generator: np.random.Generator) -> list[np.ndarray]: ...

    def gradient(self, x: Vector, batch: np.ndarray) -> Vector: ...


def momentum_sgd(
    objective: Objective, batches: Batches, x: Vector, step_done: StepDone, momentum: float, seed: int
) -> str | None:
    """Minibatch gradient descent, x <- x - t v, v <- momentum v + gradient.

    The step starts at (1 - momentum) times the longest one that lowers the full objective from the start point,
    and is halved when an epoch ends above the best objective seen five times running, or has diverged (tenfold, or an
    entry beyond 10^3 times those of the start, which ends the epoch): then the best point is taken up again.
    """
    generator = np.random.default_rng(seed)
    best_value, gradient = objective(x)
    best, step, failures = x, 1.0, 0
    while not bool(objective(x - step * gradient)[0] < best_value):
        step *= 0.5
        if step < 1e-300:
            return "no step lowers the objective from the start point"
    step *= 1 - momentum
    smallest, limit = 1e-10 * step, 1e3 * x.abs().max()
    velocity = torch.zeros_like(x)
    while step_done(x):
        for batch in batches.epoch(generator):
            velocity = momentum * velocity + batches.gradient(x, batch)
            moved = x - step * velocity
            if exploded := not bool(moved.abs().max() <= limit):
                break
            x = moved
            if not step_done(x):
                return None
        value, _ = objective(x)
        if bool(value < best_value) and not exploded:
            best, best_value, failures = x, value, 0
            continue
        failures += 1
        if exploded or failures == 5 or not bool(value < 10 * best_value):
            step, failures = 0.5 * step, 0
            x, velocity = best, torch.zeros_like(x)
            if step < smallest:
                return "the step size has been halved to nothing"
    return None


def load_optimisers() -> None:
    """Make torch load what its optimisers need (over a second on first use), so that set-up pays for it."""
    parameter = torch.zeros(1, requires_grad=True)
    torch.optim.lr_scheduler.ReduceLROnPlateau(torch.optim.Adam([parameter]))
    torch.optim.LBFGS([parameter])
