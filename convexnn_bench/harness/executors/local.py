"""Run one cell at a time on this machine, so that times mean something."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from convexnn_bench.errors import InputError
from convexnn_bench.harness.cell_run import run_cell
from convexnn_bench.harness.executors.base import BaseExecutor, Events, Job
from convexnn_bench.records import Record


class LocalExecutor(BaseExecutor):
    """The default executor. `workers` may be 1 or None."""

    name = "local"
    summary = "one cell at a time on this machine, so that times mean something"

    def __init__(self, workers: int | None = None):
        super().__init__(workers)
        if workers not in (None, 1):
            raise InputError(
                f"the local executor runs one cell at a time, got workers={workers}: cells side by side slow each "
                "other down; use the executor dask where that does not matter"
            )

    def run(self, jobs: Iterator[Job], out: Path, events: Events) -> Iterator[tuple[Job, Record]]:
        # The next cell starts only when the consumer has kept the record of this one.
        for job in jobs:
            cell = job.cell
            events.started(cell)
            yield job, run_cell(cell, job.problem, partial(events.message, cell))
