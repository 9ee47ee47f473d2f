"""Predict what a campaign would run and how long it may take, without building a problem."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from convexnn_bench.harness.campaign import Campaign, Source
from convexnn_bench.harness.cell import Cell
from convexnn_bench.harness.plan import plan
from convexnn_bench.records import RecordFile, check_folder


@dataclass(frozen=True)
class Forecast:
    """One cell that a campaign would run.

    known: True if it has a record already. seconds: expected wall clock, the median over the records of the same
    solver on the same problem; None without such a record. limit: seconds that solving may take. unavailable: why the
    cell would be skipped, as far as that can be said without its data, else None.
    """

    cell: Cell
    known: bool
    seconds: float | None
    limit: float
    unavailable: str | None


def forecast_cells(
    campaign: Campaign, out: Path, source: Source | None = None, rerun: Collection[str] = ()
) -> list[Forecast]:
    """Return one forecast for each cell of `run_campaign`; build no problem and write nothing.

    Raises InputError where `run_campaign` would.
    """
    cells = plan(campaign, source)
    check_folder(out)
    records, _ = RecordFile(out / "records.jsonl").read()
    times: dict[tuple[str, str], list[float]] = {}
    for record in records.values():
        times.setdefault((record["problem_name"], record["solver_name"]), []).append(record["wall_seconds"])
    forecasts = []
    for cell in cells:
        measured = times.get((cell.problem_name, cell.solver_name))
        known = cell.key in records and records[cell.key]["status"] not in rerun
        # The median is not moved by a single run that hit its deadline.
        seconds = median(measured) if measured else None
        forecasts.append(Forecast(cell, known, seconds, cell.limits.time_limit, cell.unavailable()))
    return forecasts
