"""Run a campaign.

An executor runs every cell that has no record yet, and each record is kept as it comes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from convexnn_bench.harness.campaign import Campaign, Source
from convexnn_bench.harness.cell import Cell
from convexnn_bench.harness.cell_run import check_device, probe, skipped_record
from convexnn_bench.harness.executors import BaseExecutor, Events, Job, LocalExecutor
from convexnn_bench.harness.finished import recall, remember
from convexnn_bench.harness.plan import plan
from convexnn_bench.harness.process import start_server
from convexnn_bench.records import (
    Record,
    RecordFile,
    RecordsLock,
    check_folder,
    cores,
    drop_late,
    late_records,
    make_folder,
    to_parquet,
)


@runtime_checkable
class Observer(Protocol):
    """Follows a campaign, as `cli.progress` does to show it.

    Several cells may run at a time.
    """

    def planned(self, cells: list[Cell], known: int) -> None:
        """Called once, with all cells and the number of those that have a record already."""

    def note(self, text: str) -> None:
        """Called with one line for a person, such as a warning."""

    def started(self, cell: Cell) -> None:
        """Called when a cell starts."""

    def message(self, cell: Cell, kind: str, content: Any) -> None:
        """Called with what a running cell sends; `harness.inside` lists the kinds."""

    def finished(self, record: Record) -> None:
        """Called with the record of each cell, also of those that had one already."""


@dataclass
class CampaignOutcome:
    """What a campaign leaves behind.

    records: one for every cell, in the order of the plan. known: number of records that existed before.
    complaint: why there is no Parquet file, in words a user can act on; None where there is one.
    """

    records: list[Record]
    known: int
    complaint: str | None = None


def run_campaign(
    campaign: Campaign,
    out: Path,
    observer: Observer,
    source: Source | None = None,
    rerun: Collection[str] = (),
    executor: BaseExecutor | None = None,
) -> CampaignOutcome:
    """Run every cell without a record in `out`/records.jsonl, then write records.parquet beside it.

    Each problem is built once before anything runs, so that a campaign with an impossible problem is refused before
    `out` is made. Without pandas and pyarrow there is no Parquet file, and `complaint` says so.

    Parameters
    ----------
    source
        The file of the campaign, for errors that name a line.
    rerun
        Statuses whose cells are run again; of two records of a cell the later one counts.
    executor
        Where cells run, by default one after the other on this machine.

    Raises
    ------
    InputError
        The campaign asks for something impossible, `out` cannot be written to, or another campaign writes to it.
    OSError
        A record cannot be written.
    ExecutorError
        No worker is left to run on.
    """
    source = source or Source()
    cells = recall(campaign, source, out)
    outcome = None if cells is None else _nothing_to_do(cells, out, observer, rerun)
    if outcome is not None:
        return outcome
    # Whatever can be refused is refused before `out` is made: the plan, the device, the folder, and a second campaign.
    cells = plan(campaign, source)
    executor = executor or LocalExecutor()
    if campaign.device != "cpu" and executor.here:  # on other machines each cell finds out for itself
        check_device(campaign.device, campaign.threads)
    check_folder(out)
    with RecordsLock(out / "records.jsonl") as lock:
        outcome = _run_locked(cells, out, observer, source, rerun, executor, lock)
    if outcome.complaint is None:
        remember(campaign, source, cells, out)
    return outcome


def _nothing_to_do(cells: list[Cell], out: Path, observer: Observer, rerun: Collection[str]) -> CampaignOutcome | None:
    """Return the outcome of a finished campaign, or None if cells must run or files must be written."""
    if _is_older(out) or any(True for _ in late_records(out)):
        return None
    records, complaints = RecordFile(out / "records.jsonl").read()
    if any(cell.key not in records or records[cell.key]["status"] in rerun for cell in cells):
        return None
    observer.planned(cells, len(cells))
    for complaint in complaints:
        observer.note(complaint)
    return CampaignOutcome(_known(cells, records, observer), len(cells))


def _known(cells: list[Cell], records: dict[str, Record], observer: Observer) -> list[Record]:
    """Pass the records of earlier runs to the observer, with the name of the problem in this campaign."""
    for cell in cells:
        records[cell.key] = {**records[cell.key], "problem_name": cell.problem_name, "campaign": cell.campaign}
        observer.finished(records[cell.key])
    return [records[cell.key] for cell in cells]


def _run_locked(
    cells: list[Cell],
    out: Path,
    observer: Observer,
    source: Source,
    rerun: Collection[str],
    executor: BaseExecutor,
    lock: RecordsLock,
) -> CampaignOutcome:
    """Run the cells while no other campaign can write to `out`."""
    # 1. Read the records in the folder.
    file = RecordFile(out / "records.jsonl")
    records, complaints = _read_records(file, out)
    # 2. Tell the observer which cells have a record.
    waiting = [cell for cell in cells if cell.key not in records or records[cell.key]["status"] in rerun]
    again = {cell.key for cell in waiting}
    observer.planned(cells, len(cells) - len(waiting))
    _warn_of_threads(waiting, executor, observer)
    for complaint in complaints:
        observer.note(complaint)
    _known([cell for cell in cells if cell.key not in again], records, observer)
    # 3. Build each problem once, to find what is impossible or would be skipped.
    problems, skips = _look_ahead(waiting, observer, source)
    # 4. Run the others, and keep each record as it comes.
    # The lock is taken when the file is made: until now the folder may not have existed.
    make_folder(out)
    lock.take()

    def keep(record: Record) -> None:
        # The record goes to the disk first, then to memory and to the observer: what was shown is never lost. The file
        # that a job left is removed only when its record is in the common file.
        file.append(record)
        drop_late(record["key"], out)
        records[record["key"]] = record
        observer.finished(record)

    def jobs() -> Iterator[Job]:
        for cell in waiting:
            reason, problem = skips.get(cell.key), problems.get(cell.key, {})
            if reason is None:
                # The executor asks for a job only when it has room, so that at any time few cells are under way.
                yield Job(cell, problem)
            else:
                keep(skipped_record(cell, reason, problem))

    for _, record in executor.run(jobs(), out, Events(observer.started, observer.message, observer.note)):
        keep(record)
    # 5. Write the table, unless it is there and nothing was added.
    missing = _write_table(list(records.values()), out) if waiting or _is_older(out) else None
    return CampaignOutcome([records[cell.key] for cell in cells], len(cells) - len(waiting), missing)


def _read_records(file: RecordFile, out: Path) -> tuple[dict[str, Record], list[str]]:
    """Read the file, and take in the records that jobs left after an earlier campaign had stopped."""
    records, complaints = file.read()
    for record in late_records(out):
        # A campaign that was killed between the two steps of `keep` has the record in both places already.
        if record["key"] not in records:
            file.append(record)
            records[record["key"]] = record
        drop_late(record["key"], out)
    return records, complaints


def _warn_of_threads(waiting: list[Cell], executor: BaseExecutor, observer: Observer) -> None:
    threads = max((cell.limits.threads for cell in waiting), default=1)
    if executor.here and threads > cores():
        observer.note(f"warning: cells take {threads} threads, but this process may use {cores()} cores")


def _is_older(out: Path) -> bool:
    """Return True if there is no Parquet file as new as the records."""
    table, records = out / "records.parquet", out / "records.jsonl"
    return not table.is_file() or table.stat().st_mtime_ns < records.stat().st_mtime_ns


def _write_table(records: list[Record], out: Path) -> str | None:
    """Write the Parquet file.

    Return why there is none where a package is missing, else None.
    """
    target = out / "records.parquet"
    try:
        to_parquet(records, target)
    except ImportError:
        need = "pandas and pyarrow are needed for it: pip install pandas pyarrow"
        return f"{target} was not written, {need}; {out / 'records.jsonl'} holds all records"
    return None


def _look_ahead(
    waiting: list[Cell], observer: Observer, source: Source
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return (problem fields, reasons to skip), both by the key of a cell.

    Raises InputError for a bad problem.
    """
    if waiting:
        # The server loads its modules while the solvers are asked below which packages they lack.
        start_server(waiting[0].limits.threads)
    skips = {cell.key: reason for cell in waiting if (reason := cell.unavailable()) is not None}
    groups: dict[str, list[Cell]] = {}
    for cell in waiting:
        if cell.key not in skips:
            groups.setdefault(cell.problem_name, []).append(cell)
    problems: dict[str, dict[str, Any]] = {}
    for name, group in groups.items():
        observer.note(f"building {name}")
        outcome = probe(group)
        if outcome.error is not None:
            # An impossible problem ends the whole campaign, because the mistake is the campaign's and not a solver's.
            raise source.error(f"{name} cannot be built: {outcome.error}", "datasets", group[0].origin)
        problems.update({cell.key: outcome.problem for cell in group})
        skips.update({group[index].key: reason for index, reason in outcome.skips.items()})
    return problems, skips
