"""Say how to run records again.

This is a command, or a campaign file if a setting has no flag.
"""

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from convexnn_bench.errors import ConvexNNError
from convexnn_bench.harness.campaign import Campaign, find_campaign, load_campaign, shipped_names
from convexnn_bench.harness.plan import plan
from convexnn_bench.records import Record

Part = tuple[list[str], list[str], list[int], dict[str, Any]]  # problems, solvers, seeds, limits of one grid
MOST_COMMANDS = 5  # more become one campaign file


def campaign_again(records: Sequence[Record]) -> list[str]:
    """Return commands and campaign files that together make the cells of `records`.

    They make no other cells, unless the campaign ships with the package and was not finished. Records do not name
    folders of a user's plug-ins: add `--solvers-dir` or `--plugins-dir`.
    """
    texts = []
    records = [record for record in records if _is_repeatable(record)]
    for name in dict.fromkeys(record["campaign"] for record in records):
        group = [record for record in records if record["campaign"] == name]
        texts += [f"convexnn-bench run {name}"] if _is_shipped(name, group) else _rebuilt(name, group)
    return texts


def cell_again(record: Record) -> str:
    """Return a command that runs this one cell, or a campaign file. The same code gives the cell the same key.

    For an invalid record, which lacks limits, the result is a comment.
    """
    if not _is_repeatable(record):
        return "# the record does not say with which limits its cell ran"
    (part,) = _parts([record])
    return _command(part, record) or cell_campaign(record)


def cell_campaign(record: Record) -> str:
    """Return a campaign file of this one cell."""
    (part,) = _parts([record])
    return "\n".join([*_part_lines(part), *_shared_lines(record)])


def _is_repeatable(record: Record) -> bool:
    return all(record["limits"][name] is not None for name in ("time_limit", "deadline", "gap", "threads"))


def _is_shipped(name: str, records: Sequence[Record]) -> bool:
    """Return True if a campaign of this name ships with the package and makes every one of the cells."""
    if name not in shipped_names():
        return False
    try:
        cells = plan(*load_campaign(find_campaign(name)))
    except (ConvexNNError, OSError):  # data or packages of some cells are missing on this machine
        return False
    # Names and limits are compared rather than keys, because a key also holds the version of the code.
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
    # Records of earlier versions have no limit in iterations, and no verified bounds.
    later = given.get("iterations"), bool(given.get("verified"))
    return given["time_limit"], given["gap"], deadline, given["memory_gb"], given["threads"], *later


def _rebuilt(name: str, records: Sequence[Record]) -> list[str]:
    """Return commands or campaign files that make these cells, for each device and number of threads."""
    shared: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        shared.setdefault((record["device"], record["limits"]["threads"]), []).append(record)
    texts = []
    for group in shared.values():
        parts = _parts(group)
        commands = [command for part in parts if (command := _command(part, group[0]))]
        if len(commands) == len(parts) <= MOST_COMMANDS:
            texts += commands
            continue
        named = [f"name = {_text(name)}"] if re.fullmatch(r"[\w.-]+", name) else []
        lines = [*named, *_shared_lines(group[0])]
        for part in parts:
            lines += ["", "[[part]]", *_part_lines(part)]
        texts.append("\n".join(lines))
    return texts


def _parts(records: Sequence[Record]) -> list[Part]:
    """Return grids that together make up the cells of the records. Limits are compared as JSON text."""
    # 1. The seeds of each problem and solver.
    seeds: dict[tuple[str, str, str], set[int]] = {}
    for record in records:
        limits = json.dumps({key: value for key, value in record["limits"].items() if key != "threads"})
        seeds.setdefault((limits, record["problem_name"], record["solver_name"]), set()).add(record["seed"])
    # 2. The solvers of each problem that have the same seeds.
    solvers: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for (limits, problem, solver), numbers in seeds.items():
        solvers.setdefault((limits, problem, tuple(sorted(numbers))), []).append(solver)
    # 3. The problems that have the same solvers.
    problems: dict[tuple[str, tuple[int, ...], tuple[str, ...]], list[str]] = {}
    for (limits, problem, drawn), names in solvers.items():
        problems.setdefault((limits, drawn, tuple(names)), []).append(problem)
    return [(names, list(run), list(drawn), json.loads(limits)) for (limits, drawn, run), names in problems.items()]


def _command(part: Part, record: Record) -> str | None:
    """Return the command, or None if a setting has no flag."""
    problems, solvers, seeds, limits = part
    defaults = load_campaign(find_campaign("quickstart"))[0]  # the command takes everything without a flag from it
    # `--seeds K` stands for 0, ..., K - 1, and no flag stands for other seeds.
    if seeds != list(range(len(seeds))) or not _by_default(defaults, limits, record):
        return None
    words = ["convexnn-bench", "run"]
    words += [word for name in problems for word in ("--dataset", shlex.quote(name))]
    words += [word for name in solvers for word in ("--solver", shlex.quote(name))]
    # The deadline follows from a time limit on the command line.
    words += ["--time-limit", f"{limits['time_limit']!r}", "--gap", f"{limits['gap']!r}"]
    if limits.get("iterations") is not None:
        words += ["--iterations", str(limits["iterations"])]
    words += ["--verified"] if limits.get("verified") else []
    return " ".join([*words, *(["--seeds", str(len(seeds))] if len(seeds) > 1 else [])])


def _by_default(defaults: Campaign, limits: dict[str, Any], record: Record) -> bool:
    """Return True if every setting without a flag has its default."""
    shared = record["device"], record["limits"]["threads"], limits["memory_gb"]
    follows = limits["deadline"] == 2 * limits["time_limit"] + 10
    plain = not defaults.problem and not defaults.part and defaults.seeds == 1 and not defaults.fresh_data
    return follows and plain and shared == (defaults.device, defaults.threads, defaults.memory_gb)


def _part_lines(part: Part) -> list[str]:
    """Return the keys of one grid in a campaign file."""
    problems, solvers, seeds, limits = part
    lines = [
        f"datasets = {_list(problems)}",
        f"solvers = {_list(solvers)}",
        f"seeds = {seeds}",
        f"time_limit = {limits['time_limit']!r}",
        f"gap = {limits['gap']!r}",
    ]
    if limits["deadline"] != 2 * limits["time_limit"] + 10:  # the deadline of a campaign that sets none
        lines.append(f"deadline = {limits['deadline']!r}")
    if limits.get("iterations") is not None:
        lines.append(f"iterations = {limits['iterations']}")
    if limits.get("verified"):
        lines.append("verified = true")
    if limits["memory_gb"] is not None:
        lines.append(f"memory_gb = {limits['memory_gb']!r}")
    return lines


def _shared_lines(record: Record) -> list[str]:
    """Return the keys that hold for a whole campaign file, without those at their defaults."""
    threads = [] if record["limits"]["threads"] == 1 else [f"threads = {record['limits']['threads']!r}"]
    return threads + ([] if record["device"] == "cpu" else [f"device = {_text(record['device'])}"])


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, names))}]"


def _text(value: str) -> str:
    """Return text as TOML writes it; JSON's escapes are among TOML's."""
    return json.dumps(value, ensure_ascii=False)
