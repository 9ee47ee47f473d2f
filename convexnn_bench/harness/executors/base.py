"""Where the cells of a campaign run.

A picklable description of a cell goes out, and a record comes back.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convexnn_bench.errors import ConvexNNError, InputError
from convexnn_bench.harness.cell import Cell
from convexnn_bench.harness.cell_run import blank_record, run_cell
from convexnn_bench.harness.process import RUNS
from convexnn_bench.plugins import Whole, add_plugins, importable
from convexnn_bench.records import Record, code_version, one_line


class LostError(ConvexNNError, RuntimeError):
    """A cell left no record because its worker is gone.

    The message says what happened.

    retry: whether the cell may succeed on another worker.
    """

    def __init__(self, reason: str, retry: bool = True):
        super().__init__(reason)
        self.retry = retry


@dataclass(frozen=True)
class Job:
    """A cell to run. problem: the fields of its problem that are known.

    runs: the number of times that it was lost.
    """

    cell: Cell
    problem: dict[str, Any] = field(default_factory=dict)
    runs: int = 0


@dataclass(frozen=True)
class Events:
    """Functions that an executor calls while cells run.

    started(cell); message(cell, kind, content) with what a running cell sends; note(text) with a line for a person.
    """

    started: Callable[[Cell], None] = lambda cell: None
    message: Callable[[Cell, str, Any], None] = lambda cell, kind, content: None
    note: Callable[[str], None] = lambda text: None


class BaseExecutor(ABC):
    """Runs cells somewhere.

    A file of this folder with one subclass is one more executor.

    Parameters
    ----------
    workers
        Number of cells that run at the same time; None for the executor's own choice. The parameters of a subclass's
        `__init__` are those of `--executor name[parameter=value]`.

    Attributes
    ----------
    name
        Name on the command line.
    summary
        One line for `convexnn-bench list`.
    requires
        Packages that must be importable.
    here
        True if cells run on this machine.
    """

    name: str
    summary: str
    requires: tuple[str, ...] = ()
    here = True

    def __init__(self, workers: int | None = None):
        self.workers: int | None = Whole(optional=True).check("workers", workers)
        missing = self.unavailable()
        if missing is not None:
            raise InputError(f"executor {self.name!r}: {missing}")

    @classmethod
    def unavailable(cls) -> str | None:
        """Return what this machine lacks, in words a user can act on, or None."""
        missing = [package for package in cls.requires if not importable(package)]
        return f"package {', '.join(missing)} is not installed: pip install {' '.join(missing)}" if missing else None

    @abstractmethod
    def run(self, jobs: Iterator[Job], out: Path, events: Events) -> Iterator[tuple[Job, Record]]:
        """Run every job and yield it with its record, in the order in which they end.

        Parameters
        ----------
        jobs
            Ask it for the next job only when there is room for one.
        out
            The folder of the campaign.
        events
            Call `started` for each cell, and the others where there is something to say.

        Raises
        ------
        ExecutorError
            There is nothing left to run on. Records that were yielded stay.
        """


class PoolExecutor(BaseExecutor):
    """Base of executors with several workers; a subclass fills in the five methods that `run` calls.

    Attributes
    ----------
    poll_seconds
        Longest time that `ended` waits.
    title
        What `open` waits for, in words, such as "the scheduler at tcp://host:8786".
    """

    poll_seconds = 0.5
    title: str

    @abstractmethod
    def open(self, out: Path, threads: int) -> None:
        """Connect to the workers; each cell takes `threads` threads.

        Raises InputError where that is impossible.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop what still runs and let the workers go.

        Called also after an `open` that failed.
        """

    @abstractmethod
    def room(self, running: int) -> int:
        """Return how many cells can be submitted beside the `running` ones."""

    @abstractmethod
    def submit(self, job: Job) -> Hashable:
        """Submit a cell and return a handle of it.

        Raises LostError where its worker is gone at that moment.
        """

    @abstractmethod
    def ended(self, handles: Sequence[Any]) -> list[Any]:
        """Return the handles whose cells have ended or are lost.

        May wait up to `poll_seconds`.
        """

    @abstractmethod
    def collect(self, handle: Any) -> Record:
        """Return the record of a cell that has ended.

        Raises LostError where there is none.
        """

    def run(self, jobs: Iterator[Job], out: Path, events: Events) -> Iterator[tuple[Job, Record]]:
        running: dict[Any, tuple[Job, float]] = {}
        retries: list[Job] = []  # jobs whose cells were lost, which run again
        # The first job is fetched before anything is opened: a campaign without cells to run needs no cluster. All
        # cells of a campaign have the same number of threads, so that the first one speaks for all.
        job = next(jobs, None)
        if job is None:
            return
        try:
            events.note(f"waiting for {self.title}")
            self.open(out, job.cell.limits.threads)
            while job is not None or running:
                # 1. Submit cells while there is room.
                while job is not None and self.room(len(running)) > 0:
                    started = time.perf_counter()
                    try:
                        running[self.submit(job)] = job, started
                        events.started(job.cell)
                    except LostError as error:
                        yield from _given_up(job, error, 0.0, retries)
                    job = retries.pop() if retries else next(jobs, None)
                # 2. Collect the records of those that have ended.
                for handle in self.ended(list(running)):
                    done, started = running.pop(handle)
                    try:
                        record = _same_code(self.collect(handle))
                    except LostError as error:
                        yield from _given_up(done, error, time.perf_counter() - started, retries)
                    else:
                        yield done, record
                if job is None and retries:
                    job = retries.pop()
        finally:
            # This also runs when the campaign is interrupted: the generator is then closed at one of its yields.
            self.close()


def _given_up(job: Job, error: LostError, seconds: float, retries: list[Job]) -> Iterator[tuple[Job, Record]]:
    """Add a job whose cell was lost to `retries`, or yield its record if it must not run again."""
    # It is not known what killed the worker. A cell counts as the cause only after it has lost several workers.
    if error.retry and job.runs + 1 < RUNS:
        retries.append(replace(job, runs=job.runs + 1))
    else:
        yield job, lost_record(job, error, seconds)


def run_remote(job: Job) -> Record:
    """Run the cell of a job in a worker, which knows nothing of the campaign yet."""
    add_plugins(job.cell.solvers_dir, job.cell.plugins_dir)
    return run_cell(job.cell, job.problem)


def lost_record(job: Job, error: LostError, seconds: float) -> Record:
    """Return the record of a cell whose worker is gone.

    It describes this machine in place of the worker's.
    """
    times = f" (as {job.runs} before)" if job.runs else ""
    lost = {"status": "crashed", "reason": one_line(f"{error}{times}"), "wall_seconds": seconds}
    return {**blank_record(job.cell, job.problem), **lost}


def _same_code(record: Record) -> Record:
    # A key includes the version, so that no cell of this campaign would ever find the record of another version.
    if record["version"] != code_version():
        reason = f"the worker runs convexnn-bench {record['version']}, this campaign is of {code_version()}"
        raise LostError(reason, retry=False)
    return record
