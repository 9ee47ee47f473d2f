"""Several solvers on one problem, in this process: a table and a figure.

A campaign (`convexnn-bench run`) gives each solver a process of its own, with limits on its time and memory; here they
run one after the other, and the problem is checked between them.
"""

import importlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import torch

from convexnn_bench import parallel
from convexnn_bench.certificates import bar, enclosure_words, legend
from convexnn_bench.errors import InputError
from convexnn_bench.plugins import SOLVERS, format_spec
from convexnn_bench.problem import Problem
from convexnn_bench.records import FIELDS, Record, blank
from convexnn_bench.report import (
    COLUMNS,
    FORMATS,
    finite,
    format_gap,
    gap_figure,
    print_results,
    reasons,
    shown_columns,
)
from convexnn_bench.running import (
    Result,
    Untouched,
    check_arguments,
    describe_problem,
    describe_result,
    describe_scores,
    solve,
)
from convexnn_bench.solver import BaseSolver
from convexnn_bench.terminal import progress

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ROW_BAR = 250.0  # width of the bar of a row, in units of the drawing


@dataclass(repr=False)
class Comparison:
    """The results of several solvers on one problem.

    Attributes
    ----------
    problem : Problem
        The problem that all of them solved.
    records : list of dict
        One record for each solver in the order of the arguments, also for failed and skipped solvers.
    results : dict
        {solver with its parameters: its Result}, for every solver that returned one.
    gap : float or None
        The target of the certified relative gap.
    """

    problem: Problem
    records: list[Record]
    results: dict[str, Result] = field(default_factory=dict)
    gap: float | None = None

    def to_frame(self) -> "pd.DataFrame":
        """Return one row for each solver: its status, its bounds and its times."""
        import pandas as pd

        shown = [field for field in FIELDS if field.frame]
        frame = pd.DataFrame(self.records, columns=[field.name for field in shown])
        frame = frame.astype({field.name: float for field in shown if field.kind == "number"})
        return frame.rename(columns={"solver_name": "solver"})

    def plot(self) -> "Figure":
        """Draw the certified relative gap against set-up plus solve time."""
        import matplotlib.pyplot  # noqa: F401  (a notebook then shows the figure)

        return gap_figure(self.records, self.gap)

    def __repr__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        print_results(self.records, Console(file=text, width=110, highlight=False))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip()

    def _repr_html_(self) -> str:
        # All solvers share one process, so that its peak memory says nothing about one of them.
        columns = [name for name in shown_columns(self.records) if name != "peak_memory_mb"]
        rows = "".join(self._html_row(record, columns) for record in self.records)
        titles = (*(COLUMNS[name] for name in columns), "")
        head = "".join(f'<th style="{_side(index)}">{title}</th>' for index, title in enumerate(titles))
        notes = "".join(
            f'<div style="font-size:90%;opacity:.75">{escape(line)}</div>' for line in reasons(self.records)
        )
        return (
            f'<div style="line-height:1.45"><div>{escape(repr(self.problem))}</div>'
            f"<div>{escape(self._enclosure())}</div>"
            '<div style="overflow-x:auto"><table style="border-collapse:collapse">'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
            f'<div style="font-size:85%;opacity:.75">{legend()}</div>{notes}</div>'
        )

    def _proven(self) -> list[Record]:
        return [record for record in self.records if math.isfinite(finite(record["gap"]))]

    def _enclosure(self) -> str:
        """Return a sentence on the interval that all bounds on one program prove."""
        proven = self._proven()
        if len({record["scope"] for record in proven}) != 1:
            return ""
        lowest = min(finite(record["objective"]) for record in proven)
        return enclosure_words(lowest, max(finite(record["lower_bound"]) for record in proven))

    def _html_row(self, record: Record, columns: Sequence[str]) -> str:
        primal, dual = finite(record["objective"]), finite(record["lower_bound"])
        drawn = ""
        if math.isfinite(finite(record["gap"])):
            values = [finite(one[name]) for one in self._proven() for name in ("objective", "lower_bound")]
            # One axis for all rows, so that bounds and objectives of different solvers can be compared by eye.
            drawn = bar(primal, dual, enclosure_words(primal, dual), (min(0.0, *values), max(0.0, *values)), ROW_BAR)
        words = {name: escape(str(record[name])) for name in ("solver_name", "status")}
        words["gap"] = format_gap(record["gap"], superscript=True)
        texts = [words[name] if name in words else FORMATS[name](record[name]) for name in columns]
        cells = "".join(f'<td style="{_side(index)}">{text}</td>' for index, text in enumerate(texts))
        return f'<tr>{cells}<td style="width:14em;padding:.1em .6em">{drawn}</td></tr>'


def _side(column: int) -> str:
    """Return the alignment of a column of the HTML table."""
    return f"text-align:{'left' if column < 2 else 'right'};padding:.1em .6em;white-space:nowrap"


def compare(
    problem: Problem,
    solvers: Sequence[str | BaseSolver],
    gap: float | None = 1e-6,
    time_limit: float | None = 60.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
    *,
    iterations: int | None = None,
) -> Comparison:
    """Run each solver on the problem, and certify what it returns.

    The solvers run one after the other.

    Parameters
    ----------
    problem : Problem
        The problem to solve.
    solvers : sequence of str or BaseSolver
        Registered names, with parameters in brackets if needed ("bm_lbfgs[m=2]"), or instances.
    gap, time_limit, seed, device, iterations
        As in `solve`, the same for every solver.

    Returns
    -------
    Comparison
        Its table and figure show all solvers. A solver that raises has a row with status "failed".

    Raises
    ------
    InputError
        If an argument is not usable.
    UnknownNameError
        If a name is not registered.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.make_problem("spiral", n=9)
    >>> table = cnn.compare(problem, ["bm_lbfgs[m=2]", "bm_newton"], gap=1e-1, iterations=20)
    >>> list(table.results)
    ['bm_lbfgs[m=2]', 'bm_newton']
    """
    # 1. Check everything before the first solver starts: a wrong name at the end of the list must not cost an hour.
    check_arguments(problem, time_limit, gap, seed, device, iterations)
    if isinstance(solvers, str | BaseSolver) or not isinstance(solvers, Sequence) or not solvers:
        raise InputError(f'solvers must be a list of at least one name, such as ["bm_lbfgs"], got {solvers!r}')
    algorithms: list[BaseSolver] = [SOLVERS.make(solver) for solver in solvers]
    labels = [_label(algorithm) for algorithm in algorithms]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"solver {twice[0]!r} is given twice")
    # 2. Load what any solver may import.
    importlib.import_module("convexnn_bench.harness.preload")  # so that no set-up time includes an import
    settings = {"time_limit": time_limit, "gap": gap, "seed": seed, "device": device, "iterations": iterations}
    table = Comparison(problem, [], gap=gap)
    with progress("comparing", total=len(algorithms), show=parallel.is_first()) as update:
        # 3. Run the solvers in turn. All of them get the same arrays, and one that changes them would spoil the others'
        # certificates, so that the arrays are compared with what they were before every start.
        untouched = Untouched(problem)
        for done, (label, algorithm) in enumerate(zip(labels, algorithms, strict=True)):
            update(done, label)
            outcome = _attempt(untouched, algorithm, settings)
            if isinstance(outcome, Result):
                table.results[label] = outcome
            table.records.append(_record(problem, algorithm, label, outcome, seed))
    return table


def _attempt(untouched: Untouched, algorithm: BaseSolver, settings: dict[str, Any]) -> Result | Exception:
    """Return the result, or what the solver raised."""
    try:
        untouched.check("a solver before this one")
        return solve(untouched.problem, algorithm, **settings, show_progress=False)
    except Exception as error:  # a solver may raise anything; the others still run, and the row shows the error
        return error


def _label(algorithm: BaseSolver) -> str:
    """Return the solver's name with the parameters that differ from their defaults."""
    changed = {
        key: getattr(algorithm, key)
        for key, values in algorithm.parameters.items()
        if getattr(algorithm, key) != values[0]
    }
    return format_spec(algorithm.name, changed)


def _record(problem: Problem, algorithm: BaseSolver, label: str, outcome: Result | Exception, seed: int) -> Record:
    """The part of a cell's record that a table and a figure read."""
    # The row has the same fields as a cell's record, so that tables and figures need no second form.
    record: Record = {
        **blank(),
        "problem_name": "",
        "problem": describe_problem(problem),
        "solver": algorithm.name,
        "solver_name": label,
        "formulation": algorithm.formulation,
        "seed": seed,
    }
    if isinstance(outcome, Result):
        record.update({**describe_result(outcome), **describe_scores(outcome)})
        record["formulation"] = algorithm.author.formulation
    else:
        record.update(status="failed", reason=f"{type(outcome).__name__}: {outcome}")
    return record
