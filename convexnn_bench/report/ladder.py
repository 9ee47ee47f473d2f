"""The ladder as tables.

They show the time to certified gaps of each solver on each problem, and the matrix of all.

The tables go to a terminal, to the page, to CSV and to Markdown.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convexnn_bench.records import TEST_FIELDS, Record
from convexnn_bench.report.formats import FORMATS, format_memory, format_seconds, format_target
from convexnn_bench.report.matrix import LEGEND as MATRIX_LEGEND
from convexnn_bench.report.matrix import Matrix, matrix, missed
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
from convexnn_bench.report.tables import COLUMNS, plain_table, problem_line, reasons
from convexnn_bench.report.writers import markdown_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SIZES = ("n", "d", "c", "P", "activation", "loss", "beta", "scope")
NAME_WIDTH = 16  # characters of a line to which the name of a solver or problem may be folded
LEGEND = (
    "Seconds of set-up and solve to the first scored point at or below the certified gap: median [quartiles] over the "
    "draws of data, patterns and start. '> T': the gap was not reached in T s; 'never': the solver ended by itself "
    "above the gap."
)

SCORES_LEGEND = "Test scores are those of final points: medians over the draws."


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
    """Return the matrix at the smallest gap and the tables as Markdown."""
    head = time_head(times, gaps)
    parts = [LEGEND]
    for rung, rows in time_rows(times, gaps).items():
        parts.append(f"### {rung}\n\n{markdown_table(head, rows)}")
    one = matrix(times, gaps[-1])
    title = f"### Time to {format_target(one.gap)} over the best"
    parts.insert(1, f"{title}\n\n{MATRIX_LEGEND}\n\n{markdown_table(['solver', *one.rungs], one.rows())}")
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
    for number, (rung, rows) in enumerate(tables.items(), start=1):
        console.print(Text(f"{number}. {rung}", style="bold cyan"))
        console.print(Text(about[rung], style="dim"))
        console.print(_table(head, rows, folded=(0,)), Text(""))
    _print_matrix(matrix(times, gaps[-1]), console)
    console.print(Text(f"{legend} set-up: its part of the time to the smallest gap reached.", style="dim"))
    for line in [SCORES_LEGEND] * bool(tested(times)) + pooled(records):
        console.print(Text(line, style="dim"))
    # Reasons are grouped by rung, or else every draw would repeat them. A stalled solver is visible in the table.
    by_name = [{**record, "problem_name": rung_name(record)} for record in records if record["status"] != "stalled"]
    for line in reasons(by_name):
        console.print(Text(line))
    return times


def _print_matrix(one: Matrix, console: "Console") -> None:
    """Print the matrix with the numbers of the problems as titles, in as many parts as the terminal needs."""
    from rich.text import Text

    console.print(Text(f"Time to {format_target(one.gap)} over the best, by problem", style="bold cyan"))
    left = list(enumerate(one.rungs, start=1))
    while left:
        part: list[tuple[int, str]] = []
        for number, rung in left:
            chosen = [*part, (number, rung)]
            head = ["solver", *(str(which) for which, _ in chosen)]
            # One column is printed in any case, or else nothing ever would be.
            if part and not _fits(head, one.rows([name for _, name in chosen]), console.width):
                break
            part = chosen
        head = ["solver", *(str(which) for which, _ in part)]
        console.print(_table(head, one.rows([name for _, name in part]), folded=(0,)), Text(""))
        left = left[len(part) :]
    console.print(Text(MATRIX_LEGEND, style="dim"))


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
