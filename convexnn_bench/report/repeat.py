"""How to run again what left a record: a campaign file, or a command."""

import json
from collections.abc import Sequence

from convexnn_bench.harness.campaign import shipped_names
from convexnn_bench.harness.records import Record


def campaign_command(records: Sequence[Record]) -> str:
    """The command of the whole campaign, as far as records tell: its file is known by name only."""
    names = dict.fromkeys(record["campaign"] for record in records)
    shipped = shipped_names()
    return "\n".join(f"convexnn-bench run {name if name in shipped else f'{name}.toml'}" for name in names)


def cell_campaign(record: Record) -> str:
    """A campaign file of this one cell: its key is the record's, so that with the same code it is the same cell.

    Of a solver of one's own the folder is not known: add `--solvers-dir`.
    """
    limits = record["limits"]
    lines = [
        f"datasets = [{_text(record['problem_name'])}]",
        f"solvers = [{_text(record['solver_name'])}]",
        f"seeds = [{record['seed']}]",
        f"time_limit = {limits['time_limit']!r}",
        f"gap = {limits['gap']!r}",
    ]
    if limits["deadline"] != 2 * limits["time_limit"] + 10:  # what a campaign without one gets
        lines.append(f"deadline = {limits['deadline']!r}")
    if limits["memory_gb"] is not None:
        lines.append(f"memory_gb = {limits['memory_gb']!r}")
    if limits["threads"] != 1:
        lines.append(f"threads = {limits['threads']!r}")
    if record["device"] != "cpu":
        lines.append(f"device = {_text(record['device'])}")
    return "\n".join(lines)


def _text(value: str) -> str:
    """As TOML writes text; JSON's escapes are among TOML's."""
    return json.dumps(value, ensure_ascii=False)
