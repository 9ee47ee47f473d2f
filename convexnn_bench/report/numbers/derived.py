"""Numbers that figures and page share, computed from records and nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convexnn_bench.plugins.specs import format_spec, parse_spec
from convexnn_bench.records.records import Record
from convexnn_bench.report.numbers.optimum import SLACK, Interval, judged, optimum_intervals, program
from convexnn_bench.report.numbers.power_law import PowerLaw, fit_power_law
from convexnn_bench.report.numbers.time_to_gap import (
    GAPS,
    Outcome,
    best_run,
    by_draw,
    outcomes,
    quantile,
    rung_name,
    time_to_gap,
)
from convexnn_bench.report.tables import finite

SIZES = {"n": "n", "d": "d", "c": "c", "patterns": "P"}  # parameter of a data set: size of its problem


def thinned(points: Sequence[Any], most: int = 40) -> list[Any]:
    """At most `most` of a curve's points, evenly by their place on a logarithmic scale; the first and last stay."""
    if len(points) <= most:
        return list(points)
    places = {round((len(points) - 1) ** (k / (most - 1))) for k in range(most)} | {0}
    return [points[place] for place in sorted(places)]


@dataclass(frozen=True)
class Curve:
    """One record's points: seconds from the start of set-up, certified gaps, most possible distance to the optimum."""

    problem: str
    solver: str
    formulation: str
    seed: int
    seconds: list[float]
    gaps: list[float]
    excess: list[float]


def curves(records: Sequence[Record], most: int = 40) -> list[Curve]:
    """Of every record with points; numbers that are not known are nan."""
    intervals, found = optimum_intervals(records), []
    for record in records:
        points = thinned([point for point in record["curve"] if math.isfinite(finite(point[1]))], most)
        if not points:
            continue
        setup = finite(record["setup_seconds"])
        offset = setup if math.isfinite(setup) else 0.0
        interval = intervals.get(program(record), Interval(math.nan, math.nan))
        found.append(
            Curve(
                record["problem_name"], record["solver_name"], record["formulation"], record["seed"],
                [offset + point[0] for point in points],
                [finite(point[2]) for point in points],
                [interval.excess(point[1])[1] for point in points],
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Profile:
    """Performance profile (Dolan & More, 2002) of one solver: ratios[i] is the i-th least factor over the quickest.

    It had got to the gap within ratios[i] times the quickest solver's time in i + 1 of `runs` races. unsolved: races in
    which no solver got there; they count among the runs. ran: races that the solver was run in; in the others it counts
    as one that did not get there.
    """

    solver: str
    formulation: str
    ratios: list[float]
    runs: int
    unsolved: int
    ran: int


def profiles(records: Sequence[Record], gap: float) -> list[Profile]:
    """Every solver that was run, over all draws of all problems, those that no solver got to the gap on included.

    Where a solver was skipped, or not asked for, it counts as one that did not get there. One that was run from fewer
    starts than others on the same data counts with the median of its own in their races.
    """
    times: dict[tuple[str, Any], dict[str, float]] = {}
    starts: dict[tuple[str, Any, str], list[float]] = {}
    kinds: dict[str, str] = {}
    for (rung, solver), draws in by_draw(records).items():
        for drawn, cells in draws.items():
            kinds[solver] = cells[0]["formulation"]
            seconds = best_run([time_to_gap(record, gap) for record in cells]).seconds
            times.setdefault((rung, drawn), {})[solver] = seconds
            starts.setdefault((rung, drawn[:-1], solver), []).append(seconds)
    for (rung, drawn), race in times.items():
        for solver in kinds:
            others = starts.get((rung, drawn[:-1], solver))
            if solver not in race and others:
                race[solver] = quantile(others, 0.5)
    races = [race for race in times.values() if math.isfinite(min(race.values()))]
    found = []
    for solver, kind in kinds.items():
        ratios = [race.get(solver, math.inf) / min(race.values()) for race in races]
        reached = sorted(ratio for ratio in ratios if math.isfinite(ratio))
        ran = sum(solver in race for race in times.values())
        found.append(Profile(solver, kind, reached, len(times), len(times) - len(races), ran))
    return found


def gaps_of(records: Sequence[Record]) -> list[float]:
    """The gaps worth a profile: those of the tables that are no finer than what the campaign asked for, and that."""
    asked = min(record["limits"]["gap"] for record in records)
    return sorted({gap for gap in GAPS if gap > asked * (1 + SLACK)} | {asked}, reverse=True)


@dataclass(frozen=True)
class Scaling:
    """Time to the campaign's gap against one size that varies alone. title: the data set with what stays the same.

    points: {solver: [(size, median seconds), ...]}; laws: of solvers with three sizes at least. missed: the
    same as points, where the solver ran out of so much time: no part of the law, which may therefore be too flat.
    """

    title: str
    size: str
    points: dict[str, list[tuple[float, float]]]
    laws: dict[str, PowerLaw]
    missed: dict[str, list[tuple[float, float]]]


def scalings(records: Sequence[Record]) -> list[Scaling]:
    """One for every family of problems that differ in one size only, with three values of it; largest family first."""
    gap = min(record["limits"]["gap"] for record in records)
    families: dict[tuple[str, str], dict[float, list[Outcome]]] = {}
    for outcome in outcomes(records, [gap]):
        name, parameters = parse_spec(outcome.rung)
        for key, size in SIZES.items():
            if key in parameters and size in outcome.problem:
                title = format_spec(name, {other: value for other, value in parameters.items() if other != key})
                family = families.setdefault((title, size), {})
                family.setdefault(float(outcome.problem[size]), []).append(outcome)
    found = []
    for (title, size), family in sorted(families.items(), key=lambda item: -len(item[1])):
        if len(family) < 3:
            continue
        points: dict[str, list[tuple[float, float]]] = {}
        missed: dict[str, list[tuple[float, float]]] = {}
        for value in sorted(family):
            for outcome in family[value]:
                if 0 < outcome.bound < math.inf:
                    kept = points if outcome.done else missed
                    kept.setdefault(outcome.solver, []).append((value, outcome.bound))
        laws = {name: fit_power_law(*zip(*own, strict=True)) for name, own in points.items() if len(dict(own)) >= 3}
        if points:
            found.append(Scaling(title, size, points, laws, missed))
    return found


@dataclass(frozen=True)
class Ranks:
    """Blocks at the optimum as one solver found it on one problem: how many are not zero, their ranks, of how many."""

    problem: str
    solver: str
    formulation: str
    active: int
    largest: int
    total: int
    P: int
    most: int  # min(p, q)


def ranks(records: Sequence[Record]) -> list[Ranks]:
    """Of records that got to the gap they were asked for, one a problem (whatever its draw) and solver: the first."""
    found: dict[tuple[str, str], Ranks] = {}
    for record in records:
        about = record.get("problem") or {}
        told = record.get("active_blocks") is not None and "P" in about and judged(record)
        if not told or record["gap"] > record["limits"]["gap"]:
            continue
        where = rung_name(record), record["solver_name"]
        own = record["active_blocks"], record["largest_rank"], record["total_rank"]
        found.setdefault(where, Ranks(*where, record["formulation"], *own, about["P"], min(about["p"], about["q"])))
    return list(found.values())
