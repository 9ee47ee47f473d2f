"""The ladder as tables: the time to certified gaps of each solver on each problem, and ratios to the best solver.

The tables go to a terminal, to the page, to CSV and to Markdown.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convexnn_bench.records import TEST_FIELDS, Record
from convexnn_bench.report.numbers import (
    GAPS,
    SolverTimes,
    Spread,
    by_rung,
    by_solver,
    lead,
    pooled,
    rung_name,
    solver_times,
    tested,
)
from convexnn_bench.report.tables import (
    COLUMNS,
    FORMATS,
    format_memory,
    format_seconds,
    format_target,
    plain_table,
    problem_line,
    reasons,
)
from convexnn_bench.report.writers import markdown_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SIZES = ("n", "d", "c", "P", "activation", "loss", "beta", "scope")
RATIO_COLUMNS = ("problem", "gap", "best", "seconds", "faster than the best other", "time over the best one's")
NAME_WIDTH = 16  # characters of a line to which the name of a solver or problem may be folded
LEGEND = (
    "Seconds of set-up and solve to the first scored point at or below the certified gap: median [quartiles] over the "
    "draws of data, patterns and start. '> T': the gap was not reached in T s; 'never': the solver ended by itself "
    "above the gap."
)

SCORES_LEGEND = "Test scores are those of final points: medians over the draws."


def missed(times: SolverTimes) -> str:
    """Say why the median over the draws is no time."""
    if math.isfinite(times.bound):
        return f"> {format_seconds(times.bound)}"
    statuses = dict.fromkeys(run.status for run in times.runs if math.isinf(run.seconds))
    # A solver that stopped by itself above the gap would never have reached it. Any other status is named.
    ended = [status for status in statuses if status not in ("stalled", "solved", "gap_reached")]
    return ", ".join(ended) if ended else "never"


def times_text(times: SolverTimes, quartiles: bool = True) -> str:
    """Return "0.52 [0.50, 0.61]", followed by "4/5" if a draw did not reach the gap."""
    spread, runs = times.total, len(times.runs)
    text = format_seconds(spread.median) if times.done else missed(times)
    if quartiles and times.done and runs > 1:
        ends = [format_seconds(end) if math.isfinite(end) else "-" for end in (spread.low, spread.high)]
        text += f" [{', '.join(ends)}]"
    return text + (f" {times.reached}/{runs}" if 0 < times.reached < runs else "")


def time_rows(
    times: Sequence[SolverTimes], gaps: Sequence[float] = GAPS, quartiles: bool = True
) -> dict[str, list[list[str]]]:
    """Return {rung: rows for the head of `time_head`}; set-up is part of the time to the last gap."""
    rows: dict[str, list[list[str]]] = {}
    scores = tested(times)
    for (rung, solver), by_gap in by_solver(times).items():
        # Set-up is that of the smallest gap reached, because another tolerance may be the quickest to another gap.
        done = [by_gap[gap] for gap in gaps if by_gap[gap].done]
        setup = format_seconds(done[-1].setup.median) if done else "-"
        texts = [times_text(by_gap[gap], quartiles) for gap in gaps]
        first = by_gap[gaps[0]]
        texts += [setup, format_memory(first.memory_mb), *(score_text(first, name) for name in scores)]
        rows.setdefault(rung, []).append([solver, *texts])
    return rows


def score_text(times: SolverTimes, name: str) -> str:
    """Return the median of a test score as text."""
    return FORMATS[name](times.scores.get(name))


def time_head(times: Sequence[SolverTimes], gaps: Sequence[float] = GAPS, setup: str = "set-up part") -> list[str]:
    """Return the titles of the columns of `time_rows`; `setup` is that of the set-up times."""
    return ["solver", *map(format_target, gaps), setup, "MB", *(COLUMNS[name] for name in tested(times))]


def ratio_rows(times: Sequence[SolverTimes], gaps: Sequence[float] = GAPS) -> list[list[str]]:
    """Return rows of RATIO_COLUMNS, one for each rung and gap."""
    rows = []
    for (rung, gap), group in by_rung(times, gaps).items():
        ahead = lead(group)
        if ahead is None:
            rows.append([rung, format_target(gap), "none", "-", "-", "-"])
            continue
        best, other = ahead.best, ahead.other
        factor = "only one" if other is None else f"{_at_least(ahead.bounded)}{_factor(ahead.factor)} {other.solver}"
        # Solvers that ran out of time take their place by the time that they had at least.
        rest = sorted((one for one in group if one is not best), key=lambda one: one.bound)
        listed = ", ".join(f"{one.solver} {ratio_text(one, best)}" for one in rest)
        rows.append([rung, format_target(gap), best.solver, format_seconds(best.total.median), factor, listed or "-"])
    return rows


def ratio_text(times: SolverTimes, best: SolverTimes) -> str:
    """Return the median time over that of the best solver, a lower bound if the solver ran out of time."""
    if not math.isfinite(times.bound):
        return missed(times)
    # A solver that used up its time limit T needs more than T, so that T over the best time is a lower bound.
    return f"{_at_least(not times.done)}{_factor(times.bound / best.total.median)}"


def _at_least(bounded: bool) -> str:
    return "> " if bounded else ""


def _factor(ratio: float) -> str:
    return f"{ratio:.3g}x" if ratio < 999.5 else f"{ratio:.0f}x"


def csv_rows(times: Sequence[SolverTimes], gaps: Sequence[float] = GAPS) -> list[dict[str, Any]]:
    """Return one row for each rung, solver and gap; the time to a gap that was not reached is empty."""
    rows = []
    for group in by_rung(times, gaps).values():
        ahead = lead(group)
        for one in group:
            row: dict[str, Any] = {"problem": one.rung, **{key: one.problem.get(key) for key in SIZES}}
            row |= {"solver": one.solver, "formulation": one.formulation, "gap": one.gap}
            row |= {"runs": len(one.runs), "reached": one.reached}
            row |= {**_columns("total", one.total), **_columns("setup", one.setup)}
            row |= {**_columns("solve", one.solve), "ratio_to_best": _number(one.ratio)}
            row["not_reached_in_seconds"] = None if one.done else _number(one.bound)
            row["statuses"] = " ".join(dict.fromkeys(run.status for run in one.runs))
            row["peak_memory_mb"] = _number(one.memory_mb)
            row |= {f"{name}_median": one.scores.get(name) for name in TEST_FIELDS[1:]}
            best = ahead if ahead is not None and ahead.best is one else None
            row["times_faster_than_best_other"] = None if best is None else _number(best.factor)
            row["only_a_lower_bound"] = None if best is None else best.bounded
            rows.append(row)
    return rows


def _columns(name: str, values: Spread) -> dict[str, float | None]:
    quartiles = {"median": values.median, "quartile_1": values.low, "quartile_3": values.high}
    return {f"{name}_seconds_{which}": _number(value) for which, value in quartiles.items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def markdown(times: Sequence[SolverTimes], gaps: Sequence[float] = GAPS) -> str:
    """Return both tables as Markdown."""
    head = time_head(times, gaps)
    parts = [LEGEND]
    for rung, rows in time_rows(times, gaps).items():
        parts.append(f"### {rung}\n\n{markdown_table(head, rows)}")
    parts.append(f"### Ratios\n\n{markdown_table(RATIO_COLUMNS, ratio_rows(times, gaps))}")
    return "\n\n".join(parts) + "\n"


def print_ladder(records: Sequence[Record], console: "Console", gaps: Sequence[float] = GAPS) -> list[SolverTimes]:
    """Print the tables, and why cells were skipped or failed; return the times that they show."""
    from rich.text import Text

    times = solver_times(records, gaps)
    about = {name: problem_line([r for r in records if rung_name(r) == name]) for name in map(rung_name, records)}
    head = time_head(times, gaps, "set-up")
    tables, legend = time_rows(times, gaps), LEGEND
    # Quartiles give way first where the terminal is narrow, because a number that is cut off would mislead.
    if not all(_fits(head, rows, console.width) for rows in tables.values()):
        tables, legend = time_rows(times, gaps, quartiles=False), LEGEND.replace("[quartiles] ", "")
    for rung, rows in tables.items():
        console.print(Text(rung, style="bold cyan"))
        console.print(Text(about[rung], style="dim"))
        console.print(_table(head, rows, folded=(0,)), Text(""))
    best = [row[:-1] for row in ratio_rows(times, gaps)]  # the list of all ratios would not fit a terminal
    console.print(_table(RATIO_COLUMNS[:-1], best, folded=(0, 2, 4)), Text(""))
    console.print(Text(f"{legend} set-up: its part of the time to the smallest gap reached.", style="dim"))
    for line in [SCORES_LEGEND] * bool(tested(times)) + pooled(records):
        console.print(Text(line, style="dim"))
    # Reasons are grouped by rung, or else every draw would repeat them. A stalled solver is visible in the table.
    by_name = [{**record, "problem_name": rung_name(record)} for record in records if record["status"] != "stalled"]
    for line in reasons(by_name):
        console.print(Text(line))
    return times


def _fits(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Return whether the numbers fit beside the first column, which may be folded to NAME_WIDTH."""
    widths = [max(map(len, column)) + 2 for column in zip(head, *rows, strict=True)]
    return min(widths[0], NAME_WIDTH + 2) + sum(widths[1:]) <= width


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], folded: Sequence[int]) -> "Table":
    """Return a plain table. The columns `folded` take the room that is left: names are folded, numbers never cut."""
    table = plain_table()
    for index, column in enumerate(zip(head, *rows, strict=True)):
        longest = max(map(len, column))
        needed = min(longest, NAME_WIDTH) if index in folded else longest
        table.add_column(column[0], no_wrap=index not in folded, overflow="fold", min_width=needed)
    for row in rows:
        table.add_row(*row)
    return table
