"""FISTA with adaptive restart on the convex program (Beck & Teboulle, 2009; O'Donoghue & Candes, 2015)."""

from collections.abc import Callable

import torch
from jaxtyping import Float

Variable = Float[torch.Tensor, "P p k"]
Predictions = Float[torch.Tensor, "n_out c"]

STILL, STILL_STEPS = 1e-13, 100  # so many steps in a row, each shorter than this part of the point, are rounding


def fista(
    forward: Callable[[Variable], Predictions],
    loss: Callable[[Predictions], torch.Tensor],
    pullback: Callable[[Predictions], Variable],
    prox: Callable[[Variable, float], Variable],
    x: Variable,
    lipschitz: float,
    step_done: Callable[[Variable], bool],
) -> str | None:
    """min F(A x) + g(x): `forward` is A, `loss` F, `pullback(z)` A^* grad F(z), `prox(v, t)` that of t g.

    `lipschitz` is the starting estimate of that of A^* grad F(A .), raised where its quadratic model fails. A is
    applied once an iteration: the extrapolated point's predictions are combined from those of x. The momentum
    is dropped when it points uphill, <y - x+, x+ - x> > 0.
    Returns why it ended, or None when `step_done` stopped it.
    """
    z = forward(x)
    y, z_y, momentum, still = x, z, 1.0, 0
    while step_done(x):
        before, gradient = loss(z_y), pullback(z_y)
        while True:
            candidate = prox(y - gradient / lipschitz, 1.0 / lipschitz)
            move, change, z_new = candidate - y, candidate - x, forward(candidate)
            # all that is decided on, at once: a GPU is waited for once a trial
            sums = [(gradient * move).sum(), move.square().sum(), (-move * change).sum()]
            norms = [torch.linalg.vector_norm(change), torch.linalg.vector_norm(candidate)]
            numbers = torch.stack([before, loss(z_new), *sums, *norms]).tolist()
            value, new_value, slope, square, uphill, moved, size = numbers
            if new_value <= value + slope + 0.5 * lipschitz * square + 1e-14 * abs(value):
                break
            lipschitz *= 1.5
            if not lipschitz <= 1e300:
                return "no step satisfies the quadratic model: the values overflow"
        still = still + 1 if moved <= STILL * size else 0
        if still == STILL_STEPS or (momentum == 1.0 and torch.equal(candidate, x)):
            return "the proximal step no longer moves the point"
        if uphill > 0:
            momentum, y, z_y = 1.0, candidate, z_new
        else:
            following = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
            push = (momentum - 1) / following
            y, z_y = candidate + push * change, z_new + push * (z_new - z)
            momentum = following
        x, z = candidate, z_new
    return None
