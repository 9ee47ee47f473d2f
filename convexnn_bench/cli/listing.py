"""What `convexnn-bench list` prints: everything that is registered, and why some of it cannot be used here."""

import inspect
from typing import TYPE_CHECKING, Any

from convexnn_bench.plugins import ACTIVATIONS, ARCHITECTURES, DATASETS, EXECUTORS, LOSSES, SOLVERS
from convexnn_bench.report import plain_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FORMULATIONS = {"convex": "convex", "burer_monteiro": "Burer-Monteiro", "network": "network"}


def print_listing(console: "Console") -> None:
    """Print solvers by formulation, data sets, the parts of a problem, executors and campaigns."""
    from rich.text import Text

    from convexnn_bench.harness import shipped_names

    _solvers(console)
    _datasets(console)
    parts = (("losses", LOSSES), ("activations", ACTIVATIONS), ("architectures", ARCHITECTURES))
    for title, registry in parts:
        table = _table(title, "", "")
        for name in registry.names():
            table.add_row(name, Text(_first_line(registry.get(name))))
        console.print(table)
        console.print()
    table = _table("executors", "", "here?")
    for name in EXECUTORS.names():
        cls = EXECUTORS.get(name)
        table.add_row(name, Text(cls.summary), _here(cls.unavailable()))
    console.print(table)
    console.print()
    console.print(f"campaigns  {', '.join(shipped_names())}")


def _table(*titles: str) -> "Table":
    table = plain_table()
    for title in titles:
        table.add_column(title, no_wrap=title == titles[0], overflow="fold")
    return table


def _solvers(console: "Console") -> None:
    from rich.text import Text

    table = _table("solvers", "formulation", "parameters", "here?")
    order = list(FORMULATIONS)
    # Sorting keeps the order of the registry within a formulation.
    for cls in sorted((SOLVERS.get(name) for name in SOLVERS.names()), key=lambda c: order.index(c.formulation)):
        parameters = ", ".join(f"{key}={values[0]}" for key, values in cls.parameters.items())
        table.add_row(cls.name, FORMULATIONS[cls.formulation], Text(parameters or "-"), _here(cls.unavailable()))
    console.print(table)
    console.print()


def _datasets(console: "Console") -> None:
    from rich.text import Text

    table = _table("data sets", "", "parameters", "here?")
    for name in DATASETS.names():
        cls = DATASETS.get(name)
        parameters = ", ".join(f"{key}={value}" for key, value in cls.parameters.items())
        table.add_row(name, Text(cls.summary or _first_line(cls)), Text(parameters or "-"), _here(cls.unavailable()))
    console.print(table)
    console.print()


def _here(missing: str | None) -> Any:
    from rich.text import Text

    return Text("yes", style="green") if missing is None else Text(f"no: {missing}", style="yellow")


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
