"""Running a campaign: what has a record already is left alone, everything else is run by an executor."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from convexnn_bench.harness.campaign import Campaign, Source
from convexnn_bench.harness.cell import Cell
from convexnn_bench.harness.cell_run import Probe, check_device, probe, skipped_record
from convexnn_bench.harness.executors.base import BaseExecutor, Events, Job
from convexnn_bench.harness.executors.local import LocalExecutor
from convexnn_bench.harness.plan import plan
from convexnn_bench.harness.process import start_server
from convexnn_bench.records.folder import check_folder, make_folder
from convexnn_bench.records.lock import RecordsLock
from convexnn_bench.records.machine import cores
from convexnn_bench.records.records import Record, RecordFile, drop_late, late_records, to_parquet


@runtime_checkable
class Observer(Protocol):
    """Is told how a campaign goes; see `report.progress`. Several cells may be under way at a time."""

    def planned(self, cells: list[Cell], known: int) -> None: ...
    def note(self, text: str) -> None: ...
    def started(self, cell: Cell) -> None: ...
    def message(self, cell: Cell, kind: str, content: Any) -> None: ...
    def finished(self, record: Record) -> None: ...


@dataclass
class Finished:
    """records: one for every cell asked for, in the order of the plan. known: how many were there before.
    complaint: why there is no Parquet file, in words a user can act on; None when there is one.
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
) -> Finished:
    """Run every cell without a record in `out`/records.jsonl, then write records.parquet beside it.

    rerun: statuses whose cells are run again; of two records of a cell the later one counts. executor: where cells run,
    by default one after the other on this machine.

    Problems are built once before anything runs, so that a campaign that asks for what cannot be is refused.
    Only then is `out` made. Raises InputError for such a campaign, for an `out` that cannot be and for one that another
    campaign is writing to, OSError when the records cannot be written, ExecutorError when there is nothing left to run
    on. Without pandas and pyarrow there is no Parquet file, and `complaint` says so.
    """
    cells = plan(campaign, source)
    executor = executor or LocalExecutor()
    if campaign.device != "cpu" and executor.here:  # elsewhere the cells will tell
        check_device(campaign.device, campaign.threads)
    check_folder(out)
    with RecordsLock(out / "records.jsonl") as lock:
        return _run_locked(cells, out, observer, source, rerun, executor, lock)


def _run_locked(
    cells: list[Cell],
    out: Path,
    observer: Observer,
    source: Source | None,
    rerun: Collection[str],
    executor: BaseExecutor,
    lock: RecordsLock,
) -> Finished:
    """`run_campaign` while no other campaign may write to `out`."""
    file = RecordFile(out / "records.jsonl")
    records, complaints = file.read()
    for record in late_records(out):
        if record["key"] not in records:
            file.append(record)
            records[record["key"]] = record
        drop_late(record["key"], out)
    waiting = [cell for cell in cells if cell.key not in records or records[cell.key]["status"] in rerun]
    again = {cell.key for cell in waiting}
    observer.planned(cells, len(cells) - len(waiting))
    _warn_of_threads(waiting, executor, observer)
    for complaint in complaints:
        observer.note(complaint)
    known = [cell for cell in cells if cell.key not in again]
    for cell in known:
        # the same problem may have been asked for in other words
        records[cell.key] = {**records[cell.key], "problem_name": cell.problem_name, "campaign": cell.campaign}
        observer.finished(records[cell.key])
    ready, skips = _look_ahead(waiting, observer, source or Source())
    make_folder(out)
    lock.take()

    def keep(record: Record) -> None:
        file.append(record)
        drop_late(record["key"], out)
        records[record["key"]] = record
        observer.finished(record)

    def jobs() -> Iterator[Job]:
        for cell in waiting:
            reason, sizes = skips.get(cell.key), ready.get(cell.key, {})
            if reason is None:
                yield Job(cell, sizes)
            else:
                keep(skipped_record(cell, reason, sizes))

    for _, record in executor.run(jobs(), out, Events(observer.started, observer.message, observer.note)):
        keep(record)
    missing = _write_table(list(records.values()), out)
    return Finished([records[cell.key] for cell in cells], len(known), missing)


def _warn_of_threads(waiting: list[Cell], executor: BaseExecutor, observer: Observer) -> None:
    threads = max((cell.limits.threads for cell in waiting), default=1)
    if executor.here and threads > cores():
        observer.note(f"warning: cells take {threads} threads, but this process may use {cores()} cores")


def _write_table(records: list[Record], out: Path) -> str | None:
    """Write the Parquet file; without the packages for it, the words to say so."""
    target = out / "records.parquet"
    try:
        to_parquet(records, target)
    except ImportError:
        need = "pandas and pyarrow are needed for it: pip install pandas pyarrow"
        return f"{target} was not written, {need}; {out / 'records.jsonl'} holds all records"
    return None


def _groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that share a problem."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.problem_name, []).append(cell)
    return list(groups.values())


def _look_ahead(
    waiting: list[Cell], observer: Observer, place: Source
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """(sizes of the problems, reasons to skip) by cell key. Raises InputError for an impossible problem."""
    sizes: dict[str, dict[str, Any]] = {}
    skips: dict[str, str] = {}
    if waiting:
        start_server(waiting[0].limits.threads)
    for cell in waiting:
        reason = cell.unavailable()
        if reason is not None:
            skips[cell.key] = reason
    for group in _groups(cell for cell in waiting if cell.key not in skips):
        observer.note(f"building {group[0].problem_name}")
        found: Probe = probe(group)
        if found.error is not None:
            raise place(f"{group[0].problem_name} cannot be built: {found.error}", "datasets", group[0].origin)
        sizes.update({cell.key: found.problem for cell in group})
        skips.update({group[number].key: reason for number, reason in found.skips.items()})
    return sizes, skips
