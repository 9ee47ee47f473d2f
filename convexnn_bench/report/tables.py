"""Tables of records for the terminal: one for every problem, best values in bold, reasons below."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convexnn_bench.harness.records import Record

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

GOOD, BAD = ("gap_reached", "solved"), ("crashed", "failed", "diverged", "memory_limit")
EXPLAINED = ("skipped", "stalled", *BAD)  # their reasons are listed below the tables
COLUMNS = ("solver", "status", "objective", "lower bound", "gap", "set-up s", "solve s", "MB")
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def finite(value: Any) -> float:
    """`value` as float; nan for None."""
    return math.nan if value is None else float(value)


def format_gap(value: Any, superscript: bool = False) -> str:
    """A relative gap as one digit and a power of ten: "3e-07", or with superscripts."""
    gap = finite(value)
    if math.isnan(gap):
        return "-"
    if gap <= 0:
        return "0"
    if math.isinf(gap):
        return "inf"
    digit, power = f"{gap:.0e}".split("e")
    return f"{digit}×10{str(int(power)).translate(_SUPERSCRIPT)}" if superscript else f"{digit}e{power}"


def format_value(value: Any) -> str:
    """An objective or bound to seven digits."""
    return "-" if math.isnan(finite(value)) else f"{finite(value):.7g}"


def format_seconds(value: Any) -> str:
    seconds = finite(value)
    if math.isnan(seconds):
        return "-"
    return f"{seconds:.3f}" if seconds < 0.995 else f"{seconds:.2f}" if seconds < 99.5 else f"{seconds:.0f}"


def group_by_problem(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by problem, both in the order they come."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["problem_name"], []).append(record)
    return groups


def problem_line(record: Record) -> str:
    """Sizes and choices of a problem in one line; empty when they are not known."""
    about = record.get("problem") or {}
    if not about:
        return ""
    outputs = "1 output" if about["c"] == 1 else f"{about['c']} outputs"
    patterns = "" if about["activation"] == "linear" else f", {about['P']} patterns ({about['scope']})"
    return (
        f"n={about['n']}, d={about['d']}, {outputs}, {about['activation']} {about['architecture']}{patterns}"
        f", {about['loss']} loss, beta={about['beta']:.4g}"
    )


def _best(records: Sequence[Record]) -> dict[str, float]:
    """The best of every column: least objective, gap and time (of those that ended well), highest bound."""

    def least(name: str, among: Sequence[Record]) -> float:
        values = [finite(record[name]) for record in among]
        return min((value for value in values if math.isfinite(value)), default=math.nan)

    proven = [record for record in records if math.isfinite(finite(record["gap"]))]
    bounds = [finite(record["lower_bound"]) for record in proven]
    done = [record for record in records if record["status"] in GOOD]
    return {
        "objective": least("objective", proven),
        "lower_bound": max(bounds, default=math.nan),
        "gap": least("gap", proven),
        "solve_seconds": least("solve_seconds", done),
    }


def _row(record: Record, best: dict[str, float], superscript: bool, with_seed: bool) -> list[Any]:
    from rich.text import Text

    def cell(name: str, text: str) -> Text:
        # equal to the printed digits counts as best, so that ties are not decided by rounding
        shown = {"gap": format_gap, "solve_seconds": format_seconds}.get(name, format_value)
        bold = text != "-" and shown(best[name]) == shown(record[name])
        if name == "solve_seconds" and record["status"] not in GOOD:
            bold = False
        return Text(text, style="bold" if bold else "")

    status = record["status"]
    colour = (
        "green" if status in GOOD else "red" if status in BAD else "dim" if status == "skipped" else "yellow"
    )
    solver = record["solver_name"] + (f" #{record['seed']}" if with_seed else "")
    memory = finite(record["peak_memory_mb"])
    return [
        Text(solver, style="dim" if status == "skipped" else ""),
        Text(status, style=colour),
        cell("objective", format_value(record["objective"])),
        cell("lower_bound", format_value(record["lower_bound"])),
        cell("gap", format_gap(record["gap"], superscript)),
        Text(format_seconds(record["setup_seconds"])),
        cell("solve_seconds", format_seconds(record["solve_seconds"])),
        Text("-" if math.isnan(memory) else f"{memory:.0f}"),
    ]


def result_tables(records: Sequence[Record], superscript: bool = False) -> list["RenderableType"]:
    """One table a problem, of equal widths, and the reasons below. Objectives are sums over samples."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    with_seed = len({record["seed"] for record in records}) > 1
    groups = group_by_problem(records)
    rows = {
        name: [_row(record, _best(group), superscript, with_seed) for record in group]
        for name, group in groups.items()
    }
    widths = [
        max(len(title), *(len(row[place]) for block in rows.values() for row in block))
        for place, title in enumerate(COLUMNS)
    ]
    shown: list[RenderableType] = []
    for name, block in rows.items():
        shown.append(Text.assemble((name, "bold cyan"), "\n", (problem_line(groups[name][0]), "dim")))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for place, title in enumerate(COLUMNS):
            kept = place in (2, 3, 4)  # numbers that must never be cut
            table.add_column(
                title,
                justify="left" if place < 2 else "right",
                min_width=widths[place] if place else min(widths[0], 14),
                max_width=widths[place],
                no_wrap=kept or place == 1,
                overflow="fold",
            )
        for row in block:
            table.add_row(*row)
        shown.extend((table, Text("")))
    notes = reasons(records)
    if notes:
        shown.append(Text("\n".join(notes)))
    return shown


def reasons(records: Sequence[Record]) -> list[str]:
    """Why cells were skipped or did not end well; the same reason is told once."""
    told: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        if record["status"] in EXPLAINED:
            what = (record["solver_name"], record["status"], record["reason"])
            problems = told.setdefault(what, [])
            if record["problem_name"] not in problems:
                problems.append(record["problem_name"])
    everywhere = len(group_by_problem(records))
    return [
        f"{solver} {status}{'' if len(problems) == everywhere else ' on ' + ', '.join(problems)}: {reason}"
        for (solver, status, reason), problems in told.items()
    ]


def print_results(records: Sequence[Record], console: "Console") -> None:
    """The tables, with superscripts where the terminal has them."""
    superscript = console.is_terminal and (console.encoding or "").lower().startswith("utf")
    for part in result_tables(records, superscript):
        console.print(part)
