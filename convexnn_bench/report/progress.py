"""How a campaign goes: a bar on a terminal, one plain line a cell elsewhere. Everything goes to stderr."""

from typing import TYPE_CHECKING, Any

from convexnn_bench.harness.records import Record
from convexnn_bench.report.tables import format_gap, format_seconds

if TYPE_CHECKING:
    from convexnn_bench.harness.cell import Cell


class CampaignProgress:
    """Observer of `run_campaign`. quiet: no plain lines (a bar is still shown on a terminal)."""

    def __init__(self, quiet: bool = False):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        self.console = Console(stderr=True, highlight=False, markup=False)
        self.on_terminal = self.console.is_terminal
        self.quiet = quiet
        self.done = self.total = 0
        self.current = ""
        self.with_seed = False
        self.bar = Progress(
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
            BarColumn(bar_width=15),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.on_terminal,
        )
        self.task = self.bar.add_task("", total=None)

    def __enter__(self) -> "CampaignProgress":
        self.bar.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self.bar.stop()

    def _line(self, text: str) -> None:
        if not self.quiet and not self.on_terminal:
            self.console.print(text, markup=False, soft_wrap=True)

    def planned(self, cells: list["Cell"], known: int) -> None:
        self.total = len(cells)
        self.with_seed = len({cell.seed for cell in cells}) > 1
        self.bar.update(self.task, total=len(cells), description="starting")
        if known and not self.quiet:
            self.console.print(f"{known} of {len(cells)} cells have a record already and are not run again")

    def _seed(self, seed: int) -> str:
        """The seed as the tables write it, when the campaign has several."""
        return f" #{seed}" if self.with_seed else ""

    def note(self, text: str) -> None:
        self.bar.update(self.task, description=text)
        self._line(text)

    def started(self, cell: "Cell") -> None:
        self.current = f"{cell.problem_name} {cell.solver_name}{self._seed(cell.seed)}"
        self.bar.update(self.task, description=self.current)

    def message(self, kind: str, content: Any) -> None:
        if kind == "point":
            seconds, proven = content
            gap = format_gap(proven["gap"])
            self.bar.update(self.task, description=f"{self.current}: gap {gap} after {format_seconds(seconds)} s")

    def finished(self, record: Record) -> None:
        self.done += 1
        self.bar.update(self.task, completed=self.done)
        self._line(
            f"[{self.done}/{self.total}] {record['problem_name']} {record['solver_name']}"
            f"{self._seed(record['seed'])}: "
            f"{record['status']}, gap {format_gap(record['gap'])}, {format_seconds(record['solve_seconds'])} s"
        )
