"""What records prove about the optimum of each program.

It includes how far their final points are from it.

The optimum p* lies between the highest proven lower bound and the least objective of all records of a program, so that
the relative distance of an objective f to it is between f / high - 1 and f / low - 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convexnn_bench.records import Record
from convexnn_bench.report.formats import finite
from convexnn_bench.report.tables import beyond_sample

SLACK = 1e-9  # relative; a bound that exceeds an objective by no more than this is rounding, not an error


@dataclass(frozen=True)
class Interval:
    """The interval in which p* lies: low is the highest proven bound, high the least objective."""

    low: float
    high: float

    def excess(self, objective: float) -> tuple[float, float]:
        """Return the least and the largest possible (objective - p*) / |p*|; nan unless low is positive."""
        # A relative distance needs a positive optimum. An empty interval is an error, which `violations` reports.
        if not 0 < self.low <= self.high * (1 + SLACK):
            return math.nan, math.nan
        return max(0.0, objective / self.high - 1), max(0.0, objective / self.low - 1)


def judged(record: Record) -> bool:
    """Return whether a gap was proven for the record's final point."""
    return math.isfinite(finite(record["gap"])) and math.isfinite(finite(record["objective"]))


def program(record: Record) -> tuple[str, bool]:
    """Return the program of a record's bound.

    It is the problem, and whether the bound holds beyond its sampled patterns.
    """
    return record["problem_name"], beyond_sample(record)


def proven(record: Record) -> list[tuple[float, float]]:
    """Return (objective, lower bound) of the final point and of those before it.

    A gap below 1 implies the positive bound objective / (1 + gap); a larger gap implies none, and the bound is -inf.
    """
    pairs = [(finite(record["objective"]), finite(record["lower_bound"]))]
    for _, objective, gap in record["curve"]:
        if math.isfinite(finite(objective)) and math.isfinite(finite(gap)):
            # gap = (f - low) / |low| gives low = f / (1 + gap) where low is positive.
            pairs.append((objective, objective / (1 + gap) if objective > 0 and 0 <= gap < 1 else -math.inf))
    return pairs


def optimum_intervals(records: Sequence[Record]) -> dict[tuple[str, bool], Interval]:
    """Return the interval of each `program`.

    A point of the sampled program is one of the program over all patterns, so that its objective bounds both optima.
    """
    lows: dict[tuple[str, bool], float] = {}
    highs: dict[tuple[str, bool], float] = {}
    for record in filter(judged, records):
        which = program(record)
        for objective, bound in proven(record):
            lows[which] = max(lows.get(which, -math.inf), bound)
            # More patterns can only lower the optimum. A point of the sampled program is therefore one of the larger
            # program, and the converse need not hold.
            for feasible in {which, (which[0], True)}:
                highs[feasible] = min(highs.get(feasible, math.inf), objective)
    return {which: Interval(low, highs[which]) for which, low in lows.items()}


def violations(records: Sequence[Record]) -> list[str]:
    """Return a line for each bound above an objective of the same program: a certificate is wrong there."""
    lines = []
    for (name, beyond), interval in optimum_intervals(records).items():
        if interval.low > interval.high + SLACK * abs(interval.high):
            scope = ", all patterns" if beyond else ""
            lines.append(f"{name}{scope}: lower bound {interval.low:.12g} is above the objective {interval.high:.12g}")
    return lines


@dataclass(frozen=True)
class Truth:
    """What was proven of one final point beside what is known of the truth, all relative to the optimum.

    gap: certified. least, most: the interval of the true distance. paper: the bound of Theorem 3.4 (Sahiner et al.,
    ICLR 2024), which holds at stationary points only.
    """

    problem: str
    solver: str
    formulation: str
    gap: float
    least: float
    most: float
    paper: float


def truths(records: Sequence[Record]) -> list[Truth]:
    """Return a truth for every final point with a proven gap, if the optimum is known to be positive."""
    intervals, points = optimum_intervals(records), []
    for record in filter(judged, records):
        least, most = intervals[program(record)].excess(record["objective"])
        if math.isfinite(most):
            names = record["problem_name"], record["solver_name"], record["formulation"]
            points.append(Truth(*names, record["gap"], least, most, finite(record["stationarity_bound"])))
    return points


def reach(points: Sequence[Truth]) -> float:
    """Return the end of the axes of bounds and distances: the next power of ten, between 1 and 1000."""
    numbers = [number for one in points for number in (one.gap, one.most, one.paper) if number < 1e3]
    largest = max(numbers, default=1e3)
    # The paper's bound may be of any size at points that are not stationary, and would squeeze everything else.
    return 10.0 ** min(3, math.ceil(math.log10(max(largest, 1.0))))
