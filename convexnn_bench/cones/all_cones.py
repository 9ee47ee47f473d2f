"""The cones of the ReLU program: K_k u >= 0 with K_k = (2 D_k - I) Phi.

Projections onto them, how far points violate them, and the decomposition of a vector into a difference of two points
(the gauge of a scalar-output block). The dual norms over them are in `norms`.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from convexnn_bench.cones.facets import HULL_DIMENSIONS, interior_direction, reduce_rows
from convexnn_bench.cones.plane import PlaneCones
from convexnn_bench.cones.projection import EPS, FEASIBLE, nearest_point, split_difference, unit_rows
from convexnn_bench.deadline import time_is_up
from convexnn_bench.errors import InputError

CHUNK_ELEMENTS = 1_000_000  # products of rows and points at a time, 8 MB
# Calls of `projection_rows` for a block after which its facets are computed. They are cheap up to HULL_DIMENSIONS,
# where a convex hull gives them, and take a least-squares problem a row beyond.
FACETS_PAY_AFTER, FACETS_PAY_AFTER_BEYOND = 16, 200
VIOLATION_ROUNDING = 1e-12  # relative to ||phi_i|| max ||u||, the accuracy of a projection


class Facets:
    """facets[k]: unit rows (F_k, p) that describe cone k without redundancy, computed on first use."""

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
    """All cones of a ReLU problem.

    Parameters
    ----------
    Phi : array, N x p
        The rows of the first layer.
    masks : bool array, N x P
        One column for each cone.
    gates : array, p x P, optional
        Directions strictly inside the cones, masks = 1{Phi gates >= 0}.

    Attributes
    ----------
    rows : array, n x p
        The nonzero rows of Phi, scaled to length one.
    signs : bool array, n x P
        The masks of these rows.
    facets : Facets
        The rows of each cone without redundancy.

    Raises
    ------
    InputError
        For arrays of other shapes, and for points that hold NaN or infinite values.

    Notes
    -----
    Points are arrays with the block first: U (P x p x m), G and Z (P x p).
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
        # A zero row demands 0 >= 0 of every u and is no constraint.
        nonzero = np.any(self.Phi != 0, axis=1)
        self.rows = unit_rows(self.Phi[nonzero])
        self.signs = masks[nonzero]
        self.facets = Facets(self)
        self._interior: dict[int, Float[np.ndarray, "p"] | None] = {}
        self._calls = np.zeros(self.P, dtype=int)
        self._plane: PlaneCones | None = None

    def without(self, rows: Bool[np.ndarray, " N"]) -> "Cones":
        """Return the larger cones that rows of Phi do not constrain."""
        return Cones(self.Phi[~rows], self.masks[~rows], self.gates)

    # -- descriptions of a cone ---------------------------------------------------------------------------

    def signed_rows(self, k: int) -> Float[np.ndarray, "n p"]:
        """Return the unit rows of K_k, without zero rows."""
        return np.where(self.signs[:, k, None], self.rows, -self.rows)

    def projection_rows(self, k: int) -> Float[np.ndarray, "n p"]:
        """Return all rows of block k; after FACETS_PAY_AFTER calls for block k, return its facets instead.

        A projection reads few of the rows, so that computing the facets pays only if many projections follow.
        """
        self._calls[k] += 1
        enough = FACETS_PAY_AFTER if self.p <= HULL_DIMENSIONS else FACETS_PAY_AFTER_BEYOND
        if k in self.facets or self._calls[k] > enough:
            return self.facets[k]
        return self.signed_rows(k)

    def interior(self, k: int) -> Float[np.ndarray, "p"] | None:
        """Return a unit direction strictly inside cone k, its gate if that is one.

        Return None if there is no interior.
        """
        if k not in self._interior:
            rows = self.signed_rows(k)
            direction = None
            if self.gates is not None:
                direction = self.gates[:, k] / np.linalg.norm(self.gates[:, k])
            # A gate may have been rounded onto a boundary. A linear program then decides whether any direction lies
            # inside.
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
                directions = (self.interior(k) for k in range(self.P))
                gates = np.stack([np.zeros(2) if g is None else g for g in directions], axis=1)
            self._plane = PlaneCones(self.rows, self.signs, gates)
        return self._plane

    def general_blocks(self) -> list[int]:
        """Return the blocks that the closed form of the plane does not cover."""
        return list(range(self.P)) if self.plane is None else np.flatnonzero(self.plane.flat).tolist()

    # -- points and cones ---------------------------------------------------------------------------------

    def project(self, U: Float[np.ndarray, "P p m"]) -> Float[np.ndarray, "P p m"]:
        """Return the nearest point of each block's cone to every column.

        It satisfies K_k u >= -1e-13 ||u|| for unit rows.
        """
        return self._projected(self.checked(U, 3), 4 * EPS, lambda: False)

    def project_in_time(self, U: Float[np.ndarray, "P p m"]) -> Float[np.ndarray, "P p m"]:
        """Return a point of each block's cone for every column.

        It is the nearest one as long as the deadline allows.

        Columns in their cones stay as they are, and the others are projected, the longest first. Those that are left at
        the deadline move along the gate of their cone until all rows hold, or become a multiple of the gate where that
        is nearer, and zero where the gate does not lie inside. They are feasible and not the nearest points, so that no
        bound may rest on them.
        """
        return self._projected(self.checked(U, 3), FEASIBLE, time_is_up)

    def _projected(
        self, U: Float[np.ndarray, "P p m"], tolerance: float, ended: Callable[[], bool]
    ) -> Float[np.ndarray, "P p m"]:
        """Return the projections, after `ended` any feasible points.

        tolerance: relative violation that is none.
        """
        general = self.general_blocks()
        out = U.copy() if self.plane is None else self.plane.project(U)
        out[general] = U[general]
        # 1. Most columns of most points lie in their cones, which one product for all of them shows.
        outside = ~self.inside(U, tolerance)
        block, column = np.nonzero(outside & np.isin(np.arange(self.P), general)[:, None])
        # 2. Project the others one by one, in an order in which the largest gain from the time that there is.
        longest = np.argsort(-np.linalg.norm(U[block, :, column], axis=1), kind="stable")
        block, column = block[longest], column[longest]
        for done, (k, j) in enumerate(zip(block.tolist(), column.tolist(), strict=True)):
            if ended():
                # 3. Any feasible points of the rest.
                block, column = block[done:], column[done:]
                out[block, :, column] = self._moved_inside(U[block, :, column], block)
                break
            out[k, :, j] = nearest_point(self.projection_rows(k), U[k, :, j])[0]
        return out

    def inside(self, U: Float[np.ndarray, "P p m"], tolerance: float) -> Bool[np.ndarray, "P m"]:
        """Return which columns lie in their cones, K_k u >= -tolerance ||u||."""
        m = U.shape[2]
        found = np.ones((self.P, m), dtype=bool)
        lengths = np.linalg.norm(U, axis=1)
        step = max(1, CHUNK_ELEMENTS // max(1, len(self.rows) * m))
        for start in range(0, self.P, step):
            part = slice(start, min(self.P, start + step))
            points = U[part].transpose(1, 0, 2).reshape(self.p, -1)
            values = (self.rows @ points).reshape(len(self.rows), -1, m) if len(self.rows) else np.zeros((0, 1, m))
            signed = np.where(self.signs[:, part, None], values, -values)
            found[part] = signed.min(axis=0, initial=np.inf) >= -tolerance * lengths[part]
        return found

    def _moved_inside(self, u: Float[np.ndarray, "J p"], block: Int[np.ndarray, " J"]) -> Float[np.ndarray, "J p"]:
        """Return the nearer of two points of the cone.

        They are u + t g with the least feasible t, and (g^T u)_+ g, for g the unit gate of the block.
        """
        out = np.zeros_like(u)
        if self.gates is None:
            return out
        step = max(1, CHUNK_ELEMENTS // max(1, len(self.rows)))
        for start in range(0, len(u), step):
            part = slice(start, start + step)
            signs = np.where(self.signs[:, block[part]], 1.0, -1.0)  # n x J
            g = unit_rows(self.gates[:, block[part]].T)
            depth, values = signs * (self.rows @ g.T), signs * (self.rows @ u[part].T)
            # A gate that was rounded onto a boundary, or beyond it, is no direction inside.
            usable = depth.min(axis=0, initial=np.inf) > 0
            lack = np.maximum(-values, 0.0) / np.where(usable, depth, 1.0)
            moved = u[part] + lack.max(axis=0, initial=0.0)[:, None] * g
            least = (signs * (self.rows @ moved.T)).min(axis=0, initial=np.inf)
            feasible = least >= -FEASIBLE * np.linalg.norm(moved, axis=1)
            along = np.maximum(np.sum(g * u[part], axis=1), 0.0)[:, None] * g
            nearer = np.linalg.norm(moved - u[part], axis=1) < np.linalg.norm(along - u[part], axis=1)
            out[part] = np.where(usable[:, None], np.where((feasible & nearer)[:, None], moved, along), 0.0)
        return out

    def violation(self, U: Float[np.ndarray, "P p m"]) -> float:
        """Return the largest violation of a row of K_k u >= 0.

        It is relative to the row's largest |phi_i^T u| of all blocks.

        A violation below the rounding of a projection, 1e-12 ||phi_i|| max ||u||, counts as none.
        """
        U = self.checked(U, 3)
        # All rows of Phi are checked, so that the answer does not rest on the facets being right.
        largest, worst = np.zeros(len(self.Phi)), np.zeros(len(self.Phi))
        step = max(1, CHUNK_ELEMENTS // (self.Phi.shape[0] * max(1, U.shape[2])))
        for start in range(0, self.P, step):
            part = slice(start, min(self.P, start + step))
            for j in range(U.shape[2]):
                values = self.Phi @ U[part, :, j].T
                largest = np.maximum(largest, np.abs(values).max(axis=1, initial=0.0))
                signed = np.where(self.masks[:, part], values, -values)
                worst = np.maximum(worst, -signed.min(axis=1, initial=0.0))
        length = float(np.linalg.norm(U, axis=1).max(initial=0.0))
        over = worst - VIOLATION_ROUNDING * np.linalg.norm(self.Phi, axis=1) * length
        return float(np.max(over[over > 0] / largest[over > 0], initial=0.0))

    def decompose(self, Z: Float[np.ndarray, "P p"]) -> Float[np.ndarray, "P p 2"]:
        """Return Z_k = plus - minus, both in cone k, whose norms add up to the gauge.

        Raises
        ------
        InputError
            If no such pair exists, which needs a cone without interior.
        """
        Z = self.checked(Z, 2)
        out = np.zeros((self.P, self.p, 2)) if self.plane is None else self.plane.split(Z)
        for k in self.general_blocks():
            if not np.any(Z[k]):
                continue
            # With a direction g in the interior a pair always exists: Z_k + t g and t g lie in the cone for large t.
            # All rows, so that the norm of a block does not depend on whether its facets are known by now.
            pair = split_difference(self.signed_rows(k), Z[k], self.interior(k))
            if pair is None:
                raise InputError(
                    f"block {k} is not a difference of two points of its cone; the cone has no interior "
                    "(its mask is not attained by any direction)"
                )
            out[k] = np.stack(pair, axis=1)
        return out

    def checked(self, array: np.ndarray, ndim: int) -> np.ndarray:
        """Return points as float64.

        Raise InputError unless they are finite and P x p (x m).
        """
        array = np.asarray(array, dtype=np.float64)
        if array.ndim != ndim or array.shape[:2] != (self.P, self.p):
            expected = f"({self.P}, {self.p}{', m' if ndim == 3 else ''})"
            raise InputError(f"expected an array of shape {expected} for the cones, got {array.shape}")
        if not np.isfinite(array).all():
            raise InputError("a point for the cones holds NaN or infinite values")
        return array
