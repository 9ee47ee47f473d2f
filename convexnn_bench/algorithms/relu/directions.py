"""New neurons for a ReLU network of which no patterns are enumerated: local search over directions, and kinks crossed.

The same prices ||R^T (Phi u)_+|| as those of blocks (Sahiner et al., ICLR 2024, eq. 23), over all unit vectors u.
"""

from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.algorithms.relu.neurons import ON_FACET, Neurons
from convexnn_bench.algorithms.relu.pricing import Price, distinct, power_iteration
from convexnn_bench.cones.nearest_point import nearest_point, unit_rows
from convexnn_bench.problem import Problem

ROUNDS = 40  # of the search over all directions at once
STARTS = 256
REFINED = 12  # of its results that are refined on their cones
CORNERS = 4096
HOPS = 12  # from one cone to a neighbouring one


class NetworkPrices:
    """Over all directions, by local search, with at most `limit` neurons in all.

    Patterns are not enumerated: a maximum may be missed.
    """

    def __init__(self, problem: Problem, limit: int, seed: int):
        self.limit = limit
        self.problem, self.rng = problem, np.random.default_rng(seed)
        self.unit = unit_rows(problem.Phi)

    def start(self, U: Float[np.ndarray, "J p"], V: Float[np.ndarray, "J q"]) -> Neurons:
        """Neurons in the cones of their own patterns 1{Phi u > 0}."""
        return self._held(U, V, U @ self.unit.T > 0)

    def placed(self, directions: Float[np.ndarray, "k p"], V: Float[np.ndarray, "k q"], price: Price) -> Neurons:
        """Neurons with priced directions."""
        return self._held(directions, V, price.masks)

    def room(self, neurons: Neurons, price: Price, chosen: list[int]) -> list[int]:
        """As many of the chosen as the width leaves room for."""
        return chosen[: max(0, self.limit - len(neurons))]

    def _held(self, U: np.ndarray, V: np.ndarray, masks: np.ndarray) -> Neurons:
        rows = np.where(masks[:, :, None], self.unit, -self.unit)
        neurons = Neurons(U, V, masks, rows, np.full(len(U), -1))
        return neurons.moved(neurons.project(U), V)

    def crossed(self, neurons: Neurons, R: Float[np.ndarray, "N q"], beta: float) -> tuple[Neurons, bool]:
        """Neurons on kinks moved to the side on which f falls most, and whether any was."""
        active = neurons.active()
        masks = neurons.masks.copy()
        for j in np.flatnonzero(active.any(axis=1)):
            masks[j] = self._side(neurons.U[j], neurons.V[j], masks[j], active[j], R, beta)
        if (masks == neurons.masks).all():
            return neurons, False
        return self._held(neurons.U, neurons.V, masks), True

    def _side(
        self,
        u: Float[np.ndarray, "p"],
        v: Float[np.ndarray, "q"],
        mask: Bool[np.ndarray, "N"],
        active: Bool[np.ndarray, "N"],
        R: Float[np.ndarray, "N q"],
        beta: float,
    ) -> Bool[np.ndarray, "N"]:
        """Among the patterns next to u the one with the steepest descent along u; the present one unless bettered."""
        kinks, weights = self.unit[active], R @ v
        fixed = np.where(mask & ~active, weights, 0.0) @ self.problem.Phi + beta * u
        here = weights * np.linalg.norm(self.problem.Phi, axis=1)

        def steepest(side: Bool[np.ndarray, "a"]) -> Float[np.ndarray, "p"]:
            gradient = fixed + np.where(side, here[active], 0.0) @ kinks
            return nearest_point(np.where(side[:, None], kinks, -kinks), -gradient)[0]

        best_side = mask[active]
        down = steepest(best_side)
        best = float(np.linalg.norm(down)) * (1 + 1e-9) + 1e-13 * float(np.linalg.norm(fixed))
        sides = self._sides(kinks, -(fixed + np.where(mask[active], here[active], 0.0) @ kinks))
        for side in sides:
            size = float(np.linalg.norm(steepest(side)))
            if size > best:
                best, best_side = size, side
        out = mask.copy()
        out[active] = best_side
        return out

    def _sides(self, kinks: Float[np.ndarray, "a p"], down: Float[np.ndarray, "p"]) -> Bool[np.ndarray, "s a"]:
        """Patterns of the kinks that directions attain: those of the descent, of the kinks, and of random vectors."""
        drawn = self.rng.standard_normal((4 * min(len(kinks), 8), len(down)))
        return np.unique(np.concatenate([down[None], kinks, -kinks, drawn]) @ kinks.T > 0, axis=0)

    def __call__(self, R: Float[np.ndarray, "N q"], beta: float, thorough: bool) -> Price:
        """Directions with norms above beta; thorough: four times the starts."""
        Phi = self.problem.Phi
        count = STARTS * (4 if thorough else 1)
        drawn = self.rng.standard_normal((count, self.problem.p))
        U = unit_rows(np.concatenate([drawn, self.unit, -self.unit]))
        if thorough:
            U = np.concatenate([U, *self._corners()])
        best, where = np.zeros(len(U)), U.copy()
        for _ in range(ROUNDS):
            H = np.maximum(U @ Phi.T, 0.0)
            image = H @ R
            norms = np.linalg.norm(image, axis=1)
            better = norms > best
            best[better], where[better] = norms[better], U[better]
            if not better.any():
                break
            U = unit_rows(((image @ R.T) * (H > 0)) @ Phi)
        order = np.argsort(-best)
        chosen = distinct(np.maximum(where[order] @ Phi.T, 0.0), REFINED * (4 if thorough else 1))
        found = sorted((self._refined(where[order[j]], R) for j in chosen), key=lambda each: -each[0])
        found = [each for each in found if each[0] > beta]
        norms = np.array([each[0] for each in found])
        directions = np.array([each[1] for each in found]).reshape(-1, self.problem.p)
        masks = np.array([each[2] for each in found], dtype=bool).reshape(-1, self.problem.N)
        return Price(norms, directions, masks, np.full(len(norms), -1))

    def _corners(self) -> list[Float[np.ndarray, "k p"]]:
        """Rays on which p - 1 kinks meet, both ways: all of them or CORNERS at random. Maxima often lie there, where no
        ascent within a cone leads from elsewhere."""
        N, p = self.unit.shape
        if p == 1 or p - 1 > N:
            return []
        if comb(N, p - 1) <= CORNERS:
            chosen = np.array(list(combinations(range(N), p - 1)))
        else:
            chosen = self.rng.integers(N, size=(CORNERS, p - 1))
        rays = np.linalg.svd(self.unit[chosen])[2][:, -1]
        return [rays, -rays]

    def _refined(
        self, u: Float[np.ndarray, "p"], R: Float[np.ndarray, "N q"]
    ) -> tuple[float, Float[np.ndarray, "p"], Bool[np.ndarray, "N"]]:
        """Projected power iteration on the cone of u, and on neighbouring ones while the norm grows."""
        mask = self.unit @ u > 0
        best = 0.0
        for _ in range(HOPS):
            g = (self.problem.Phi * mask[:, None]).T @ R
            norm, where = power_iteration(np.where(mask[:, None], self.unit, -self.unit), g, u)
            if norm <= best * (1 + 1e-13):
                break
            best, u = norm, where
            active = np.abs(self.unit @ u) <= ON_FACET
            if not active.any():
                break
            # maximising ||R^T (Phi u)_+|| is descent for v = -its direction
            v = -(g.T @ u) / norm
            mask = self._side(u, v, mask, active, R, norm)
        return best, u, self.unit @ u > ON_FACET if best == 0 else self._pattern(u, mask)

    def _pattern(self, u: Float[np.ndarray, "p"], mask: Bool[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
        """The pattern of u, that of `mask` on its kinks."""
        h = self.unit @ u
        return np.where(np.abs(h) <= ON_FACET, mask, h > 0)
