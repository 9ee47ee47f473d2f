"""The ladder as tables: time to certified gaps for each problem and solver, and ratios against the best other one."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convexnn_bench.errors import InputError
from convexnn_bench.records.records import Record, RecordFile
from convexnn_bench.report.numbers.time_to_gap import (
    GAPS,
    Outcome,
    Spread,
    by_rung,
    compare,
    outcomes,
    pooled,
    rung_name,
)
from convexnn_bench.report.tables import format_seconds, format_target, problem_line, reasons

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SIZES = ("n", "d", "c", "P", "activation", "loss", "beta", "scope")
NAME_WIDTH = 16  # characters that the name of a solver or problem is folded to, at the least
LEGEND = (
    "Seconds of set-up and solve to the first scored point at or below the certified gap: median [quartiles] over the "
    "draws of data, patterns and start. '> T': not reached in T s; 'never': ended by itself above the gap."
)


def read_records(folder: str | Path) -> list[Record]:
    """The records of a campaign's folder. Raises InputError where there are none."""
    path = Path(folder) / "records.jsonl"
    records = list(RecordFile(path).read()[0].values())
    if not records:
        raise InputError(f"there are no records in {path}: run a campaign with --out {folder} first")
    return records


def missed(outcome: Outcome) -> str:
    """Why the median over the seeds is no time."""
    if math.isfinite(outcome.bound):
        return f"> {format_seconds(outcome.bound)}"
    statuses = dict.fromkeys(run.status for run in outcome.runs if math.isinf(run.seconds))
    ended = [status for status in statuses if status not in ("stalled", "solved", "gap_reached")]
    return ", ".join(ended) if ended else "never"


def outcome_text(outcome: Outcome, quartiles: bool = True) -> str:
    """ "0.52 [0.50, 0.61]", with "4/5" behind where a seed did not reach the gap."""
    spread, runs = outcome.total, len(outcome.runs)
    text = format_seconds(spread.median) if outcome.done else missed(outcome)
    if quartiles and outcome.done and runs > 1:
        ends = [format_seconds(end) if math.isfinite(end) else "-" for end in (spread.low, spread.high)]
        text += f" [{', '.join(ends)}]"
    return text + (f" {outcome.reached}/{runs}" if 0 < outcome.reached < runs else "")


def time_rows(
    found: Sequence[Outcome], gaps: Sequence[float] = GAPS, quartiles: bool = True
) -> dict[str, list[list[str]]]:
    """{rung: rows of solver, time to each gap, set-up's share of the last one reached, peak MB}."""
    rows: dict[str, list[list[str]]] = {}
    for rung in dict.fromkeys(outcome.rung for outcome in found):
        for solver in dict.fromkeys(outcome.solver for outcome in found if outcome.rung == rung):
            own = {o.gap: o for o in found if (o.rung, o.solver) == (rung, solver)}
            done = [own[gap] for gap in gaps if own[gap].done]
            setup = format_seconds(done[-1].setup.median) if done else "-"
            memory = own[gaps[0]].memory_mb
            row = [
                solver,
                *(outcome_text(own[gap], quartiles) for gap in gaps),
                setup,
                "-" if math.isnan(memory) else f"{memory:.0f}",
            ]
            rows.setdefault(rung, []).append(row)
    return rows


def ratio_rows(found: Sequence[Outcome], gaps: Sequence[float] = GAPS) -> list[list[str]]:
    """Rung, gap, best solver and its time, how many times faster than the best other, and the ratios of all others."""
    rows = []
    for (rung, gap), group in by_rung(found, gaps).items():
        compared = compare(group)
        if compared is None:
            rows.append([rung, format_target(gap), "none", "-", "-", "-"])
            continue
        best, other = compared.best, compared.other
        factor = (
            "only one" if other is None else f"{_at_least(compared.bounded)}{_factor(compared.factor)} {other.solver}"
        )
        rest = sorted((outcome for outcome in group if outcome is not best), key=lambda outcome: outcome.bound)
        listed = ", ".join(f"{outcome.solver} {ratio_text(outcome, best)}" for outcome in rest)
        rows.append([rung, format_target(gap), best.solver, format_seconds(best.total.median), factor, listed or "-"])
    return rows


def ratio_text(outcome: Outcome, best: Outcome) -> str:
    """Its median time over the best one, a lower bound where it ran out of time."""
    if not math.isfinite(outcome.bound):
        return missed(outcome)
    return f"{_at_least(not outcome.done)}{_factor(outcome.bound / best.total.median)}"


def _at_least(bounded: bool) -> str:
    return "> " if bounded else ""


def _factor(ratio: float) -> str:
    return f"{ratio:.3g}x" if ratio < 999.5 else f"{ratio:.0f}x"


def csv_rows(found: Sequence[Outcome], gaps: Sequence[float] = GAPS) -> list[dict[str, Any]]:
    """One row for each rung, solver and gap; what was not reached is empty, never a number."""
    rows = []
    for group in by_rung(found, gaps).values():
        compared = compare(group)
        for outcome in group:
            row: dict[str, Any] = {"problem": outcome.rung, **{key: outcome.problem.get(key) for key in SIZES}}
            row |= {"solver": outcome.solver, "formulation": outcome.formulation, "gap": outcome.gap}
            row |= {"runs": len(outcome.runs), "reached": outcome.reached}
            row |= {**_columns("total", outcome.total), **_columns("setup", outcome.setup)}
            row |= {**_columns("solve", outcome.solve), "ratio_to_best": _number(outcome.ratio)}
            row["not_reached_in_seconds"] = None if outcome.done else _number(outcome.bound)
            row["statuses"] = " ".join(dict.fromkeys(run.status for run in outcome.runs))
            row["peak_memory_mb"] = _number(outcome.memory_mb)
            best = compared if compared is not None and compared.best is outcome else None
            row["times_faster_than_best_other"] = None if best is None else _number(best.factor)
            row["only_a_lower_bound"] = None if best is None else best.bounded
            rows.append(row)
    return rows


def _columns(name: str, values: Spread) -> dict[str, float | None]:
    places = {"median": values.median, "quartile_1": values.low, "quartile_3": values.high}
    return {f"{name}_seconds_{place}": _number(value) for place, value in places.items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_csv(rows: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Rows of equal keys as a CSV file; None becomes an empty field."""
    target = Path(path)
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return target


def markdown(found: Sequence[Outcome], gaps: Sequence[float] = GAPS) -> str:
    """Both tables as Markdown."""
    head = ["solver", *map(format_target, gaps), "of it set-up", "MB"]
    parts = [LEGEND]
    for rung, rows in time_rows(found, gaps).items():
        parts.append(f"### {rung}\n\n{markdown_table(head, rows)}")
    parts.append(f"### Ratios\n\n{markdown_table(RATIO_COLUMNS, ratio_rows(found, gaps))}")
    return "\n\n".join(parts) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


RATIO_COLUMNS = ("problem", "gap", "best", "seconds", "faster than the best other", "time over the best one's")


def print_ladder(records: Sequence[Record], console: "Console", gaps: Sequence[float] = GAPS) -> list[Outcome]:
    """The tables, and why cells were skipped or failed; returns what they show."""
    from rich.text import Text

    found = outcomes(records, gaps)
    about = {name: problem_line([r for r in records if rung_name(r) == name]) for name in map(rung_name, records)}
    head = ["solver", *map(format_target, gaps), "set-up", "MB"]
    tables, legend = time_rows(found, gaps), LEGEND
    if not all(_fits(head, rows, console.width) for rows in tables.values()):
        tables, legend = time_rows(found, gaps, quartiles=False), LEGEND.replace("[quartiles] ", "")
    for rung, rows in tables.items():
        console.print(Text(rung, style="bold cyan"))
        console.print(Text(about[rung], style="dim"))
        console.print(_table(head, rows, folded=(0,)), Text(""))
    best = [row[:-1] for row in ratio_rows(found, gaps)]  # all ratios would not fit; they are in the other formats
    console.print(_table(RATIO_COLUMNS[:-1], best, folded=(0, 2, 4)), Text(""))
    console.print(Text(f"{legend} set-up: its part of the time to the smallest gap reached.", style="dim"))
    for line in pooled(records):
        console.print(Text(line, style="dim"))
    told = [{**record, "problem_name": rung_name(record)} for record in records if record["status"] != "stalled"]
    for line in reasons(told):
        console.print(Text(line))
    return found


def _fits(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether the numbers fit beside the first column, folded to NAME_WIDTH at the least."""
    widths = [max(len(line[place]) for line in (head, *rows)) + 2 for place in range(len(head))]
    return min(widths[0], NAME_WIDTH + 2) + sum(widths[1:]) <= width


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], folded: Sequence[int]) -> "Table":
    """A plain table. The columns `folded` take what the numbers leave: a name is folded, a number is never cut."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for place, title in enumerate(head):
        longest = max(len(line[place]) for line in (head, *rows))
        needed = min(longest, NAME_WIDTH) if place in folded else longest
        table.add_column(title, no_wrap=place not in folded, overflow="fold", min_width=needed)
    for row in rows:
        table.add_row(*row)
    return table
