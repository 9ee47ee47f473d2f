"""Campaigns: grids of data sets, problem parameters, solvers and seeds.

They are checked before anything runs.
"""

import difflib
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convexnn_bench.errors import InputError
from convexnn_bench.harness.cell import Limits
from convexnn_bench.plugins import format_spec, is_number, is_whole

SHIPPED = Path(__file__).resolve().parent.parent / "campaigns"


@dataclass(frozen=True)
class Campaign:
    """What a campaign file asks for. Every field is a key of the file.

    datasets, solvers: names with parameters in brackets; a list as a value is swept, "spiral[n=[45,150]]".
    problem: parameters of the problem for every data set that does not set them itself; lists are swept.
    seeds: number of seeds (0, 1, ...), or the list of them. fresh_data: True if a seed also draws the samples and
    patterns of every data set that sets no `seed` itself; otherwise it only sets the solver's start.
    time_limit, gap, iterations, deadline, memory_gb, threads, verified: see `Limits`. device: "cpu" or "cuda".
    solvers_dir: a folder with more solvers. plugins_dir: a folder with subfolders of more solvers, datasets, losses,
    activations and architectures. The files of both run as code. part: tables [[part]], each a grid that takes from the
    campaign what it does not set itself.
    """

    name: str = "campaign"
    description: str = ""
    datasets: list[str] = field(default_factory=list)
    solvers: list[str] = field(default_factory=list)
    problem: dict[str, Any] = field(default_factory=dict)
    seeds: int | list[int] = 1
    fresh_data: bool = False
    time_limit: float = 60.0
    gap: float = 1e-6
    iterations: int | None = None
    verified: bool = False
    deadline: float | None = None
    memory_gb: float | None = None
    threads: int = 1
    device: str = "cpu"
    solvers_dir: str | None = None
    plugins_dir: str | None = None
    part: list[dict[str, Any]] = field(default_factory=list)

    @property
    def limits(self) -> Limits:
        amounts = self.time_limit, self.gap, self.deadline, self.memory_gb, self.threads
        return Limits(*amounts, self.iterations, self.verified)

    def grids(self, replaced: Collection[str] = ()) -> list["Campaign"]:
        """Return one campaign without parts for each part, or for the campaign itself where it has none.

        replaced: keys that the command line has set. They hold in every part, and data sets on the command line
        replace all parts. A part that sets a time limit does not inherit the campaign's deadline.
        """
        if not self.part or "datasets" in replaced:
            return [replace(self, part=[])]
        grids = []
        for part in self.part:
            changes = {key: value for key, value in part.items() if key not in replaced}
            # The campaign's deadline was meant for its own time limit. None lets it follow from that of the part.
            if "time_limit" in changes:
                changes.setdefault("deadline", None)
            grids.append(replace(self, part=[], **changes))
        return grids


class Source:
    """The file that a campaign comes from. It makes errors that name the file and the line."""

    def __init__(self, path: Path | None = None, text: str = "", replaced: Iterable[str] = ()):
        self.path, self.text, self.replaced = path, text, frozenset(replaced)
        self.lines = list(enumerate(text.splitlines(), start=1))  # in the order in which they are searched

    def without(self, keys: Iterable[str]) -> "Source":
        """Return a source that finds no lines for `keys`, because the command line has set them."""
        return Source(self.path, self.text, keys)

    def within(self, part: int) -> "Source":
        """Return a source that searches the lines of one part first.

        The part (0, 1, ...) goes from its [[part]] to the next.
        """
        other = Source(self.path, self.text, self.replaced)
        heads = [index for index, (_, line) in enumerate(other.lines) if re.match(r"\s*\[\[\s*part\s*\]\]", line)]
        if part < len(heads):  # parts may also be written as one array of inline tables
            end = heads[part + 1] if part + 1 < len(heads) else None
            # The whole file follows its part, for the keys that a part takes from the campaign.
            other.lines = other.lines[heads[part] : end] + other.lines
        return other

    def knows(self, key: str) -> bool:
        """Return True if the value of `key` comes from a file."""
        return self.path is not None and key not in self.replaced

    def error(self, message: str, key: str, *texts: str) -> InputError:
        """Return an error that begins with the line of the first text that occurs, or else of `key`."""
        if not self.knows(key):
            return InputError(message)
        for text in (*texts, key):
            # The text must stand alone: `gap` is not found within `gap_floor` or `other-gap`, nor in a comment.
            pattern = re.compile(rf"(?<![\w-]){re.escape(text)}(?![\w-])")
            for number, line in self.lines:
                if pattern.search(line.partition(" #")[0]):
                    return InputError(f"{self.path}, line {number}: {message}")
        return InputError(f"{self.path}: {message}")


def shipped_names() -> list[str]:
    """Return the names of the campaigns that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def find_campaign(name: str) -> Path:
    """Return the file of a campaign, given as a path or as the name of one that ships. Raises InputError."""
    path = Path(name)
    # A file in the working directory comes before a campaign of the same name that ships with the package.
    if path.is_file():
        return path
    if name in shipped_names():
        return SHIPPED / f"{name}.toml"
    if path.is_dir():
        raise InputError(f"{name!r} is a directory, not a campaign file (.toml)")
    if path.suffix == ".toml" or os.sep in name:
        raise InputError(f"there is no campaign file {name!r} (looked in {Path.cwd()})")
    raise InputError(
        f"unknown campaign {name!r}: {nearest(name, shipped_names())}, or a path to a .toml file{_as_data(path)}"
    )


def nearest(name: str, allowed: list[str]) -> str:
    """Return the allowed name that is spelled most alike, as a question, and all allowed names."""
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(allowed) or 'none'}"


def _as_data(path: Path) -> str:
    """Return the way to give a file of data, for messages about a path that does not end in .toml."""
    if path.suffix in ("", ".toml"):
        return ""
    return f"; a file of data is given by --dataset {shlex.quote(format_spec('file', {'path': str(path)}))}"


def load_campaign(path: Path) -> tuple[Campaign, Source]:
    """Read a campaign file and check its keys and types; `plan` checks what the values mean.

    Raises InputError with file and line.
    """
    try:
        text = path.read_text()
        content = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}{_as_data(path)}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}{_as_data(path)}") from error
    source = Source(path, text)
    checked = _checked(source, content, KEYS)
    for index, part in enumerate(checked.get("part", [])):
        checked["part"][index] = _checked(source.within(index), part, PART_KEYS)
    return replace(Campaign(name=path.stem), **checked), source


def _checked(source: Source, content: dict[str, Any], allowed: Iterable[str]) -> dict[str, Any]:
    """Return a table of the file with numbers as float. Raises InputError for an unknown key or a wrong type."""
    for key, value in content.items():
        if key not in allowed:
            where = " of a part" if key in KEYS else ""
            raise source.error(f"unknown key {key!r}{where}: {nearest(key, list(allowed))}", key)
        has_type, expected = KEYS[key]
        if not has_type(value):
            raise source.error(f"{key} must be {expected}, got {value!r}", key)
    # TOML distinguishes 60 from 60.0. Both must lead to the same cell, and so to the same key.
    return {key: float(value) if KEYS[key][0] is is_number else value for key, value in content.items()}


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


# key: (test of its type, the type in words)
KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is(str), "text"),
    "description": (_is(str), "text"),
    "datasets": (_list_of(_is(str)), 'a list of names, such as ["spiral[n=150]", "wine"]'),
    "solvers": (_list_of(_is(str)), 'a list of names, such as ["cvxpy_clarabel", "bm_lbfgs[m=2]"]'),
    "problem": (_is(dict), "a table, [problem]"),
    "seeds": (
        lambda value: is_whole(value) or _list_of(is_whole)(value),
        "a number of seeds, or a list of whole numbers",
    ),
    "fresh_data": (_is(bool), "true or false"),
    "time_limit": (is_number, "a number of seconds"),
    "gap": (is_number, "a number"),
    "iterations": (is_whole, "a whole number"),
    "verified": (_is(bool), "true or false"),
    "deadline": (is_number, "a number of seconds"),
    "memory_gb": (is_number, "a number of GiB"),
    "threads": (is_whole, "a whole number"),
    "device": (_is(str), "text"),
    "solvers_dir": (_is(str), "text"),
    "plugins_dir": (_is(str), "text"),
    "part": (_list_of(_is(dict)), "tables, [[part]]"),
}
# All parts share threads, device and the folder of solvers, because their processes are forked from one server.
PART_KEYS = (
    "datasets", "solvers", "problem", "seeds", "fresh_data", "time_limit", "gap", "iterations", "deadline", "memory_gb",
    "verified",
)  # fmt: skip
