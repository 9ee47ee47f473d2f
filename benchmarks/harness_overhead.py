"""What the harness costs: 300 tiny cells, each in a process of its own.

    OMP_NUM_THREADS=1 python benchmarks/harness_overhead.py [--out DIR]

The overhead of a cell is the time from the call until its record is on the disk, without set-up and solve. Its parts
are "start", until the process holds the problem; "score", from there to its result without set-up and solve
(certificates, ranks); and "record", from the result to the next cell (end of the process, the record's flush). The
first cell waits for the process server to import everything, and is left out of the medians. Memory is the parent's
VmRSS.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, print_machine

from convexnn_bench.harness import Campaign, Cell, resident_mb, run_campaign
from convexnn_bench.records import Record
from convexnn_bench.report import write_csv
from convexnn_bench.terminal import progress

TINY = Campaign(
    name="tiny",
    datasets=["spiral[n=[9,12,15]]"],
    solvers=["bm_newton", "fista"],
    seeds=50,
    gap=1e-3,
    time_limit=5.0,
)


class Clock:
    """Observer that notes when each cell starts, holds its problem and has its result, and the parent's memory."""

    def __init__(self, update: Any):
        self.update, self.rows = update, []
        self.started_at = self.problem_at = self.result_at = 0.0

    def planned(self, cells: list[Cell], known: int) -> None:
        if known:
            raise SystemExit(f"{known} cells have a record already: give an empty folder with --out")

    def note(self, text: str) -> None:
        self.update(None, text)

    def started(self, cell: Cell) -> None:
        self.started_at = time.perf_counter()

    def message(self, cell: Cell, kind: str, content: Any) -> None:
        if kind == "problem":
            self.problem_at = time.perf_counter()
        elif kind == "result":
            self.result_at = time.perf_counter()

    def finished(self, record: Record) -> None:
        now = time.perf_counter()
        work = record["setup_seconds"] + record["solve_seconds"]
        self.rows.append(
            {
                "status": record["status"],
                "overhead": now - self.started_at - work,
                "start": self.problem_at - self.started_at,
                "score": self.result_at - self.problem_at - work,
                "record": now - self.result_at,
                "work": work,
                "parent_mb": resident_mb(os.getpid())[1],
            }
        )
        self.update(len(self.rows), record["problem_name"])


def main() -> None:
    """Run the cells and print where the time goes."""
    arguments = parser(__doc__, "harness_overhead").parse_args()
    folder: Path = arguments.out
    with progress("tiny cells", total=300) as update:
        clock = Clock(update)
        started = time.perf_counter()
        run_campaign(TINY, folder / "campaign", clock)
        seconds = time.perf_counter() - started
    rows, warm = clock.rows, clock.rows[1:]
    print_machine("cpu")
    print(f"{len(rows)} cells in {seconds:.1f} s, the first {rows[0]['overhead']:.2f} s of overhead")
    for name in ("overhead", "start", "score", "record", "work"):
        middle, high, most = np.quantile([row[name] for row in warm], [0.5, 0.95, 1.0])
        print(f"{name:9s} median {middle * 1e3:6.1f} ms, 95 % {high * 1e3:6.1f} ms, largest {most * 1e3:6.1f} ms")
    at = [rows[index]["parent_mb"] for index in (0, len(rows) // 2, -1)]
    print(f"parent    {at[0]:.1f} MiB after the first cell, {at[1]:.1f} after half, {at[2]:.1f} after all")
    print(f"written: {write_csv(rows, folder / 'harness_overhead.csv')}")


if __name__ == "__main__":
    main()
