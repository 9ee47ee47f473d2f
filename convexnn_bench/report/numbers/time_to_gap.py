"""The time each solver took to certified gaps.

There are medians and quartiles over draws, and ratios between solvers.

A rung is a problem without the seeds that say which draw of it a cell solved. All cells of one solver on one rung are
runs of the same experiment, and their spread is over data, patterns and starts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from convexnn_bench.plugins import format_spec, parse_spec
from convexnn_bench.records import TEST_FIELDS, Record
from convexnn_bench.report.formats import finite

GAPS: tuple[float, ...] = (1e-2, 1e-4, 1e-6)  # relative; the certified gaps of the tables: rough, usual and exact
SEEDS = ("seed", "pattern_seed", "test_seed")  # parameters that distinguish draws of one problem
SWEPT = "tolerance"  # the parameter of a one-shot solver whose values together form its curve


@dataclass(frozen=True)
class Run:
    """One solver on one draw of a problem, up to the first scored point at or below the gap.

    Attributes
    ----------
    seconds : float
        Set-up plus solving time to that point, inf if the gap was not reached.
    setup, solve : float
        The two parts of it, in seconds.
    waited : float
        Seconds that the run took in all.
    status : str
        How the run ended, as in its record.
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
class SolverTimes:
    """The runs of one solver on one rung to one gap, one run a draw.

    memory_mb is the median over draws of the peak memory in MiB, `problem` the sizes and choices of the problem, and
    `ratio` the median time over that of the rung's best solver (inf if the median run did not reach the gap). scores:
    {field of a record: median over draws} of the known test scores of final points, which do not depend on the gap.
    """

    rung: str
    solver: str
    formulation: str
    gap: float
    runs: list[Run]
    memory_mb: float
    problem: dict[str, Any]
    ratio: float = math.inf
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> Spread:
        """Seconds of set-up and solving; inf counts for each run that did not reach the gap."""
        return spread([run.seconds for run in self.runs])

    @property
    def setup(self) -> Spread:
        """Set-up seconds of the runs that reached the gap."""
        return spread([run.setup for run in self.runs if math.isfinite(run.seconds)])

    @property
    def solve(self) -> Spread:
        """Solving seconds of the runs that reached the gap."""
        return spread([run.solve for run in self.runs if math.isfinite(run.seconds)])

    @property
    def reached(self) -> int:
        """Number of runs that reached the gap."""
        return sum(math.isfinite(run.seconds) for run in self.runs)

    @property
    def done(self) -> bool:
        """Whether the median over the draws is a time at which the gap was reached."""
        return math.isfinite(self.total.median)

    @property
    def bound(self) -> float:
        """A lower bound on the median time.

        It is the median itself if reached, else the least time limit that was hit.

        It is inf if every run that missed the gap ended by itself: more time would not have helped.
        """
        if self.done:
            return self.total.median
        return min((run.waited for run in self.runs if run.status == "time_limit"), default=math.inf)


@dataclass(frozen=True)
class Lead:
    """How far the best solver of a rung is ahead of the next one, to one gap.

    `best` has the least median time and is `factor` times faster than `other`. other is None if no other solver
    reached the gap or could have with more time. bounded: `other` ran out of time, so that factor is a lower bound.
    """

    best: SolverTimes
    other: SolverTimes | None
    factor: float
    bounded: bool


def quantile(values: Sequence[float], q: float) -> float:
    """Interpolate the q-quantile between order statistics.

    The result is inf as soon as an infinite value enters with any weight, and nan if there are no values.
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    weight = position - below
    if weight == 0 or ordered[below] == ordered[below + 1]:  # inf - inf would be nan
        return ordered[below]
    return ordered[below] + weight * (ordered[below + 1] - ordered[below])


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of the values."""
    return Spread(*(quantile(values, q) for q in (0.5, 0.25, 0.75)))


def rung_name(record: Record) -> str:
    """Return the problem's name without the seeds that say which draw of it this is."""
    name, parameters = parse_spec(record["problem_name"])
    return format_spec(name, {key: value for key, value in parameters.items() if key not in SEEDS})


def draw(record: Record) -> tuple[Any, ...]:
    """Return the seeds of data, patterns and start."""
    parameters = parse_spec(record["problem_name"])[1]
    return (*(parameters.get(key) for key in SEEDS), record["seed"])


def curve_name(record: Record) -> str:
    """Return the solver with its parameters but the tolerance, as one curve has."""
    return without_tolerance(record["solver_name"])


def without_tolerance(solver_name: str) -> str:
    """Return the name of a solver without its tolerance."""
    name, parameters = parse_spec(solver_name)
    return format_spec(name, {key: value for key, value in parameters.items() if key != SWEPT})


def pooled(records: Sequence[Record]) -> list[str]:
    """Return a sentence for every solver that was run with several tolerances, whose runs form one curve."""
    tolerances: dict[str, dict[str, None]] = {}
    for record in records:
        parameters = record.get("solver_parameters") or {}
        if record["status"] != "skipped" and SWEPT in parameters:
            tolerances.setdefault(curve_name(record), {})[str(parameters[SWEPT])] = None
    return [
        f"{solver}: in every race the quickest of its runs with {SWEPT} {', '.join(values)} counts."
        for solver, values in tolerances.items()
        if len(values) > 1
    ]


def setup_offset(record: Record) -> float:
    """Return the set-up seconds, from which the times of a curve count."""
    setup = finite(record["setup_seconds"])
    if not math.isfinite(setup) and record["curve"]:  # a killed cell: set-up took at most the rest of its wall time
        return max(0.0, finite(record["wall_seconds"]) - record["curve"][-1][0])
    return setup if math.isfinite(setup) else 0.0


def time_to_gap(record: Record, gap: float) -> Run:
    """Return the time to the first point of the curve at or below the gap, never one between two points."""
    setup, solve = finite(record["setup_seconds"]), finite(record["solve_seconds"])
    # A cell that was killed has no solve time. Its wall time is all that is known.
    waited = setup + solve if math.isfinite(setup + solve) else finite(record["wall_seconds"])
    offset = setup_offset(record)
    # Interpolation between two points would claim a time at which nothing was proven.
    for seconds, _, reached in record["curve"]:
        if finite(reached) <= gap:
            return Run(offset + seconds, offset, seconds, waited, record["status"])
    return Run(math.inf, setup, solve, waited, record["status"])


def best_run(runs: Sequence[Run]) -> Run:
    """Return the quickest of all tolerances' runs to the gap.

    If none reached it, return the one that waited longest.
    """
    # Of runs that missed the gap one that ran out of time says most: the gap takes at least as long.
    return min(runs, key=lambda run: (run.seconds, run.status != "time_limit", -run.waited))


def by_draw(records: Sequence[Record]) -> dict[tuple[str, str], dict[tuple[Any, ...], list[Record]]]:
    """Group records as {(rung, solver): {draw: records, one a tolerance}}.

    They are in their order, without skipped cells.
    """
    groups: dict[tuple[str, str], dict[tuple[Any, ...], list[Record]]] = {}
    for record in records:
        if record["status"] != "skipped":
            group = groups.setdefault((rung_name(record), curve_name(record)), {})
            group.setdefault(draw(record), []).append(record)
    return groups


def _peak(records: Sequence[Record]) -> float:
    """Return the largest known peak memory in MiB, nan if none is known."""
    known = [finite(record["peak_memory_mb"]) for record in records if record["peak_memory_mb"] is not None]
    return max(known, default=math.nan)


def _median_scores(draws: Sequence[Sequence[Record]]) -> dict[str, float]:
    """Return the median over draws of each known test score, at the tolerance with the smallest gap."""
    ends = [min(cells, key=lambda record: (math.isnan(gap := finite(record["gap"])), gap)) for cells in draws]
    known = {name: [finite(end[name]) for end in ends if end.get(name) is not None] for name in TEST_FIELDS[1:]}
    return {name: spread(values).median for name, values in known.items() if values}


def tested(times: Sequence[SolverTimes]) -> list[str]:
    """Return the test scores that are known of some solver, as fields of a record."""
    return [name for name in TEST_FIELDS if any(name in one.scores for one in times)]


def asked_gap(records: Sequence[Record]) -> float:
    """Return the smallest gap at which cells were stopped, or the last of GAPS if no record has one."""
    return min((record["limits"]["gap"] for record in records if record["limits"]["gap"] is not None), default=GAPS[-1])


def solver_times(records: Sequence[Record], gaps: Sequence[float] = GAPS) -> list[SolverTimes]:
    """Return the times of every solver on every rung to every gap, in the order of the records."""
    times = []
    for (rung, solver), draws in by_draw(records).items():
        cells = [record for tolerances in draws.values() for record in tolerances]
        memory = spread([peak for cells in draws.values() if not math.isnan(peak := _peak(cells))]).median
        problem: dict[str, Any] = next((record["problem"] for record in cells if record.get("problem")), {})
        scores = _median_scores(list(draws.values()))
        for gap in gaps:
            runs = [best_run([time_to_gap(record, gap) for record in tolerances]) for tolerances in draws.values()]
            kind = cells[0]["formulation"]
            times.append(SolverTimes(rung, solver, kind, gap, runs, memory, problem, scores=scores))
    for peers in by_rung(times, gaps).values():
        # The ratio is of medians, and not the median of ratios: draws of different solvers need not be pairs.
        least = min(peer.total.median for peer in peers)
        for peer in peers:
            peer.ratio = peer.total.median / least if peer.done else math.inf
    return times


def by_rung(times: Sequence[SolverTimes], gaps: Sequence[float] = GAPS) -> dict[tuple[str, float], list[SolverTimes]]:
    """Group times by rung and gap, rungs in their order."""
    rungs = dict.fromkeys(one.rung for one in times)
    return {(rung, gap): [one for one in times if (one.rung, one.gap) == (rung, gap)] for rung in rungs for gap in gaps}


def by_solver(times: Sequence[SolverTimes]) -> dict[tuple[str, str], dict[float, SolverTimes]]:
    """Group times as {(rung, solver): {gap: times}}.

    Rungs are in their order, and solvers in that of each rung.
    """
    groups: dict[tuple[str, str], dict[float, SolverTimes]] = {}
    for rung in dict.fromkeys(one.rung for one in times):
        for one in times:
            if one.rung == rung:
                groups.setdefault((rung, one.solver), {})[one.gap] = one
    return groups


def lead(group: Sequence[SolverTimes]) -> Lead | None:
    """Compare the best solver of one rung and gap with the others, or return None."""
    best = min((one for one in group if one.done), key=lambda one: one.total.median, default=None)
    if best is None:
        return None
    # a solver that ran out of time may have been second, but no earlier than its time limit
    other = min((one for one in group if one is not best), key=lambda one: one.bound, default=None)
    if other is None or not math.isfinite(other.bound):
        return Lead(best, None, math.inf, False)
    return Lead(best, other, other.bound / best.total.median, not other.done)
