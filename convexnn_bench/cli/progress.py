"""The progress of a campaign on stderr.

It is a live table on a terminal, and one plain line for each cell elsewhere.
"""

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from convexnn_bench.records import Record
from convexnn_bench.report import format_gap, format_seconds, plain_table, status_colour

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convexnn_bench.harness import Cell

RECENT = 12  # finished cells that the table shows, if the terminal is high enough


class _Running:
    """A cell that is running: when it started, and its last point."""

    def __init__(self, cell: "Cell"):
        self.cell, self.since, self.gap, self.stage = cell, time.monotonic(), None, "running"


class CampaignProgress:
    """The observer of `run_campaign`.

    quiet: print no plain lines; a terminal still shows the table.
    """

    def __init__(self, quiet: bool = False):
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = Console(stderr=True, highlight=False, markup=False)
        self.on_terminal = self.console.is_terminal
        self.quiet = quiet
        self.done = self.known = self.total = 0
        self.with_seed = False
        self.running: dict[str, _Running] = {}
        self.recent: deque[Record] = deque(maxlen=RECENT)
        self.bar = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self.console,
            disable=not self.on_terminal,
        )
        self.task = self.bar.add_task("", total=None)
        # A transient table disappears at its end, where the tables of all results take its place.
        self.live = Live(
            console=self.console, get_renderable=self._picture, transient=True, refresh_per_second=4, auto_refresh=True
        )

    def __enter__(self) -> "CampaignProgress":
        if self.on_terminal:
            self.live.start()
        return self

    def __exit__(self, *_error: Any) -> None:
        if self.on_terminal:
            self.live.stop()

    def _picture(self) -> "RenderableType":
        """Return the table of finished cells, the latest last, and of running cells, with the bar below."""
        from rich.console import Group
        from rich.text import Text

        table = plain_table(expand=True)
        table.add_column("problem", ratio=3, no_wrap=True, overflow="ellipsis")
        table.add_column("solver", ratio=2, no_wrap=True, overflow="ellipsis")
        table.add_column("", min_width=11, no_wrap=True)
        table.add_column("gap", justify="right", min_width=7, no_wrap=True)
        table.add_column("s", justify="right", min_width=6, no_wrap=True)
        # A live table that is higher than the terminal would be cut off at its end, where the running cells are.
        room = max(1, self.console.height - 6 - len(self.running))
        for record in list(self.recent)[-room:]:
            status = Text(record["status"], style=status_colour(record["status"]))
            numbers = format_gap(record["gap"]), format_seconds(record["solve_seconds"])
            solver = f"{record['solver_name']}{self._seed(record['seed'])}"
            table.add_row(Text(record["problem_name"]), Text(solver), status, *numbers)
        # rich draws from a thread of its own, while the main thread adds and removes cells: hence the copy.
        for one in list(self.running.values()):
            solver = f"{one.cell.solver_name}{self._seed(one.cell.seed)}"
            numbers = format_gap(one.gap), f"{time.monotonic() - one.since:.0f}"
            table.add_row(Text(one.cell.problem_name), Text(solver), Text(one.stage, style="cyan"), *numbers)
        return Group(table, self.bar) if table.row_count else self.bar

    def _line(self, text: str) -> None:
        if not self.quiet and not self.on_terminal:
            self.console.print(text, markup=False, soft_wrap=True)

    def planned(self, cells: list["Cell"], known: int) -> None:
        """Show how many cells run, and how many have a record."""
        self.total, self.known = len(cells), known
        self.with_seed = len({cell.seed for cell in cells}) > 1
        self.bar.update(self.task, total=len(cells), description="starting")
        if known and not self.quiet:
            self.console.print(f"{known} of {len(cells)} cells have a record already and are not run again")

    def _seed(self, seed: int) -> str:
        """Return the seed as tables write it, or nothing if the campaign has only one."""
        return f" #{seed}" if self.with_seed else ""

    def note(self, text: str) -> None:
        """Show a line of words."""
        self.bar.update(self.task, description=text)
        self._line(text)

    def started(self, cell: "Cell") -> None:
        """Add a cell to the running ones."""
        self.running[cell.key] = _Running(cell)
        self.bar.update(self.task, description="")

    def message(self, cell: "Cell", kind: str, content: Any) -> None:
        """Update a running cell by a message of its process."""
        if kind == "stage":
            self.running[cell.key].stage = "building" if content.startswith("building") else "running"
        elif kind == "point":
            self.running[cell.key].gap = content[1]["gap"]

    def finished(self, record: Record) -> None:
        """Move a cell to the finished ones."""
        self.running.pop(record["key"], None)
        self.recent.append(record)
        self.done += 1
        self.bar.update(self.task, completed=self.done)
        if self.done <= self.known:  # these come first, and were shown when they were run
            return
        self._line(
            f"[{self.done}/{self.total}] {record['problem_name']} {record['solver_name']}"
            f"{self._seed(record['seed'])}: "
            f"{record['status']}, gap {format_gap(record['gap'])}, {format_seconds(record['solve_seconds'])} s"
        )
