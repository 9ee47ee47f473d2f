"""Directions in which a stationary ReLU point still falls: unit vectors u with ||R^T (D Phi u)|| > beta.

At a stationary point, a new neuron (sqrt(t) u, sqrt(t) v) with v = -R^T D Phi u / ||.|| changes f by
t (beta - ||R^T D Phi u||) to first order. Where no u of any cone has a norm above beta the point is global, since
R then gives a dual feasible multiplier (Sahiner et al., ICLR 2024, Theorem 3.4 and eq. 23). A zero neuron is stationary
whatever these norms are: descent methods alone do not leave it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.algorithms.relu.neurons import ON_FACET, Neurons
from convexnn_bench.cones.all_cones import Cones
from convexnn_bench.cones.facets import HULL_DIMENSIONS
from convexnn_bench.cones.nearest_point import nearest_point, unit_rows
from convexnn_bench.problem import Problem

POWER_STEPS = 100
NEIGHBOURS = 16  # cones looked at that hold a neuron on a facet
ALIKE = 0.98  # cosine of pre-activations above which a second direction adds nothing


@dataclass
class Price:
    """Unit directions u (k x p) in cones, best first, with norms ||R^T D Phi u||; masks k x N, blocks k or -1."""

    norms: Float[np.ndarray, " k"]
    directions: Float[np.ndarray, "k p"]
    masks: Bool[np.ndarray, "k N"]
    blocks: np.ndarray


class BlockPrices:
    """Over the blocks of the problem; at most `limit` neurons each, None for as many as it takes."""

    def __init__(self, problem: Problem, limit: int | None):
        assert problem.cones is not None
        self.limit = limit
        self.problem, self.cones = problem, problem.cones
        self.unit = unit_rows(problem.Phi)

    def start(self, U: Float[np.ndarray, "J p"], V: Float[np.ndarray, "J q"], blocks: np.ndarray) -> Neurons:
        """Neurons at u_j moved to the cones of their blocks."""
        masks = np.ascontiguousarray(self.problem.masks[:, blocks].T)
        neurons = Neurons(U, V, masks, padded_rows(self.cones, blocks), blocks)
        return neurons.moved(neurons.project(U), V)

    def placed(self, directions: Float[np.ndarray, "k p"], V: Float[np.ndarray, "k q"], price: "Price") -> Neurons:
        """Neurons with priced directions."""
        return self.start(directions, V, price.blocks)

    def room(self, neurons: Neurons, price: "Price", chosen: list[int]) -> list[int]:
        """Those of the chosen whose blocks have fewer neurons than the limit."""
        if self.limit is None:
            return chosen
        count = np.bincount(neurons.blocks, minlength=self.problem.P)
        return [j for j in chosen if count[price.blocks[j]] < self.limit]

    def crossed(self, neurons: Neurons, R: Float[np.ndarray, "N q"], beta: float) -> tuple[Neurons, bool]:
        """Neurons on facets handed to the block beyond where f falls most there, and whether any was.

        A neuron that lies in two cones is the same function in both, so that f does not change.
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

    def _steepest(
        self, u: Float[np.ndarray, "p"], v: Float[np.ndarray, "q"], block: int, R: Float[np.ndarray, "N q"], beta: float
    ) -> int:
        """Among the blocks whose cones hold u, the one with the steepest descent; `block` unless bettered."""
        h = self.unit @ u / np.linalg.norm(u)
        clear = np.abs(h) > ON_FACET
        near = np.flatnonzero((self.problem.masks[clear] == (h[clear] > 0)[:, None]).all(axis=0))
        weights = R @ v
        best, where = 0.0, block
        for k in [block, *near[near != block][:NEIGHBOURS].tolist()]:
            gradient = self.problem.Phi.T @ (weights * self.problem.masks[:, k]) + beta * u
            rows = rows_of(self.cones, k)
            rows = rows[rows @ u <= ON_FACET * np.linalg.norm(u)]
            size = float(np.linalg.norm(nearest_point(rows, -gradient)[0]))
            if k == block:
                size = size * (1 + 1e-9) + 1e-13 * float(np.linalg.norm(gradient))
            if size > best or k == block:
                best, where = size, k
        return where

    def __call__(self, R: Float[np.ndarray, "N q"], beta: float, thorough: bool) -> Price:
        """Every block whose norm exceeds beta. thorough: more starts, where the norm is not known exactly."""
        gradients = np.einsum("na,nk,nq->kaq", self.problem.Phi, self.problem.masks.astype(float), R, optimize=True)
        hopeful = np.flatnonzero(np.linalg.norm(gradients, axis=(1, 2)) > beta)
        found = [(*self._best(int(k), gradients[k], thorough), int(k)) for k in hopeful]
        found = sorted((each for each in found if each[0] > beta), key=lambda each: -each[0])
        blocks = np.array([each[2] for each in found], dtype=int)
        directions = np.array([each[1] for each in found]).reshape(-1, self.problem.p)
        norms = np.array([each[0] for each in found])
        return Price(norms, directions, np.ascontiguousarray(self.problem.masks[:, blocks].T), blocks)

    def _best(self, k: int, g: Float[np.ndarray, "p q"], thorough: bool) -> tuple[float, Float[np.ndarray, "p"]]:
        """The largest ||g^T u|| found over the unit vectors of cone k, and that u."""
        rows = rows_of(self.cones, k)
        if g.shape[1] == 1:
            ends = [nearest_point(rows, sign * g[:, 0])[0] for sign in (1.0, -1.0)]
        else:
            vectors = np.linalg.svd(g)[0]
            ends = [sign * vectors[:, j] for j in range(len(g) if thorough else 1) for sign in (1.0, -1.0)]
            inside = self.cones.interior(k)
            if inside is not None:
                ends.append(inside)
            if self.cones.plane is not None and not self.cones.plane.flat[k]:
                ends += [self.cones.plane.r1[k], self.cones.plane.r2[k]]
        return max((power_iteration(rows, g, end) for end in ends), key=lambda pair: pair[0])


def power_iteration(
    rows: Float[np.ndarray, "F p"], g: Float[np.ndarray, "p q"], u: Float[np.ndarray, "p"]
) -> tuple[float, Float[np.ndarray, "p"]]:
    """Projected power iteration u <- Pi(g g^T u) from u: the norm never falls."""
    best, where = 0.0, np.zeros(len(u))
    for _ in range(POWER_STEPS):
        length = float(np.linalg.norm(u))
        u = nearest_point(rows, u)[0]
        size = float(np.linalg.norm(u))
        if size <= 1e-12 * length:
            break
        u = u / size
        image = g.T @ u
        now = float(np.linalg.norm(image))
        if now <= best * (1 + 1e-14):
            break
        best, where = now, u
        u = g @ image / now
    return best, where


def rows_of(cones: Cones, k: int) -> Float[np.ndarray, "F p"]:
    """Unit rows of cone k: its facets where they are found quickly, else all of its rows."""
    return cones.facets[k] if cones.p <= HULL_DIMENSIONS else cones.signed_rows(k)


def padded_rows(cones: Cones, blocks: np.ndarray) -> Float[np.ndarray, "J F p"]:
    """The rows of some blocks' cones, zero rows appended."""
    rows = [rows_of(cones, int(k)) for k in blocks]
    out = np.zeros((len(rows), max([1, *map(len, rows)]), cones.p))
    for j, part in enumerate(rows):
        out[j, : len(part)] = part
    return out


def distinct(H: Float[np.ndarray, "k N"], limit: int) -> list[int]:
    """Indices, in order, of rows that are not nearly parallel to one taken before."""
    unit = unit_rows(H)
    taken: list[int] = []
    for j in range(len(unit)):
        if not taken or np.max(unit[taken] @ unit[j]) < ALIKE:
            taken.append(j)
        if len(taken) == limit:
            break
    return taken
