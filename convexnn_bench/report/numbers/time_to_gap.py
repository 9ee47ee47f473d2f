"""From records to the time each solver took to certified gaps: medians and quartiles over seeds, and ratios."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convexnn_bench.plugins.specs import format_spec, parse_spec
from convexnn_bench.records.records import Record
from convexnn_bench.report.tables import finite

GAPS = (1e-2, 1e-4, 1e-6)
SEEDS = ("seed", "pattern_seed")  # parameters of a problem that only say which draw of it this is
SWEPT = "tolerance"  # the parameter of a one-shot solver whose values together form its curve


@dataclass(frozen=True)
class Run:
    """One solver on one draw of a problem. seconds: set-up plus solve, to the first point at or below the gap.

    seconds is inf where no point was; `waited` is then the time that was given to it, and `status` how it ended.
    """

    seconds: float
    setup: float
    solve: float
    waited: float
    status: str


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


@dataclass
class Outcome:
    """One solver on one rung to one gap, over the seeds. Times in seconds, inf where not reached."""

    rung: str
    solver: str
    formulation: str
    gap: float
    runs: list[Run]
    memory_mb: float
    problem: dict[str, Any]
    ratio: float = math.inf  # median time over the best solver's on this rung; inf where not reached

    @property
    def total(self) -> Spread:
        return spread([run.seconds for run in self.runs])

    @property
    def setup(self) -> Spread:
        """Set-up part of the runs that reached the gap."""
        return spread([run.setup for run in self.runs if math.isfinite(run.seconds)])

    @property
    def solve(self) -> Spread:
        """Solve part of the runs that reached the gap."""
        return spread([run.solve for run in self.runs if math.isfinite(run.seconds)])

    @property
    def reached(self) -> int:
        return sum(math.isfinite(run.seconds) for run in self.runs)

    @property
    def done(self) -> bool:
        """Whether the median over the seeds is a time at which the gap was reached."""
        return math.isfinite(self.total.median)

    @property
    def bound(self) -> float:
        """A lower bound on the median time: itself where reached, else the least time that a run out of time was given.

        inf where no run that missed the gap could have gone on: more time would not have helped.
        """
        if self.done:
            return self.total.median
        return min((run.waited for run in self.runs if run.status == "time_limit"), default=math.inf)


@dataclass(frozen=True)
class Comparison:
    """A rung at one gap. best: the solver with the least median time; `factor` times faster than `other`.

    other: None where no other solver reached the gap or could have, given more time. bounded: `other` ran out of time,
    so that factor is a lower bound.
    """

    best: Outcome
    other: Outcome | None
    factor: float
    bounded: bool


def quantile(values: Sequence[float], q: float) -> float:
    """Linear between order statistics; inf as soon as an infinite one enters with any weight; nan for no values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    weight = place - below
    if weight == 0 or ordered[below] == ordered[below + 1]:
        return ordered[below]
    return ordered[below] + weight * (ordered[below + 1] - ordered[below])


def spread(values: Sequence[float]) -> Spread:
    return Spread(*(quantile(values, q) for q in (0.5, 0.25, 0.75)))


def rung_name(record: Record) -> str:
    """The problem without the seeds that say which draw of it this is."""
    name, parameters = parse_spec(record["problem_name"])
    return format_spec(name, {key: value for key, value in parameters.items() if key not in SEEDS})


def draw(record: Record) -> tuple[Any, ...]:
    """The seeds of data, patterns and start."""
    parameters = parse_spec(record["problem_name"])[1]
    return (*(parameters.get(key) for key in SEEDS), record["seed"])


def curve_name(record: Record) -> str:
    """The solver with its parameters, without the tolerance: all tolerances of one solver form one curve."""
    return without_tolerance(record["solver_name"])


def without_tolerance(solver_name: str) -> str:
    """The name of a solver without its tolerance."""
    name, parameters = parse_spec(solver_name)
    return format_spec(name, {key: value for key, value in parameters.items() if key != SWEPT})


def pooled(records: Sequence[Record]) -> list[str]:
    """For every solver that was run with several tolerances, a sentence that says so: they form one curve."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        given = record.get("solver_parameters") or {}
        if record["status"] != "skipped" and SWEPT in given:
            values.setdefault(curve_name(record), {})[str(given[SWEPT])] = None
    return [
        f"{solver}: in every race the quickest of its runs with {SWEPT} {', '.join(own)}."
        for solver, own in values.items()
        if len(own) > 1
    ]


def time_to_gap(record: Record, gap: float) -> Run:
    """To the first point of the curve at or below the gap; never between two points."""
    setup, solve = finite(record["setup_seconds"]), finite(record["solve_seconds"])
    waited = setup + solve if math.isfinite(setup + solve) else finite(record["wall_seconds"])
    offset = setup if math.isfinite(setup) else 0.0
    if not math.isfinite(setup) and record["curve"]:  # killed: at most what the wall clock has left over was set-up
        offset = max(0.0, finite(record["wall_seconds"]) - record["curve"][-1][0])
    for seconds, _, reached in record["curve"]:
        if finite(reached) <= gap:
            return Run(offset + seconds, offset, seconds, waited, record["status"])
    return Run(math.inf, setup, solve, waited, record["status"])


def best_run(runs: Sequence[Run]) -> Run:
    """Of all tolerances the quickest to the gap; where none reached it, the one given the most time."""
    return min(runs, key=lambda run: (run.seconds, run.status != "time_limit", -run.waited))


def by_draw(records: Sequence[Record]) -> dict[tuple[str, str], dict[tuple[Any, ...], list[Record]]]:
    """{(rung, solver): {draw: records, one a tolerance}}, in the order of the records. Skipped cells take no part."""
    groups: dict[tuple[str, str], dict[tuple[Any, ...], list[Record]]] = {}
    for record in records:
        if record["status"] != "skipped":
            group = groups.setdefault((rung_name(record), curve_name(record)), {})
            group.setdefault(draw(record), []).append(record)
    return groups


def _peak(records: Sequence[Record]) -> float:
    """Largest peak memory in MiB of those that have one; nan where none has."""
    known = [finite(record["peak_memory_mb"]) for record in records if record["peak_memory_mb"] is not None]
    return max(known, default=math.nan)


def outcomes(records: Sequence[Record], gaps: Sequence[float] = GAPS) -> list[Outcome]:
    """Every solver on every rung to every gap, in the order of the records. Skipped cells take no part."""
    found = []
    for (rung, solver), draws in by_draw(records).items():
        every = [record for tolerances in draws.values() for record in tolerances]
        memory = spread([peak for cells in draws.values() if not math.isnan(peak := _peak(cells))]).median
        problem: dict[str, Any] = next((record["problem"] for record in every if record.get("problem")), {})
        for gap in gaps:
            runs = [best_run([time_to_gap(record, gap) for record in cells]) for cells in draws.values()]
            found.append(Outcome(rung, solver, every[0]["formulation"], gap, runs, memory, problem))
    for peers in by_rung(found, gaps).values():
        least = min(outcome.total.median for outcome in peers)
        for outcome in peers:
            outcome.ratio = outcome.total.median / least if outcome.done else math.inf
    return found


def by_rung(found: Sequence[Outcome], gaps: Sequence[float] = GAPS) -> dict[tuple[str, float], list[Outcome]]:
    """Outcomes by rung and gap, rungs in their order."""
    rungs = dict.fromkeys(outcome.rung for outcome in found)
    return {
        (rung, gap): [outcome for outcome in found if (outcome.rung, outcome.gap) == (rung, gap)]
        for rung in rungs
        for gap in gaps
    }


def compare(group: Sequence[Outcome]) -> Comparison | None:
    """The best of the outcomes of one rung and gap against the others; None where no solver reached the gap."""
    best = min((outcome for outcome in group if outcome.done), key=lambda outcome: outcome.total.median, default=None)
    if best is None:
        return None
    rest = [outcome for outcome in group if outcome is not best]
    # one that ran out of time may have been second, but no earlier than that
    other = min(rest, key=lambda outcome: outcome.bound, default=None)
    if other is None or not math.isfinite(other.bound):
        return Comparison(best, None, math.inf, False)
    return Comparison(best, other, other.bound / best.total.median, not other.done)
