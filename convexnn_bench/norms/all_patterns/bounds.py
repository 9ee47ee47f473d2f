"""Rigorous bounds on max ||R^T (Phi u)_+|| over ||u|| <= 1.

They hold for every activation pattern at once. Below, h is this maximum.

This is the dual norm of the original ReLU network: a multiplier Lambda with h <= beta for R = C^*(Lambda) bounds the
training objective of a network of any width (Sahiner et al., ICLR 2024, eq. 23, maximised over all patterns).

Few patterns are enumerated. Otherwise h is bounded through single outputs: for a unit vector v an affine decision rule
(decision_rule.py) bounds h(v) = max v^T R^T (Phi u)_+, for v and -v. With an orthonormal basis v_1..v_q, h^2 is at
most sum_c max(h(v_c), h(-v_c))^2, which is sharpened pair by pair (outputs.py).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float

from convexnn_bench.cones import EPS, Cones
from convexnn_bench.deadline import cut_short, seconds_left, time_is_up, working_on
from convexnn_bench.norms.all_patterns.ascent import ascend, attained
from convexnn_bench.norms.all_patterns.moving_rules import MovingBound
from convexnn_bench.norms.all_patterns.outputs import directions, support_function, vector_bound
from convexnn_bench.norms.block_norms import max_dual_norm
from convexnn_bench.norms.spectral import UNBOUNDED, MaxDualNorm
from convexnn_bench.patterns import EnumerationCost, enumerate_patterns, enumeration_cost

ENUMERATION_SECONDS = 1.0  # expected cost up to which patterns are enumerated
ENUMERATION_BYTES = 2**28  # of masks, gates and the G_k of all patterns
# Parts of the time until a deadline that an enumeration, which is not interrupted, and all of the work may take. The
# search over cells ends at the deadline, with a bound that holds and may be weak.
ENUMERATION_SHARE, DEADLINE_SHARE = 0.25, 0.7
# Seconds to bound the norm of a cell, on average.
CELL_SECONDS = {"plane": 1e-6, "one output": 2e-5, "several outputs": 2e-4}
OUTSIDE = 1e-13  # part of a row outside a subspace below which that counts as the row space


class CompleteNorm:
    """Bounds on max ||R^T (Phi u)_+|| over the unit ball, for one Phi (N x p) and any number of R (N x q).

    Rows phi_i of Phi are scaled to entries of about one and R_i inversely, which does not change (phi_i^T u)_+ R_i.
    Equal rows are merged. The scales are powers of two, so that neither is rounded. Only the part of u in the row space
    matters, so that `rows` are in coordinates of that where it has fewer dimensions than there are features. `_slack`
    bounds, for each row, by how much that changes phi_i^T u on the unit ball.
    """

    def __init__(self, Phi: Float[np.ndarray, "N p"]):
        largest = np.max(np.abs(Phi), axis=1, initial=0.0)
        self._kept = np.flatnonzero(largest > 0)
        _, self._exponent = np.frexp(largest[self._kept])
        rows = np.ldexp(Phi[self._kept], -self._exponent[:, None])
        rows = rows[:, np.any(rows != 0, axis=0)]
        self._rows_in_all = Phi.shape[0]
        distinct, merge = np.unique(rows, axis=0, return_inverse=True)
        self._merge = merge.ravel()
        self.rows, self._slack = row_space_coordinates(distinct)
        self._cells: Cones | None = None
        self._cost: EnumerationCost | None = None
        self._masks: Bool[np.ndarray, "n P"] = np.zeros((0, 0), dtype=bool)
        self._moved: Float[np.ndarray, "n"] | None = None
        self._looked = False

    def weights(self, R: Float[np.ndarray, "N q"]) -> tuple[Float[np.ndarray, "n q"], int]:
        """Return (R', e) with ||R^T (Phi u)_+|| = 2^e ||R'^T (rows u)_+|| up to rounding, 1/2 <= max |R'| <= 1."""
        largest = np.max(np.abs(R[self._kept]), axis=1, initial=0.0)
        total = np.frexp(largest)[1].astype(np.int64) + self._exponent
        total = total[largest > 0]
        e = int(total.max()) if total.size else 0
        # one exponent for both factors, because their product may fit where neither does alone
        scaled = np.ldexp(R[self._kept], (self._exponent.astype(np.int64) - e)[:, None])
        out = np.zeros((self.rows.shape[0], R.shape[1]))
        np.add.at(out, self._merge, scaled)
        return out, e

    def merged(self, R: Float[torch.Tensor, "N q"]) -> Float[torch.Tensor, "n q"]:
        """Return the weights of `rows`, differentiable in R: those of `weights` times 2^e."""
        factors = R.new_tensor(np.ldexp(1.0, self._exponent))[:, None]
        merge, kept = torch.as_tensor(self._merge), torch.as_tensor(self._kept)
        return R.new_zeros(len(self.rows), R.shape[1]).index_add(0, merge, factors * R[kept])

    def moving(self, R: Float[np.ndarray, "N q"], most: int) -> MovingBound | None:
        """Return a bound whose rules can be moved, or None if the norm of R is known better, or is zero.

        most: directions in a plane.
        """
        scaled, _ = self.weights(R)
        if self.rows.shape[1] == 1 or not scaled.any() or self._enumerated(R.shape[1]) is not None:
            return None
        return MovingBound(self.rows, scaled, most)

    def bound(self, R: Float[np.ndarray, "N q"], moving: MovingBound | None = None) -> MaxDualNorm:
        """Return a rigorous upper bound and an attained lower bound.

        1. Ascend to a value that is attained.
        2. Bound the norm from above.
        3. Allow for rounding in both.

        moving: rules to bound the norm by, which are not improved. Step 1 is then left out.
        """
        if not np.isfinite(R).all():
            return UNBOUNDED
        scaled, exponent = self.weights(R)
        active = np.any(scaled != 0, axis=1)
        if not active.any():
            return MaxDualNorm(0.0, -1, 0.0, "R vanishes on the nonzero rows of Phi")
        rows, part = self.rows[active], scaled[active]
        if moving is not None:
            lower, upper, method = 0.0, moving.above(scaled), "affine decision rules, moved with the multiplier"
        else:
            working_on("searching for large dual norms")
            # 1. any unit vector gives a lower bound
            lower = attained(rows, part, ascend(rows, part)[1][:, 0])
            # 2. over all directions, by whichever way is cheap enough
            upper, reached, method = self._upper(rows, part, scaled)
            lower = max(lower, reached)
        # 3. rounding of the merged rows and of the sums over them, and the error of the reduction to the row space
        mass = float(np.sum(np.linalg.norm(rows, axis=1) * np.linalg.norm(part, axis=1)))
        rounding = 8 * (len(self._kept) + sum(rows.shape)) * EPS * mass
        rounding += float(np.sum(self._slack[active] * np.linalg.norm(part, axis=1)))
        upper += rounding
        return MaxDualNorm(_raised(upper, exponent), -1, _lowered(max(lower - rounding, 0.0), exponent), method)

    def worst_pattern(self, R: Float[np.ndarray, "N q"]) -> tuple[float, Bool[np.ndarray, " N"]] | None:
        """Return (dual norm, pattern) of the cell of largest norm, or None if the cells are not enumerated."""
        cells = self._enumerated(R.shape[1])
        if cells is None:
            return None
        scaled, exponent = self.weights(R)
        found = self._cell_norm(cells, scaled)
        pattern = np.ones(self._rows_in_all, dtype=bool)  # zero rows are active by convention
        pattern[self._kept] = self._masks[self._merge, found.block]
        return _lowered(found.lower, exponent), pattern

    def _cell_norm(self, cells: Cones, R: Float[np.ndarray, "n q"]) -> MaxDualNorm:
        """Return the largest dual norm of all cells, ||G_k|| with G_k = rows^T D_k R in the cone of k."""
        # G_k = sum_i D_k,i rows_i R_i^T for all cells at once: the masks times the n x (p q) products of rows.
        products = (self.rows[:, :, None] * R[:, None, :]).reshape(len(R), -1)
        G = (self._masks.T.astype(np.float64) @ products).reshape(cells.P, -1, R.shape[1])
        return max_dual_norm(cells, torch.as_tensor(G))

    def _upper(
        self, rows: Float[np.ndarray, "m p"], part: Float[np.ndarray, "m q"], R: Float[np.ndarray, "n q"]
    ) -> tuple[float, float, str]:
        """Return (an upper bound, a lower bound or zero, the method)."""
        cells = self._enumerated(R.shape[1])
        # With one feature the unit vectors are 1 and -1.
        if rows.shape[1] == 1:
            ends = [float(np.linalg.norm(part.T @ np.maximum(sign * rows[:, 0], 0.0))) for sign in (1.0, -1.0)]
            return max(ends), max(ends), "both directions, exact"
        if cells is not None:
            found = self._cell_norm(cells, R)
            # The cells are those of rows that may have been moved by moved_i, which changes (phi_i^T u)_+ R_i by at
            # most moved_i ||R_i||.
            moved = 0.0 if self._moved is None else float(self._moved @ np.linalg.norm(R, axis=1)) * (1 + 1e-9)
            return found.value + moved, found.lower, f"all {cells.P} patterns: {found.method}"
        # ||R^T (Phi u)_+|| <= ||R|| ||Phi u|| <= ||R||_F ||Phi||_F, a bound of last resort.
        size = float(np.linalg.norm(rows)) * (1 + 4 * rows.size * EPS)
        crude = float(np.linalg.norm(part)) * size * (1 + 4 * part.size * EPS)

        def reached(basis: Float[np.ndarray, "q k"]) -> float:
            return 0.0 if time_is_up() else float(ascend(rows, part @ basis, kept=16, steps=60)[0][0])

        try:
            value = vector_bound(support_function(rows, part), part, size, reached, directions(rows, part))
        except (torch.linalg.LinAlgError, np.linalg.LinAlgError):  # sizes so far apart that the search leaves float64
            return crude, 0.0, "product of norms"
        if not value < crude:
            return crude, 0.0, "product of norms"
        return value, 0.0, "affine decision rule" + (", by pairs of outputs" if R.shape[1] > 2 else "")

    def _enumerated(self, q: int) -> Cones | None:
        """Return the cones of all patterns if they are cheap.

        The decision is made once, with enough time for it.
        """
        if self._looked:
            return self._cells
        if self._cost is None:
            self._cost = enumeration_cost(self.rows)
        cost = self._cost
        size = cost.bytes + 8 * cost.patterns * self.rows.shape[1] * q
        seconds = cost.seconds + cost.patterns * _seconds_per_cell(self.rows.shape[1], q)
        if seconds > ENUMERATION_SECONDS or size > ENUMERATION_BYTES:
            self._looked = True
        elif cost.seconds <= ENUMERATION_SHARE * seconds_left() and seconds <= DEADLINE_SHARE * seconds_left():
            self._looked = True
            found = enumerate_patterns(self.rows)
            # Only a complete list covers every u: with a cell missing the maximum over cells would be no bound.
            if found.complete:
                cells = Cones(self.rows, found.masks, found.gates)
                # Leave out rows that count as copies of others, so that the cones cover all directions.
                self._cells = cells if found.copies is None else cells.without(found.copies)
                self._masks, self._moved = found.masks, found.moved
        else:
            cut_short()
        return self._cells


def _seconds_per_cell(p: int, q: int) -> float:
    """Return about how long it takes to bound the dual norm of one cell, averaged over all cells."""
    if p <= 2:
        return CELL_SECONDS["plane"]
    return CELL_SECONDS["one output" if q == 1 else "several outputs"]


def row_space_coordinates(rows: Float[np.ndarray, "n p"]) -> tuple[Float[np.ndarray, "n r"], Float[np.ndarray, "n"]]:
    """Return (L, slack): coordinates of the rows in an orthonormal basis Q.

    Q spans the rows. slack: what the coordinates miss.

    For u in the unit ball there is a w in it with |rows_i u - L_i w| <= slack_i, and for every w such a u. Hence both
    have the same dual norm, max ||R^T (rows u)_+||, up to sum_i ||R_i|| slack_i. Where no dimension is saved, L is
    `rows` itself.
    """
    n, p = rows.shape
    Q = _row_space(rows) if rows.size else np.eye(p)
    if Q.shape[1] == p:
        return rows, np.zeros(n)
    # With E = rows - L Q^T and w = Q^T u, rows u = L w + E u. Q is orthonormal up to delta = ||Q^T Q - I||, by which w
    # may leave the ball, and rows Q w = L w + L (Q^T Q - I) w + E Q w. The other terms are the rounding of E and delta.
    L = rows @ Q
    r, lengths = Q.shape[1], np.linalg.norm(L, axis=1)
    error = np.linalg.norm(rows - L @ Q.T, axis=1) + 4 * (r + 4) * r**0.5 * EPS * lengths
    delta = float(np.linalg.norm(Q.T @ Q - np.eye(r))) + 2 * (p + 4) * r * EPS
    slack = 2 * (error + delta * lengths)
    # A basis that misses a part of the rows would loosen every bound.
    return (L, slack) if np.all(error <= OUTSIDE * p**0.5 * (r + 4) * lengths) else (rows, np.zeros(n))


def _row_space(rows: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "p r"]:
    """Return orthonormal columns that span the rows up to rounding.

    The smaller one of two factorisations is used.
    """
    n, p = rows.shape
    if n < p:
        Q, triangle = np.linalg.qr(rows.T)
        left, values, _ = np.linalg.svd(triangle)
        return Q @ left[:, values > 8 * (n + p) * EPS * values[0]]
    values, vectors = np.linalg.eigh(rows.T @ rows)
    return vectors[:, values > 8 * (n + p) * EPS * values[-1]]


def _raised(value: float, exponent: int) -> float:
    """Return value 2^exponent, rounded up."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.nextafter(np.ldexp(value, exponent), np.inf)) if value > 0 else 0.0


def _lowered(value: float, exponent: int) -> float:
    """Return value 2^exponent, rounded down."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.nextafter(np.ldexp(value, exponent), 0.0))
