"""Running a campaign: what has a record already is left alone, everything else is run, one cell at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from convexnn_bench.errors import InputError
from convexnn_bench.harness.campaign import Campaign, Source
from convexnn_bench.harness.cell import Cell, Probe, probe, run_cell, skipped_record
from convexnn_bench.harness.plan import plan
from convexnn_bench.harness.process import start_server
from convexnn_bench.harness.records import Record, RecordFile, to_parquet
from convexnn_bench.registry import DATASETS, SOLVERS


@runtime_checkable
class Observer(Protocol):
    """Is told how a campaign goes; see `report.progress`."""

    def planned(self, cells: list[Cell], known: int) -> None: ...
    def note(self, text: str) -> None: ...
    def started(self, cell: Cell) -> None: ...
    def message(self, kind: str, content: Any) -> None: ...
    def finished(self, record: Record) -> None: ...


@dataclass
class Finished:
    """records: one for every cell asked for, in the order of the plan. known: how many were there before."""

    records: list[Record]
    known: int


def run_campaign(campaign: Campaign, out: Path, observer: Observer, source: Source | None = None) -> Finished:
    """Run every cell without a record in `out`/records.jsonl, then write records.parquet beside it.

    Problems are built once before anything runs, so that a campaign that asks for what cannot be is refused.
    Raises InputError for such a campaign, OSError when the records cannot be written.
    """
    cells = plan(campaign, source)
    if campaign.device != "cpu":
        _check_device(campaign.device)
    out.mkdir(parents=True, exist_ok=True)
    file = RecordFile(out / "records.jsonl")
    records, complaints = file.read()
    waiting = [cell for cell in cells if cell.key not in records]
    observer.planned(cells, len(cells) - len(waiting))
    for complaint in complaints:
        observer.note(complaint)
    known = [cell for cell in cells if cell.key in records]
    for cell in known:
        # the same problem may have been asked for in other words
        records[cell.key] = {**records[cell.key], "problem_name": cell.problem_name, "campaign": cell.campaign}
        observer.finished(records[cell.key])
    ready, skips = _look_ahead(waiting, observer, source or Source())
    for cell in waiting:
        reason, sizes = skips.get(cell.key), ready.get(cell.key, {})
        if reason is not None:
            record = skipped_record(cell, reason, sizes)
        else:
            observer.started(cell)
            record = run_cell(cell, sizes, observer.message)
        file.append(record)
        records[cell.key] = record
        observer.finished(record)
    to_parquet(list(records.values()), out / "records.parquet")
    return Finished([records[cell.key] for cell in cells], len(known))


def _check_device(device: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise InputError(f"device {device!r} was asked for, but torch sees no CUDA device here: use 'cpu'")


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
        missing = DATASETS.get(cell.dataset).unavailable()
        reason = f"data set {cell.dataset}: {missing}" if missing else SOLVERS.get(cell.solver).unavailable()
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
