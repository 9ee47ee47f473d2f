"""Run one cell in a process of its own, and turn whatever happens there into one record."""

import datetime
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from convexnn_bench.errors import InputError
from convexnn_bench.harness.cell import Cell, Limits
from convexnn_bench.harness.process import LINK_GONE, Outcome, run_process
from convexnn_bench.plugins.registry import SOLVERS
from convexnn_bench.records.fields import blank
from convexnn_bench.records.machine import code_version, describe_machine
from convexnn_bench.records.records import STATUSES, Record, one_line

# run in the new process only: `inside` imports torch, which the command itself does without
CELL_TARGET = "convexnn_bench.harness.inside:cell_target"
PROBE_TARGET = "convexnn_bench.harness.inside:probe_target"
DEVICE_TARGET = "convexnn_bench.harness.inside:device_target"
DEVICE_SECONDS = 120.0  # deadline of `check_device`; a driver takes seconds to start


@dataclass
class Probe:
    """What a look at a problem found: its sizes, reasons to skip by place in the list, or an error."""

    problem: dict[str, Any] = field(default_factory=dict)
    skips: dict[int, str] = field(default_factory=dict)
    error: str | None = None


def probe(cells: list[Cell]) -> Probe:
    """Build the problem shared by `cells` in a process of its own, before any of them runs.

    `error` is set when the problem cannot be built from these arguments; a crash or a deadline is left for
    the cells themselves to report.
    """
    limits = cells[0].limits
    outcome = run_process(PROBE_TARGET, (cells,), limits.threads, limits.wall_seconds, limits.memory_gb)
    found = Probe()
    for kind, content in outcome.messages:
        if kind == "problem":
            found.problem = content
        elif kind == "skip":
            found.skips[content[0]] = content[1]
        elif kind == "error" and content["expected"] and content["status"] == "failed":
            found.error = content["reason"]
    return found


def check_device(device: str, threads: int) -> None:
    """Raise InputError where torch does not see the device, as a process of its own finds out."""
    for kind, content in run_process(DEVICE_TARGET, (device,), threads, DEVICE_SECONDS).messages:
        if kind == "error" and content["expected"]:
            raise InputError(content["reason"])


def blank_record(cell: Cell, problem: dict[str, Any] | None = None) -> Record:
    """A record with everything that is known before the cell runs."""
    return {
        **blank(),
        "key": cell.key,
        "campaign": cell.campaign,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "version": code_version(),
        "dataset": cell.dataset,
        "dataset_parameters": cell.dataset_parameters,
        "problem_parameters": cell.problem_parameters,
        "problem_name": cell.problem_name,
        "problem": problem or {},
        "solver": cell.solver,
        "solver_parameters": cell.solver_parameters,
        "solver_name": cell.solver_name,
        "formulation": SOLVERS.get(cell.solver).formulation,
        "seed": cell.seed,
        "device": cell.device,
        "limits": {**asdict(cell.limits), "deadline": cell.limits.wall_seconds},
        "machine": describe_machine(),
    }


def skipped_record(cell: Cell, reason: str, problem: dict[str, Any] | None = None) -> Record:
    """The record of a cell that was not started."""
    return {**blank_record(cell, problem), "status": "skipped", "reason": one_line(reason)}


def run_cell(
    cell: Cell,
    problem: dict[str, Any] | None = None,
    on_message: Callable[[str, Any], None] | None = None,
) -> Record:
    """Run one cell in a process of its own; whatever happens inside, a record comes back.

    problem: sizes found by `probe`, kept when the cell dies before it reports its own. on_message: is given
    ("stage", text) and ("point", (seconds, fields of the certificate)) as they come.
    """
    record, limits = blank_record(cell, problem), cell.limits
    outcome = run_process(CELL_TARGET, (cell,), limits.threads, limits.wall_seconds, limits.memory_gb, on_message)
    record["wall_seconds"] = outcome.seconds
    record["peak_memory_mb"] = outcome.peak_mb
    stage, finished = "starting", False
    for kind, content in outcome.messages:
        if kind == "stage":
            stage = content
        elif kind == "point":
            seconds, proven = content
            record["curve"].append([seconds, proven["objective"], proven["gap"]])
            record.update(proven, solve_seconds=seconds)  # what stays if the process is killed
        elif kind in ("problem", "start_memory_mb", "setup_seconds"):
            record[kind] = content
        elif kind in ("result", "error"):
            record.update({name: value for name, value in content.items() if name != "expected"})
            finished = True
    if not finished:
        record.update(_death(outcome, limits, stage))
    if record["status"] not in STATUSES:
        record.update(status="failed", reason=f"unknown status {record['status']!r}: {record['reason']}")
    record["reason"] = one_line(record["reason"])
    if record["status"] in ("crashed", "failed", "memory_limit"):
        record["output"] = outcome.output or None
    return record


def _death(outcome: Outcome, limits: Limits, stage: str) -> dict[str, str]:
    """Status and reason of a process that ended without an answer."""
    if outcome.stopped == "deadline":
        reason = f"killed at its deadline of {limits.wall_seconds:g} s on the wall clock, while: {stage}"
        return {"status": "time_limit", "reason": reason}
    if outcome.stopped == "memory":
        return {"status": "memory_limit", "reason": f"killed above {limits.memory_gb:g} GiB, while: {stage}"}
    if outcome.stopped == "garbled":
        words = "the solver wrote into the pipe that results go through, which is no file of its own"
        return {"status": "crashed", "reason": f"{words}, while: {stage}"}
    code = outcome.exit_code
    if outcome.stopped == "closed" or code == LINK_GONE:
        words = "the solver closed the pipe that results go through, which is no file of its own"
        return {"status": "crashed", "reason": f"{words}, while: {stage}"}
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        hint = " (out of memory, perhaps)" if name == "SIGKILL" else ""
        return {
            "status": "crashed",
            "reason": f"the process was ended by signal {-code} ({name}){hint}, while: {stage}",
        }
    return {
        "status": "crashed",
        "reason": f"the process exited with code {code} without an answer, while: {stage}",
    }
