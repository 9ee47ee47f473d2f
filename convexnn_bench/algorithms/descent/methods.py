"""First-order methods on a flat vector x.

They are gradient descent, spectral projected gradient, Adam, L-BFGS and minibatch SGD.

Each takes an `Objective`, which returns value and gradient at x, a start point, and `step_done(x)`, which is called
before the first step and after every step and returns False to stop. Each returns why it ended, or None if it was
stopped. Step sizes follow from the objective. Every line search reads all numbers of a trial at once, so that each
trial waits for a GPU only once.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

Vector = Float[torch.Tensor, " size"]
Objective = Callable[[Vector], tuple[torch.Tensor, Vector]]
StepDone = Callable[[Vector], bool]
Project = Callable[[Vector], Vector]
Precondition = Callable[[Vector, Vector], Vector]
Epoch = Callable[[np.random.Generator], list[Callable[[Vector], Vector]]]  # draws the gradients of its batches

STEP_GROWTH = 1.5  # factor of gradient descent's step after every accepted one
SMALLEST_STEP = 1e-18  # relative to the first step; below it a line search gives up
IDLE_STEPS = 1000  # steps in a row without a new least value, which only rounding causes
ROUNDING = 1e-15  # relative to the objective: smaller increases are accepted

# Spectral projected gradient, with the values of Birgin, Martinez & Raydan (2000) except for the range of the step.
MEMORY = 10  # values that the line search looks back on
SUFFICIENT_DECREASE = 1e-4  # part of the decrease predicted by the slope
STEP_RANGE = 1e-10, 1e10  # relative to the first step

PLATEAU_STEPS = 50  # between two readings of the objective by Adam's schedule, each of which waits for the device
PLATEAU = 1e-5  # relative decrease that counts as progress for that schedule

# Minibatch SGD, chosen by trial.
FAILED_EPOCHS = 5  # epochs in a row above the best objective, after which the step is halved
DIVERGED = 10.0  # times the best objective: the step is halved at once
EXPLODED = 1e3  # multiple of the largest entry of the start point; entries below it never end an epoch


def gradient_descent(
    objective: Objective,
    x: Vector,
    step_done: StepDone,
    first_step: float = 1.0,
    precondition: Precondition | None = None,
) -> str | None:
    """Minimise by gradient descent with backtracking, optionally preconditioned.

    1. Take x+ = x - t g.
    2. Accept it if f(x+) <= f(x) + <g, x+ - x> + ||x+ - x||^2 / (2 t), that is, if the quadratic upper model holds; f
       then falls by at least ||x+ - x||^2 / (2 t). Otherwise halve t and try again.
    3. Let t grow by half.

    precondition: (x, g) -> M(x)^-1 g with M(x) positive definite, which replaces g in step 1; the norm in step 2 is
    then that of M.
    """
    first, gradient = objective(x)
    value = float(first)
    step, best, idle = first_step, value, 0
    while step_done(x):
        direction = gradient if precondition is None else precondition(x, gradient)
        while True:
            # 1. the trial point
            candidate = x - step * direction
            move = candidate - x
            trial, new_gradient = objective(candidate)
            # <M move, move>, where M move = -t g
            square = move @ move if precondition is None else -step * (gradient @ move)
            new_value, slope, length = torch.stack([trial, gradient @ move, square]).tolist()
            # 2. the quadratic upper model
            if new_value <= value + slope + length / (2 * step) + ROUNDING * abs(value):
                break
            step *= 0.5
            if step < SMALLEST_STEP * first_step:
                return "no step lowers the objective any more"
        if not length > 0:
            return "the gradient step no longer moves the point"
        x, value, gradient = candidate, new_value, new_gradient
        # 3. a longer step next time
        step *= STEP_GROWTH
        if value < best:
            best, idle = value, 0
        elif (idle := idle + 1) == IDLE_STEPS:
            return "the objective no longer falls"
    return None


def spectral_projected_gradient(
    objective: Objective, x: Vector, step_done: StepDone, project: Project, first_step: float = 1.0
) -> str | None:
    """Minimise over a convex set by SPG2.

    The method is that of Birgin, Martinez & Raydan, SIAM J. Optim. 10, 2000.

    1. Take the direction d = Pi(x - t g) - x.
    2. Search for x+ = x + a d from a = 1 downwards until f(x+) is below the largest of the last MEMORY values by
       SUFFICIENT_DECREASE of the slope's prediction; a shrinks by quadratic interpolation, by a factor in [0.1, 0.5].
    3. Set t = <s, s> / <s, y> (Barzilai & Borwein), where s is the move and y the change of gradient.

    f may rise from one iterate to the next: `step_done` gets the best iterate so far.
    """
    first, gradient = objective(x)
    value = float(first)
    recent, step, best, best_x, idle = [value], first_step, value, x, 0
    while step_done(best_x):
        # 1. the direction
        move, length = project(x - step * gradient) - x, 1.0
        while True:
            # 2. the non-monotone line search
            candidate = x + length * move
            trial, new_gradient = objective(candidate)
            moved, change = candidate - x, new_gradient - gradient
            numbers = torch.stack([trial, gradient @ move, moved @ moved, moved @ change])
            new_value, slope, square, curvature = numbers.tolist()
            if new_value <= max(recent) + SUFFICIENT_DECREASE * length * slope + ROUNDING * abs(value):
                break
            bend = new_value - value - length * slope
            length *= min(max(-0.5 * length * slope / bend if bend > 0 else 0.5, 0.1), 0.5)
            if length < SMALLEST_STEP:
                return "no step lowers the objective any more"
        if not square > 0:
            return "the gradient step no longer moves the point"
        # 3. the spectral step
        step = square / curvature if curvature > 0 else 10.0 * step
        step = min(max(step, STEP_RANGE[0] * first_step), STEP_RANGE[1] * first_step)
        x, value, gradient = candidate, new_value, new_gradient
        recent = [*recent[1 - MEMORY :], value]
        if value < best:
            best, best_x, idle = value, x, 0
        elif (idle := idle + 1) == IDLE_STEPS:
            return "the objective no longer falls"
    return None


def adam(objective: Objective, x: Vector, step_done: StepDone, rate: float, patience: int = 4) -> str | None:
    """Minimise by Adam (Kingma & Ba, 2015).

    Halve its rate when `patience` readings of the objective bring no progress.

    rate: length of a parameter's first step, in the units of the parameters.
    """
    parameter = x.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([parameter], lr=rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=patience, threshold=PLATEAU, min_lr=1e-12 * rate, eps=0.0
    )
    steps = 0
    while step_done(parameter.detach()):
        value, parameter.grad = objective(parameter.detach())
        optimiser.step()
        steps += 1
        if steps % PLATEAU_STEPS == 0:
            schedule.step(float(value))
            if optimiser.param_groups[0]["lr"] <= 1e-11 * rate:
                return "the step size has been halved to nothing"
    return None


def lbfgs(objective: Objective, x: Vector, step_done: StepDone, history: int = 20) -> str | None:
    """Minimise by L-BFGS with a strong-Wolfe line search (torch.optim.LBFGS).

    It is restarted once when it is stuck.

    torch's tolerances are absolute (1e-10 for curvature, 1e-9 for brackets), so that they would mean something else on
    every scale of the data. It therefore minimises f(unit w) / height, with w of size 1e3 and f / height of 1e8 at the
    start, where these tolerances are below rounding.
    """
    unit = 1e-3 * float(x.square().mean().sqrt()) or 1.0
    height = 1e-8 * float(objective(x)[0].abs()) or 1.0
    parameter = (x / unit).requires_grad_(True)

    def closure() -> torch.Tensor:
        value, gradient = objective(unit * parameter.detach())
        parameter.grad = gradient * (unit / height)
        return value / height

    def fresh() -> torch.optim.LBFGS:
        limits: dict[str, Any] = {"max_iter": 1, "max_eval": 25, "tolerance_grad": 0.0, "tolerance_change": 0.0}
        return torch.optim.LBFGS([parameter], history_size=history, line_search_fn="strong_wolfe", **limits)

    optimiser, stuck = fresh(), 0
    while step_done(unit * parameter.detach()):
        before = parameter.detach().clone()
        optimiser.step(closure)
        finite = bool(torch.isfinite(parameter.detach()).all())
        if finite and not torch.equal(before, parameter.detach()):
            stuck = 0
            continue
        # a line search on values at rounding may return nonsense: go back to the last point and clear the memory
        with torch.no_grad():
            parameter.copy_(before)
        stuck += 1
        optimiser = fresh()
        if stuck == 2:
            return "the line search no longer moves the point"
    return None


def momentum_sgd(
    objective: Objective,
    epoch: Epoch,
    x: Vector,
    step_done: StepDone,
    momentum: float,
    seed: int,
    decay: float,
) -> str | None:
    """Minimise by minibatch gradient descent with heavy-ball momentum.

    1. Set the step t to (1 - momentum) times the longest of s, s/2, s/4, ... that lowers the full objective. s is 1,
       or, if the gradient is small, the power of two that moves x by about its own norm.
    2. For every batch of an `epoch`: v <- momentum v + gradient, x <- x - t v.
    3. After the epoch, keep x if it is the best so far. Halve t and return to the best x with v = 0 if FAILED_EPOCHS
       epochs in a row were no better, if the objective is DIVERGED times the best one, or if entries EXPLODED.

    decay: the weight decay beta. An entry explodes if beta/2 x_i^2 alone is DIVERGED times the first objective, and the
    entry is EXPLODED times the largest one of the start point. The second condition allows for starts whose entries are
    far smaller than those of the optimum.
    """
    generator = np.random.default_rng(seed)
    best_value, gradient = objective(x)
    best, failures = x, 0
    # 1. the first step
    own_length = float(torch.linalg.vector_norm(x) / torch.linalg.vector_norm(gradient).clamp_min(1e-300))
    step = 2.0 ** math.floor(math.log2(max(1.0, own_length)))
    while not bool(objective(x - step * gradient)[0] < best_value):
        step *= 0.5
        if step < 1e-300:
            return "no step lowers the objective from the start point"
    step *= 1 - momentum
    smallest = 1e-10 * step
    limit = max(EXPLODED * float(x.abs().max()), math.sqrt(2 * DIVERGED * max(float(best_value), 0.0) / decay))
    velocity = torch.zeros_like(x)
    while step_done(x):
        # 2. one epoch
        for gradient_of_batch in epoch(generator):
            velocity = momentum * velocity + gradient_of_batch(x)
            moved = x - step * velocity
            if exploded := not bool(moved.abs().max() <= limit):
                break
            x = moved
            if not step_done(x):
                return None
        # 3. a smaller step from the best point, if epochs no longer help
        value, _ = objective(x)
        if bool(value < best_value) and not exploded:
            best, best_value, failures = x, value, 0
            continue
        failures += 1
        if exploded or failures == FAILED_EPOCHS or not bool(value < DIVERGED * best_value):
            step, failures = 0.5 * step, 0
            x, velocity = best, torch.zeros_like(x)
            if step < smallest:
                return "the step size has been halved to nothing"
    return None


def load_optimisers() -> None:
    """Let torch load its optimisers before the solver's clock starts.

    This takes over a second on first use.
    """
    parameter = torch.zeros(1, requires_grad=True)
    torch.optim.lr_scheduler.ReduceLROnPlateau(torch.optim.Adam([parameter]))
    torch.optim.LBFGS([parameter])
