"""Pricing over all directions: new neurons for a ReLU network whose patterns are not enumerated.

The norms are those of `pricing`, ||R^T (Phi u)_+||, now over every unit vector u (Sahiner et al., ICLR 2024, eq. 23).
They are maximised by local search, so that a maximum may be missed.
"""

from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.algorithms.relu.neurons import ON_FACET, Lefts, ReluNeurons, Residual, Rights
from convexnn_bench.algorithms.relu.pricing import Direction, PricedDirections, distinct, power_iteration
from convexnn_bench.cones import nearest_point, unit_rows
from convexnn_bench.problem import Problem

# chosen by trial on problems with known optima (commit 384fbfb)
ROUNDS = 40  # iterations of the search over all directions at once
STARTS = 256  # random directions that it starts from, beside the rows of Phi and their negatives
REFINED = 12  # best directions, refined within their cones; a thorough search takes four times REFINED and STARTS
CORNERS = 4096  # rays on which p - 1 kinks meet; if there are more, so many are drawn at random
HOPS = 12  # moves from one cone to a neighbouring one while a direction is refined

Pattern = Bool[np.ndarray, " N"]


class NetworkPricing:
    """Prices all unit vectors by local search.

    limit: neurons that the network may have.
    """

    def __init__(self, problem: Problem, limit: int, seed: int):
        self.limit = limit
        self.problem, self.rng = problem, np.random.default_rng(seed)
        self.unit = unit_rows(problem.Phi)

    def start(self, U: Lefts, V: Rights) -> ReluNeurons:
        """Return neurons in the cones of their own patterns 1{Phi u > 0}."""
        return self._confined(U, V, U @ self.unit.T > 0)

    def neurons_at(self, priced: PricedDirections, V: Float[np.ndarray, "k q"]) -> ReluNeurons:
        """Return neurons with the priced directions as u."""
        return self._confined(priced.directions, V, priced.masks)

    def within_limit(self, neurons: ReluNeurons, priced: PricedDirections, chosen: list[int]) -> list[int]:
        """Return as many of the chosen directions as the limit leaves room for."""
        return chosen[: max(0, self.limit - len(neurons))]

    def _confined(self, U: Lefts, V: Rights, masks: Bool[np.ndarray, "J N"]) -> ReluNeurons:
        # The cone of a pattern is (2 D - I) Phi u >= 0.
        rows = np.where(masks[:, :, None], self.unit, -self.unit)
        neurons = ReluNeurons(U, V, masks, rows, np.full(len(U), -1))
        return neurons.moved(neurons.project(U), V)

    def crossed(self, neurons: ReluNeurons, R: Residual, beta: float) -> tuple[ReluNeurons, bool]:
        """Move neurons on kinks to the side with the steepest descent; also say whether any moved."""
        active = neurons.active()
        masks = neurons.masks.copy()
        for j in np.flatnonzero(active.any(axis=1)):
            masks[j] = self._steepest(neurons.U[j], neurons.V[j], masks[j], active[j], R, beta)
        if (masks == neurons.masks).all():
            return neurons, False
        return self._confined(neurons.U, neurons.V, masks), True

    def _steepest(
        self, u: Direction, v: Float[np.ndarray, " q"], mask: Pattern, active: Pattern, R: Residual, beta: float
    ) -> Pattern:
        """Return the pattern with the steepest descent among those on either side of the active kinks of u.

        The present pattern wins ties. Below, `side` says for each of the a active kinks whether its sample is active.
        """
        kinks, weights = self.unit[active], R @ v
        fixed = np.where(mask & ~active, weights, 0.0) @ self.problem.Phi + beta * u  # the gradient without the kinks
        jumps = (weights * np.linalg.norm(self.problem.Phi, axis=1))[active]

        def slope(side: Bool[np.ndarray, " a"]) -> float:
            gradient = fixed + np.where(side, jumps, 0.0) @ kinks
            return float(np.linalg.norm(nearest_point(np.where(side[:, None], kinks, -kinks), -gradient)[0]))

        best_side = mask[active]
        best = slope(best_side) * (1 + 1e-9) + 1e-13 * float(np.linalg.norm(fixed))  # rounding is no reason to move
        for side in self._sides(kinks, -(fixed + np.where(best_side, jumps, 0.0) @ kinks)):
            size = slope(side)
            if size > best:
                best, best_side = size, side
        out = mask.copy()
        out[active] = best_side
        return out

    def _sides(self, kinks: Float[np.ndarray, "a p"], down: Direction) -> Bool[np.ndarray, "s a"]:
        """Return the sides that some directions lie on: the descent, the kinks' normals, and random vectors."""
        drawn = self.rng.standard_normal((4 * min(len(kinks), 8), len(down)))
        return np.unique(np.concatenate([down[None], kinks, -kinks, drawn]) @ kinks.T > 0, axis=0)

    def price(self, R: Residual, beta: float, thorough: bool) -> PricedDirections:
        """Return directions whose norms exceed beta.

        `thorough` takes four times the starts, and the corners.
        """
        # 1. start from random directions, from the rows of Phi, and from the rays on which kinks meet
        Phi = self.problem.Phi
        drawn = self.rng.standard_normal((STARTS * (4 if thorough else 1), self.problem.p))
        U = unit_rows(np.concatenate([drawn, self.unit, -self.unit]))
        if thorough:
            U = np.concatenate([U, *self._corners()])
        # 2. the power iteration u <- Phi^T D(u) R R^T (Phi u)_+ for all of them at once, the best of each kept
        best, maximisers = np.zeros(len(U)), U.copy()
        for _ in range(ROUNDS):
            H = np.maximum(U @ Phi.T, 0.0)
            image = H @ R
            norms = np.linalg.norm(image, axis=1)
            better = norms > best
            best[better], maximisers[better] = norms[better], U[better]
            if not better.any():
                break
            U = unit_rows(((image @ R.T) * (H > 0)) @ Phi)
        # 3. refine the best ones whose pre-activations differ
        order = np.argsort(-best)
        chosen = distinct(np.maximum(maximisers[order] @ Phi.T, 0.0), REFINED * (4 if thorough else 1))
        refined = sorted((self._refined(maximisers[order[j]], R) for j in chosen), key=lambda each: -each[0])
        refined = [each for each in refined if each[0] > beta]
        norms = np.array([each[0] for each in refined])
        directions = np.array([each[1] for each in refined]).reshape(-1, self.problem.p)
        masks = np.array([each[2] for each in refined], dtype=bool).reshape(-1, self.problem.N)
        return PricedDirections(norms, directions, masks, np.full(len(norms), -1))

    def _corners(self) -> list[Float[np.ndarray, "k p"]]:
        """Return rays on which p - 1 kinks meet, in both directions: all of them, or CORNERS drawn at random.

        Maxima often lie on such rays, which no ascent within another cone reaches.
        """
        N, p = self.unit.shape
        if p == 1 or p - 1 > N:
            return []
        if comb(N, p - 1) <= CORNERS:
            chosen = np.array(list(combinations(range(N), p - 1)))
        else:
            chosen = self.rng.integers(N, size=(CORNERS, p - 1))
        # The rows of p - 1 kinks vanish at their null vector, the last right singular vector, with either sign.
        rays = np.linalg.svd(self.unit[chosen])[2][:, -1]
        return [rays, -rays]

    def _refined(self, u: Direction, R: Residual) -> tuple[float, Direction, Pattern]:
        """Maximise the norm within the cone of u, and within neighbouring cones while it grows."""
        mask = self.unit @ u > 0
        best = 0.0
        for _ in range(HOPS):
            g = (self.problem.Phi * mask[:, None]).T @ R
            norm, maximiser = power_iteration(np.where(mask[:, None], self.unit, -self.unit), g, u)
            if norm <= best * (1 + 1e-13):
                break
            best, u = norm, maximiser
            active = np.abs(self.unit @ u) <= ON_FACET
            if not active.any():
                break
            # with v = -(R^T D Phi u) / norm the steepest descent of a neuron (u, v) is the steepest ascent of the norm
            v = -(g.T @ u) / norm
            mask = self._steepest(u, v, mask, active, R, norm)
        h = self.unit @ u
        if best == 0:
            return best, u, h > ON_FACET
        return best, u, np.where(np.abs(h) <= ON_FACET, mask, h > 0)
