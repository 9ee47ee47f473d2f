"""The fields of a record, in one table: what they hold, in which unit, and where they are shown.

Blank records, the columns of the Parquet file, the frame of `compare`, the tables of the report and the table in
docs/campaigns.md all follow from `FIELDS`. A number that is not finite is stored as null.
"""

from dataclasses import dataclass
from typing import Any, Literal

# Version 5 had no verified, 4 no chosen_solver, 3 no test scores, 2 no cpu_seconds, 1 no active_blocks, largest_rank
# and total_rank.
SCHEMA = 6

Kind = Literal["text", "integer", "number", "parameters", "group", "curve"]
_EMPTY: dict[str, type] = {"parameters": dict, "group": dict, "curve": list}


@dataclass(frozen=True)
class Field:
    """One field of a record.

    kind: "number" is a float in Parquet, also where it counts; "parameters" an object that Parquet holds as JSON text;
    "group" an object whose members become columns of their own, name_member; "curve" a list of points.
    title: heading of its column in the tables of the terminal, empty where these do not show it.
    frame: True for the columns of `compare(...).to_frame()`. report: True where a report cannot do without it: a
    record which lacks it, or has no text or integer there, is invalid.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    title: str = ""
    frame: bool = False
    report: bool = True


FIELDS = (
    Field("key", "text", "hash of problem, solver, parameters, seed, limits and code; one record a key", report=False),
    Field("schema", "integer", "version of this table", report=False),
    Field("campaign", "text", "name of the campaign"),
    Field("started", "text", "when the cell started, UTC, ISO 8601"),
    Field("version", "text", "version of the package and hash of its source files"),
    Field("dataset", "text", "name of the data set", report=False),
    Field("dataset_parameters", "parameters", "its parameters, defaults written out", report=False),
    Field("problem_parameters", "parameters", "parameters of the problem, as given", report=False),
    Field("problem_name", "text", "the problem as the campaign asks for it"),
    Field(
        "problem",
        "group",
        "sizes n, d, c, N, p, q, P; architecture, activation, loss; beta, beta_max; scope; notes on reading the data",
        report=False,
    ),
    Field("solver", "text", "name of the solver", report=False),
    Field("solver_parameters", "parameters", "its parameters, defaults written out", report=False),
    Field("solver_name", "text", "the solver with the parameters that differ from their defaults", "", "solver", True),
    Field("chosen_solver", "text", "the solver of the final point, which auto has chosen; else `solver`", report=False),
    Field("seed", "integer", "seed of the solver's start"),
    Field("device", "text", '"cpu", "cuda" or "cuda:0"'),
    Field("limits", "group", "time_limit and deadline (s), gap, iterations, memory_gb (GiB), threads, verified"),
    Field("status", "text", "how the cell ended, one of the statuses above", "", "status", True),
    Field("objective", "number", "objective of the final point", "sum over samples", "objective", True),
    Field("lower_bound", "number", "proven lower bound on the optimum", "sum over samples", "lower bound", True),
    Field("gap", "number", "(objective - lower_bound) / |lower_bound|", "relative", "gap", True),
    Field("verified", "text", '"yes" if rounding in these three is verified, else "no"', "", "verified", report=False),
    Field("test_samples", "number", "held-out samples that the final point is scored on", frame=True, report=False),
    Field("test_loss", "number", "unweighted loss on held-out samples", "sum over them", "test loss", True, False),
    Field("test_accuracy", "number", "held-out outputs whose class is predicted", "fraction", "test acc.", True, False),
    Field("test_r2", "number", "1 - sum (y - z)^2 / sum (y - mean)^2", "at most 1", "test R2", True, False),
    Field("setup_seconds", "number", "time of `set_problem`", "s", "set-up s", True),
    Field("solve_seconds", "number", "time of `run`, without the scoring of points", "s", "solve s", True),
    Field("wall_seconds", "number", "time of the process, from its start to its end", "s"),
    Field("cpu_seconds", "number", "CPU time of the process and what it started", "s", report=False),
    Field("peak_memory_mb", "number", "largest memory of the process and what it started", "MiB", "MB"),
    Field("start_memory_mb", "number", "memory before the data came", "MiB", report=False),
    Field("scope", "text", '"complete" or "sampled": the patterns that the bound is over', frame=True, report=False),
    Field("infeasibility", "number", "largest violation of the ReLU cones", "relative", frame=True, report=False),
    Field("stationarity_bound", "number", "(max_dual_norm / beta - 1)_+", "relative", frame=True),
    Field("stationarity_error", "number", "distance from stationarity", "as objective", frame=True, report=False),
    Field("max_dual_norm", "number", "upper bound on max_k of the dual norm of G_k", frame=True, report=False),
    Field("dual_norm_lower", "number", "lower bound on the same", frame=True, report=False),
    Field("dual_norm_method", "text", "how the upper bound was obtained", frame=True, report=False),
    Field("active_blocks", "number", "blocks of the final point that are not zero", report=False),
    Field("largest_rank", "number", "largest rank: singular values above 1e-6 of the largest of all", report=False),
    Field("total_rank", "number", "sum of the ranks of all blocks", report=False),
    Field("formulation", "text", "program that the solver works on: convex, burer_monteiro, network", frame=True),
    Field("reason", "text", "why it has this status, in one line", frame=True),
    Field("curve", "curve", "[seconds, objective, gap] of every scored point, on the clock of solve_seconds"),
    Field("output", "text", "last lines that a failed cell printed", report=False),
    Field("machine", "group", "versions of Python and libraries, system, processor, cores, memory_gb, BLAS, commit"),
)
KINDS: dict[str, Kind] = {field.name: field.kind for field in FIELDS}
# The scores of the final point on held-out samples.
TEST_FIELDS = ("test_samples", "test_loss", "test_accuracy", "test_r2")
# The fields that the process of a cell measures. Other fields in its messages are ignored.
MEASURED = frozenset(
    (
        *("status", "reason", "chosen_solver", "objective", "lower_bound", "gap", "scope", "infeasibility", "curve"),
        "verified",
        *("stationarity_bound", "stationarity_error", "max_dual_norm", "dual_norm_lower", "dual_norm_method"),
        *("active_blocks", "largest_rank", "total_rank", "setup_seconds", "solve_seconds"),
        *TEST_FIELDS,
    )
)
# The types of the members of groups. Members of `machine` are only shown, and have no type.
MEMBERS: dict[str, dict[str, Kind]] = {
    "problem": {
        **dict.fromkeys(("n", "d", "c", "N", "p", "q", "P"), "integer"),
        **dict.fromkeys(("architecture", "activation", "loss", "scope"), "text"),
        **dict.fromkeys(("beta", "beta_max"), "number"),
    },
    "limits": {
        **dict.fromkeys(("time_limit", "deadline", "gap", "memory_gb"), "number"),
        **dict.fromkeys(("iterations", "threads"), "integer"),
    },
}


def blank() -> dict[str, Any]:
    """Return a record of a cell that has not run: status "failed" without a reason, everything else empty."""
    empty: dict[str, Any] = {field.name: _EMPTY[field.kind]() if field.kind in _EMPTY else None for field in FIELDS}
    return {**empty, "schema": SCHEMA, "status": "failed", "reason": "", "wall_seconds": 0.0}
