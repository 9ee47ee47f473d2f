"""What `convexnn-bench list` prints: what is registered, and what is unavailable."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convexnn_bench.errors import InputError
from convexnn_bench.harness import shipped_names
from convexnn_bench.plugins import EXECUTORS, KINDS, Registry
from convexnn_bench.report import plain_table

if TYPE_CHECKING:
    from rich.console import Console

FORMULATIONS = {"convex": "convex", "burer_monteiro": "Burer-Monteiro", "network": "network"}
TITLES = {
    "solvers": ("solvers", "formulation", "parameters", "here?"),
    "datasets": ("data sets", "", "parameters", "here?"),
    "losses": ("losses", "", ""),
    "activations": ("activations", "", ""),
    "architectures": ("architectures", "", ""),
    "executors": ("executors", "", "here?"),
}


def print_listing(console: "Console", what: Sequence[str] = (), here: bool = False) -> None:
    """Print solvers by formulation, data sets, the parts of a problem, executors and campaigns.

    Parameters
    ----------
    console
        Where to print.
    what
        Kinds, to which the listing is limited, and parts of names, one of which each name must contain. If it is empty,
        everything is listed.
    here
        Leave out what cannot be used on this machine.

    Raises
    ------
    InputError
        Nothing matches.
    """
    kinds = [one for one in what if one in (*TITLES, "campaigns")] or [*TITLES, "campaigns"]
    parts = [one for one in what if one not in (*TITLES, "campaigns")]

    def wanted(name: str) -> bool:
        return not parts or any(part in name for part in parts)

    shown = False
    for kind in kinds:
        if kind == "campaigns":
            continue
        registry: Registry[Any] = EXECUTORS if kind == "executors" else KINDS[kind]
        classes = [registry.get(name) for name in registry.names() if wanted(name)]
        if here:
            classes = [cls for cls in classes if _missing(cls) is None]
        if classes:
            _print_kind(kind, classes, console)
            shown = True
    campaigns = [name for name in shipped_names() if wanted(name)] if "campaigns" in kinds else []
    if campaigns:
        console.print(f"campaigns  {', '.join(campaigns)}")
    if not (shown or campaigns):
        raise InputError(
            f"nothing matches {' '.join(what)}: give parts of names, or kinds ({', '.join(TITLES)}, campaigns)"
        )


def _print_kind(kind: str, classes: list[Any], console: "Console") -> None:
    table = plain_table()
    for index, title in enumerate(TITLES[kind]):
        table.add_column(title, no_wrap=index == 0, overflow="fold")
    if kind == "solvers":
        # Sorting keeps the order of the registry within a formulation.
        classes = sorted(classes, key=lambda cls: list(FORMULATIONS).index(cls.formulation))
    for cls in classes:
        table.add_row(*_row(kind, cls))
    console.print(table)
    console.print()


def _row(kind: str, cls: Any) -> list[Any]:
    from rich.text import Text

    if kind == "solvers":
        parameters = ", ".join(f"{key}={values[0]}" for key, values in cls.parameters.items())
        return [cls.name, FORMULATIONS[cls.formulation], Text(parameters or "-"), _here(cls)]
    if kind == "datasets":
        parameters = ", ".join(f"{key}={value}" for key, value in cls.parameters.items())
        return [cls.name, Text(cls.summary or _first_line(cls)), Text(parameters or "-"), _here(cls)]
    if kind == "executors":
        return [cls.name, Text(cls.summary), _here(cls)]
    return [cls.name, Text(_first_line(cls))]


def _missing(cls: Any) -> str | None:
    """Return why a class cannot be used on this machine, or None.

    A class without `unavailable` can always be used.
    """
    missing: str | None = cls.unavailable() if hasattr(cls, "unavailable") else None
    return missing


def _here(cls: Any) -> Any:
    from rich.text import Text

    missing = _missing(cls)
    return Text("yes", style="green") if missing is None else Text(f"no: {missing}", style="yellow")


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
