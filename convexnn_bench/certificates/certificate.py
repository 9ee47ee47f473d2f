"""The certificate of a point: its objective, a proven lower bound, and what else was proven."""

import math
from dataclasses import dataclass, field

import numpy as np

from convexnn_bench.certificates.picture import certificate_html

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, repr=False)
class Certificate:
    """Bounds on how far a point is from the global optimum p* of its program, all in float64.

    Attributes
    ----------
    primal : float
        Objective of the point in its own formulation, a sum over samples. It is rounded up, so that the exact objective
        is not larger.
    dual : float
        Proven lower bound on p*.
    gap : float
        (primal - dual) / |dual|, relative and rounded up; nan where `refused` says why no gap is stated.
    stationarity_bound : float
        (max_k ||G_k|| / beta - 1)_+. It bounds (primal - p*) / p* at an exactly stationary point; at any point
        primal - p* <= stationarity_bound * p* + stationarity_error.
    stationarity_error : float
        <grad F, A(Z)> + beta R, with R the regulariser; zero at a stationary point.
    scope : {"complete", "sampled"}
        "complete" if the bound holds over every activation pattern, "sampled" if over the problem's blocks.
    infeasibility : float
        Largest violation of a row of the ReLU cones, relative to that row's largest pre-activation, in balanced
        factors; 0 without cones.
    max_dual_norm : float
        Upper bound on max_k ||G_k||^dual with G_k = A_k^*(grad F).
    worst_block : int
        The block that attains `max_dual_norm`, -1 where that bound does not come from one block.
    dual_norm_lower : float
        Lower bound on the same maximum, attained by a vector. Where the two differ (vector-output ReLU, or all
        patterns without enumeration), the bound may cause a part of the gap.
    dual_norm_method : str
        The method behind the upper bound.
    gradient_norm : float or None
        Norm of the gradient of the factored objective, relative to beta times the norm of the factors; None for points
        that are not Burer-Monteiro points.
    full_rank : bool or None
        Theorem 3.5 applies: every block has rank min(p, q), or is zero and ||G_k|| <= beta. With a small
        `gradient_norm` the point is global. None for points without factors, and for ReLU.
    rank_deficient : bool or None
        Every block has a column to spare (rank U_k < m). Theorem 3.3 then makes a second-order stationary point
        global. None as above.
    ranks : tuple of int or None
        Numerical rank of every block's factors. None as above.
    refused : str or None
        Why no gap is stated.
    verified : bool
        `primal`, `dual` and `gap` are bounds in verified arithmetic, which trusts no mathematical library.
    multiplier : array n_out x c or None
        The dual feasible Lambda with -F*(Lambda) = dual up to rounding, which anyone may check.

    Notes
    -----
    The theorems are those of Sahiner et al., ICLR 2024; `stationarity_bound` is Theorem 3.4.
    """

    primal: float
    dual: float
    gap: float
    stationarity_bound: float
    stationarity_error: float
    scope: str
    infeasibility: float
    max_dual_norm: float
    worst_block: int
    dual_norm_lower: float
    dual_norm_method: str
    # The rank tests are for Burer-Monteiro points without cones; these four fields are None for all others.
    gradient_norm: float | None = None
    full_rank: bool | None = None
    rank_deficient: bool | None = None
    ranks: tuple[int, ...] | None = None
    refused: str | None = None
    verified: bool = False
    # Equality of arrays has no single truth value, so that the multiplier takes no part in comparisons.
    multiplier: np.ndarray | None = field(default=None, compare=False)

    @property
    def absolute_gap(self) -> float:
        """primal - dual; nan where the gap is refused."""
        return self.primal - self.dual if self.refused is None else math.nan

    @property
    def dual_norm_is_exact(self) -> bool:
        """True where the upper bound on the dual norms is attained, to 1e-8 relative."""
        return self.dual_norm_lower >= self.max_dual_norm * (1 - 1e-8)

    def __repr__(self) -> str:
        proven = f"gap={self.gap:.3g}" if self.refused is None else f"refused={self.refused!r:.60}"
        return (
            f"{type(self).__name__}(primal={self.primal:.9g}, dual={self.dual:.9g}, {proven}, scope={self.scope!r}, "
            f"infeasibility={self.infeasibility:.3g})"
        )

    def _repr_html_(self) -> str:
        lines = [] if self.dual_norm_is_exact else [f"The largest dual norm is known to lie {self._loose()}."]
        if self.infeasibility > 0:
            lines.append(f"The point violates a row of the ReLU cones by {self.infeasibility:.1e} (relative).")
        kind = "Verified certificate" if self.verified else "Certificate"
        title = f"{kind} for the program with {self.scope} patterns"
        return certificate_html(title, self.primal, self.dual, self.refused, lines)

    def _loose(self) -> str:
        return (
            f"in [{self.dual_norm_lower:.6g}, {self.max_dual_norm:.6g}] ({self.dual_norm_method}), so that part of the "
            "gap may be due to the bound"
        )

    def __str__(self) -> str:
        if self.refused is not None:
            return f"no gap: {self.refused} (lower bound {self.dual:.9g}, {self.scope} patterns)"
        # The dual norms are those in float64. The verified bound follows from other ones.
        exact = self.dual_norm_is_exact or self.verified
        loose = "" if exact else f"; the largest dual norm lies {self._loose()}"
        kind = "verified" if self.verified else "proven"
        return (
            f"objective {self.primal:.9g}, {kind} lower bound {self.dual:.9g}: at most {self.gap:.1e} (relative) above "
            f"the global optimum of the program with {self.scope} patterns{loose}"
        )


def relative_gap(primal: float, dual: float) -> float:
    """Return (primal - dual) / |dual|, rounded up; infinite where the bound is zero and the objective is not."""
    if dual == 0:
        return 0.0 if primal == 0 else math.inf
    if dual == -math.inf:
        return math.inf
    # Since dual <= p*, a positive dual makes this at least (primal - p*) / p*, the distance from the optimum. The
    # difference and the quotient are off by half an ulp each.
    gap = (primal - dual) / abs(dual)
    return gap * (1 + 4 * EPS) if gap > 0 else gap
