"""Where training ends from many random starts, against the number of columns (heads, neurons) of a block.

What is proven, for linear and gated activations (Sahiner et al., ICLR 2024, Theorems 3.3 and 3.5): with m >= min(p, q)
columns a block, every second-order stationary point has the optimal value p* of the convex program. For linear
self-attention min(p, q) = min(d^2, d c) heads.

What is only observed: everything about fewer columns. Two things can go wrong there and are kept apart:
- the least value that m columns can reach may lie above p* (it does where no optimum of the convex program has blocks
  of rank m or less): then every end is above p*, and none need be spurious for its own width;
- a second-order point may lie above the least value of its own width. It is proven to be no global minimum of that
  width as soon as any start of the same width ends lower. That it is a minimum at all, rather than a saddle whose
  curvature is zero to the tolerance, is not proven.
Without weight decay, linear perceptrons with squared loss have no spurious minimum at any width (Baldi and Hornik,
1989); with it, and for other losses and architectures, no such theorem is used here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from convexnn_bench.certificates import certify, relative_gap
from convexnn_bench.errors import InputError
from convexnn_bench.formulations import Point
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Number, Whole
from convexnn_bench.terminal import progress
from convexnn_bench.theorems.checks import GAP_FACTOR
from convexnn_bench.theorems.curvature import check_seed, check_smooth, smallest_curvature
from convexnn_bench.theorems.ends import End, Width
from convexnn_bench.theorems.figures import starts_figure
from convexnn_bench.theorems.rank_staircase import Staircase, staircase
from convexnn_bench.theorems.trust_region import spread_start, trust_region_newton

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SpuriousMinima:
    """`ends` of all starts, `widths` summing them up. lower_bound: the best proven one on p*; upper_bound: the least
    objective seen. optimal_rank: largest rank of a block of the certified optimum that the staircase found."""

    title: str
    about: str
    column_name: str
    covered_from: int
    starts: int
    tolerance: float
    lower_bound: float
    upper_bound: float
    optimal_rank: int
    ends: tuple[End, ...] = field(repr=False)
    widths: tuple[Width, ...]

    @property
    def holds(self) -> bool:
        """No second-order end with m >= min(p, q) columns is above the optimum."""
        return not any(width.covered and width.spurious for width in self.widths)

    def to_frame(self) -> "pd.DataFrame":
        """One row a start."""
        import pandas as pd

        return pd.DataFrame([vars(end) for end in self.ends])

    def plot(self) -> "Figure":
        """Strip plot of the excess against m."""
        return starts_figure(
            self.ends, self.widths, self.tolerance, self.covered_from, f"{self.column_name} m",
            f"{self.title}: {self.starts} random starts each",
        )  # fmt: skip

    def __str__(self) -> str:
        lines = [
            f"{self.title}: {self.starts} random starts each; {self.about}",
            f"p* in [{self.lower_bound:.12g}, {self.upper_bound:.12g}], reached with blocks of rank "
            f"{self.optimal_rank}; the theorem covers m >= min(p, q) = {self.covered_from}",
            f"{'m':>4} {'global':>8} {'2nd order':>10} {'best excess':>12} {'worst excess':>13}   verdict",
        ]
        for width in self.widths:
            lines.append(
                f"{width.m:>4} {width.global_ends:>4}/{width.starts:<3} {width.second_order:>6}/{width.starts:<3} "
                f"{width.best_excess:>12.1e} {width.worst_excess:>13.1e}   {width.verdict}"
            )
        return "\n".join(lines)


def spurious_minima(
    problem: Any,
    columns: Any = None,
    starts: Any = 20,
    seed: Any = 0,
    *,
    tolerance: Any = 1e-6,
    steps: Any = 500,
) -> SpuriousMinima:
    """Train from `starts` random starts with each number of columns a block, and say where they end.

    columns: a list of whole numbers; by default up to min(p, q) + 1, thinned out where these are many. With a linear
    activation the columns are the neurons, or heads, of the network itself. The starts are Gaussian with sizes spread
    log-uniformly over a factor of 100 and the seeds seed, seed + 1, ...; training is trust-region Newton, at
    most `steps` steps. tolerance: on the relative gradient, on -curvature / beta, and on the relative excess over p*.

    Raises UnsupportedError for ReLU and InputError for unusable arguments.
    """
    problem, seed = check_smooth(problem), check_seed(seed)
    starts, steps = Whole().check("starts", starts) or 1, Whole().check("steps", steps) or 1
    tolerance = Number().check("tolerance", tolerance)
    columns = _columns(columns, min(problem.p, problem.q))
    reference = staircase(problem, seed, gap=1e-3 * tolerance, steps=steps)
    raw: list[tuple[int, int, Point]] = []
    bound, least = max(step.lower_bound for step in reference), min(step.objective for step in reference)
    with progress("random starts", total=len(columns) * starts) as update:
        for m in columns:
            for start in range(seed, seed + starts):
                end = trust_region_newton(problem, *spread_start(problem, m, start), steps=steps)
                raw.append((m, start, Point(factors=(end.U, end.V))))
                certificate = certify(problem, raw[-1][2])
                bound, least = max(bound, certificate.dual), min(least, certificate.primal)
                update(len(raw), f"m = {m}, objective {end.objective:.7g}")
    ends = tuple(_end(problem, *one, bound=bound, tolerance=tolerance) for one in raw)
    return _summary(problem, reference, ends, columns, starts, tolerance, bound, least)


def _columns(columns: Any, enough: int) -> list[int]:
    """The numbers of columns, ascending. Raises InputError."""
    if columns is None:
        if enough <= 7:
            return list(range(1, enough + 2))
        spread = np.unique(np.geomspace(1, enough, 7).round().astype(int))
        return [*map(int, spread), enough + 1]
    if isinstance(columns, str) or not isinstance(columns, Sequence | np.ndarray | range) or not len(columns):
        raise InputError(f"columns must be a list of whole numbers, such as [1, 2, 4], got {columns!r}")
    return sorted({Whole().check("columns", m) or 1 for m in columns})


def _end(problem: Problem, m: int, start: int, point: Point, *, bound: float, tolerance: float) -> End:
    curvature = smallest_curvature(problem, point)
    objective = problem.factored_objective(*(point.factors or ()))
    excess = relative_gap(objective, bound)
    finished = curvature.is_second_order(tolerance)
    kind = "global" if excess <= tolerance else "second order, above p*" if finished else "unfinished"
    return End(m, start, objective, excess, curvature.relative_gradient, curvature.relative, kind)


def _width(m: int, ends: list[End], covered: bool, tolerance: float) -> Width:
    lowest = min(end.objective for end in ends)
    second = [end for end in ends if end.relative_gradient <= tolerance and end.curvature >= -tolerance]
    return Width(
        m=m,
        covered=covered,
        starts=len(ends),
        global_ends=sum(end.kind == "global" for end in ends),
        second_order=len(second),
        spurious=sum(end.excess > GAP_FACTOR * tolerance for end in second),
        above_own_best=sum(end.objective > lowest + tolerance * abs(lowest) for end in second),
        best_excess=min(end.excess for end in ends),
        worst_excess=max(end.excess for end in ends),
    )


def _summary(
    problem: Problem,
    reference: Staircase,
    ends: tuple[End, ...],
    columns: list[int],
    starts: int,
    tolerance: float,
    bound: float,
    least: float,
) -> SpuriousMinima:
    enough = min(problem.p, problem.q)
    names = {"attention": "heads", "mlp": "neurons", "cnn": "filters"}
    linear = problem.activation.name == "linear"
    return SpuriousMinima(
        title=f"{problem.activation.name} {problem.architecture.name}, {problem.loss.name} loss",
        about=repr(problem),
        column_name=names.get(problem.architecture.name, "columns") if linear else "columns a block",
        covered_from=enough,
        starts=starts,
        tolerance=tolerance,
        lower_bound=bound,
        upper_bound=least,
        optimal_rank=reference.steps[-1].rank,
        ends=ends,
        widths=tuple(_width(m, [e for e in ends if e.m == m], m >= enough, tolerance) for m in columns),
    )
