"""The campaign that a command line of `convexnn-bench run` describes, and its folder."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from convexnn_bench.harness import Campaign, Source


@dataclass(frozen=True)
class Job:
    """A campaign, its file, the folder of its records, and the statuses to run again."""

    campaign: "Campaign"
    source: "Source"
    folder: Path
    again: set[str]


def job_of(name: str | None, changes: dict[str, Any], out: str | None, rerun: list[str], dry_run: bool) -> Job:
    """Check the command line and return its job.

    changes: settings in place of the campaign's own.
    """
    from convexnn_bench.harness import check_limits

    campaign, source = _campaign(name, changes)
    folder = Path(out) if out is not None else Path("results") / campaign.name
    again = _statuses(rerun)
    _say_what_is_run_as_code(campaign, source, dry_run)
    check_limits(campaign, source)
    return Job(campaign, source, folder, again)


def _statuses(names: list[str]) -> set[str]:
    """Return the statuses that --rerun names; "failed" includes "crashed"."""
    from convexnn_bench.errors import InputError
    from convexnn_bench.records import BAD_STATUSES, STATUSES

    for status in names:
        if status not in STATUSES:
            raise InputError(f"--rerun must be one of {', '.join(STATUSES)}, got {status!r}")
    return {*names, *(BAD_STATUSES if "failed" in names else ())}


def _campaign(name: str | None, changes: dict[str, Any]) -> "tuple[Campaign, Source]":
    """Return the campaign with the changes of the command line.

    It has another name if they change its grid.
    """
    from dataclasses import replace

    from convexnn_bench.harness import find_campaign, load_campaign

    loaded, source = load_campaign(find_campaign(name or "quickstart"))
    changed = dict(changes)
    if "solvers" in changes or "datasets" in changes:
        changed["name"] = _custom_name("custom" if name is None else loaded.name, changes)
    if "time_limit" in changes:
        # A part of a campaign follows the same rule (`Campaign.grids`).
        changed["deadline"] = None  # the deadline of the file belongs to the time limit of the file
    return replace(loaded, **changed), source.without(changed)


def _custom_name(base: str, changes: dict[str, Any]) -> str:
    """Return a name for the folder of a command.

    It has the names of data sets and solvers, and a hash of all changes.
    """
    import hashlib

    from convexnn_bench.records import to_json

    specs = [*changes.get("datasets", []), *changes.get("solvers", [])]
    names = dict.fromkeys(re.sub(r"\W+", "", spec.partition("[")[0]) for spec in specs)
    what = "-".join(names)[:40].rstrip("-")
    return f"{base}-{what}-{hashlib.sha256(to_json(changes).encode()).hexdigest()[:8]}"


def _say_what_is_run_as_code(campaign: "Campaign", source: "Source", dry_run: bool) -> None:
    """Print on stderr which files of plug-in folders will be imported, and where the folder is named.

    Without --dry-run only folders in a campaign file get a line, since the user has typed the others.
    """
    from convexnn_bench.errors import InputError
    from convexnn_bench.plugins import plugin_files

    for key in ("solvers_dir", "plugins_dir"):
        folder, from_file = getattr(campaign, key), source.knows(key)
        if folder is None or not (dry_run or from_file):
            continue
        try:
            files = plugin_files(**{"solvers_dir": None, "plugins_dir": None, key: folder})
        except InputError as error:
            raise source.error(str(error), key) from error
        named = f"named by {source.path}" if from_file else "named on the command line"
        listed = ", ".join(map(str, files[:5])) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
        typer.echo(f"note: these files are run as code ({key}, {named}): {listed or 'none'}", err=True)
