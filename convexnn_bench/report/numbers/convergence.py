"""Convergence over several draws: the median certified gap by each time, with its quartiles."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convexnn_bench.records import Record
from convexnn_bench.report.formats import finite
from convexnn_bench.report.numbers.optimum import Interval, optimum_intervals, program
from convexnn_bench.report.numbers.time_to_gap import Spread, by_draw, setup_offset, spread

Point = tuple[float, float, float]  # seconds, least gap and least distance to the optimum by then


@dataclass(frozen=True)
class Band:
    """The convergence of one solver on one rung, over its draws.

    Attributes
    ----------
    rung, solver : str
        The problem without the seeds of its draws, and the solver without its tolerance.
    draws : int
        Number of draws of data, patterns and start.
    seconds : list of float
        Times from the start of set-up.
    gaps, excess : list of Spread
        Median and quartiles over the draws of the least certified gap, and of the least distance to the optimum that
        the bounds of all records leave possible, by each of these times. They are inf where nothing was proven by then.
    """

    rung: str
    solver: str
    draws: int
    seconds: list[float]
    gaps: list[Spread]
    excess: list[Spread]


def bands(records: Sequence[Record], most: int = 30) -> list[Band]:
    """Return the band of every solver on every rung, at `most` times or one more.

    Notes
    -----
    A draw counts with the least value that it has reached by a time, and never with a value between two points. All
    tolerances of a one-shot solver form one curve.
    """
    intervals = optimum_intervals(records)
    result = []
    for (rung, solver), draws in by_draw(records).items():
        runs = [_best_so_far(cells, intervals) for cells in draws.values()]
        seconds = _moments(sorted({point[0] for run in runs for point in run}), most)
        values = [[_by_then(run, moment) for run in runs] for moment in seconds]
        gaps, excess = ([spread([pair[which] for pair in pairs]) for pairs in values] for which in (0, 1))
        result.append(Band(rung, solver, len(draws), seconds, gaps, excess))
    return result


def _best_so_far(records: Sequence[Record], intervals: Mapping[Any, Interval]) -> list[Point]:
    """Return the points of all records of one draw in order, each with the least values up to it."""
    points: list[Point] = []
    for record in records:
        interval = intervals.get(program(record), Interval(math.nan, math.nan))
        for seconds, objective, gap in record["curve"]:
            if math.isfinite(finite(objective)):
                values = (finite(gap), interval.excess(objective)[1])
                points.append((setup_offset(record) + seconds, *(math.inf if math.isnan(v) else v for v in values)))
    result: list[Point] = []
    least = (math.inf, math.inf)
    for seconds, gap, excess in sorted(points):
        least = min(least[0], gap), min(least[1], excess)
        result.append((seconds, *least))
    return result


def _moments(seconds: Sequence[float], most: int) -> list[float]:
    """Keep at most `most` times, at even distances on a logarithmic axis, and the last one."""
    if len(seconds) <= most:
        return list(seconds)
    low, high = max(seconds[0], 1e-4), seconds[-1]
    steps = [low * (high / low) ** (index / (most - 1)) for index in range(most - 1)]
    return sorted({seconds[max(0, bisect_right(seconds, step) - 1)] for step in steps} | {high})


def _by_then(run: Sequence[Point], moment: float) -> tuple[float, float]:
    """Return the values of the last point of a run up to a time, inf if there is none."""
    index = bisect_right(run, moment, key=lambda point: point[0])
    return run[index - 1][1:] if index else (math.inf, math.inf)
