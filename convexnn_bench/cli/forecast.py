"""What `convexnn-bench run --dry-run` prints: cells and their expected times."""

from typing import TYPE_CHECKING

from convexnn_bench.harness import Forecast
from convexnn_bench.report import counted, plain_table

FEW = 40  # problems up to which each has a row of its own

if TYPE_CHECKING:
    from rich.console import Console


def print_forecast(cells: list[Forecast], console: "Console") -> None:
    """Print a table for each set of solvers, and what is left.

    What is left is the expected time of the cells to run, and reasons to skip.

    A table has a row for each problem, or for each data set of the campaign if there are more than FEW problems.
    """
    from rich.text import Text

    # 1. Group the cells by row, and the rows by their solvers. A campaign may sweep thousands of problems; then one row
    # stands for all problems of one data set.
    few = len({one.cell.problem_name for one in cells}) <= FEW
    datasets: dict[str, list[Forecast]] = {}
    for one in cells:
        datasets.setdefault(one.cell.problem_name if few else one.cell.origin or one.cell.problem_name, []).append(one)
    grids: dict[tuple[str, ...], list[str]] = {}
    for name, group in datasets.items():
        grids.setdefault(tuple(dict.fromkeys(one.cell.solver_name for one in group)), []).append(name)
    # 2. Print a table for each set of solvers.
    for solvers, names in grids.items():
        console.print(Text(", ".join(solvers)))
        table = plain_table()
        table.add_column("problem" if few else "data set", overflow="fold")
        for title in ("seeds" if few else "problems", "cells", "have a record", "solving, at most"):
            table.add_column(title, justify="right")
        for name in names:
            group = datasets[name]
            differ = {one.cell.seed if few else one.cell.problem_name for one in group}
            counts = (len(differ), len(group), sum(one.known for one in group))
            table.add_row(Text(name), *map(str, counts), duration(sum(map(_limit, group))))
        console.print(table)
        console.print()
    # 3. Print how long the cells that are left may take. The median of earlier records says more than the time limits,
    # which most solvers do not use up.
    left = [one for one in cells if not one.known]
    console.print(f"{counted(len(cells), 'cell')}, {len(cells) - len(left)} with a record, {len(left)} to run")
    measured = [one for one in left if one.seconds is not None and not one.unavailable]
    if measured:
        seconds = sum(one.seconds or 0.0 for one in measured)
        basis = "in all, judging by records of the same solver and problem"
        console.print(f"{len(measured)} of them should take {duration(seconds)} {basis}")
    console.print(f"solving takes at most {duration(sum(map(_limit, left)))}, set-up and scoring not counted")
    for name, reason in dict.fromkeys((one.cell.solver_name, one.unavailable) for one in left if one.unavailable):
        console.print(f"{name} would be skipped: {reason}", soft_wrap=True)


def _limit(one: Forecast) -> float:
    return 0.0 if one.known or one.unavailable else one.limit


def duration(seconds: float) -> str:
    """Return a duration such as 45 s, 12 min or 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
