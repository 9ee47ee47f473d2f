"""Augmented Lagrangian for the ReLU cones of the Burer-Monteiro formulation.

It minimises f(U, V) subject to h = K_k U_k >= 0 for the facets of every cone (Burer & Monteiro, Math. Program. 95,
2003; Nocedal & Wright, Numerical Optimization, section 17.4). `outer_loop` repeats

1. minimise L(U, V) = f(U, V) + 1 / (2 rho) sum ((lambda - rho h)_+^2 - lambda^2) by another method, until the largest
   entry of its gradient is below a tolerance;
2. update the multipliers, lambda <- (lambda - rho h)_+, and the penalty rho (`cone_penalty`);
3. tighten the tolerance: halve it, and lower it to a tenth of the remaining push rho * violation.

Iterates may violate the cones as far as the penalty allows; `BMObjective.point` projects them.
"""

from collections.abc import Callable

from convexnn_bench.algorithms.descent.bm_objective import BMObjective
from convexnn_bench.algorithms.descent.methods import StepDone, Vector

INNER_STEPS, OUTER_STEPS = 1000, 200  # most steps of one minimisation, most updates
FIRST_TOLERANCE, LAST_TOLERANCE = 0.1, 1e-12  # of the inner minimisation, relative to the first gradient
# where `relu.finish` goes on from the point, a rough one is enough: chosen by trial (commit 384fbfb)
ROUGH_STEPS, ROUGH_UPDATES = 60, 2  # in place of INNER_STEPS and OUTER_STEPS
ROUGH_VIOLATION = 1e-2  # violation of the cones, relative to the longest column, that is good enough


def outer_loop(
    objective: BMObjective,
    inner: Callable[[Vector, StepDone], str | None],
    x: Vector,
    step_done: StepDone,
    rough: bool = False,
) -> str | None:
    """Minimise `objective` by `inner`, for ReLU inside an augmented Lagrangian.

    Return why it ended, or None.

    Without cones this is one call of `inner`. rough: end at a violation of at most ROUGH_VIOLATION.
    """
    if not objective.problem.has_cone:
        return inner(x, step_done)
    objective.add_cone_penalty()
    assert objective.penalty is not None
    first = float(objective(x)[1].abs().max())
    current, running, reason, tolerance = x, True, None, FIRST_TOLERANCE * first
    most = ROUGH_STEPS if rough else INNER_STEPS
    for update in range(OUTER_STEPS):
        steps = 0

        def limited(point: Vector, tolerance: float = tolerance) -> bool:
            nonlocal current, running, steps
            current, steps = point.clone(), steps + 1
            running = step_done(current)
            return running and steps <= most and float(objective.gradient_size) > tolerance

        # 1. minimise the augmented Lagrangian
        reason = inner(current, limited)
        if not running:
            return None
        # 2. update multipliers and penalty
        U = objective.factors(current)[0]
        objective.penalty.update(U)
        if rough and (objective.penalty.violation <= ROUGH_VIOLATION or update + 1 == ROUGH_UPDATES):
            return "all cones are satisfied to the rough tolerance"
        # 3. tighten the tolerance
        push = objective.penalty.rho * objective.penalty.violation * float(U.abs().max())
        tolerance = max(min(0.5 * tolerance, 0.1 * push), LAST_TOLERANCE * first)
    return reason or f"{OUTER_STEPS} multiplier updates did not reach the target"
