"""The trust-region loop of bm_newton.

It takes Newton steps on a set of neurons until the gradient is small.

Each step lowers the quadratic model of f within a trust region. The ratio of the decrease of f to the model's decides
whether the step is taken and how the region changes (Nocedal & Wright, Numerical Optimization, algorithm 4.1):

    ratio = (f(point) - f(trial point)) / predicted decrease.

The region has two forms, one for each kind of route in `system.py`: the damping mu for direct solves, the radius for
conjugate gradients. The theorems have a plainer method of their own in (U, V), `theorems/trust_region.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from convexnn_bench.algorithms.newton.point import PointState
from convexnn_bench.algorithms.newton.system import TYPICAL_PRODUCTS, NewtonSystem, TrialStep
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem

# Where no source is named, a value was chosen by trials on the ladder (docs/measurements.md).
ACCEPTED_RATIO = 1e-4  # least ratio at which a step is taken (Nocedal & Wright, algorithm 4.1, eta)
GOOD_RATIO, VERY_GOOD_RATIO = 0.5, 0.8  # above which the damping falls, and above which the radius grows
TRIALS = 40  # trust regions tried for one step
HALVINGS = 8  # halvings of one step, with scalar outputs
ROUNDING = 1e-14  # a decrease below this multiple of f is rounding, and the gradient decides
# Relative residuals of conjugate gradients: proportional to the gradient, so that convergence stays quadratic
# (Nocedal & Wright, section 7.1), and between these limits.
ACCURACY_OF_GRADIENT, LOOSEST_ACCURACY, TIGHTEST_ACCURACY, TIGHTEST_FLOAT32_ACCURACY = 0.1, 0.1, 1e-8, 1e-3

START_RADIUS, LARGEST_RADIUS = 0.5, 1.0  # radius 1 is a step as long as the point itself
RADIUS_SHRINKS, RADIUS_GROWS = 0.3, 2
SHORT_RADIUS = 0.2  # least radius used in `cg_products`; a shorter one says nothing more about the remaining work
DAMPING_GROWS, DAMPING_SHRINKS = 4, 8
LEAST_DAMPING, NO_DAMPING = 1e-3, 1e-8  # the first damping after none, and the last before none
CG_MEMORY_DECAY = 0.95  # per direct step, of the last product count and short radius of conjugate gradients
LEAST_FLOOR, FLOOR_GROWS, FLOOR_SHRINKS = 1e-8, 10, 4  # of the curvature floor, in units of the largest curvature

OnPoint = Callable[[PointState], bool]


@dataclass
class TrustRegion:
    """How far a step may go. Each kind of route learns from its own steps only.

    Each direct step lets the estimates for conjugate gradients decay to their defaults.
    """

    damping: float = 1.0  # mu of the direct routes
    radius: float = START_RADIUS  # of conjugate gradients
    products: float = TYPICAL_PRODUCTS  # Hessian products that conjugate gradients last took, or more

    @property
    def cg_products(self) -> float:
        """Hessian products that conjugate gradients need to achieve as much as one step of full length."""
        share = max(SHORT_RADIUS, min(START_RADIUS, self.radius)) / START_RADIUS
        return max(self.products, TYPICAL_PRODUCTS / share)

    def shrink(self, route: str) -> None:
        """Allow shorter steps only, after a step that was not taken."""
        if route == "products":
            self.radius *= RADIUS_SHRINKS
        else:
            self.damping = max(DAMPING_GROWS * self.damping, LEAST_DAMPING)

    def expand(self, route: str, trial: TrialStep, ratio: float) -> None:
        """Allow longer steps after a step with a good ratio."""
        if route == "products":
            if ratio > VERY_GOOD_RATIO and trial.at_boundary:
                self.radius = min(RADIUS_GROWS * self.radius, LARGEST_RADIUS)
            return
        self.radius = min(self.radius / CG_MEMORY_DECAY, max(self.radius, START_RADIUS))
        self.products = max(TYPICAL_PRODUCTS, CG_MEMORY_DECAY * self.products)
        if ratio > GOOD_RATIO:
            self.damping = self.damping / DAMPING_SHRINKS if self.damping > NO_DAMPING else 0.0


class TrustRegionNewton:
    """Newton's method on one working problem, with a trust region that is kept from one call to the next."""

    def __init__(self, working: WorkingProblem):
        self.working, self.region, self.steps = working, TrustRegion(), 0

    def run(
        self, point: PointState, tolerance: float, most_steps: int, on_point: OnPoint, products: int = 0
    ) -> tuple[PointState, bool]:
        """Take steps until the relative gradient is at most `tolerance`; f falls with each, but for rounding.

        It ends after `most_steps` steps, or once it has taken `products` Hessian products; 0 sets no limit on products.
        Return the last point, and False if `on_point`, which is called with every point, ended the run.
        """
        last = self.working.products + (products or math.inf)
        for _ in range(most_steps):
            if not len(point.neurons) or point.relative_gradient <= tolerance:
                break
            following = self._step(point)
            if following is None:
                break
            point = following
            if not on_point(point):
                return point, False
            if self.working.products >= last:
                break
        return point, True

    def _step(self, point: PointState) -> PointState | None:
        """Return the point after one step, or None if rounding hides every decrease of f.

        1. Solve the subproblem.
        2. Evaluate f along the step.
        3. Adapt the curvature floor.
        4. Take the step if f fell enough. Where rounding hides the decrease, take it if the gradient halved, else end.
        5. Otherwise drop the neurons that the step takes through zero if that lowers f.
        6. Otherwise try again, with the new floor or a smaller region.
        """
        system = NewtonSystem(point, self.region.cg_products)
        for _ in range(TRIALS):
            # 1. Solve. Float32 products may be rough: the float64 gradient of the next point corrects their errors.
            trial = self._solved(system, self._accuracy(point))
            if trial is not None and trial.predicted_decrease > 0:
                # 2. Evaluate.
                candidate, ratio = self._along(point, trial)
                # 3. Adapt the floor.
                flat = ratio <= GOOD_RATIO and self._too_flat(point, candidate, trial)
                self._adapt_floor(flat, ratio)
                # 4. Take the step, or end.
                within_rounding = trial.predicted_decrease <= ROUNDING * abs(point.value)
                if ratio > ACCEPTED_RATIO or (within_rounding and self._halves_gradient(point, candidate)):
                    self.region.expand(system.route, trial, ratio)
                    self.steps += 1
                    return candidate
                if within_rounding:
                    break
                # 5. Drop neurons.
                fewer = self._without_crossing(point, trial)
                if fewer is not None:
                    return fewer
                # 6. Try again.
                if flat:
                    point = PointState(self.working, point.neurons)
                    system = NewtonSystem(point, self.region.cg_products)
                    continue
            self.region.shrink(system.route)
        self.region = TrustRegion()  # a region adapted to this point does not fit the next one
        return None

    def _solved(self, system: NewtonSystem, accuracy: float) -> TrialStep | None:
        """Solve the subproblem in the present region, and note what conjugate gradients took."""
        trial = system.trial_step(self.region.damping, self.region.radius, accuracy)
        if trial is not None and system.route == "products":
            self.region.products = max(TYPICAL_PRODUCTS, float(trial.products))
        return trial

    @staticmethod
    def _accuracy(point: PointState) -> float:
        tightest = TIGHTEST_FLOAT32_ACCURACY if point.single else TIGHTEST_ACCURACY
        return min(max(ACCURACY_OF_GRADIENT * point.relative_gradient, tightest), LOOSEST_ACCURACY)

    @staticmethod
    def _halves_gradient(point: PointState, candidate: PointState) -> bool:
        """Return whether f stays level and the gradient halves."""
        level = candidate.value <= point.value * (1 + ROUNDING)
        return level and len(candidate.neurons) > 0 and candidate.relative_gradient <= 0.5 * point.relative_gradient

    def _too_flat(self, point: PointState, candidate: PointState, trial: TrialStep) -> bool:
        """Return whether the model failed because F bends more along the step than at its beginning."""
        working = self.working
        if working.loss.unit_curvature or working.curvature_floor >= 1:
            return False
        change = candidate.z - point.z
        slope = point.loss_gradient + 0.5 * point.curvature(change[:, :, None])[:, :, 0]
        model = float((change * slope).sum())
        before, after = (float(working.loss.value(at.z, working.targets)) for at in (point, candidate))
        return after - before - model > GOOD_RATIO * trial.predicted_decrease

    def _adapt_floor(self, flat: bool, ratio: float) -> None:
        """Raise the curvature floor where F was too flat, and lower it where the model held."""
        working = self.working
        if flat:
            working.curvature_floor = min(max(FLOOR_GROWS * working.curvature_floor, LEAST_FLOOR), 1.0)
        elif ratio > GOOD_RATIO:
            lower = working.curvature_floor / FLOOR_SHRINKS
            working.curvature_floor = lower if working.curvature_floor > LEAST_FLOOR else 0.0

    def _without_crossing(self, point: PointState, trial: TrialStep) -> PointState | None:
        """Return the point without the neurons that the step takes through zero.

        Return None if f is not lower there.

        The model has no bound at zero. For a small neuron it predicts a decrease that no step achieves, however short.
        """
        crossing = point.crosses_zero(trial.step)
        if not bool(crossing.any()):
            return None
        candidate = PointState(self.working, point.neurons.selected(~crossing))
        return candidate if candidate.value < point.value else None

    def _along(self, point: PointState, trial: TrialStep) -> tuple[PointState, float]:
        """Return the point at the end of the step, and the ratio.

        With scalar outputs f is convex in w, and the step is halved until it helps.
        """
        if point.neurons.right.shape[0] > 1:
            candidate = PointState(self.working, point.moved(trial.step))
            return candidate, (point.value - candidate.value) / trial.predicted_decrease
        for _ in range(HALVINGS):
            candidate = PointState(self.working, point.moved(trial.step))
            ratio = (point.value - candidate.value) / trial.predicted_decrease
            within_rounding = trial.predicted_decrease <= ROUNDING * abs(point.value)
            if ratio > ACCEPTED_RATIO or within_rounding or self._too_flat(point, candidate, trial):
                break
            # Along t d the model falls by 2 t - t^2 times its decrease at the minimum t = 1: at t = 1/2 by over half.
            trial = replace(trial, step=0.5 * trial.step, predicted_decrease=0.5 * trial.predicted_decrease)
        return candidate, ratio
