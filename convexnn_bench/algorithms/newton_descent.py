"""Newton steps on a set of neurons until its gradient is small; steps are held shorter where the model failed."""

from collections.abc import Callable

from convexnn_bench.algorithms.newton_neurons import Here, WorkingProblem
from convexnn_bench.algorithms.newton_step import Control, NewtonSystem

TRIALS = 40  # dampings of one step
ACCEPTED = 1e-4  # ratio of the fall of f to the model's
ROUNDING = 1e-15  # of f: a fall that the model predicts below it cannot be seen
INEXACT = 0.1, 1e-8  # relative residuals of conjugate gradients

Tick = Callable[[Here], bool]


class Descent:
    """Newton's method on one working problem; how long steps may be is kept from one call to the next."""

    def __init__(self, working: WorkingProblem):
        self.working, self.control, self.steps = working, Control(), 0

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
            move = system.move(self.control, accuracy)
            if move is not None and move.predicted > 0:
                there = self.working.at(here.moved(move.step))
                fall, unseen = here.value - there.value, move.predicted <= ROUNDING * abs(here.value)
                if fall > ACCEPTED * move.predicted or (unseen and fall >= 0):
                    self.control.longer(move, fall / move.predicted)
                    self.steps += 1
                    return there
                if unseen:
                    return None
            self.control.shorter()
        return None
