"""Run one cell in a process of its own, and turn whatever happens there into one record."""

import datetime
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from convexnn_bench.errors import InputError
from convexnn_bench.harness.affinity import reserved_cores
from convexnn_bench.harness.cell import SCORING, Cell, Limits
from convexnn_bench.harness.child import PIPE_CLOSED
from convexnn_bench.harness.forking import signal_name
from convexnn_bench.harness.process import RUNS, ProcessOutcome, run_process
from convexnn_bench.plugins import SOLVERS
from convexnn_bench.records import MEASURED, Record, blank, checked, code_version, describe_machine, one_line
from convexnn_bench.statuses import STATUSES

# Functions of the new process. They are named, because `inside` imports torch, which the command does without.
CELL_TARGET = "convexnn_bench.harness.inside:cell_target"
PROBE_TARGET = "convexnn_bench.harness.inside:probe_target"
DEVICE_TARGET = "convexnn_bench.harness.inside:device_target"
GARBLED = "the solver wrote into the pipe that carries its results"
DEVICE_SECONDS = 120.0  # deadline of `check_device`: the driver of a GPU takes some seconds to start


@dataclass
class Probe:
    """What is known of a problem before its cells run.

    problem: its fields in a record. skips: the reason to skip a cell, by its index in the list. error: why the problem
    cannot be built, else None.
    """

    problem: dict[str, Any] = field(default_factory=dict)
    skips: dict[int, str] = field(default_factory=dict)
    error: str | None = None


def probe(cells: list[Cell]) -> Probe:
    """Build the problem that `cells` share in a process of its own, before any of them runs.

    `error` is set when the problem cannot be built from these arguments. A crash or a deadline is left for the cells to
    report.
    """
    limits = cells[0].limits
    outcome = run_process(PROBE_TARGET, (cells,), limits.threads, limits.wall_seconds, limits.memory_gb)
    result = Probe()
    for kind, content in outcome.messages:
        if kind == "problem":
            result.problem = content
        elif kind == "skip":
            result.skips[content[0]] = content[1]
        # Only an error of this package shows that the arguments are impossible. A lack of memory, say, is the cell's
        # own.
        elif kind == "error" and content["expected"] and content["status"] == "failed":
            result.error = content["reason"]
    return result


def check_device(device: str, threads: int) -> None:
    """Raise InputError where torch does not see the device.

    A process of its own asks torch.
    """
    for kind, content in run_process(DEVICE_TARGET, (device,), threads, DEVICE_SECONDS).messages:
        if kind == "error" and content["expected"]:
            raise InputError(content["reason"])


def blank_record(cell: Cell, problem: dict[str, Any] | None = None) -> Record:
    """Return a record with everything that is known before the cell runs.

    problem: its fields, if known.
    """
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
        # A record names the deadline that was in force, so that no reader needs the rule behind None.
        "limits": {**asdict(cell.limits), "deadline": cell.limits.wall_seconds},
        "machine": describe_machine(),
    }


def skipped_record(cell: Cell, reason: str, problem: dict[str, Any] | None = None) -> Record:
    """Return the record of a cell that is not started."""
    return {**blank_record(cell, problem), "status": "skipped", "reason": one_line(reason)}


def run_cell(
    cell: Cell,
    problem: dict[str, Any] | None = None,
    on_message: Callable[[str, Any], None] | None = None,
) -> Record:
    """Run one cell in a process of its own and return its record, whatever happens there.

    Parameters
    ----------
    problem
        The problem's fields from `probe`, which stay in the record when the process dies before it sends its own.
    on_message
        Called with every (kind, content) as it comes: ("stage", text), ("point", (seconds, fields of a record)), ...
    """
    record, limits = blank_record(cell, problem), cell.limits
    with reserved_cores(limits.threads) as cores:
        arguments = (cell, cores)
        outcome = run_process(CELL_TARGET, arguments, limits.threads, limits.wall_seconds, limits.memory_gb, on_message)
    record["wall_seconds"] = outcome.seconds
    record["cpu_seconds"] = outcome.cpu_seconds
    record["peak_memory_mb"] = outcome.peak_mb
    # 1. What the process sent. Each point overwrites the one before, so that the last one stays if it was killed.
    stage, finished, garbled = "starting", False, False
    for kind, content in outcome.messages:
        try:
            stage = content if kind == "stage" else stage
            record.update(_sent(record, kind, content))
            finished |= kind in ("result", "error")
            stage = "" if kind == "scores" else stage
        except (TypeError, ValueError, KeyError, AttributeError):  # not a message of this package
            garbled = True
    # 2. How it ended, where it did not say so itself.
    if garbled:
        record.update(status="crashed", reason=GARBLED)
    elif not finished:
        record["status"], reason = _death(outcome, limits)
        record["reason"] = f"{reason}, while: {stage}"
    elif stage == SCORING:  # the result is complete and stays valid
        record["reason"] += f"; no test scores: {_death(outcome, limits)[1]}, while: {stage}"
    # 3. The program is that of the solver which made the point.
    if record["chosen_solver"] in SOLVERS.names():
        record["formulation"] = SOLVERS.get(record["chosen_solver"]).formulation
    # 4. A solver of the user's may have sent anything.
    if record["status"] not in STATUSES:
        record.update(status="failed", reason=f"unknown status {record['status']!r}: {record['reason']}")
    record, _ = checked(record)
    record["reason"] = one_line(record["reason"])
    if record["status"] in ("crashed", "failed", "memory_limit"):
        record["output"] = outcome.output or None
    return record


def _sent(record: Record, kind: str, content: Any) -> Record:
    """Return the fields of a record that a message sets.

    Fields that a cell does not measure are ignored.
    """
    if kind == "point":
        seconds, proven = content
        curve = [*record["curve"], [seconds, proven["objective"], proven["gap"]]]
        return {**_measured(proven), "curve": curve, "solve_seconds": seconds}
    if kind in ("result", "error", "scores"):
        return _measured(content)
    return {kind: content} if kind in ("problem", "start_memory_mb", "setup_seconds") else {}


def _measured(content: dict[str, Any]) -> Record:
    return {name: value for name, value in content.items() if name in MEASURED}


def _death(outcome: ProcessOutcome, limits: Limits) -> tuple[str, str]:
    """Return the status and the reason of a process that ended without a result."""
    code = outcome.exit_code
    if outcome.stopped == "deadline":
        stopped = ", stopped by a signal" if outcome.suspended else ""
        return "time_limit", f"killed at its deadline of {limits.wall_seconds:g} s on the wall clock{stopped}"
    if outcome.stopped == "memory":
        return "memory_limit", f"killed above {limits.memory_gb:g} GiB"
    if outcome.stopped == "garbled":
        return "crashed", GARBLED
    if outcome.stopped == "closed" or code == PIPE_CLOSED:
        return "crashed", "the solver closed the pipe that carries its results"
    if outcome.stopped == "lost":
        return "crashed", f"the process server died under this cell {RUNS} times, so that the cell may have killed it"
    # The kernel's out-of-memory killer uses SIGKILL, as anybody else may. The exit code does not say who sent it.
    if code is not None and code < 0:
        return "crashed", f"the process was ended by {signal_name(-code)}"
    return "crashed", f"the process exited with code {code} without an answer"
