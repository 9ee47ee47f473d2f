"""The Burer-Monteiro staircase for ReLU: descend on the cones, append the neurons that still lower f, and again.

Without the second half a descent method may end at a wrong stationary point, where some columns are zero: a zero pair
(u, v) has a zero gradient. It ends where the point is stationary and no direction that was found has a norm
||R^T D Phi u|| above beta, which for scalar outputs, and for vector outputs in the plane, proves it global.
"""

import numpy as np
from jaxtyping import Float

from convexnn_bench.algorithms.relu.directions import NetworkPrices
from convexnn_bench.algorithms.relu.faces import Tick, descend
from convexnn_bench.algorithms.relu.neurons import NeuronObjective, Neurons
from convexnn_bench.algorithms.relu.pricing import BlockPrices, Price, distinct
from convexnn_bench.algorithms.relu.reduction import reduced

ADDED = 8  # neurons a round
ROUNDS = 200
FINAL = 1e-11  # relative projected gradient that ends the last descent
EXCESS = 1e-10  # relative excess of a norm over beta that counts as none
STEPS = 40  # Newton steps a round


class Staircase:
    """Working set of neurons of one problem."""

    def __init__(self, objective: NeuronObjective, prices: BlockPrices | NetworkPrices):
        self.objective, self.prices = objective, prices

    def run(self, neurons: Neurons, tick: Tick) -> str | None:
        """Until the point is optimal; returns why it ended, None where `tick` stopped it."""
        tolerance, thorough = 1e-2, False
        for _ in range(ROUNDS):
            neurons, going = self._descend(reduced(self.objective, neurons), tolerance, tick)
            if not going:
                return None
            R = self.objective.residual(neurons)
            price = self.prices(R, self.objective.beta * (1 + EXCESS), thorough)
            grown = self._added(neurons, R, price)
            excess = float(price.norms[0]) / self.objective.beta - 1 if len(price.norms) else 0.0
            if grown is None:
                if thorough and tolerance == FINAL:
                    full = "" if not len(price.norms) else ", but no neuron is left to add"
                    return f"stationary, and the largest norm found exceeds beta by {excess:.1e}{full}"
                thorough, tolerance = tolerance == FINAL, FINAL
            else:
                neurons, thorough = grown, False
                tolerance = max(min(tolerance, 0.1 * excess), FINAL)
                if not tick(neurons):
                    return None
        return f"{ROUNDS} rounds did not reach the target"

    def _descend(self, neurons: Neurons, tolerance: float, tick: Tick) -> tuple[Neurons, bool]:
        """On the cones at hand, and again while neurons cross to neighbouring ones."""
        for _ in range(STEPS):
            neurons, going = descend(self.objective, neurons, tolerance, STEPS, tick)
            if not going or not len(neurons):
                return neurons, going
            R = self.objective.residual(neurons)
            neurons, crossed = self.prices.crossed(neurons, R, self.objective.beta)
            if not crossed:
                break
        return neurons, True

    def _added(self, neurons: Neurons, R: Float[np.ndarray, "N q"], price: Price) -> Neurons | None:
        """Up to ADDED of the priced directions as neurons, at the size that lowers f; None where there is none."""
        H = np.maximum(price.directions @ self.objective.Phi.T, 0.0) * price.masks
        chosen = self.prices.room(neurons, price, distinct(H, ADDED))
        if not chosen:
            return None
        price = Price(price.norms[chosen], price.directions[chosen], price.masks[chosen], price.blocks[chosen])
        H = np.maximum(self.objective.Phi @ price.directions.T, 0.0) * price.masks.T
        V = -(H.T @ R)
        V /= np.linalg.norm(V, axis=1, keepdims=True)
        new = self.prices.placed(price.directions, V, price)
        change = self.objective.predictions(new)
        slope = float(np.sum(price.norms - self.objective.beta))
        curvature = self.objective.problem.loss.smoothness * float(change.square().sum())
        step, before = slope / max(curvature, 1e-300), self.objective.value(neurons)
        while step > 1e-300:
            grown = neurons.joined(new.moved(np.sqrt(step) * new.U, np.sqrt(step) * new.V))
            if self.objective.value(grown) < before:
                return grown
            step *= 0.25
            if step * slope < 1e-16 * abs(before):
                break
        return None
