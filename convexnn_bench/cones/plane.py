"""Cones {u : K u >= 0} in the plane, all at once and in closed form.

They have two facets and two rays.
"""

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.cones.projection import EPS

CHUNK_ELEMENTS = 1_000_000  # products of rows and gates at a time, 8 MB


class PlaneCones:
    """Cones between two rays in the plane.

    Parameters
    ----------
    rows : array, n x 2
        Unit rows.
    signs : bool array, n x P
        Which rows are active.
    gates : array, 2 x P
        Directions inside the cones; a zero column for a cone without interior.

    Attributes
    ----------
    f1, f2, r1, r2 : arrays, P x 2
        Unit facet rows and rays of every cone; facet 1 vanishes on ray 1, facet 2 on ray 2.
    half : bool array, P
        Half planes, with f1 = f2.
    flat : bool array, P
        Cones without interior or without rows, which this description does not cover.
    """

    def __init__(self, rows: Float[np.ndarray, "n 2"], signs: Bool[np.ndarray, "n P"], gates: Float[np.ndarray, "2 P"]):
        n, P = signs.shape
        self.f1, self.f2 = np.zeros((P, 2)), np.zeros((P, 2))
        self.flat = np.ones(P, dtype=bool)
        step = max(1, CHUNK_ELEMENTS // max(1, n))
        for start in range(0, P if n else 0, step):
            part = slice(start, min(P, start + step))
            self._fill(part, rows, signs[:, part], gates[:, part])
        # f1 r1 = 0 because r1 is f1 turned by a quarter, with the sign for which f2 r1 >= 0; likewise r2. Parallel
        # facets are one, that of a half plane, and the two directions of its boundary are the rays.
        turn1 = np.stack([-self.f1[:, 1], self.f1[:, 0]], axis=1)
        turn2 = np.stack([-self.f2[:, 1], self.f2[:, 0]], axis=1)
        cross = np.sum(self.f2 * turn1, axis=1)
        self.half = half = np.abs(cross) <= 4 * EPS
        self.r1 = turn1 * np.where(cross >= 0, 1.0, -1.0)[:, None]
        self.r2 = np.where(half[:, None], -self.r1, turn2 * np.where(cross >= 0, -1.0, 1.0)[:, None])
        self.f2 = np.where(half[:, None], self.f1, self.f2)

    def _fill(
        self,
        part: slice,
        rows: Float[np.ndarray, "n 2"],
        signs: Bool[np.ndarray, "n k"],
        gates: Float[np.ndarray, "2 k"],
    ) -> None:
        """Set the facets of some blocks: the rows furthest to either side of the gate."""
        along, across = rows @ gates, rows @ np.stack([-gates[1], gates[0]])
        self.flat[part] = ~np.all(((along > 0) == signs) & (along != 0), axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # The tangent of the angle from the gate to a row, which is the same for the row and its negative.
            slope = across / along
        columns = np.arange(gates.shape[1])
        for facet, pick in ((self.f1, np.argmin(slope, axis=0)), (self.f2, np.argmax(slope, axis=0))):
            facet[part] = rows[pick] * np.where(signs[pick, columns], 1.0, -1.0)[:, None]

    def rows_of(self, k: int) -> Float[np.ndarray, "F 2"]:
        """Return the one or two facet rows of block k."""
        return np.stack([self.f1[k], self.f2[k]])[: 1 if self.half[k] else 2]

    def project(self, U: Float[np.ndarray, "P 2 m"]) -> Float[np.ndarray, "P 2 m"]:
        """Return nearest points: u itself inside, else a point of the nearer ray, or zero."""
        inside = np.minimum(_dots(self.f1, U), _dots(self.f2, U)) >= 0
        # Outside the cone the nearest point lies on a ray. ||u - c r||^2 = ||u||^2 - c^2 at c = (r^T u)_+, so that the
        # ray with the larger c is the nearer.
        c1, c2 = np.maximum(_dots(self.r1, U), 0.0), np.maximum(_dots(self.r2, U), 0.0)
        first = (c1 >= c2)[:, None, :]
        on_ray = np.where(first, self.r1[:, :, None] * c1[:, None, :], self.r2[:, :, None] * c2[:, None, :])
        return np.where(inside[:, None, :], U, on_ray)

    def split(self, Z: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P 2 2"]:
        """Return Z = plus - minus of least ||plus|| + ||minus||.

        Outside the cone and its negative the unit ball of the gauge ends in the chord from one ray to the negative of
        the other, so that plus and minus are multiples of the two rays.
        """
        a, b = np.sum(self.f1 * Z, axis=1), np.sum(self.f2 * Z, axis=1)
        # Z = x r1 - y r2: facet 1 vanishes on r1, facet 2 on r2
        x = b / _off_zero(np.sum(self.f2 * self.r1, axis=1))
        y = -a / _off_zero(np.sum(self.f1 * self.r2, axis=1))
        plus = np.where((x >= 0)[:, None], self.r1 * x[:, None], self.r2 * -y[:, None])
        mixed = np.stack([plus, plus - Z], axis=2)
        inside, opposite = np.minimum(a, b) >= 0, np.maximum(a, b) <= 0
        nothing = np.zeros_like(Z)
        out = np.where(inside[:, None, None], np.stack([Z, nothing], axis=2), mixed)
        return np.where((opposite & ~inside)[:, None, None], np.stack([nothing, -Z], axis=2), out)


def _dots(rows: Float[np.ndarray, "P 2"], U: Float[np.ndarray, "P 2 m"]) -> Float[np.ndarray, "P m"]:
    return rows[:, 0, None] * U[:, 0] + rows[:, 1, None] * U[:, 1]


def _off_zero(x: Float[np.ndarray, "P"]) -> Float[np.ndarray, "P"]:
    return np.where(x != 0, x, 1.0)
