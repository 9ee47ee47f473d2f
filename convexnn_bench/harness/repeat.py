"""How to run again what left a record: a command, or a campaign file where no command says it all."""

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from convexnn_bench.errors import ConvexNNError
from convexnn_bench.harness.campaign import Campaign, find_campaign, load_campaign, shipped_names
from convexnn_bench.harness.plan import plan
from convexnn_bench.records.records import Record

Part = tuple[list[str], list[str], list[int], dict[str, Any]]  # data sets, solvers, seeds, limits
FEW = 5  # commands that are told one by one


def campaign_again(records: Sequence[Record]) -> list[str]:
    """Commands and campaign files that together make the cells of `records`.

    They make no other cells, unless the campaign ships with the package and was not finished. Of solvers of one's own
    the folder is not known: add `--solvers-dir`.
    """
    told = []
    for name in dict.fromkeys(record["campaign"] for record in records):
        own = [record for record in records if record["campaign"] == name]
        told += [f"convexnn-bench run {name}"] if _is_shipped(name, own) else _rebuilt(name, own)
    return told


def cell_again(record: Record) -> str:
    """A command that runs this one cell, else a campaign file of it: its key is the record's, with the same code."""
    (part,) = _parts([record])
    return _command(part, record) or cell_campaign(record)


def cell_campaign(record: Record) -> str:
    """A campaign file of this one cell."""
    (part,) = _parts([record])
    return "\n".join([*_part_lines(part), *_shared_lines(record)])


def _is_shipped(name: str, records: Sequence[Record]) -> bool:
    """Whether the campaign of this name that ships with the package makes every one of the cells."""
    if name not in shipped_names():
        return False
    try:
        cells = plan(*load_campaign(find_campaign(name)))
    except (ConvexNNError, OSError):  # data or packages of some cells are not here
        return False
    made = {
        (c.problem_name, c.solver_name, c.seed, c.device, *_limits(vars(c.limits), c.limits.wall_seconds))
        for c in cells
    }
    asked = {
        (r["problem_name"], r["solver_name"], r["seed"], r["device"], *_limits(r["limits"], r["limits"]["deadline"]))
        for r in records
    }
    return asked <= made


def _limits(given: dict[str, Any], deadline: float) -> tuple[Any, ...]:
    return given["time_limit"], given["gap"], deadline, given["memory_gb"], given["threads"]


def _rebuilt(name: str, records: Sequence[Record]) -> list[str]:
    """The campaign from its cells; one file for each device and number of threads, which parts cannot choose."""
    kinds = dict.fromkeys((record["device"], record["limits"]["threads"]) for record in records)
    told = []
    for kind in kinds:
        own = [record for record in records if (record["device"], record["limits"]["threads"]) == kind]
        parts = _parts(own)
        commands = [command for part in parts if (command := _command(part, own[0]))]
        if len(commands) == len(parts) <= FEW:
            told += commands
            continue
        named = [f"name = {_text(name)}"] if re.fullmatch(r"[\w.-]+", name) else []
        lines = [*named, *_shared_lines(own[0])]
        for part in parts:
            lines += ["", "[[part]]", *_part_lines(part)]
        told.append("\n".join(lines))
    return told


def _parts(records: Sequence[Record]) -> list[Part]:
    """Whole grids that together are the records: seeds of a problem and solver, solvers of a problem, problems."""
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for record in records:
        limits = json.dumps({key: value for key, value in record["limits"].items() if key != "threads"})
        own = seeds.setdefault((limits, record["problem_name"], record["solver_name"]), [])
        if record["seed"] not in own:
            own.append(record["seed"])
    solvers: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for (limits, problem, solver), numbers in seeds.items():
        solvers.setdefault((limits, problem, tuple(sorted(numbers))), []).append(solver)
    problems: dict[tuple[str, tuple[int, ...], tuple[str, ...]], list[str]] = {}
    for (limits, problem, of), names in solvers.items():
        problems.setdefault((limits, of, tuple(names)), []).append(problem)
    return [(names, list(solved), list(of), json.loads(limits)) for (limits, of, solved), names in problems.items()]


def _command(part: Part, record: Record) -> str | None:
    """`convexnn-bench run`, where what cannot be said on the command line is as it is by default."""
    problems, solvers, seeds, limits = part
    defaults = load_campaign(find_campaign("quickstart"))[0]  # what is not on the command line comes from there
    if seeds != list(range(len(seeds))) or not _by_default(defaults, limits, record):
        return None
    words = ["convexnn-bench", "run"]
    words += [word for name in problems for word in ("--dataset", shlex.quote(name))]
    words += [word for name in solvers for word in ("--solver", shlex.quote(name))]
    # with a time limit on the command line the deadline follows from it
    words += ["--time-limit", f"{limits['time_limit']!r}", "--gap", f"{limits['gap']!r}"]
    return " ".join([*words, *(["--seeds", str(len(seeds))] if len(seeds) > 1 else [])])


def _by_default(defaults: Campaign, limits: dict[str, Any], record: Record) -> bool:
    shared = record["device"], record["limits"]["threads"], limits["memory_gb"]
    follows = limits["deadline"] == 2 * limits["time_limit"] + 10
    plain = not defaults.problem and not defaults.part and defaults.seeds == 1 and not defaults.fresh_data
    return follows and plain and shared == (defaults.device, defaults.threads, defaults.memory_gb)


def _part_lines(part: Part) -> list[str]:
    """The keys of a grid in a campaign file."""
    problems, solvers, seeds, limits = part
    lines = [
        f"datasets = {_list(problems)}",
        f"solvers = {_list(solvers)}",
        f"seeds = {seeds}",
        f"time_limit = {limits['time_limit']!r}",
        f"gap = {limits['gap']!r}",
    ]
    if limits["deadline"] != 2 * limits["time_limit"] + 10:  # what a campaign without one gets
        lines.append(f"deadline = {limits['deadline']!r}")
    if limits["memory_gb"] is not None:
        lines.append(f"memory_gb = {limits['memory_gb']!r}")
    return lines


def _shared_lines(record: Record) -> list[str]:
    """The keys that hold for the whole of a campaign file, where they are not as always."""
    threads = [] if record["limits"]["threads"] == 1 else [f"threads = {record['limits']['threads']!r}"]
    return threads + ([] if record["device"] == "cpu" else [f"device = {_text(record['device'])}"])


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, names))}]"


def _text(value: str) -> str:
    """As TOML writes text; JSON's escapes are among TOML's."""
    return json.dumps(value, ensure_ascii=False)
