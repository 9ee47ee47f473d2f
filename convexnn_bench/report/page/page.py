"""The report as one HTML file, which opens anywhere and needs no connection.

The template shows tables that this module prepares, and draws the charts of `charts` from rows that stand in the file
as JSON. Vega-Lite itself stands in the file too.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from convexnn_bench.harness import campaign_again, cell_again
from convexnn_bench.records import BAD_STATUSES, TEST_FIELDS, Record, plain
from convexnn_bench.report.figures import Drawn, styles_by_solver
from convexnn_bench.report.formats import (
    FORMATS,
    Quantity,
    counted,
    finite,
    format_memory,
    format_target,
)
from convexnn_bench.report.ladder import LEGEND, SCORES_LEGEND, score_text, times_text
from convexnn_bench.report.matrix import matrix
from convexnn_bench.report.numbers import by_draw, by_solver, derived, optimum, pooled, rung_name, solver_times, tested
from convexnn_bench.report.page import charts
from convexnn_bench.report.page.vega import solver_styles
from convexnn_bench.report.page.words import descriptions, sentences
from convexnn_bench.report.tables import (
    COLUMNS,
    beyond_sample,
    count_statuses,
    group_by_problem,
    problem_line,
    shown_columns,
)
from convexnn_bench.storage import whole_file

EXPORT = "window.vegaEmbed = vegaEmbed"  # the one function of the bundle that the page calls
TEMPLATE = Path(__file__).with_name("page.html.jinja")


def write_page(records: Sequence[Record], path: Path, figures: Sequence[Drawn], complaints: Sequence[str] = ()) -> Path:
    """Write the page. figures: what was drawn for print, and why not. Needs jinja2 and vl-convert-python."""
    import jinja2

    again = campaign_again(records)
    scores = [name for name in shown_columns(records) if name in TEST_FIELDS]
    # Names and reasons come from users and their solvers. Escaping keeps them text, and an undefined name is an error.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["folded"] = _folded
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **summary(records),
        times=time_table(records),
        legend=" ".join([LEGEND, *[SCORES_LEGEND] * bool(scores), *pooled(records)]),
        cells=[cell_row(record, scores) for record in records],
        score_titles=[COLUMNS[name] for name in scores],
        machines=machines(records),
        limits=limits(records),
        matrices=matrices(records),
        several=any(len(run) > 1 for run in by_draw(records).values()),
        starred=any(map(beyond_sample, records)),
        again=again,
        commands_only=all(text.startswith("convexnn-bench ") for text in again),
        missing={one.name: one.missing for one in figures if one.missing},
        complaints=complaints,
        payload=_embedded(payload(records)),
        scripts=_scripts(),
    )
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


@cache
def _scripts() -> str:
    """Return Vega, Vega-Lite and vegaEmbed, escaped for a script element. Bundling them takes a second."""
    import vl_convert

    # A browser ends a script element at the first "</script", even within a string.
    return str(vl_convert.javascript_bundle(EXPORT)).replace("</script", "<\\/script")


def _folded(name: str) -> Any:
    """Return a name as HTML that may be broken after its brackets, commas and underscores."""
    import markupsafe

    parts = re.split(r"(?<=[\[,_=])", name)
    return markupsafe.Markup("<wbr>").join(parts)


def _embedded(value: Any) -> str:
    """Return JSON that is escaped for a script element."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def payload(records: Sequence[Record]) -> dict[str, Any]:
    """Return what the charts are drawn from: {styles, charts: {name: {spec, rows}}}."""
    looks = solver_styles(records)
    made = {
        "curves": charts.curve_chart(records, looks),
        "profile": charts.profile_chart(records, looks),
        "scaling": charts.scaling_chart(records, looks),
        "truth": charts.truth_chart(records, looks),
        "ranks": charts.rank_chart(records, looks),
        "scores": charts.score_chart(records, looks),
    }
    words = descriptions(records)
    parts = {name: {"spec": spec, "rows": rows, "words": words[name]} for name, (spec, rows) in made.items()}
    return {"styles": looks, "charts": parts}


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Return the head of the page: counts, and sentences that follow from the records."""
    names = list(dict.fromkeys(record["campaign"] for record in records))
    started = sorted(record["started"] for record in records)
    return {
        "title": ", ".join(names),
        "total": len(records),
        "problems": len(group_by_problem(records)),
        "solvers": len({record["solver_name"] for record in records}),
        "first": started[0][:16].replace("T", " "),
        "last": started[-1][:16].replace("T", " "),
        "counts": count_statuses(records),
        "bad": BAD_STATUSES,
        "sentences": sentences(records),
        "violations": optimum.violations(records),
    }


def time_table(records: Sequence[Record]) -> dict[str, Any]:
    """Return the table of seconds to certified gaps: titles, and rows.

    A cell is (text, number to sort by, whether it is the best).
    """
    gaps = derived.gaps_of(records)
    rows, times = [], solver_times(records, gaps)
    scores = tested(times)
    for (rung, solver), by_gap in by_solver(times).items():
        texts = [(times_text(one), _sortable(one.total.median), one.ratio == 1.0) for one in by_gap.values()]
        first = by_gap[gaps[0]]
        rows.append([
            (rung, rung, False), (solver, solver, False), *texts,
            (format_memory(first.memory_mb), _sortable(first.memory_mb), False),
            *((score_text(first, name), _sortable(first.scores.get(name)), False) for name in scores),
        ])  # fmt: skip
    about = {rung_name(record): problem_line([record]) for record in records if record.get("problem")}
    titles = ["problem", "solver", *map(format_target, gaps), "MB", *(COLUMNS[name] for name in scores)]
    return {"titles": titles, "rows": rows, "about": about}


def matrices(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the matrix of solvers by problems at each gap, the smallest first.

    It is titles and rows of squares.
    """
    gaps = derived.gaps_of(records)[::-1]
    times = solver_times(records, gaps)
    colours = {name: look.colour for name, look in styles_by_solver(records).items()}
    found = []
    for gap in gaps:
        one = matrix(times, gap)
        rows = [(rung, [one.squares.get((rung, name)) for name in one.solvers]) for rung in one.rungs]
        solvers = [{"name": name, "colour": colours[name]} for name in one.solvers]
        found.append({"gap": format_target(gap), "solvers": solvers, "rows": rows})
    return found


def _sortable(value: Quantity) -> float:
    """Return the number to sort by; what is unknown comes after everything else."""
    number = finite(value)
    # The page sorts by finite numbers: what was not reached comes late, and what is unknown last.
    return 1e300 if math.isnan(number) else min(number, 1e299)


def cell_row(record: Record, scores: Sequence[str] = ()) -> dict[str, Any]:
    """Return one row of the table of all cells, numbers as (text, number to sort by).

    scores: the test scores that the table shows. `again` is the command or the campaign file that runs this cell again.
    """

    def number(name: str) -> tuple[str, float]:
        return FORMATS[name](record.get(name)), _sortable(record.get(name))

    gap, key = number("gap")
    return {
        "problem": record["problem_name"],
        "about": problem_line([record]),
        "solver": record["solver_name"],
        "seed": record["seed"],
        "status": record["status"],
        "reason": record["reason"],
        "objective": number("objective"),
        "bound": number("lower_bound"),
        "gap": (gap + ("*" if beyond_sample(record) else ""), key),
        "times": [number(name) for name in ("setup_seconds", "solve_seconds", "peak_memory_mb")],
        "scores": [number(name) for name in scores],
        "output": record.get("output") or "",
        "again": cell_again(record),
    }


def machines(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return machines, versions and code, each kind once, with the number of its cells."""
    kinds: dict[str, dict[str, Any]] = {}
    for record in records:
        about = {**record["machine"], "code": record["version"], "device": record["device"]}
        # Dictionaries have no hash. Their text, with sorted keys, is the same for equal machines.
        key = json.dumps(plain(about), sort_keys=True)
        kinds.setdefault(key, {"about": about, "cells": 0})["cells"] += 1
    return list(kinds.values())


def limits(records: Sequence[Record]) -> list[str]:
    """Return a line for each set of limits that cells had."""
    return [f"{counted(cells, 'cell')}: {line}" for line, cells in Counter(map(_limits_line, records)).items()]


def _limits_line(record: Record) -> str:
    limits = record["limits"]
    # Records of earlier versions have no limit in iterations, and odd ones may lack any of them.
    memory, steps, threads = (limits.get(name) for name in ("memory_gb", "iterations", "threads"))
    stops = [
        "" if limits["gap"] is None else f"at a certified gap of {format_target(limits['gap'])}",
        "" if limits["time_limit"] is None else f"after {limits['time_limit']:g} s of solving",
        "" if steps is None else f"after {counted(steps, 'iteration')}",
    ]
    parts = [
        f"stopped {' or '.join(filter(None, stops)) or 'by nothing'}",
        "no deadline" if limits["deadline"] is None else f"killed after {limits['deadline']:g} s",
        "no memory limit" if memory is None else f"{memory:g} GiB",
        "" if threads is None else counted(threads, "thread"),
        "bounds verified" if limits.get("verified") else "",
    ]
    return ", ".join(filter(None, parts))
