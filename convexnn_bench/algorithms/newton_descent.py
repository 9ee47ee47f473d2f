"""Damped Newton steps on a set of neurons until its gradient is small (Levenberg-Marquardt control of the damping)."""

from collections.abc import Callable

from convexnn_bench.algorithms.newton_neurons import Here, WorkingProblem
from convexnn_bench.algorithms.newton_step import NewtonSystem

TRIALS = 40  # dampings of one step
ACCEPTED, GOOD = 1e-4, 0.5  # ratio of the fall of f to the model's
LEAST_DAMPING = 1e-3  # taken where none was too little
NO_DAMPING = 1e-8
ROUNDING = 1e-15  # of f: a fall that the model predicts below it cannot be seen
INEXACT = 0.1, 1e-8  # relative residuals of conjugate gradients

Tick = Callable[[Here], bool]


class Descent:
    """Newton's method on one working problem; the damping is kept from one call to the next."""

    def __init__(self, working: WorkingProblem):
        self.working, self.damping, self.steps = working, 1.0, 0

    def run(self, here: Here, tolerance: float, most: int, tick: Tick) -> tuple[Here, bool]:
        """At most `most` steps, or until `slope` is at most `tolerance`; f falls with each.

        Returns the last point, and False where `tick`, which sees every point, stopped it.
        """
        for _ in range(most):
            if not len(here.neurons) or here.slope <= tolerance:
                break
            after = self._step(here)
            if after is None:
                break
            here = after
            if not tick(here):
                return here, False
        return here, True

    def _step(self, here: Here) -> Here | None:
        """The point after one step; None where rounding hides every fall of f."""
        system = NewtonSystem(here)
        accuracy = min(max(INEXACT[0] * here.slope, INEXACT[1]), INEXACT[0])
        for _ in range(TRIALS):
            move = system.move(self.damping, accuracy)
            if move is not None and move.predicted > 0:
                there = self.working.at(here.moved(move.step))
                fall, unseen = here.value - there.value, move.predicted <= ROUNDING * abs(here.value)
                if fall > ACCEPTED * move.predicted or (unseen and fall >= 0):
                    if fall > GOOD * move.predicted:
                        self.damping = self.damping / 8 if self.damping > NO_DAMPING else 0.0
                    self.steps += 1
                    alive = there.sizes > 0
                    return there if bool(alive.all()) else self.working.at(there.neurons.kept(alive))
                if unseen:
                    return None
            self.damping = max(4 * self.damping, LEAST_DAMPING)
        return None
