"""Numbers that the figures and the page share: performance profiles, scaling laws and ranks.

All of them are computed from records and nothing else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convexnn_bench.plugins import format_spec, parse_spec
from convexnn_bench.records import Record
from convexnn_bench.report.formats import finite
from convexnn_bench.report.numbers.optimum import SLACK, judged
from convexnn_bench.report.numbers.power_law import PowerLaw, fit_power_law
from convexnn_bench.report.numbers.time_to_gap import (
    GAPS,
    SolverTimes,
    asked_gap,
    best_run,
    by_draw,
    quantile,
    rung_name,
    solver_times,
    time_to_gap,
)

# Field of a record -> name of the score. Figures show the first score that all records of a problem have.
SCORES = {"test_accuracy": "test accuracy", "test_r2": "test R2", "test_loss": "test loss per sample"}
SIZES = {"n": "n", "d": "d", "c": "c", "patterns": "P"}  # parameter of a data set: the size that it sets


@dataclass(frozen=True)
class Profile:
    """Performance profile of one solver (Dolan and More, 2002).

    The solver reached the gap within ratios[i] times the quickest solver's time in i + 1 of `runs` races; the ratios
    ascend. `unsolved` races, which no solver won, count among the runs. `ran` is the number of races that the solver
    was run in; in the others it counts as one that did not reach the gap.
    """

    solver: str
    formulation: str
    ratios: list[float]
    runs: int
    unsolved: int
    ran: int


def profiles(records: Sequence[Record], gap: float) -> list[Profile]:
    """Return the profile of every solver that was run, over all draws of all problems.

    A race is one draw of a problem; races that no solver won are included. A solver that was skipped, or was not asked
    for, did not reach the gap. A solver that was run from fewer starts than others on the same data enters their races
    with the median of its own times.
    """
    times: dict[tuple[str, Any], dict[str, float]] = {}
    starts: dict[tuple[str, Any, str], list[float]] = {}
    kinds: dict[str, str] = {}
    for (rung, solver), draws in by_draw(records).items():
        for seeds, cells in draws.items():
            kinds[solver] = cells[0]["formulation"]
            seconds = best_run([time_to_gap(record, gap) for record in cells]).seconds
            times.setdefault((rung, seeds), {})[solver] = seconds
            starts.setdefault((rung, seeds[:-1], solver), []).append(seconds)
    for (rung, seeds), race in times.items():
        for solver in kinds:
            other_starts = starts.get((rung, seeds[:-1], solver))
            # A deterministic solver is run from one start, and others from several. Its median time on the same data
            # then stands for it in the races that it lacks.
            if solver not in race and other_starts:
                race[solver] = quantile(other_starts, 0.5)
    # A race that nobody won has no quickest time to divide by. It still counts among the runs.
    races = [race for race in times.values() if math.isfinite(min(race.values()))]
    result = []
    for solver, kind in kinds.items():
        ratios = [race.get(solver, math.inf) / min(race.values()) for race in races]
        reached = sorted(ratio for ratio in ratios if math.isfinite(ratio))
        ran = sum(solver in race for race in times.values())
        result.append(Profile(solver, kind, reached, len(times), len(times) - len(races), ran))
    return result


def gaps_of(records: Sequence[Record]) -> list[float]:
    """Return the gaps worth a profile: the campaign's own, and those of the tables that are coarser."""
    asked = asked_gap(records)
    return sorted({gap for gap in GAPS if gap > asked * (1 + SLACK)} | {asked}, reverse=True)


@dataclass(frozen=True)
class Scaling:
    """Time to the campaign's gap against one size that varies alone.

    title: the data set with the parameters that stay the same. points: {solver: [(size, median seconds), ...]}.
    laws: the power laws of solvers with at least three sizes. missed: the same for sizes at which the solver ran out of
    time, with its time limit as seconds. They do not enter the law, which may therefore be too flat.
    """

    title: str
    size: str
    points: dict[str, list[tuple[float, float]]]
    laws: dict[str, PowerLaw]
    missed: dict[str, list[tuple[float, float]]]


def scalings(records: Sequence[Record]) -> list[Scaling]:
    """Return one scaling for every family of problems, the largest family first.

    The problems of a family differ in one size only.

    A family has at least three values of its size.
    """
    gap = asked_gap(records)
    families: dict[tuple[str, str], dict[float, list[SolverTimes]]] = {}
    for times in solver_times(records, [gap]):
        name, parameters = parse_spec(times.rung)
        for key, size in SIZES.items():
            if key in parameters and size in times.problem:
                title = format_spec(name, {other: value for other, value in parameters.items() if other != key})
                family = families.setdefault((title, size), {})
                # The size itself is taken from the problem, since the number of patterns may be asked for as "all".
                family.setdefault(float(times.problem[size]), []).append(times)
    result = []
    for (title, size), family in sorted(families.items(), key=lambda item: -len(item[1])):
        if len(family) < 3:
            continue
        points: dict[str, list[tuple[float, float]]] = {}
        missed: dict[str, list[tuple[float, float]]] = {}
        for value in sorted(family):
            for times in family[value]:
                # Only a time, or a time limit that was hit, says something of the cost. A solver that gave up says
                # nothing.
                if 0 < times.bound < math.inf:
                    kept = points if times.done else missed
                    kept.setdefault(times.solver, []).append((value, times.bound))
        laws = {
            name: fit_power_law(*zip(*costs, strict=True)) for name, costs in points.items() if len(dict(costs)) >= 3
        }
        if points:
            result.append(Scaling(title, size, points, laws, missed))
    return result


@dataclass(frozen=True)
class ScoredPoint:
    """The test score of the final point of one record.

    kind: the field of the score, a key of SCORES. seconds: set-up and solve time. gap: the certified relative gap, nan
    if none was proven.
    """

    problem: str
    solver: str
    seed: int
    seconds: float
    gap: float
    score: float
    kind: str


def scored_points(records: Sequence[Record]) -> list[ScoredPoint]:
    """Return the test score of every record that has one, of the same kind for all records of a rung."""
    scored = [record for record in records if record.get("test_loss") is not None and record["test_samples"]]
    result = []
    for record in scored:
        rung = rung_name(record)
        peers = [one for one in scored if rung_name(one) == rung]
        known = [field for field in SCORES if field != "test_loss" and all(one.get(field) is not None for one in peers)]
        field = next(iter(known), "test_loss")
        score = record[field] / (record["test_samples"] if field == "test_loss" else 1)
        seconds = finite(record["setup_seconds"]) + finite(record["solve_seconds"])
        where = rung, record["solver_name"], record["seed"]
        result.append(ScoredPoint(*where, seconds, finite(record["gap"]), score, SCORES[field]))
    return result


def score_range(points: Sequence[ScoredPoint]) -> tuple[float, float]:
    """Return the ends of an axis for the scores of one problem, wide enough to hide rounding."""
    low, high = min(one.score for one in points), max(one.score for one in points)
    exact = points[0].kind == SCORES["test_accuracy"]
    margin = max(0.1 * (high - low), 0.02 * (1.0 if exact else max(abs(low), abs(high))))
    return low - margin, min(high + margin, 1.0) if exact else high + margin


@dataclass(frozen=True)
class Ranks:
    """The blocks at the optimum that one solver reached on one problem.

    `active` of the P blocks are not zero. `largest` and `total` are the largest and the sum of their ranks, and `most`
    is the largest rank possible, min(p, q).
    """

    problem: str
    solver: str
    formulation: str
    active: int
    largest: int
    total: int
    P: int
    most: int


def ranks(records: Sequence[Record]) -> list[Ranks]:
    """Return the ranks of records that reached their gap: the first one of each rung and solver."""
    first: dict[tuple[str, str], Ranks] = {}
    for record in records:
        about = record.get("problem") or {}
        known = record.get("active_blocks") is not None and "P" in about and judged(record)
        # Ranks are a property of the optimum, so that points which are not close to it do not count.
        if not known or record["gap"] > finite(record["limits"]["gap"]):
            continue
        where = rung_name(record), record["solver_name"]
        blocks = record["active_blocks"], record["largest_rank"], record["total_rank"]
        first.setdefault(where, Ranks(*where, record["formulation"], *blocks, about["P"], min(about["p"], about["q"])))
    return list(first.values())
