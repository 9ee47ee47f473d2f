"""Pricing over enumerated patterns.

It finds directions along which a stationary ReLU point can still improve.

At a stationary point with R = C^*(grad F), a new neuron (sqrt(t) u, sqrt(t) v) with ||u|| = 1 and v = -R^T D Phi u /
||.|| changes the objective by t (beta - ||R^T D Phi u||) to first order. A direction therefore improves the point if
its norm ||R^T D Phi u|| exceeds beta. If no u of any cone does, R is a feasible multiplier of the dual and the point is
a global optimum (Sahiner et al., ICLR 2024, Theorem 3.4 and eq. 23). A neuron that is zero has a zero gradient whatever
these norms are, so that descent methods alone never find such directions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from convexnn_bench.algorithms.relu.neurons import ON_FACET, Lefts, ReluNeurons, Residual, Rights
from convexnn_bench.cones import HULL_DIMENSIONS, Cones, nearest_point, unit_rows
from convexnn_bench.problem import Problem

# the three were chosen by trial (commit 384fbfb)
POWER_STEPS = 100  # of a projected power iteration; most end earlier because the norm no longer grows
NEIGHBOURS = 16  # further cones that are compared for a neuron that lies on a facet
ALIKE = 0.98  # cosine of two directions' pre-activations from which only the better one is added

Direction = Float[np.ndarray, " p"]


@dataclass
class PricedDirections:
    """Unit directions in cones, the largest norm first.

    norms: k values of ||R^T D Phi u||. directions: k x p. masks: k x N. blocks: k indices, or -1 without blocks.
    """

    norms: Float[np.ndarray, " k"]
    directions: Float[np.ndarray, "k p"]
    masks: Bool[np.ndarray, "k N"]
    blocks: Int[np.ndarray, " k"]

    def take(self, chosen: list[int]) -> "PricedDirections":
        return PricedDirections(self.norms[chosen], self.directions[chosen], self.masks[chosen], self.blocks[chosen])


class BlockPricing:
    """Prices the cones of the problem's own blocks.

    limit: neurons a block may have, None for no limit.
    """

    def __init__(self, problem: Problem, limit: int | None):
        assert problem.cones is not None
        self.limit = limit
        self.problem, self.cones = problem, problem.cones
        self.unit = unit_rows(problem.Phi)

    def start(self, U: Lefts, V: Rights, blocks: Int[np.ndarray, " J"]) -> ReluNeurons:
        """Return neurons with every u_j projected onto the cone of its block."""
        masks = np.ascontiguousarray(self.problem.masks[:, blocks].T)
        neurons = ReluNeurons(U, V, masks, padded_rows(self.cones, blocks), blocks)
        return neurons.moved(neurons.project(U), V)

    def neurons_at(self, priced: PricedDirections, V: Float[np.ndarray, "k q"]) -> ReluNeurons:
        """Return neurons with the priced directions as u."""
        return self.start(priced.directions, V, priced.blocks)

    def within_limit(self, neurons: ReluNeurons, priced: PricedDirections, chosen: list[int]) -> list[int]:
        """Return those of the chosen directions whose blocks have fewer neurons than the limit."""
        if self.limit is None:
            return chosen
        count = np.bincount(neurons.blocks, minlength=self.problem.P)
        return [j for j in chosen if count[priced.blocks[j]] < self.limit]

    def crossed(self, neurons: ReluNeurons, R: Residual, beta: float) -> tuple[ReluNeurons, bool]:
        """Move neurons on facets to the neighbouring block with the steepest descent.

        Return also whether any neuron moved.

        A neuron that lies in two cones is the same function in both, so that the objective does not change.
        """
        blocks = neurons.blocks.copy()
        count = np.bincount(blocks, minlength=self.problem.P)
        for j in np.flatnonzero(neurons.active().any(axis=1)):
            best = self._steepest(neurons.U[j], neurons.V[j], int(blocks[j]), R, beta)
            if best != blocks[j] and (self.limit is None or count[best] < self.limit):
                count[best], count[blocks[j]] = count[best] + 1, count[blocks[j]] - 1
                blocks[j] = best
        if (blocks == neurons.blocks).all():
            return neurons, False
        return self.start(neurons.U, neurons.V, blocks), True

    def _steepest(self, u: Direction, v: Float[np.ndarray, " q"], block: int, R: Residual, beta: float) -> int:
        """Return the block with the steepest descent among those whose cones contain u; ties go to `block`."""
        h = self.unit @ u / np.linalg.norm(u)
        # A cone contains u if its mask agrees with u in all rows that are clear of zero.
        clear = np.abs(h) > ON_FACET
        near = np.flatnonzero((self.problem.masks[clear] == (h[clear] > 0)[:, None]).all(axis=0))
        weights = R @ v
        best, steepest = 0.0, block
        for k in [block, *near[near != block][:NEIGHBOURS].tolist()]:
            # The gradient of f in u if the neuron belongs to block k. Its projection onto the cone's feasible
            # directions at u has the slope of the steepest descent as its length.
            gradient = self.problem.Phi.T @ (weights * self.problem.masks[:, k]) + beta * u
            rows = unit_cone_rows(self.cones, k)
            rows = rows[rows @ u <= ON_FACET * np.linalg.norm(u)]
            slope = float(np.linalg.norm(nearest_point(rows, -gradient)[0]))
            if k == block:
                slope = slope * (1 + 1e-9) + 1e-13 * float(np.linalg.norm(gradient))  # rounding is no reason to move
            if slope > best or k == block:
                best, steepest = slope, k
        return steepest

    def price(self, R: Residual, beta: float, thorough: bool) -> PricedDirections:
        """Return the best direction of every block whose norm exceeds beta.

        For several outputs the norm is a maximum over many local ones; `thorough` starts its search from more points.
        """
        # 1. ||g_k|| with g_k = Phi^T D_k R bounds the norm of block k: skip the blocks whose bound is at most beta
        gradients = np.einsum("na,nk,nq->kaq", self.problem.Phi, self.problem.masks.astype(float), R, optimize=True)
        hopeful = np.flatnonzero(np.linalg.norm(gradients, axis=(1, 2)) > beta)
        # 2. maximise ||g_k^T u|| over the unit vectors of the cones of the others
        priced = [(*self._best(int(k), gradients[k], thorough), int(k)) for k in hopeful]
        priced = sorted((each for each in priced if each[0] > beta), key=lambda each: -each[0])
        blocks = np.array([each[2] for each in priced], dtype=int)
        directions = np.array([each[1] for each in priced]).reshape(-1, self.problem.p)
        norms = np.array([each[0] for each in priced])
        return PricedDirections(norms, directions, np.ascontiguousarray(self.problem.masks[:, blocks].T), blocks)

    def _best(self, k: int, g: Float[np.ndarray, "p q"], thorough: bool) -> tuple[float, Direction]:
        """Return the largest ||g^T u|| found over the unit vectors u of cone k, and that u."""
        rows = unit_cone_rows(self.cones, k)
        if g.shape[1] == 1:  # |g^T u| is largest at the projection of g or of -g
            ends = [nearest_point(rows, sign * g[:, 0])[0] for sign in (1.0, -1.0)]
        else:
            # The unconstrained maximiser of ||g^T u|| is the top left singular vector. Within a cone other local maxima
            # may be larger, which the further starts look for.
            vectors = np.linalg.svd(g)[0]
            ends = [sign * vectors[:, j] for j in range(len(g) if thorough else 1) for sign in (1.0, -1.0)]
            inside = self.cones.interior(k)
            if inside is not None:
                ends.append(inside)
            if self.cones.plane is not None and not self.cones.plane.flat[k]:
                ends += [self.cones.plane.r1[k], self.cones.plane.r2[k]]
        return max((power_iteration(rows, g, end) for end in ends), key=lambda pair: pair[0])


def power_iteration(
    rows: Float[np.ndarray, "F p"], g: Float[np.ndarray, "p q"], u: Direction
) -> tuple[float, Direction]:
    """Iterate u <- Pi(g g^T u) from u, where Pi projects onto the cone; the norm ||g^T u|| never falls."""
    best, maximiser = 0.0, np.zeros(len(u))
    for _ in range(POWER_STEPS):
        length = float(np.linalg.norm(u))
        u = nearest_point(rows, u)[0]
        size = float(np.linalg.norm(u))
        if size <= 1e-12 * length:
            break
        u = u / size
        image = g.T @ u
        norm = float(np.linalg.norm(image))
        if norm <= best * (1 + 1e-14):
            break
        best, maximiser = norm, u
        u = g @ image / norm
    return best, maximiser


def unit_cone_rows(cones: Cones, k: int) -> Float[np.ndarray, "F p"]:
    """Return unit rows of cone k.

    They are its facets in dimensions where these are quick to compute, else all of its rows.
    """
    return cones.facets[k] if cones.p <= HULL_DIMENSIONS else cones.signed_rows(k)


def padded_rows(cones: Cones, blocks: Int[np.ndarray, " J"]) -> Float[np.ndarray, "J F p"]:
    """Return the unit rows of some blocks' cones, padded with zero rows to the same number."""
    rows = [unit_cone_rows(cones, int(k)) for k in blocks]
    out = np.zeros((len(rows), max([1, *map(len, rows)]), cones.p))
    for j, part in enumerate(rows):
        out[j, : len(part)] = part
    return out


def distinct(H: Float[np.ndarray, "k N"], limit: int) -> list[int]:
    """Return at most `limit` indices of rows, in order.

    No chosen row is nearly parallel to an earlier one.
    """
    unit = unit_rows(H)
    chosen: list[int] = []
    for j in range(len(unit)):
        if not chosen or np.max(unit[chosen] @ unit[j]) < ALIKE:
            chosen.append(j)
        if len(chosen) == limit:
            break
    return chosen
