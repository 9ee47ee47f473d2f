"""What `convexnn-bench doctor` prints: the machine, and a test of each solver."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convexnn_bench import __version__
from convexnn_bench.harness import Cell, Limits, run_cell
from convexnn_bench.plugins import DATASETS, EXECUTORS, SOLVERS, importable
from convexnn_bench.records import describe_machine
from convexnn_bench.report import last_lines, plain_table

if TYPE_CHECKING:
    from rich.console import Console

# a solver gets the first of these problems that it does not skip
TINY: tuple[dict[str, Any], ...] = (
    {"n": 30, "d": 3, "patterns": 5},
    {"n": 12, "d": 2, "patterns": "all", "activation": "relu"},
)
OUTPUT_LINES = 15  # number of last lines that a broken solver printed
GAP, SECONDS, DEADLINE = 1e-2, 10.0, 60.0  # relative gap, time limit and deadline; most solvers end at the gap


@dataclass(frozen=True)
class Finding:
    """A solver's state ("works", "missing" or "broken"), a sentence, and its output.

    The sentence is on its result or on the remedy.
    """

    solver: str
    state: str
    words: str
    output: str | None = None


def examine(solvers_dir: str | None = None, plugins_dir: str | None = None) -> Iterator[Finding]:
    """Examine every registered solver in turn, each in a process of its own, on one thread."""
    for name in SOLVERS.names():
        missing = SOLVERS.get(name).unavailable()
        yield Finding(name, "missing", missing) if missing else _try(name, solvers_dir, plugins_dir)


def _try(name: str, solvers_dir: str | None, plugins_dir: str | None) -> Finding:
    """Solve a tiny problem with a solver, in a process of its own."""
    defaults = {key: values[0] for key, values in SOLVERS.get(name).parameters.items()}
    record: dict[str, Any] = {}
    for tiny in TINY:
        sizes = {key: value for key, value in tiny.items() if key in ("n", "d")}
        rest = {key: value for key, value in tiny.items() if key not in sizes} | {"beta_fraction": 0.1}
        parameters = {**DATASETS.get("teacher").parameters, **sizes}
        limits = Limits(SECONDS, GAP, DEADLINE)
        # In a process of its own even a solver that crashes the interpreter is a finding, and the others are still
        # examined.
        cell = Cell(
            "teacher", parameters, rest, name, defaults, limits=limits, solvers_dir=solvers_dir, plugins_dir=plugins_dir
        )
        record = run_cell(cell)
        # A solver that skips the first problem is tried on the next one, which may show that it works.
        if record["status"] != "skipped":
            break
    gap = record["gap"]
    if record["status"] in ("gap_reached", "solved", "stalled") and gap is not None and gap <= GAP:
        seconds = record["setup_seconds"] + record["solve_seconds"]
        return Finding(name, "works", f"gap {gap:.0e} in {seconds:.2g} s")
    if record["status"] == "skipped":
        return Finding(name, "missing", record["reason"])
    shown = "none" if gap is None else f"{gap:.0e}"
    return Finding(name, "broken", f"{record['status']}, gap {shown}: {record['reason']}", record["output"])


def machine_lines() -> list[tuple[str, str]]:
    """Return (what, words) of the machine, its libraries and its GPU."""
    import torch

    about = describe_machine()
    versions = ("numpy", "scipy", "torch", "cvxpy", "clarabel", "scs", "mosek")
    packages = {"matplotlib": "matplotlib", "jinja2": "jinja2", "vl_convert": "vl-convert-python"}
    lacking = [name for module, name in packages.items() if not importable(module)]
    gpu = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if torch.cuda.is_available() else None
    commit = f"commit {about['commit']}" if about["commit"] else "not a git checkout"
    return [
        ("machine", f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GiB, {about['system']}"),
        ("python", f"{about['python']}; " + ", ".join(f"{name} {about[name] or 'missing'}" for name in versions)),
        ("threads", f"torch takes {torch.get_num_threads()}; cells take what their campaign says, 1 by default"),
        ("BLAS", f"{about['blas']} in numpy; torch: {'MKL' if torch.backends.mkl.is_available() else 'no MKL'}"),
        ("GPU", gpu or 'torch sees none: device="cuda" is refused; a CUDA build of torch and a driver would be needed'),
        (
            "executors",
            "; ".join(f"{name}: {EXECUTORS.get(name).unavailable() or 'ready'}" for name in EXECUTORS.names()),
        ),
        (
            "report",
            "ready"
            if not lacking
            else f"package {', '.join(lacking)} is not installed: pip install {' '.join(lacking)}",
        ),
        ("code", f"convexnn-bench {__version__}, {commit}"),
    ]


def print_doctor(console: "Console", solvers_dir: str | None = None, plugins_dir: str | None = None) -> bool:
    """Print everything; return False if an installed solver does not work."""
    from rich.table import Table
    from rich.text import Text

    from convexnn_bench.terminal import progress

    plain = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    plain.add_column(no_wrap=True)
    plain.add_column(overflow="fold")
    for what, words in machine_lines():
        plain.add_row(what, Text(words))
    console.print(plain)
    console.print()
    table = plain_table()
    table.add_column("solver", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("a tiny problem, or what to do", overflow="fold")
    colours = {"works": "green", "missing": "yellow", "broken": "red"}
    findings = []
    with progress("solving a tiny problem with each solver", len(SOLVERS.names())) as update:
        for finding in examine(solvers_dir, plugins_dir):
            findings.append(finding)
            update(len(findings), finding.solver)
    for finding in findings:
        state = Text(finding.state, style=colours[finding.state])
        table.add_row(finding.solver, state, Text(finding.words))
    console.print(table)
    for finding in findings:
        if finding.output:
            console.print(f"\n{finding.solver} printed, at its end:", soft_wrap=True)
            for line in last_lines(finding.output, OUTPUT_LINES):
                console.print(f"  {line}", soft_wrap=True)
    return all(finding.state != "broken" for finding in findings)
