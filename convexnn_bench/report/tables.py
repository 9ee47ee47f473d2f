"""Tables of records for the terminal.

Every problem has one table, with the best values in bold; the reasons of failed and skipped cells follow below.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convexnn_bench.records import FIELDS, TEST_FIELDS, Record, beta_fraction
from convexnn_bench.report.formats import FORMATS, finite, format_gap

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

GOOD, BAD = ("gap_reached", "solved"), ("crashed", "failed", "diverged", "memory_limit")
EXPLAINED = ("skipped", "stalled", *BAD)  # the reasons of these cells are listed below the tables
COLUMNS = {field.name: field.title for field in FIELDS if field.title}
OPTIONAL = ("peak_memory_mb", "verified", *TEST_FIELDS)  # columns that are left out if no cell has a number
CSV_FIELDS = (
    "seed", "status", "objective", "lower_bound", "gap", "verified", *TEST_FIELDS, "setup_seconds", "solve_seconds",
    "wall_seconds", "peak_memory_mb", "reason",
)  # fmt: skip


def shown_columns(records: Sequence[Record]) -> list[str]:
    """Return the fields that the table of these cells shows, in order."""
    known = {name for name in COLUMNS if any(record.get(name) is not None for record in records)}
    if all(record.get("verified") != "yes" for record in records):  # the usual bounds need no column that says so
        known.discard("verified")
    return [name for name in COLUMNS if name not in OPTIONAL or name in known]


def count_statuses(records: Sequence[Record]) -> dict[str, int]:
    """Return {status: number of cells}, the most frequent first."""
    return dict(Counter(record["status"] for record in records).most_common())


def status_colour(status: str) -> str:
    """Return the colour of a status in a terminal."""
    return "green" if status in GOOD else "red" if status in BAD else "dim" if status == "skipped" else "yellow"


def group_by_problem(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Group records by problem, both in the order they come."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["problem_name"], []).append(record)
    return groups


def sizes(group: Sequence[Record]) -> dict[str, Any]:
    """Return sizes and choices of the problem that the records share; empty if no cell got to build it."""
    return next((record["problem"] for record in group if record.get("problem")), {})


def problem_line(group: Sequence[Record]) -> str:
    """Return sizes and choices of a problem in one line, empty if they are not known."""
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
    """Return whether the bound holds over all activation patterns while the problem has a sample of them."""
    return record.get("scope") == "complete" and (record.get("problem") or {}).get("scope") == "sampled"


def _best(records: Sequence[Record]) -> dict[str, float]:
    """Return the best number of every column: the least, or for bounds, accuracies and R2 the highest.

    Times count only for cells that ended well.
    """

    def least(name: str, among: Sequence[Record]) -> float:
        values = [finite(record.get(name)) for record in among]
        return min((value for value in values if math.isfinite(value)), default=math.nan)

    def most(name: str) -> float:
        return max((value for record in records if math.isfinite(value := finite(record.get(name)))), default=math.nan)

    # bounds over all patterns and over sampled ones are on two programs: only the problem's own compete
    proven = [record for record in records if math.isfinite(finite(record["gap"]))]
    bounds = [finite(record["lower_bound"]) for record in proven if not beyond_sample(record)]
    # A cell that failed after a moment is not the quickest.
    done = [record for record in records if record["status"] in GOOD]
    return {
        "objective": least("objective", proven),
        "lower_bound": max(bounds, default=math.nan),
        "gap": least("gap", proven),
        "test_loss": least("test_loss", records),
        "test_accuracy": most("test_accuracy"),
        "test_r2": most("test_r2"),
        "solve_seconds": least("solve_seconds", done),
    }


def _row(record: Record, best: dict[str, float], superscript: bool, with_seed: bool) -> dict[str, "Text"]:
    """Return {field: its text} for every field of COLUMNS."""
    from rich.text import Text

    def cell(name: str, text: str = "") -> Text:
        write = FORMATS[name]
        text = text or write(record.get(name))
        # values with the same printed digits are all best, so that rounding does not decide ties
        bold = name in best and text != "-" and write(best[name]) == write(record.get(name))
        if name == "solve_seconds" and record["status"] not in GOOD:
            bold = False
        return Text(text, style="bold" if bold else "")

    status = record["status"]
    solver = record["solver_name"] + (f" #{record['seed']}" if with_seed else "")
    gap = format_gap(record["gap"], superscript) + ("*" if beyond_sample(record) else "")
    return {
        "solver_name": Text(solver, style="dim" if status == "skipped" else ""),
        "status": Text(status, style=status_colour(status)),
        "verified": Text(record.get("verified") or "-"),
        **{name: cell(name, gap if name == "gap" else "") for name in COLUMNS if name in FORMATS},
    }


def cell_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return one row for each cell, for CSV: the problem, the solver, and the numbers of the table."""
    rows = []
    for record in records:
        about = sizes([record])
        problem = {name: about.get(name) for name in ("n", "d", "c", "P", "activation", "loss", "beta")}
        fraction = beta_fraction(record)
        rows.append(
            {
                "problem": record["problem_name"],
                **problem,
                "beta_fraction": None if math.isnan(fraction) else fraction,
                "solver": record["solver_name"],
                **{name: record.get(name) for name in CSV_FIELDS},
            }
        )
    return rows


def cell_texts(records: Sequence[Record]) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Return (titles, {problem: rows}) of the table of cells as plain text."""
    with_seed = len({record["seed"] for record in records}) > 1
    names = shown_columns(records)
    groups = {}
    for problem, group in group_by_problem(records).items():
        rows = [_row(record, _best(group), False, with_seed) for record in group]
        groups[problem] = [[row[name].plain for name in names] for row in rows]
    return [COLUMNS[name] for name in names], groups


def result_tables(records: Sequence[Record], superscript: bool = False, width: int = 100) -> list["RenderableType"]:
    """Return one table a problem, all of equal column widths, and the reasons below.

    Objectives are sums over samples. width: characters of a line; if it is short, long solver names are folded, but
    numbers are never cut.
    """
    from rich.text import Text

    with_seed = len({record["seed"] for record in records}) > 1
    # `compare` measures no memory, because all of its solvers share one process.
    used = shown_columns(records)
    groups = group_by_problem(records)
    rows = {}
    for name, group in groups.items():
        texts = [_row(record, _best(group), superscript, with_seed) for record in group]
        rows[name] = [[row[column] for column in used] for row in texts]
    titles = [COLUMNS[column] for column in used]
    # Widths are those of all problems together, so that the columns of all tables stand below each other.
    widths = [
        max(len(title), *(len(row[index]) for block in rows.values() for row in block))
        for index, title in enumerate(titles)
    ]
    shown: list[RenderableType] = []
    for name, block in rows.items():
        if name:
            shown.append(Text(name, style="bold cyan"))
        about = problem_line(groups[name])
        if about:
            shown.append(Text(about, style="dim"))
        if sizes(groups[name]).get("notes"):
            shown.append(Text(sizes(groups[name])["notes"], style="dim"))
        shown.extend((_table(titles, block, widths, width), Text("")))
    notes = reasons(records)
    if any(beyond_sample(record) for record in records):
        notes.append("* proven over all activation patterns; the other bounds hold over the problem's sampled ones")
    if notes:
        shown.extend((Text("\n".join(notes)), Text("")))
    return shown


def plain_table(spaces: int = 2, **options: Any) -> "Table":
    """Return an empty table with one line below its titles, and so many spaces between its columns."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, padding=(0, spaces, 0, 0), pad_edge=False, show_edge=False, **options)


def _table(titles: list[str], rows: list[list["Text"]], widths: list[int], width: int) -> "Table":
    """Return rows under their titles, with one space between columns if two do not fit."""
    # Names can be folded and still be read. Numbers keep their width, and give up one of the two spaces first.
    roomy = sum(widths) + 2 * len(widths) <= width
    solver = min(widths[0], max(12, width - sum(widths[1:]) - (2 if roomy else 1) * len(widths)))
    table = plain_table(int(roomy))
    for index, size in enumerate([solver, *widths[1:]]):
        table.add_column(
            titles[index], justify="left" if index < 2 else "right", min_width=size, max_width=size,
            no_wrap=index > 0, overflow="fold",
        )  # fmt: skip
    for row in rows:
        table.add_row(*row)
    return table


def reasons(records: Sequence[Record]) -> list[str]:
    """Return a line for each reason why cells were skipped or did not end well.

    The line has the problems that it applies to.
    """
    problems_of: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        if record["status"] in EXPLAINED or record["reason"].startswith("killed"):
            what = (record["solver_name"], record["status"], record["reason"])
            # A solver that skips for the same reason everywhere takes one line.
            problems = problems_of.setdefault(what, [])
            if record["problem_name"] not in problems:
                problems.append(record["problem_name"])
    everywhere = len(group_by_problem(records))
    return [
        f"{solver} {status}{'' if len(problems) == everywhere else ' on ' + ', '.join(problems)}: {reason}"
        for (solver, status, reason), problems in problems_of.items()
    ]


def print_results(records: Sequence[Record], console: "Console") -> None:
    """Print the tables, with superscripts if the terminal has them."""
    superscript = console.is_terminal and (console.encoding or "").lower().startswith("utf")
    for part in result_tables(records, superscript, console.width):
        console.print(part)
