"""Newton steps on a set of neurons until its gradient is small; steps are held shorter where the model failed."""

import math
from collections.abc import Callable
from dataclasses import replace

from convexnn_bench.algorithms.newton.point import Here, WorkingProblem
from convexnn_bench.algorithms.newton.step import GOOD, Control, Move, NewtonSystem

TRIALS = 40  # dampings of one step
HALVINGS = 8  # of a step
LEAST_FLOOR = 1e-8  # of the model's F'', taken where none was too little
ACCEPTED = 1e-4  # ratio of the fall of f to the model's
ROUNDING = 1e-14  # of f: a fall below it cannot be told from rounding, and the gradient decides
INEXACT = 0.1, 1e-8  # relative residuals of conjugate gradients
INEXACT_SINGLE = 1e-3  # least of them with products in float32

Tick = Callable[[Here], bool]


class Descent:
    """Newton's method on one working problem; how long steps may be is kept from one call to the next."""

    def __init__(self, working: WorkingProblem):
        self.working, self.control, self.steps = working, Control(), 0

    def run(self, here: Here, tolerance: float, most: int, tick: Tick, products: int = 0) -> tuple[Here, bool]:
        """At most `most` steps, or until `slope` is at most `tolerance`; f falls with each, but for rounding.

        products: ends after the step with which this many Hessian products have been taken; 0 for any number.
        Returns the last point, and False where `tick`, which sees every point, stopped it.
        """
        last = self.working.products + (products or math.inf)
        for _ in range(most):
            if not len(here.neurons) or here.slope <= tolerance:
                break
            after = self._step(here)
            if after is None:
                break
            here = after
            if not tick(here):
                return here, False
            if self.working.products >= last:
                break
        return here, True

    def _step(self, here: Here) -> Here | None:
        """The point after one step; None where rounding hides every fall of f.

        With Hessian products in float32 the float64 gradient of the next point corrects what they got wrong.
        """
        system = NewtonSystem(here, self.control.effort)
        for _ in range(TRIALS):
            least = INEXACT_SINGLE if here.single else INEXACT[1]
            move = system.move(self.control, min(max(INEXACT[0] * here.slope, least), INEXACT[0]))
            if move is not None and move.predicted > 0:
                there, ratio = self._along(here, move)
                flat = ratio <= GOOD and self._too_flat(here, there, move)
                self._change_floor(flat, ratio)
                unseen = move.predicted <= ROUNDING * abs(here.value)
                level = there.value <= here.value * (1 + ROUNDING)
                if ratio > ACCEPTED or (unseen and level and len(there.neurons) and there.slope <= 0.5 * here.slope):
                    self.control.longer(system.route, move, ratio)
                    self.steps += 1
                    return there
                if unseen:
                    self.control = Control()
                    return None
                fewer = self._without(here, move)
                if fewer is not None:
                    return fewer
                if flat:
                    here = self.working.at(here.neurons)
                    system = NewtonSystem(here, self.control.effort)
                    continue
            self.control.shorter(system.route)
        self.control = Control()  # the next point is another one
        return None

    def _too_flat(self, here: Here, there: Here, move: Move) -> bool:
        """Whether the model failed because F bends more on the way than at the beginning."""
        working = self.working
        if working.loss.unit_curvature or working.floor >= 1:
            return False
        change = there.z - here.z
        model = float((change * (here.L + 0.5 * here.curvature(change[:, :, None])[:, :, 0])).sum())
        loss = [float(working.loss.value(point.z, working.targets)) for point in (here, there)]
        return loss[1] - loss[0] - model > GOOD * move.predicted

    def _change_floor(self, flat: bool, ratio: float) -> None:
        """Of the model's F'': raised where F was too flat, lowered where the model held."""
        working = self.working
        if flat:
            working.floor = min(max(10 * working.floor, LEAST_FLOOR), 1.0)
        elif ratio > GOOD:
            working.floor = working.floor / 4 if working.floor > LEAST_FLOOR else 0.0

    def _without(self, here: Here, move: Move) -> Here | None:
        """The point without the neurons that a step takes through zero, where f is lower there.

        The model has no bound at zero: for a small neuron it promises a fall that no step keeps, however short.
        """
        crossing = here.crossing(move.step)
        if not bool(crossing.any()):
            return None
        there = self.working.at(here.neurons.kept(~crossing))
        return there if there.value < here.value else None

    def _along(self, here: Here, move: Move) -> tuple[Here, float]:
        """The point at the end of a step, and the ratio of the fall of f to the model's.

        With scalar outputs f is convex in w, and part of a step helps where the whole of it does not: half of it, and
        so on.
        """
        if here.neurons.Y.shape[0] > 1:
            there = self.working.at(here.moved(move.step))
            return there, (here.value - there.value) / move.predicted
        for _ in range(HALVINGS):
            there = self.working.at(here.moved(move.step))
            ratio = (here.value - there.value) / move.predicted
            if ratio > ACCEPTED or move.predicted <= ROUNDING * abs(here.value) or self._too_flat(here, there, move):
                break
            # along d = t d_0 the model falls by (t - t^2 / 2) of what it falls by at t = 1, if that was its minimum
            move = replace(move, step=0.5 * move.step, predicted=0.5 * move.predicted)
        return there, ratio
