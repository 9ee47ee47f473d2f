"""Augmented Lagrangian for the ReLU cones of the Burer-Monteiro formulation.

min f(U, V) subject to h = K_k U_k >= 0 for the facets of every cone (unit rows; the plane has two a block). With
multipliers lambda >= 0 and penalty rho
    L(U, V) = f(U, V) + 1 / (2 rho) sum ((lambda - rho h)_+^2 - lambda^2),   lambda <- (lambda - rho h)_+
(Burer & Monteiro, Math. Program. 95, 2003; Nocedal & Wright, Numerical Optimization, section 17.4). Multipliers are
bounded and the penalty grows where infeasibility or complementarity do not fall (Birgin & Martinez, Practical Augmented
Lagrangian Methods, 2014, section 4).
"""

from collections.abc import Callable

from convexnn_bench.algorithms.descent.bm_objective import BMObjective
from convexnn_bench.algorithms.descent.methods import StepDone, Vector

INNER_STEPS, OUTER_STEPS = 1000, 200
ROUGH_STEPS, ROUGH_UPDATES, ROUGH_VIOLATION = 60, 2, 1e-2  # where another method takes over


def outer_loop(
    objective: BMObjective,
    inner: Callable[[Vector, StepDone], str | None],
    x: Vector,
    step_done: StepDone,
    rough: bool = False,
) -> str | None:
    """Minimise `objective` by `inner`; for ReLU inside an augmented Lagrangian for the cones.

    Without cones this is one call of `inner`. With them `inner` runs until the largest entry of the gradient falls
    below a tolerance, at most INNER_STEPS steps; with every multiplier update the tolerance is halved, and lowered to a
    tenth of the push rho * violation that is left. Iterates may leave the cones by what the penalty allows;
    `objective.point` projects them. rough: end once violations are below ROUGH_VIOLATION of the longest column, or
    after ROUGH_UPDATES updates, with ROUGH_STEPS steps an update.
    """
    if not objective.problem.has_cone:
        return inner(x, step_done)
    objective.add_cone_penalty()
    assert objective.penalty is not None
    first = float(objective(x)[1].abs().max())
    current, running, said, tolerance = x, True, None, 0.1 * first
    most = ROUGH_STEPS if rough else INNER_STEPS
    for update in range(OUTER_STEPS):
        steps = 0

        def limited(point: Vector, tolerance: float = tolerance) -> bool:
            nonlocal current, running, steps
            current, steps = point.clone(), steps + 1
            running = step_done(current)
            return running and steps <= most and float(objective.gradient_size) > tolerance

        said = inner(current, limited)
        if not running:
            return None
        U = objective.factors(current)[0]
        objective.penalty.update(U)
        if rough and (objective.penalty.violation <= ROUGH_VIOLATION or update + 1 == ROUGH_UPDATES):
            return "the cones hold roughly"
        push = objective.penalty.rho * objective.penalty.violation * float(U.abs().max())
        tolerance = max(min(0.5 * tolerance, 0.1 * push), 1e-12 * first)
    return said or f"{OUTER_STEPS} multiplier updates did not reach the target"
