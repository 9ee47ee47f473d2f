"""Where the cells of a campaign run. A cell goes out as a picklable description, a record comes back."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

from convexnn_bench.errors import ConvexNNError, InputError
from convexnn_bench.harness.cell import Cell
from convexnn_bench.harness.cell_run import blank_record, run_cell
from convexnn_bench.plugins.registry import SOLVERS, importable
from convexnn_bench.records.machine import code_version
from convexnn_bench.records.records import Record, one_line


class LostError(ConvexNNError, RuntimeError):
    """A cell left no record, because what ran it is gone. The message says what happened."""


@dataclass(frozen=True)
class Job:
    """A cell to be run. sizes: what is known of its problem already."""

    cell: Cell
    sizes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Events:
    """What an executor tells: a cell started; (cell, kind, content) of a message from inside it; words of its own."""

    started: Callable[[Cell], None] = lambda cell: None
    message: Callable[[Cell, str, Any], None] = lambda cell, kind, content: None
    note: Callable[[str], None] = lambda text: None


class BaseExecutor(ABC):
    """Runs cells somewhere. A file of this folder with one subclass is one more executor.

    name: on the command line, `--executor name[parameter=value]`. requires: packages that must be importable. here:
    whether cells run on this machine.
    summary: one line for `convexnn-bench list`. The parameters are those of `__init__`; `workers` is the number of
    cells that run at the same time, None for the executor's own choice.
    """

    name: str
    summary: str
    requires: tuple[str, ...] = ()
    here = True

    def __init__(self, workers: int | None = None):
        if workers is not None and (not isinstance(workers, Integral) or isinstance(workers, bool) or workers < 1):
            raise InputError(f"workers must be a whole number, at least 1, got {workers!r}")
        missing = self.unavailable()
        if missing is not None:
            raise InputError(f"executor {self.name!r}: {missing}")
        self.workers = workers

    @classmethod
    def unavailable(cls) -> str | None:
        """What is missing on this machine, in words a user can act on; None when nothing is."""
        missing = [package for package in cls.requires if not importable(package)]
        return f"package {', '.join(missing)} is not installed: pip install {' '.join(missing)}" if missing else None

    @abstractmethod
    def run(self, jobs: Iterator[Job], out: Path, events: Events) -> Iterator[tuple[Job, Record]]:
        """Every job with its record, as they end. `jobs` is asked for the next one only when there is room for it.

        out: the campaign's folder. Raises ExecutorError when there is nothing to run on; records already given stay.
        """


class PoolExecutor(BaseExecutor):
    """Executors that hand out cells to several workers: a window of cells is under way at any time."""

    poll_seconds = 0.5
    title: str  # of what is waited for, such as "the scheduler at tcp://host:8786"

    @abstractmethod
    def open(self, out: Path, threads: int) -> None:
        """Get hold of the workers. Raises InputError where they cannot be had."""

    @abstractmethod
    def close(self) -> None:
        """Let go of them, and stop what still runs; also after an `open` that failed."""

    @abstractmethod
    def room(self, running: int) -> int:
        """How many cells could be submitted beside those that are running."""

    @abstractmethod
    def submit(self, job: Job) -> Hashable:
        """Send a cell off; what is returned stands for it. Raises LostError where its worker went at that moment."""

    @abstractmethod
    def ended(self, handles: Sequence[Any]) -> list[Any]:
        """Those that have ended, or are lost. May wait up to `poll_seconds`."""

    @abstractmethod
    def collect(self, handle: Any) -> Record:
        """The record of one that has ended. Raises LostError."""

    def run(self, jobs: Iterator[Job], out: Path, events: Events) -> Iterator[tuple[Job, Record]]:
        running: dict[Any, tuple[Job, float]] = {}
        job = next(jobs, None)
        if job is None:
            return
        try:
            events.note(f"getting hold of {self.title}")
            self.open(out, job.cell.limits.threads)
            while job is not None or running:
                while job is not None and self.room(len(running)) > 0:
                    started = time.perf_counter()
                    try:
                        running[self.submit(job)] = job, started
                        events.started(job.cell)
                    except LostError as error:
                        yield job, lost_record(job, error, 0.0)
                    job = next(jobs, None)
                for handle in self.ended(list(running)):
                    done, started = running.pop(handle)
                    try:
                        record = _same_code(self.collect(handle))
                    except LostError as error:
                        record = lost_record(done, error, time.perf_counter() - started)
                    yield done, record
        finally:
            self.close()


def run_remote(job: Job) -> Record:
    """`run_cell` where this process knows nothing of the campaign yet."""
    if job.cell.solvers_dir is not None:
        SOLVERS.add_folder(job.cell.solvers_dir)
    return run_cell(job.cell, job.sizes)


def lost_record(job: Job, error: LostError, seconds: float) -> Record:
    """The record of a cell whose worker is gone: this machine's description stands in for the worker's."""
    lost = {"status": "crashed", "reason": one_line(str(error)), "wall_seconds": seconds}
    return {**blank_record(job.cell, job.sizes), **lost}


def _same_code(record: Record) -> Record:
    if record["version"] != code_version():
        raise LostError(f"the worker runs convexnn-bench {record['version']}, this campaign is of {code_version()}")
    return record
