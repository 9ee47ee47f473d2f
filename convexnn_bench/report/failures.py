"""Show the last lines that failing cells printed, which are mostly the end of a traceback."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convexnn_bench.records import BAD_STATUSES, Record
from convexnn_bench.report.formats import counted

if TYPE_CHECKING:
    from rich.console import Console

SHOWN, LINES = 5, 8  # number of failures that are shown, and number of lines for each


def last_lines(text: str, most: int) -> list[str]:
    """Return the last `most` lines that are not empty, with control characters escaped."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()][-most:]
    return ["".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines]


def print_failures(records: Sequence[Record], folder: Path, console: "Console") -> None:
    """Print the last lines of the output of failing cells, and where to find more.

    They are printed once for each solver and reason.
    """
    failures: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record["status"] in BAD_STATUSES and record.get("output"):
            failures.setdefault((record["solver_name"], record["reason"]), []).append(record)
    for (solver, _), group in list(failures.items())[:SHOWN]:
        first = group[0]
        others = f" and on {counted(len(group) - 1, 'other cell')}" if len(group) > 1 else ""
        console.print(f"{solver} {first['status']} on {first['problem_name']}{others}; it printed, at its end:")
        for line in last_lines(str(first["output"]), LINES):
            console.print(f"  {line}", soft_wrap=True)
    if failures:
        more = f"{counted(len(failures) - SHOWN, 'more failure')}, and the " if len(failures) > SHOWN else "The "
        where = folder / "records.jsonl"
        console.print(f"{more}last 2000 characters of each are in the field `output` of {where}", soft_wrap=True)
        console.print()
