"""Where training ends from many random starts, against the columns of a block.

For linear and gated activations it is proven (Sahiner et al., ICLR 2024, Theorems 3.3 and 3.5) that with m >= min(p, q)
columns a block every second-order stationary point has the optimal value p* of the convex program. For linear
self-attention these are min(d^2, d c) heads.

For fewer columns the ends are only observed. Two things can go wrong there, and the summary keeps them apart:
- the least value that m columns can reach may lie above p* (it does where no optimum of the convex program has blocks
  of rank m or less): then every end is above p*, and none need be spurious for its own width;
- a second-order point may lie above the least value of its own width. It is proven to be no global minimum of that
  width as soon as any start of the same width ends lower. It is not proven to be a minimum at all: it might be a saddle
  whose curvature is zero to the tolerance.
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
from convexnn_bench.plugins import SEED, Number, Whole
from convexnn_bench.problem import Problem
from convexnn_bench.terminal import progress
from convexnn_bench.theorems.conditions import GAP_FACTOR
from convexnn_bench.theorems.curvature import check_smooth, smallest_curvature
from convexnn_bench.theorems.ends import End, Width
from convexnn_bench.theorems.figures import starts_figure
from convexnn_bench.theorems.rank_staircase import Staircase, staircase
from convexnn_bench.theorems.trust_region import spread_start, trust_region_newton

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

STAIRCASE_GAP = 1e-3  # gap of the staircase that encloses p*, in tolerances
DEFAULT_WIDTHS = 7  # numbers of columns up to min(p, q) that are tried by default


@dataclass(frozen=True)
class SpuriousMinima:
    """Where training ended from random starts, for each number of columns a block.

    Attributes
    ----------
    title, about, column_name : str
        What the problem is, and what its columns are called: heads, neurons, filters or columns.
    covered_from : int
        min(p, q), the number of columns from which the theorem applies.
    starts : int
        Random starts for each number of columns.
    tolerance : float
        Tolerance on the relative gradient, on -curvature / beta, and on the relative excess over p*.
    lower_bound, upper_bound : float
        Best proven lower bound on p*, and least objective of all points.
    optimal_rank : int
        Largest rank of a block of the certified optimum that the staircase found.
    ends : tuple of End
        The end of every start.
    widths : tuple of Width
        Their summary for each number of columns.
    """

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
        """Whether no second-order end with m >= min(p, q) columns is above the optimum."""
        return not any(width.covered and width.spurious for width in self.widths)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row for each start."""
        import pandas as pd

        return pd.DataFrame([vars(end) for end in self.ends])

    def plot(self) -> "Figure":
        """Draw the excess of every end against m."""
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
    problem: Problem,
    columns: Sequence[int] | None = None,
    starts: int = 20,
    seed: int = 0,
    *,
    tolerance: float = 1e-6,
    steps: int = 500,
) -> SpuriousMinima:
    """Train from random starts, and say where they end.

    Every number of columns a block is tried.

    Parameters
    ----------
    problem : Problem
        A problem with linear or gated activation. With a linear one the columns are the neurons, heads or filters of
        the network itself.
    columns : sequence of int, optional
        Numbers of columns; by default from 1 to min(p, q) + 1, thinned out if these are many.
    starts : int
        Random starts for each number of columns, Gaussian with sizes spread log-uniformly over a factor of 100.
    seed : int
        The starts have the seeds seed, seed + 1, ...
    tolerance : float
        Tolerance on the relative gradient, on -curvature / beta, and on the relative excess over p*.
    steps : int
        Most steps of trust-region Newton for each start.

    Returns
    -------
    SpuriousMinima
        All ends, and a summary for each number of columns.

    Raises
    ------
    UnsupportedError
        If the activation is ReLU.
    InputError
        If an argument is not usable.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], activation="linear", beta=0.1)
    >>> cnn.spurious_minima(problem, [1, 2], starts=2).holds
    True
    """
    problem, seed = check_smooth(problem), SEED.check("seed", seed)
    starts, steps = Whole().check("starts", starts), Whole().check("steps", steps)
    tolerance = Number().check("tolerance", tolerance)
    columns = _columns(columns, min(problem.p, problem.q))
    # 1. enclose p* by the staircase, far more tightly than the tolerance
    reference = staircase(problem, seed, gap=STAIRCASE_GAP * tolerance, steps=steps)
    raw: list[tuple[int, int, Point]] = []
    bound, least = max(step.lower_bound for step in reference), min(step.objective for step in reference)
    # 2. train every start; the certificate of any end may improve the enclosure
    with progress("random starts", total=len(columns) * starts) as update:
        for m in columns:
            for start in range(seed, seed + starts):
                end = trust_region_newton(problem, *spread_start(problem, m, start), steps=steps)
                raw.append((m, start, Point(factors=(end.U, end.V))))
                certificate = certify(problem, raw[-1][2])
                bound, least = max(bound, certificate.dual), min(least, certificate.primal)
                update(len(raw), f"m = {m}, objective {end.objective:.7g}")
    # 3. judge the ends by the final enclosure
    ends = tuple(_end(problem, *one, bound=bound, tolerance=tolerance) for one in raw)
    return _summary(problem, reference, ends, columns, starts, tolerance, bound, least)


def _columns(columns: Any, enough: int) -> list[int]:
    """Return the numbers of columns, ascending. Raises InputError."""
    if columns is None:
        if enough <= DEFAULT_WIDTHS:
            return list(range(1, enough + 2))
        # Narrow widths differ most from each other. The last two widths lie at and above min(p, q), where the theorem
        # holds.
        spread = np.unique(np.geomspace(1, enough, DEFAULT_WIDTHS).round().astype(int))
        return [*map(int, spread), enough + 1]
    if isinstance(columns, str) or not isinstance(columns, Sequence | np.ndarray | range) or not len(columns):
        raise InputError(f"columns must be a list of whole numbers, such as [1, 2, 4], got {columns!r}")
    return sorted({Whole().check("columns", m) for m in columns})


def _end(problem: Problem, m: int, start: int, point: Point, *, bound: float, tolerance: float) -> End:
    curvature = smallest_curvature(problem, point)
    objective = problem.factored_objective(*(point.factors or ()))
    # The bound is the best of all certificates, so that one good end proves what others have reached.
    excess = relative_gap(objective, bound)
    finished = curvature.is_second_order(tolerance)
    # The proven bound alone shows that a point is global, whatever its gradient and curvature are.
    kind = "global" if excess <= tolerance else "second order, above p*" if finished else "unfinished"
    return End(m, start, objective, excess, curvature.relative_gradient, curvature.relative, kind)


def _width(m: int, ends: list[End], covered: bool, tolerance: float) -> Width:
    lowest = min(end.objective for end in ends)
    # Each hypothesis holds to the tolerance only, so that a violation must exceed GAP_FACTOR tolerances.
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
