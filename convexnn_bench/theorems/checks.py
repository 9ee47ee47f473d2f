"""Theorems 3.3 and 3.5 of Sahiner et al. (ICLR 2024) as checks: hypotheses, conclusion, and the numbers of both.

Linear and gated activations. Write f for the factored objective, G_k = A_k^*(grad F), and p* for the convex optimum.

Theorem 3.3. At a stationary point U_k^T U_k = V_k^T V_k, so that U_k and V_k have the same kernel. Along
(x w^T, y w^T), with a unit w in it and ||x||^2 + ||y||^2 = 1, a step t moves the block by t^2 x y^T alone, and the
second-order term of f is 2 x^T G_k y + beta, at least beta - ||G_k||_2. A second-order point that is rank deficient in
every block therefore has ||G_k||_2 <= beta, and is global. Only grad F enters, so that kinks of F'' do not matter. In
numbers: a curvature of at least -t beta gives ||G_k||_2 <= (1 + t) beta, and a certified gap of at most
t + eps / dual with eps the stationarity error (Theorem 3.4).

Theorem 3.5. If every block of a stationary point has rank U_k = rank V_k = min(p, q), or is zero with
||G_k||_2 <= beta, the point is global. For q <= p: G_k V_k = -beta U_k gives G_k = -beta U_k V_k^+, which by
U_k^T U_k = V_k^T V_k has all singular values equal to beta. In numbers: with a gradient R and the least singular
value s of the blocks that are not zero, ||G_k||_2 <= (1 + 3/2 e) beta with e = ||R|| ||(U, V)|| / (beta s^2).

Every block is full or deficient once m >= min(p, q): no second-order point is then spurious.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convexnn_bench.certificates import Certificate, certify, relative_gap
from convexnn_bench.errors import InputError
from convexnn_bench.formulations import Point
from convexnn_bench.norms import spectral_norms
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Number, Whole
from convexnn_bench.theorems.curvature import Curvature, as_factors, check_seed, check_smooth, smallest_curvature
from convexnn_bench.theorems.trust_region import Hessian, spread_start, trust_region_newton

if TYPE_CHECKING:
    import pandas as pd

GAP_FACTOR = 10.0  # the conclusion is allowed the tolerances of all hypotheses together


@dataclass(frozen=True)
class Condition:
    """One hypothesis, or the conclusion. value: the number that was looked at. limit: what it had to satisfy."""

    text: str
    value: float
    limit: str
    met: bool

    def __str__(self) -> str:
        return f"  [{'x' if self.met else ' '}] {self.text:<52} {self.value:>11.4g}   {self.limit}"


@dataclass(frozen=True)
class TheoremCheck:
    """A theorem at a point.

    hypotheses, conclusion: `Condition`s. holds: True, False (the conclusion fails although the hypotheses hold to the
    tolerance), or None where a hypothesis is not met, so that the theorem says nothing. point: (U, V), P x p x m and
    P x q x m. curvature: None for Theorem 3.5, which does not need it. note: what a failing hypothesis implies.
    """

    theorem: str
    about: str
    hypotheses: tuple[Condition, ...]
    conclusion: Condition
    certificate: Certificate = field(repr=False)
    point: tuple[torch.Tensor, torch.Tensor] = field(repr=False, compare=False)
    curvature: Curvature | None = field(default=None, repr=False)
    note: str = ""

    @property
    def holds(self) -> bool | None:
        if not all(condition.met for condition in self.hypotheses):
            return None
        return self.conclusion.met

    @property
    def verdict(self) -> str:
        if self.holds is None:
            missing = [condition.text for condition in self.hypotheses if not condition.met]
            return f"hypothesis not met: {'; '.join(missing)}{self.note}"
        return "holds" if self.holds else "VIOLATED: the hypotheses hold to the tolerance and the conclusion does not"

    def to_frame(self) -> "pd.DataFrame":
        """One row a condition: part, text, value, limit, met."""
        import pandas as pd

        parts = [("hypothesis", condition) for condition in self.hypotheses] + [("conclusion", self.conclusion)]
        return pd.DataFrame(
            [{"part": part, **vars(condition)} for part, condition in parts],
            columns=["part", "text", "value", "limit", "met"],
        )

    def __str__(self) -> str:
        lines = [f"{self.theorem}", f"  {self.about}", "hypotheses", *map(str, self.hypotheses)]
        return "\n".join([*lines, "conclusion", str(self.conclusion), f"verdict: {self.verdict}"])


def check_rank_deficient(
    problem: Any, m: Any = None, seed: Any = 0, *, point: Any = None, tolerance: Any = 1e-6, steps: Any = 500
) -> TheoremCheck:
    """Theorem 3.3: a second-order stationary point that is rank deficient in every block is a global minimum.

    A random start with m columns a block is trained by trust-region Newton (at most `steps` steps), or `point` is taken
    as it is: (U, V) or a Result. m: by default min(p, q) + 1, with which every stationary point is deficient.
    tolerance: on the relative gradient and on -curvature / beta; the conclusion is a certified gap of at most ten times
    as much.

    Raises UnsupportedError for ReLU and InputError for unusable arguments.
    """
    problem, tolerance = check_smooth(problem), Number().check("tolerance", tolerance)
    U, V = _trained(problem, m, min(problem.p, problem.q) + 1, seed, point, steps)
    certificate = certify(problem, Point(factors=(U, V)))
    curvature = smallest_curvature(problem, (U, V), seed)
    assert certificate.ranks is not None
    m = U.shape[2]
    hypotheses = (
        _stationary(curvature.relative_gradient, tolerance),
        _at_least("second order: smallest curvature / beta", curvature.relative, -tolerance),
        Condition(f"rank deficient: largest rank of a block (m = {m})", float(max(certificate.ranks)), f"< {m}",
                  bool(certificate.rank_deficient)),
    )  # fmt: skip
    return TheoremCheck(
        "Theorem 3.3: rank-deficient second-order points are global",
        _about(problem, certificate),
        hypotheses,
        _global(certificate, tolerance),
        certificate,
        (U, V),
        curvature,
        _saddle(problem, certificate, tolerance),
    )


def check_full_rank(
    problem: Any, m: Any = None, seed: Any = 0, *, point: Any = None, tolerance: Any = 1e-6, steps: Any = 500
) -> TheoremCheck:
    """Theorem 3.5: a stationary point whose blocks have full rank min(p, q), or are zero with ||G_k||_2 <= beta, is
    global; second-order conditions are not needed.

    m: by default min(p, q). The other arguments, and what is raised, as in `check_rank_deficient`. A small beta gives
    optima of full rank, except with cross-entropy and c <= d: the rows of its gradient sum to zero, so that no
    stationary block of a perceptron has rank c.
    """
    problem, tolerance = check_smooth(problem), Number().check("tolerance", tolerance)
    U, V = _trained(problem, m, min(problem.p, problem.q), seed, point, steps)
    certificate = certify(problem, Point(factors=(U, V)))
    assert certificate.ranks is not None
    full, ranks = min(problem.p, problem.q), torch.tensor(certificate.ranks)
    here = Hessian(problem, U, V)
    norms = spectral_norms(here.G)[ranks == 0] / problem.beta
    partial = int(((ranks > 0) & (ranks < full)).sum())
    hypotheses = (
        _stationary(here.relative_gradient, tolerance),
        _at_most("the same against the least singular value s", _margin(here, ranks == full, full), tolerance),
        Condition(f"blocks of partial rank, 0 < rank < {full}, of {problem.P}", float(partial), "= 0", partial == 0),
        _at_most(f"largest ||G_k|| / beta - 1 of the {len(norms)} zero blocks" if len(norms) else "no zero blocks",
                 float(norms.max()) - 1 if len(norms) else 0.0, tolerance),
    )  # fmt: skip
    return TheoremCheck(
        "Theorem 3.5: full-rank stationary points are global",
        _about(problem, certificate),
        hypotheses,
        _global(certificate, tolerance),
        certificate,
        (U, V),
    )


def _trained(
    problem: Problem, m: Any, default: int, seed: Any, point: Any, steps: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """(U, V) as given, or trained from a random start."""
    m = Whole(optional=True).check("m", m)
    seed, steps = check_seed(seed), Whole().check("steps", steps)
    if point is not None:
        U, V = as_factors(problem, point)
        if m is not None and m != U.shape[2]:
            raise InputError(f"m = {m} does not fit the point, whose factors have {U.shape[2]} columns: leave m out")
        return U, V
    end = trust_region_newton(problem, *spread_start(problem, default if m is None else m, seed), steps=steps or 1)
    return end.U, end.V


def _margin(here: Hessian, chosen: torch.Tensor, full: int) -> float:
    """||R|| ||(U, V)|| / (beta s^2), s the least of the min(p, q) singular values of full-rank blocks' factors."""
    if not bool(chosen.any()) or here.U.shape[2] < full:
        return 0.0
    least = min(float(torch.linalg.svdvals(side[chosen])[:, full - 1].min()) for side in (here.U, here.V))
    size = float(torch.cat([here.U, here.V], dim=1).square().sum().sqrt())
    slope = float(np.linalg.norm(here.flat_gradient()))
    return slope * size / (here.beta * least**2) if least > 0 else math.inf


def _saddle(problem: Problem, certificate: Certificate, tolerance: float) -> str:
    """The converse of Theorem 3.3, for the verdict."""
    predicted = 1 - certificate.max_dual_norm / problem.beta
    if not certificate.rank_deficient or predicted >= -tolerance:
        return ""
    return (
        f"; a saddle, since ||G_k|| > beta at a rank-deficient point: at a stationary one the curvature / beta is at "
        f"most 1 - ||G_k|| / beta = {predicted:.6g}, and the top singular pair of -G_k descends (`staircase`)"
    )


def _about(problem: Problem, certificate: Certificate) -> str:
    return (
        f"{problem!r}\n  objective {certificate.primal:.9g}, proven lower bound {certificate.dual:.9g}, "
        f"max ||G_k|| / beta - 1 = {certificate.max_dual_norm / problem.beta - 1:.2e}"
    )


def _stationary(relative_gradient: float, tolerance: float) -> Condition:
    text = "stationary: ||grad f|| / sqrt(2 beta f)"
    return Condition(text, relative_gradient, f"<= {tolerance:.0e}", relative_gradient <= tolerance)


def _at_least(text: str, value: float, low: float) -> Condition:
    return Condition(text, value, f">= {low:.0e}", value >= low)


def _at_most(text: str, value: float, high: float) -> Condition:
    return Condition(text, value, f"<= {high:.0e}", value <= high)


def _global(certificate: Certificate, tolerance: float) -> Condition:
    limit = GAP_FACTOR * tolerance
    # without cones a gap is refused only where rounding puts the objective below the bound
    gap = relative_gap(certificate.primal, certificate.dual)
    return Condition("global: certified relative gap", gap, f"<= {limit:.0e}", gap <= limit)
