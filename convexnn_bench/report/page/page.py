"""The report as one HTML file, which opens anywhere and needs no connection.

The template shows tables that this module prepares, and draws the charts of `charts` from rows that stand in the file
as JSON. Vega-Lite itself stands in the file too.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from convexnn_bench.harness import campaign_again, cell_again
from convexnn_bench.records import BAD_STATUSES, TEST_FIELDS, Record, plain
from convexnn_bench.report.figures import Drawn
from convexnn_bench.report.ladder import LEGEND, RATIO_COLUMNS, SCORES_LEGEND, ratio_rows, score_text, times_text
from convexnn_bench.report.numbers import by_solver, derived, optimum, pooled, rung_name, solver_times, tested
from convexnn_bench.report.page import charts
from convexnn_bench.report.tables import (
    COLUMNS,
    FORMATS,
    Quantity,
    beyond_sample,
    count_statuses,
    counted,
    finite,
    format_memory,
    format_target,
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
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **summary(records),
        times=time_table(records),
        legend=" ".join([LEGEND, *[SCORES_LEGEND] * bool(scores), *pooled(records)]),
        cells=[cell_row(record, scores) for record in records],
        score_titles=[COLUMNS[name] for name in scores],
        machines=machines(records),
        limits=limits(records),
        quickest=quickest_table(records),
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


def _embedded(value: Any) -> str:
    """Return JSON that is escaped for a script element."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def payload(records: Sequence[Record]) -> dict[str, Any]:
    """Return what the charts are drawn from: {styles, charts: {name: {spec, rows}}}."""
    looks = charts.solver_styles(records)
    made = {
        "curves": charts.curve_chart(records, looks),
        "profile": charts.profile_chart(records, looks),
        "scaling": charts.scaling_chart(records, looks),
        "truth": charts.truth_chart(records, looks),
        "ranks": charts.rank_chart(records, looks),
        "scores": charts.score_chart(records, looks),
    }
    return {"styles": looks, "charts": {name: {"spec": spec, "rows": rows} for name, (spec, rows) in made.items()}}


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


def sentences(records: Sequence[Record]) -> list[str]:
    """Say which solvers reached each gap most often, and which were the quickest."""
    if all(record["status"] == "skipped" for record in records):
        return ["Every cell was skipped, and nothing was run. The reasons are below."]
    lines = []
    versions = dict.fromkeys(record["version"] for record in records)
    if len(versions) > 1:
        lines.append(f"The records are of {len(versions)} versions of the code: {_some(list(versions))}.")
    for gap in derived.gaps_of(records):
        profiles = [one for one in derived.profiles(records, gap) if one.ratios]
        if not profiles:
            lines.append(f"No solver reached a certified gap of {format_target(gap)}.")
            continue
        runs, unsolved = profiles[0].runs, profiles[0].unsolved
        most = sorted(profiles, key=lambda one: -len(one.ratios))
        # A solver wins a race with a ratio of exactly one, since its own time is then the least.
        wins = sorted(((sum(ratio == 1.0 for ratio in one.ratios), one.solver) for one in profiles), reverse=True)
        reached = _some([f"{one.solver} (in {len(one.ratios)} of its {one.ran} races)" for one in most])
        first = _some([f"{solver} ({number})" for number, solver in wins if number])
        nobody = f" No solver reached it in {unsolved} of them." if unsolved else ""
        lines.append(
            f"In {counted(runs, 'race')}, each of one draw of a problem, a certified gap of {format_target(gap)} was "
            f"reached most often by {reached}. The quickest were {first}.{nobody}"
        )
    return lines


def _some(names: Sequence[str], most: int = 4) -> str:
    """List the first few, and say how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def time_table(records: Sequence[Record]) -> dict[str, Any]:
    """Return the table of seconds to certified gaps: titles, and rows of (text, number to sort by, is it best)."""
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


def quickest_table(records: Sequence[Record]) -> dict[str, Any]:
    """Return the table of the quickest solver on every problem to every gap: titles, and rows of text."""
    gaps = derived.gaps_of(records)
    return {"titles": RATIO_COLUMNS[:-1], "rows": [row[:-1] for row in ratio_rows(solver_times(records, gaps), gaps)]}


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
    ]
    return ", ".join(filter(None, parts))
