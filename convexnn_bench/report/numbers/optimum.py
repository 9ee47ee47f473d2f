"""What records prove about the optimum of each program, and how far their final points are from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convexnn_bench.records.records import Record
from convexnn_bench.report.tables import beyond_sample, finite

SLACK = 1e-9  # relative; a bound above an objective by no more than this is rounding


@dataclass(frozen=True)
class Interval:
    """Where the optimum p* of a problem is known to lie: low is the highest proven bound, high the least objective."""

    low: float
    high: float

    def excess(self, objective: float) -> tuple[float, float]:
        """(least, largest) possible (objective - p*) / |p*|, relative; nan where low is not positive."""
        if not 0 < self.low <= self.high * (1 + SLACK):
            return math.nan, math.nan
        return max(0.0, objective / self.high - 1), max(0.0, objective / self.low - 1)


def judged(record: Record) -> bool:
    """Whether the record ends with a point of which a gap was proven."""
    return math.isfinite(finite(record["gap"])) and math.isfinite(finite(record["objective"]))


def program(record: Record) -> tuple[str, bool]:
    """The problem, and whether all activation patterns are meant where the problem has sampled ones."""
    return record["problem_name"], beyond_sample(record)


def proven(record: Record) -> list[tuple[float, float]]:
    """(objective, lower bound) of the final point and of those on the way; -inf where a gap does not tell the bound.

    A gap below 1 can only come of a positive bound, objective / (1 + gap).
    """
    found = [(finite(record["objective"]), finite(record["lower_bound"]))]
    for _, objective, gap in record["curve"]:
        if math.isfinite(finite(objective)) and math.isfinite(finite(gap)):
            found.append((objective, objective / (1 + gap) if objective > 0 and 0 <= gap < 1 else -math.inf))
    return found


def optimum_intervals(records: Sequence[Record]) -> dict[tuple[str, bool], Interval]:
    """By `program`. Points of the sampled program are points of the one over all patterns, not the other way round."""
    lows: dict[tuple[str, bool], float] = {}
    highs: dict[tuple[str, bool], float] = {}
    for record in filter(judged, records):
        which = program(record)
        for objective, bound in proven(record):
            lows[which] = max(lows.get(which, -math.inf), bound)
            for held in {which, (which[0], True)}:
                highs[held] = min(highs.get(held, math.inf), objective)
    return {which: Interval(low, highs[which]) for which, low in lows.items()}


def violations(records: Sequence[Record]) -> list[str]:
    """Bounds that are above an objective of the same program: each is an error of a certificate, in one line."""
    told = []
    for (name, beyond), interval in optimum_intervals(records).items():
        if interval.low > interval.high + SLACK * abs(interval.high):
            scope = ", all patterns" if beyond else ""
            told.append(f"{name}{scope}: lower bound {interval.low:.12g} is above the objective {interval.high:.12g}")
    return told


@dataclass(frozen=True)
class Truth:
    """One final point: what was proven of it, and what is known of the truth, all relative to the optimum.

    gap: certified. least, most: true distance. paper: the bound of Theorem 3.4, which holds at stationary points only.
    """

    problem: str
    solver: str
    formulation: str
    gap: float
    least: float
    most: float
    paper: float


def truths(records: Sequence[Record]) -> list[Truth]:
    """Of every record that ends with a proven gap, where the optimum is known to be positive."""
    intervals, found = optimum_intervals(records), []
    for record in filter(judged, records):
        least, most = intervals[program(record)].excess(record["objective"])
        if math.isfinite(most):
            names = record["problem_name"], record["solver_name"], record["formulation"]
            found.append(Truth(*names, record["gap"], least, most, finite(record["stationarity_bound"])))
    return found


def reach(found: Sequence[Truth]) -> float:
    """Where the axes of bounds and distances end: the power of ten above all of them, between 1 and 1000."""
    numbers = [number for one in found for number in (one.gap, one.most, one.paper) if number < 1e3]
    largest = max(numbers, default=1e3)
    return 10.0 ** min(3, math.ceil(math.log10(max(largest, 1.0))))
