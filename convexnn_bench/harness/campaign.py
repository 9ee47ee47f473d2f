"""Campaigns: grids of data sets, problem parameters, solvers and seeds, checked before anything runs."""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convexnn_bench.errors import InputError
from convexnn_bench.harness.cell import Limits

SHIPPED = Path(__file__).resolve().parent.parent / "campaigns"


@dataclass(frozen=True)
class Campaign:
    """What a campaign file asks for. Every field is a key of the file.

    datasets, solvers: names with parameters in brackets; a list as a value is swept, "spiral[n=[45,150]]".
    problem: parameters of the problem for every data set that does not set them itself; lists are swept.
    seeds: number of seeds (0, 1, ...), or the list of them. fresh_data: whether a seed is also the `seed` of every data
    set that does not set its own, and so of its samples and sampled patterns; by default it is that of the solver's
    start alone. time_limit, gap, deadline, memory_gb, threads: see `Limits`. device: "cpu" or "cuda". solvers_dir: a
    folder with more solvers. part: tables [[part]], each a grid of its own; what a part does not set is the campaign's.
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
    deadline: float | None = None
    memory_gb: float | None = None
    threads: int = 1
    device: str = "cpu"
    solvers_dir: str | None = None
    part: list[dict[str, Any]] = field(default_factory=list)

    @property
    def limits(self) -> Limits:
        return Limits(self.time_limit, self.gap, self.deadline, self.memory_gb, self.threads)

    def grids(self, replaced: Collection[str] = ()) -> list["Campaign"]:
        """The campaign itself, or one campaign for each of its parts; none of them has parts.

        replaced: keys that the command line has set. They hold in every part, and data sets given there take the place
        of the parts. A part with a time limit of its own does not take over the campaign's deadline.
        """
        if not self.part or "datasets" in replaced:
            return [replace(self, part=[])]
        found = []
        for part in self.part:
            own = {key: value for key, value in part.items() if key not in replaced}
            if "time_limit" in own:
                own.setdefault("deadline", None)
            found.append(replace(self, part=[], **own))
        return found


class Source:
    """Where a campaign's values stand, for messages: the file, and the line where a text occurs."""

    def __init__(self, path: Path | None = None, text: str = "", replaced: Iterable[str] = ()):
        self.path, self.text, self.replaced = path, text, frozenset(replaced)
        self.lines = list(enumerate(text.splitlines(), start=1))  # in the order in which they are searched

    def without(self, keys: Iterable[str]) -> "Source":
        """The same, for a campaign whose values of `keys` do not come from the file."""
        return Source(self.path, self.text, keys)

    def within(self, part: int) -> "Source":
        """The same, looking first at the lines of a part (0, 1, ...), from its [[part]] to the next."""
        other = Source(self.path, self.text, self.replaced)
        heads = [place for place, (_, line) in enumerate(other.lines) if re.match(r"\s*\[\[\s*part\s*\]\]", line)]
        if part < len(heads):  # parts may also be written as one array of inline tables
            own = slice(heads[part], heads[part + 1] if part + 1 < len(heads) else None)
            other.lines = other.lines[own] + other.lines
        return other

    def knows(self, key: str) -> bool:
        """Whether the value of `key` comes from a file."""
        return self.path is not None and key not in self.replaced

    def __call__(self, message: str, key: str, *texts: str) -> InputError:
        """An InputError that begins with the line of the first of `texts`, or else of `key`."""
        if not self.knows(key):
            return InputError(message)
        for wanted in (*texts, key):
            pattern = re.compile(rf"(?<![\w-]){re.escape(wanted)}(?![\w-])")
            for number, line in self.lines:
                if pattern.search(line.partition(" #")[0]):
                    return InputError(f"{self.path}, line {number}: {message}")
        return InputError(f"{self.path}: {message}")


def shipped_names() -> list[str]:
    """Campaigns that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def find_campaign(name: str) -> Path:
    """The file of a campaign, given as a path or as the name of one that ships. Raises InputError."""
    path = Path(name)
    if path.is_file():
        return path
    if name in shipped_names():
        return SHIPPED / f"{name}.toml"
    if path.is_dir():
        raise InputError(f"{name!r} is a directory, not a campaign file (.toml)")
    if path.suffix == ".toml" or os.sep in name:
        raise InputError(f"there is no campaign file {name!r} (looked in {Path.cwd()})")
    raise InputError(f"unknown campaign {name!r}: {nearest(name, shipped_names())}, or a path to a .toml file")


def nearest(name: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(allowed) or 'none'}"


def load_campaign(path: Path) -> tuple[Campaign, Source]:
    """A campaign file, read and checked for keys and types; `plan` checks what the values mean.

    Raises InputError with file and line.
    """
    try:
        text = path.read_text()
        content = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    source = Source(path, text)
    checked = _checked(source, content, list(_TYPES))
    for number, part in enumerate(checked.get("part", [])):
        checked["part"][number] = _checked(source.within(number), part, list(PART_KEYS))
    return replace(Campaign(name=path.stem), **checked), source


def _checked(source: Source, content: dict[str, Any], allowed: list[str]) -> dict[str, Any]:
    """A table of the file with numbers as float. Raises InputError for a key that is not allowed, or a wrong type."""
    for key, value in content.items():
        if key not in allowed:
            where = " of a part" if key in _TYPES else ""
            raise source(f"unknown key {key!r}{where}: {nearest(key, allowed)}", key)
        _check_type(source, key, value)
    return {key: float(value) if _TYPES[key][0] is is_number else value for key, value in content.items()}


def _text(value: Any) -> bool:
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _seeds(value: Any) -> bool:
    return is_whole(value) or (isinstance(value, list) and all(map(is_whole, value)))


_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_text, "text"),
    "description": (_text, "text"),
    "datasets": (_texts, 'a list of names, such as ["spiral[n=150]", "wine"]'),
    "solvers": (_texts, 'a list of names, such as ["cvxpy_clarabel", "bm_lbfgs[m=2]"]'),
    "problem": (lambda value: isinstance(value, dict), "a table, [problem]"),
    "seeds": (_seeds, "a number of seeds, or a list of whole numbers"),
    "fresh_data": (lambda value: isinstance(value, bool), "true or false"),
    "time_limit": (is_number, "a number of seconds"),
    "gap": (is_number, "a number"),
    "deadline": (is_number, "a number of seconds"),
    "memory_gb": (is_number, "a number of GiB"),
    "threads": (is_whole, "a whole number"),
    "device": (_text, "text"),
    "solvers_dir": (_text, "text"),
    "part": (_tables, "tables, [[part]]"),
}
# threads, device and the folder of solvers are one for all parts: processes are forked from one server
PART_KEYS = ("datasets", "solvers", "problem", "seeds", "fresh_data", "time_limit", "gap", "deadline", "memory_gb")


def _check_type(source: Source, key: str, value: Any) -> None:
    fits, expected = _TYPES[key]
    if not fits(value):
        raise source(f"{key} must be {expected}, got {value!r}", key)
