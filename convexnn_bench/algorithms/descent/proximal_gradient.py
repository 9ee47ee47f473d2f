"""FISTA with adaptive restart on the convex program.

The method is that of Beck & Teboulle, 2009, and O'Donoghue & Candes, 2015.

It minimises F(A x) + g(x). With the extrapolated point y, momentum theta and a Lipschitz estimate L every iteration
does

1. x+ = prox_{g / L}(y - A^* grad F(A y) / L);
2. raise L and repeat 1. as long as F(A x+) exceeds its quadratic model at y;
3. if the momentum points uphill, <y - x+, x+ - x> > 0, drop it: theta = 1, y = x+;
4. otherwise theta+ = (1 + sqrt(1 + 4 theta^2)) / 2 and y = x+ + (theta - 1) / theta+ (x+ - x).

A is applied once an iteration, since A y is a combination of A x+ and A x.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float

Variable = Float[torch.Tensor, "P p k"]
Predictions = Float[torch.Tensor, "n_out c"]

STILL, STILL_STEPS = 1e-13, 100  # FISTA ends after STILL_STEPS steps in a row, each shorter than STILL ||x||
LIPSCHITZ_GROWTH = 1.5  # factor of L whenever its model fails


def fista(
    forward: Callable[[Variable], Predictions],
    loss: Callable[[Predictions], torch.Tensor],
    pullback: Callable[[Predictions], Variable],
    prox: Callable[[Variable, float], Variable],
    x: Variable,
    lipschitz: float,
    step_done: Callable[[Variable], bool],
) -> str | None:
    """Minimise F(A x) + g(x); return why it ended, or None if `step_done` stopped it.

    forward: x -> A x. loss: F. pullback: z -> A^* grad F(z). prox: (v, t) -> prox_{t g}(v). lipschitz: the first
    estimate for the gradient A^* grad F(A .). The steps are numbered as at the top of this module.
    """
    z = forward(x)
    y, z_y, momentum, still = x, z, 1.0, 0
    while step_done(x):
        before, gradient = loss(z_y), pullback(z_y)
        while True:
            # 1. the proximal step
            candidate = prox(y - gradient / lipschitz, 1.0 / lipschitz)
            move, change, z_new = candidate - y, candidate - x, forward(candidate)
            # all numbers are read at once, so that each trial waits for a GPU only once
            sums = [(gradient * move).sum(), move.square().sum(), (-move * change).sum()]
            norms = [torch.linalg.vector_norm(change), torch.linalg.vector_norm(candidate)]
            numbers = torch.stack([before, loss(z_new), *sums, *norms]).tolist()
            value, new_value, slope, square, uphill, moved, size = numbers
            # 2. the quadratic model, up to rounding
            if new_value <= value + slope + 0.5 * lipschitz * square + 1e-14 * abs(value):
                break
            lipschitz *= LIPSCHITZ_GROWTH
            if not lipschitz <= 1e300:
                return "no step satisfies the quadratic model: the values overflow"
        still = still + 1 if moved <= STILL * size else 0
        if still == STILL_STEPS or (momentum == 1.0 and torch.equal(candidate, x)):
            return "the proximal step no longer moves the point"
        if uphill > 0:
            # 3. restart
            momentum, y, z_y = 1.0, candidate, z_new
        else:
            # 4. extrapolate
            following = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
            push = (momentum - 1) / following
            y, z_y = candidate + push * change, z_new + push * (z_new - z)
            momentum = following
        x, z = candidate, z_new
    return None
