"""One cell: one problem, one solver, one seed, run once in a process of its own, leaving one record."""

import datetime
import hashlib
import inspect
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convexnn_bench.harness.inside import cell_target, probe_target
from convexnn_bench.harness.process import LINK_GONE, Outcome, run_process
from convexnn_bench.plugins.registry import DATASETS, SOLVERS
from convexnn_bench.plugins.specs import format_spec
from convexnn_bench.records.machine import code_version, describe_machine
from convexnn_bench.records.records import SCHEMA, STATUSES, Record, make_key, one_line

if TYPE_CHECKING:
    from convexnn_bench.problem import Problem


@dataclass(frozen=True)
class Limits:
    """What a cell may use.

    time_limit: seconds of the solver's own clock. gap: relative gap at which it may stop. deadline: seconds
    of wall clock after which the process is killed, set-up and scoring included; None means 2 time_limit +
    10. memory_gb: resident memory in GiB, None for no limit. threads: of BLAS and torch.
    """

    time_limit: float = 60.0
    gap: float = 1e-6
    deadline: float | None = None
    memory_gb: float | None = None
    threads: int = 1

    @property
    def wall_seconds(self) -> float:
        return 2 * self.time_limit + 10 if self.deadline is None else self.deadline


@dataclass(frozen=True)
class Cell:
    """A picklable description of one run. Parameters are complete: defaults are written out."""

    dataset: str
    dataset_parameters: dict[str, Any]
    problem_parameters: dict[str, Any]
    solver: str
    solver_parameters: dict[str, Any]
    seed: int = 0
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)
    solvers_dir: str | None = None
    campaign: str = ""
    label: str = ""  # the problem as it was asked for, one point of the grid
    origin: str = ""  # the same as the campaign wrote it, for messages

    @property
    def problem_name(self) -> str:
        """The problem as it was asked for, else as a command line would, defaults left out."""
        if self.label:
            return self.label
        defaults = DATASETS.get(self.dataset).parameters
        changed = {k: v for k, v in self.dataset_parameters.items() if v != defaults.get(k)}
        return format_spec(self.dataset, {**changed, **self.problem_parameters})

    @property
    def solver_name(self) -> str:
        """The solver as written on the command line, parameters at their defaults left out."""
        defaults = SOLVERS.get(self.solver).parameters
        changed = {k: v for k, v in self.solver_parameters.items() if v != defaults[k][0]}
        return format_spec(self.solver, changed)

    @cached_property
    def key(self) -> str:
        """Hash of all that a result depends on, the code included."""
        return make_key(
            {
                **{k: v for k, v in asdict(self).items() if k not in ("campaign", "solvers_dir", "label", "origin")},
                "version": code_version(),
                "solver_source": _source_hash(SOLVERS.get(self.solver)),
                "data": DATASETS.get(self.dataset)(**self.dataset_parameters).fingerprint(),
            }
        )

    def make_problem(self) -> "Problem":
        """Load the data and build the problem. Raises InputError for what cannot be."""
        from convexnn_bench.datasets._make import make_problem

        return make_problem(self.dataset, **{**self.dataset_parameters, **self.problem_parameters})


def _source_hash(cls: type) -> str:
    return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()


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
    outcome = run_process(probe_target, (cells,), limits.threads, limits.wall_seconds, limits.memory_gb)
    found = Probe()
    for kind, content in outcome.messages:
        if kind == "problem":
            found.problem = content
        elif kind == "skip":
            found.skips[content[0]] = content[1]
        elif kind == "error" and content["expected"] and content["status"] == "failed":
            found.error = content["reason"]
    return found


def blank_record(cell: Cell, problem: dict[str, Any] | None = None) -> Record:
    """A record with everything that is known before the cell runs."""
    return {
        "key": cell.key,
        "schema": SCHEMA,
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
        "status": "failed",
        "reason": "",
        "objective": None,
        "lower_bound": None,
        "gap": None,
        "scope": None,
        "infeasibility": None,
        "stationarity_bound": None,
        "stationarity_error": None,
        "max_dual_norm": None,
        "dual_norm_lower": None,
        "dual_norm_method": None,
        "active_blocks": None,
        "largest_rank": None,
        "total_rank": None,
        "setup_seconds": None,
        "solve_seconds": None,
        "wall_seconds": 0.0,
        "peak_memory_mb": None,
        "start_memory_mb": None,
        "curve": [],
        "output": None,
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
    started = time.perf_counter()
    outcome = run_process(cell_target, (cell,), limits.threads, limits.wall_seconds, limits.memory_gb, on_message)
    record["wall_seconds"] = time.perf_counter() - started
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
