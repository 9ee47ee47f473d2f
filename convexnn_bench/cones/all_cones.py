"""The cones of the ReLU program, one a pattern: K_k u >= 0 with K_k = (2 D_k - I) Phi, for scalar outputs.

Dual norms of a block (Sahiner et al., ICLR 2024, eq. 23, with q = 1): max {|g^T u| : K_k u >= 0, ||u|| <= 1}
= max(||Pi(g)||, ||Pi(-g)||) with Pi the projection onto the cone. Upper bounds come from multipliers lam >=
0, as ||g + K^T lam|| plus an allowance for rounding; lower bounds from points of the cone.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.cones.facets import HULL_DIMENSIONS, interior_direction, reduce_rows
from convexnn_bench.cones.plane import PlaneCones
from convexnn_bench.cones.projection import EPS, nearest_point, norm_above, split_difference, unit_rows
from convexnn_bench.errors import InputError

__all__ = ["Cones", "reduce_rows"]

CHUNK = 1_000_000
FACETS_PAY_AFTER = {True: 16, False: 200}


class Facets:
    """facets[k]: unit rows (F_k, p) that describe cone k without redundancy, found when first asked for."""

    def __init__(self, cones: "Cones"):
        self._cones = cones
        self._known: dict[int, Float[np.ndarray, "F p"]] = {}

    def __len__(self) -> int:
        return self._cones.P

    def __contains__(self, k: object) -> bool:
        return k in self._known

    def __getitem__(self, k: int | np.integer) -> Float[np.ndarray, "F p"]:
        if not -len(self) <= k < len(self):
            raise IndexError(f"block {k} of {len(self)}")
        k = int(k) % len(self)
        plane = self._cones.plane
        if plane is not None and not plane.flat[k]:
            return plane.rows_of(k)
        if k not in self._known:
            rows = self._cones.signed_rows(k)
            self._known[k] = rows[reduce_rows(rows, self._cones.interior(k))]
        return self._known[k]

    def __iter__(self) -> Iterator[Float[np.ndarray, "F p"]]:
        return (self[k] for k in range(len(self)))


class Cones:
    """All cones of a scalar-output ReLU problem.

    Phi N x p, masks N x P (bool), gates p x P with masks = 1{Phi gates >= 0} strictly inside, or None. Points
    are arrays with the block first: U (P, p, m), G and Z (P, p). Raises InputError for other shapes and NaN.
    """

    def __init__(
        self,
        Phi: Float[np.ndarray, "N p"],
        masks: Bool[np.ndarray, "rows P"],
        gates: Float[np.ndarray, "p P"] | None = None,
    ):
        if Phi.shape[0] != masks.shape[0]:
            raise InputError(f"masks has {masks.shape[0]} rows, Phi has {Phi.shape[0]}; they must agree")
        self.Phi, self.masks, self.gates = np.asarray(Phi, dtype=np.float64), masks, gates
        self.P, self.p = masks.shape[1], Phi.shape[1]
        nonzero = np.any(self.Phi != 0, axis=1)
        self.rows = unit_rows(self.Phi[nonzero])
        self.signs = masks[nonzero]
        self.facets = Facets(self)
        self._interior: dict[int, Float[np.ndarray, "p"] | None] = {}
        self._uses = np.zeros(self.P, dtype=int)
        self._plane: PlaneCones | None = None

    def signed_rows(self, k: int) -> Float[np.ndarray, "n p"]:
        """Unit rows of K_k, zero rows left out."""
        return np.where(self.signs[:, k, None], self.rows, -self.rows)

    def interior(self, k: int) -> Float[np.ndarray, "p"] | None:
        """A unit direction strictly inside cone k: its gate, or else one looked for; None without
        interior."""
        if k not in self._interior:
            rows = self.signed_rows(k)
            direction = None
            if self.gates is not None:
                direction = self.gates[:, k] / np.linalg.norm(self.gates[:, k])
            if direction is None or np.min(rows @ direction, initial=1.0) <= 0.0:
                direction = interior_direction(rows)
            self._interior[k] = direction
        return self._interior[k]

    @property
    def plane(self) -> PlaneCones | None:
        """The closed form for p = 2, else None."""
        if self.p == 2 and self._plane is None:
            gates = self.gates
            if gates is None:
                found = (self.interior(k) for k in range(self.P))
                gates = np.stack([np.zeros(2) if g is None else g for g in found], axis=1)
            self._plane = PlaneCones(self.rows, self.signs, gates)
        return self._plane

    def _one_by_one(self) -> list[int]:
        """Blocks that the closed form does not cover."""
        return list(range(self.P)) if self.plane is None else np.flatnonzero(self.plane.flat).tolist()

    def _rows_for_projection(self, k: int) -> Float[np.ndarray, "n p"]:
        """All rows, of which few are looked at, until block k was asked for so often that its facets pay."""
        self._uses[k] += 1
        if k in self.facets or self._uses[k] > FACETS_PAY_AFTER[self.p <= HULL_DIMENSIONS]:
            return self.facets[k]
        return self.signed_rows(k)

    def project(self, U: Float[np.ndarray, "P p m"]) -> Float[np.ndarray, "P p m"]:
        """Nearest point of each block's cone to every column: K_k u >= -1e-13 ||u|| for unit rows."""
        U = self._checked(U, 3)
        out = np.zeros_like(U) if self.plane is None else self.plane.project(U)
        for k in self._one_by_one():
            for j in np.flatnonzero(np.any(U[k] != 0, axis=0)):
                out[k, :, j] = nearest_point(self._rows_for_projection(k), U[k, :, j])[0]
        return out

    def dual_norm(self, G: Float[np.ndarray, "P p"]) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
        """(upper, lower) bounds on max {|g_k^T u| : K_k u >= 0, ||u|| <= 1}, each (P,); upper is rigorous."""
        G = self._checked(G, 2)
        upper, lower = np.zeros(self.P), np.zeros(self.P)
        if self.plane is not None:
            sides = [self.plane.bounds(G), self.plane.bounds(-G)]
            upper, lower = np.maximum(sides[0][0], sides[1][0]), np.maximum(sides[0][1], sides[1][1])
        for k in self._one_by_one():
            upper[k], lower[k] = self._dual_norm_of(k, G[k])
        return upper, lower

    def max_dual_norm(self, G: Float[np.ndarray, "P p"]) -> tuple[float, int]:
        """A rigorous upper bound on the largest dual norm over all blocks, and the block it comes from.

        Blocks are refined in descending order of a cheap bound, until no other can exceed the largest found.
        """
        G = self._checked(G, 2)
        if self.plane is not None:
            upper, _ = self.dual_norm(G)
            return float(np.max(upper)), int(np.argmax(upper))
        cheap = self._single_row_bounds(G)
        best, where = -1.0, 0
        for k in np.argsort(-cheap, kind="stable"):
            if cheap[k] <= best:
                break
            value = min(self._dual_norm_of(int(k), G[k])[0], float(cheap[k]))
            if value > best:
                best, where = value, int(k)
        return best, where

    def _dual_norm_of(self, k: int, g: Float[np.ndarray, "p"]) -> tuple[float, float]:
        rows = self._rows_for_projection(k)
        upper = lower = 0.0
        length = float(np.linalg.norm(g))
        for side in (g, -g) if length > 0 else ():
            point, lam = nearest_point(rows, side)
            rest = np.linalg.norm(side + lam @ rows)
            bound = norm_above(rest, length + lam.sum(), self.p + int(np.sum(lam > 0)))
            upper = max(upper, min(float(bound), length * (1 + (self.p + 8) * EPS)))
            size = float(np.linalg.norm(point))
            lower = max(lower, float(side @ point) / size if size > 0 else 0.0)
        return upper, min(lower, upper)

    def _single_row_bounds(self, G: Float[np.ndarray, "P p"]) -> Float[np.ndarray, "P"]:
        """||g + lam K_i|| with the one row i and lam >= 0 that help most, the larger of both signs of g."""
        squares = np.sum(G * G, axis=1)
        worst = np.zeros(self.P)
        step = max(1, CHUNK // max(1, self.rows.shape[0]))
        for start in range(0, self.P, step):
            part = slice(start, start + step)
            values = self.rows @ G[part].T
            values = np.where(self.signs[:, part], values, -values)
            cut = np.minimum(np.max(-values, axis=0, initial=0.0), np.max(values, axis=0, initial=0.0))
            slack = 8 * (self.p + 8) * EPS * squares[part]
            worst[part] = np.sqrt(np.maximum(squares[part] - cut**2, 0.0) + slack)
        return np.minimum(worst, np.sqrt(squares)) * (1 + (self.p + 8) * EPS)

    def violation(self, U: Float[np.ndarray, "P p m"]) -> float:
        """Largest violation of a row of K_k u >= 0, relative to that row's largest |phi_i^T u| over all blocks.

        Violations below the rounding of a projection, 1e-12 ||phi_i|| max ||u||, count as none.
        """
        U = self._checked(U, 3)
        largest, worst = np.zeros(len(self.Phi)), np.zeros(len(self.Phi))
        step = max(1, CHUNK // (self.Phi.shape[0] * max(1, U.shape[2])))
        for start in range(0, self.P, step):
            part = slice(start, min(self.P, start + step))
            for j in range(U.shape[2]):
                values = self.Phi @ U[part, :, j].T
                largest = np.maximum(largest, np.abs(values).max(axis=1, initial=0.0))
                signed = np.where(self.masks[:, part], values, -values)
                worst = np.maximum(worst, -signed.min(axis=1, initial=0.0))
        length = float(np.linalg.norm(U, axis=1).max(initial=0.0))
        over = worst - 1e-12 * np.linalg.norm(self.Phi, axis=1) * length
        return float(np.max(over[over > 0] / largest[over > 0], initial=0.0))

    def decompose(self, Z: Float[np.ndarray, "P p"]) -> Float[np.ndarray, "P p 2"]:
        """Z_k = plus - minus with both in cone k and ||plus|| + ||minus|| least: the gauge of the block.

        Raises InputError where no such pair exists, which needs a cone without interior.
        """
        Z = self._checked(Z, 2)
        out = np.zeros((self.P, self.p, 2)) if self.plane is None else self.plane.split(Z)
        for k in self._one_by_one():
            if not np.any(Z[k]):
                continue
            pair = split_difference(self._rows_for_projection(k), Z[k], self.interior(k))
            if pair is None:
                raise InputError(
                    f"block {k} is not a difference of two points of its cone; the cone has no interior "
                    "(its mask is not attained by any direction)"
                )
            out[k] = np.stack(pair, axis=1)
        return out

    def _checked(self, array: np.ndarray, ndim: int) -> np.ndarray:
        array = np.asarray(array, dtype=np.float64)
        if array.ndim != ndim or array.shape[:2] != (self.P, self.p):
            expected = f"({self.P}, {self.p}{', m' if ndim == 3 else ''})"
            raise InputError(f"expected an array of shape {expected} for the cones, got {array.shape}")
        if not np.isfinite(array).all():
            raise InputError("a point for the cones holds NaN or infinite values")
        return array
