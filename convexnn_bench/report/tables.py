"""Tables of records for the terminal: one for every problem, best values in bold, reasons below."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convexnn_bench.records.fields import FIELDS
from convexnn_bench.records.records import Record

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

GOOD, BAD = ("gap_reached", "solved"), ("crashed", "failed", "diverged", "memory_limit")
EXPLAINED = ("skipped", "stalled", *BAD)  # their reasons are listed below the tables
COLUMNS = tuple(field.title for field in FIELDS if field.title)
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def counted(number: int, what: str) -> str:
    """ "1 cell", "2 cells"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def finite(value: Any) -> float:
    """`value` as float; nan for None."""
    return math.nan if value is None else float(value)


def format_gap(value: Any, superscript: bool = False) -> str:
    """A relative gap as two digits and a power of ten: "3.1e-07", or with superscripts."""
    gap = finite(value)
    if math.isnan(gap):
        return "-"
    if gap <= 0:
        return "0"
    if math.isinf(gap):
        return "inf"
    digit, power = f"{gap:.1e}".split("e")
    return f"{digit}×10{str(int(power)).translate(_SUPERSCRIPT)}" if superscript else f"{digit}e{power}"


def format_target(gap: float) -> str:
    """A gap that was asked for, no digit of it rounded away: "1e-02", "2.5e-03"."""
    mantissa, power = f"{gap:.6e}".split("e")
    return f"{float(mantissa):g}e{power}"


def format_value(value: Any) -> str:
    """An objective or bound to seven digits."""
    number = finite(value)
    return "-" if math.isnan(number) else "0" if number == 0 else f"{number:#.7g}".rstrip(".")


def format_seconds(value: Any) -> str:
    seconds = finite(value)
    if math.isnan(seconds):
        return "-"
    return f"{seconds:.3f}" if seconds < 0.995 else f"{seconds:.2f}" if seconds < 99.5 else f"{seconds:.0f}"


def status_colour(status: str) -> str:
    """Its colour in a terminal."""
    return "green" if status in GOOD else "red" if status in BAD else "dim" if status == "skipped" else "yellow"


def group_by_problem(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by problem, both in the order they come."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["problem_name"], []).append(record)
    return groups


def sizes(group: Sequence[Record]) -> dict[str, Any]:
    """Sizes and choices of the problem that records share; empty where none of them came to know."""
    return next((record["problem"] for record in group if record.get("problem")), {})


def problem_line(group: Sequence[Record]) -> str:
    """Sizes and choices of a problem in one line; empty when they are not known."""
    about = sizes(group)
    if not about:
        return ""
    outputs = "1 output" if about["c"] == 1 else f"{about['c']} outputs"
    patterns = "" if about["activation"] == "linear" else f", {about['P']} patterns ({about['scope']})"
    return (
        f"n={about['n']}, d={about['d']}, {outputs}, {about['activation']} {about['architecture']}{patterns}"
        f", {about['loss']} loss, beta={about['beta']:.4g}"
    )


def beyond_sample(record: Record) -> bool:
    """True where the bound is over all activation patterns while the problem's blocks are a sample of them."""
    return record.get("scope") == "complete" and (record.get("problem") or {}).get("scope") == "sampled"


def _best(records: Sequence[Record]) -> dict[str, float]:
    """The best of every column: least objective, gap and time (of those that ended well), highest bound."""

    def least(name: str, among: Sequence[Record]) -> float:
        values = [finite(record[name]) for record in among]
        return min((value for value in values if math.isfinite(value)), default=math.nan)

    # bounds on two different programs do not compete: those on the problem's own do
    proven = [record for record in records if math.isfinite(finite(record["gap"]))]
    bounds = [finite(record["lower_bound"]) for record in proven if not beyond_sample(record)]
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
    solver = record["solver_name"] + (f" #{record['seed']}" if with_seed else "")
    memory = finite(record["peak_memory_mb"])
    return [
        Text(solver, style="dim" if status == "skipped" else ""),
        Text(status, style=status_colour(status)),
        cell("objective", format_value(record["objective"])),
        cell("lower_bound", format_value(record["lower_bound"])),
        cell("gap", format_gap(record["gap"], superscript) + ("*" if beyond_sample(record) else "")),
        Text(format_seconds(record["setup_seconds"])),
        cell("solve_seconds", format_seconds(record["solve_seconds"])),
        Text("-" if math.isnan(memory) else f"{memory:.0f}"),
    ]


def result_tables(records: Sequence[Record], superscript: bool = False, width: int = 100) -> list["RenderableType"]:
    """One table a problem, of equal column widths, and the reasons below. Objectives are sums over samples.

    width: characters a line may take; where it is short, long solver names are folded, never a number.
    """
    from rich.text import Text

    with_seed = len({record["seed"] for record in records}) > 1
    used = len(COLUMNS) if any(record["peak_memory_mb"] for record in records) else len(COLUMNS) - 1
    groups = group_by_problem(records)
    rows = {
        name: [_row(record, _best(group), superscript, with_seed)[:used] for record in group]
        for name, group in groups.items()
    }
    widths = [
        max(len(title), *(len(row[place]) for block in rows.values() for row in block))
        for place, title in enumerate(COLUMNS[:used])
    ]
    shown: list[RenderableType] = []
    for name, block in rows.items():
        if name:
            shown.append(Text(name, style="bold cyan"))
        about = problem_line(groups[name])
        if about:
            shown.append(Text(about, style="dim"))
        shown.extend((_table(block, widths, width), Text("")))
    notes = reasons(records)
    if any(beyond_sample(record) for record in records):
        notes.append("* proven over all activation patterns; the other bounds hold over the problem's sampled ones")
    if notes:
        shown.extend((Text("\n".join(notes)), Text("")))
    return shown


def _table(rows: list[list[Any]], widths: list[int], width: int) -> "RenderableType":
    """Rows under their titles; one space between columns where two do not fit."""
    from rich import box
    from rich.table import Table

    roomy = sum(widths) + 2 * len(widths) <= width
    solver = min(widths[0], max(12, width - sum(widths[1:]) - (2 if roomy else 1) * len(widths)))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, int(roomy), 0, 0), pad_edge=False, show_edge=False)
    for place, size in enumerate([solver, *widths[1:]]):
        table.add_column(
            COLUMNS[place],
            justify="left" if place < 2 else "right",
            min_width=size,
            max_width=size,
            no_wrap=place > 0,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    return table


def reasons(records: Sequence[Record]) -> list[str]:
    """Why cells were skipped or did not end well; the same reason is told once."""
    told: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        if record["status"] in EXPLAINED or record["reason"].startswith("killed"):
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
    for part in result_tables(records, superscript, console.width):
        console.print(part)
