"""The Burer-Monteiro staircase for ReLU.

Descend on the cones, add neurons that lower the objective, and repeat.

A descent method alone may end at a wrong stationary point whose columns are partly zero, since the gradient of a zero
pair (u, v) is zero. Every round of the staircase

1. reduces the neurons to as few as the predictions need,
2. descends on the faces of their cones, and moves neurons across facets while that allows further descent,
3. prices new directions, whose norms ||R^T D Phi u|| exceed beta if a neuron there lowers the objective,
4. adds the best of them, and tightens the tolerance of the descent to a tenth of the largest excess.

It ends where the point is stationary and the thorough search of step 3 finds no direction. Over blocks that search is
exact for one output, and for several outputs with p = 2: the point is then a global optimum.
"""

import numpy as np

from convexnn_bench.algorithms.relu.directions import NetworkPricing
from convexnn_bench.algorithms.relu.faces import AfterStep, descend
from convexnn_bench.algorithms.relu.neurons import NeuronObjective, ReluNeurons, Residual
from convexnn_bench.algorithms.relu.pricing import BlockPricing, PricedDirections, distinct
from convexnn_bench.algorithms.relu.reduction import reduce_neurons

FINAL = 1e-11  # projected gradient that ends the last descent, in units of beta ||(U, V)||; rounding is near 1e-15
EXCESS = 1e-10  # relative excess of a norm over beta that counts as none
# chosen by trial (commit 384fbfb)
FIRST = 1e-2  # tolerance of the first descent, in the units of FINAL
ADDED = 8  # most neurons that one round adds
ROUNDS = 200
STEPS = 40  # most Newton steps of one descent, and most descents of one round


class NeuronStaircase:
    """The staircase of one problem, with blocks or all directions priced."""

    def __init__(self, objective: NeuronObjective, pricing: BlockPricing | NetworkPricing):
        self.objective, self.pricing = objective, pricing

    def run(self, neurons: ReluNeurons, after_step: AfterStep) -> str | None:
        """Climb until the point is optimal.

        Return why it ended, or None if `after_step` stopped it.
        """
        tolerance, thorough = FIRST, False
        for _ in range(ROUNDS):
            # 1. reduce, 2. descend
            neurons, going = self._descend(reduce_neurons(self.objective, neurons), tolerance, after_step)
            if not going:
                return None
            # 3. price new directions
            R = self.objective.residual(neurons)
            priced = self.pricing.price(R, self.objective.beta * (1 + EXCESS), thorough)
            excess = float(priced.norms[0]) / self.objective.beta - 1 if len(priced.norms) else 0.0
            # 4. add the best; without any, descend to the end, then search thoroughly, then stop
            grown = self._added(neurons, R, priced)
            if grown is None:
                if thorough and tolerance == FINAL:
                    full = "" if not len(priced.norms) else ", but no neuron can be added"
                    return f"stationary, and the largest norm found exceeds beta by {excess:.1e}{full}"
                thorough, tolerance = tolerance == FINAL, FINAL
            else:
                neurons, thorough = grown, False
                tolerance = max(min(tolerance, 0.1 * excess), FINAL)
                if not after_step(neurons):
                    return None
        return f"{ROUNDS} rounds did not reach the target"

    def _descend(self, neurons: ReluNeurons, tolerance: float, after_step: AfterStep) -> tuple[ReluNeurons, bool]:
        """Descend on the present cones, and again as long as neurons cross to neighbouring ones."""
        for _ in range(STEPS):
            neurons, going = descend(self.objective, neurons, tolerance, STEPS, after_step)
            if not going or not len(neurons):
                return neurons, going
            R = self.objective.residual(neurons)
            neurons, crossed = self.pricing.crossed(neurons, R, self.objective.beta)
            if not crossed:
                break
        return neurons, True

    def _added(self, neurons: ReluNeurons, R: Residual, priced: PricedDirections) -> ReluNeurons | None:
        """Add up to ADDED of the priced directions as neurons.

        Return None if none of them lowers the objective.
        """
        H = np.maximum(priced.directions @ self.objective.Phi.T, 0.0) * priced.masks
        chosen = self.pricing.within_limit(neurons, priced, distinct(H, ADDED))
        if not chosen:
            return None
        priced = priced.take(chosen)
        H = np.maximum(self.objective.Phi @ priced.directions.T, 0.0) * priced.masks.T
        # For unit v the first-order change t (beta + v^T R^T D Phi u) is least at v = -R^T D Phi u / ||.||.
        # Neurons whose v underflows to zero are left out. The others are divided by their largest entry first, since
        # squares underflow much earlier.
        V = -(H.T @ R)
        largest = np.max(np.abs(V), axis=1)
        kept = np.flatnonzero(largest > 0)
        if not kept.size:
            return None
        priced, V = priced.take(kept.tolist()), V[kept] / largest[kept, None]
        V /= np.linalg.norm(V, axis=1, keepdims=True)
        new = self.pricing.neurons_at(priced, V)
        # (sqrt(t) u, sqrt(t) v) changes f by at most -t slope + t^2 curvature / 2: start at the minimiser, then shorten
        change = self.objective.predictions(new)
        slope = float(np.sum(priced.norms - self.objective.beta))
        curvature = self.objective.problem.loss.smoothness * float(change.square().sum())
        t, before = slope / max(curvature, 1e-300), self.objective.value(neurons)
        while t > 1e-300:
            grown = neurons.joined(new.moved(np.sqrt(t) * new.U, np.sqrt(t) * new.V))
            if self.objective.value(grown) < before:
                return grown
            t *= 0.25
            if t * slope < 1e-16 * abs(before):
                break
        return None
