"""The report as one HTML file that opens anywhere, without a connection."""

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from convexnn_bench.harness.repeat import campaign_again, cell_again
from convexnn_bench.records.records import BAD_STATUSES, Record, plain, whole_file
from convexnn_bench.report.figures.campaign import Drawn
from convexnn_bench.report.ladder import LEGEND, RATIO_COLUMNS, outcome_text, ratio_rows
from convexnn_bench.report.numbers import derived, optimum
from convexnn_bench.report.numbers.time_to_gap import outcomes, pooled, rung_name
from convexnn_bench.report.page import charts
from convexnn_bench.report.tables import (
    beyond_sample,
    finite,
    format_gap,
    format_seconds,
    format_target,
    format_value,
    group_by_problem,
    problem_line,
)

EXPORT = "window.vegaEmbed = vegaEmbed"  # all that the page calls
TEMPLATE = Path(__file__).with_name("page.html.jinja")


def write_page(records: Sequence[Record], path: Path, figures: Sequence[Drawn], complaints: Sequence[str] = ()) -> Path:
    """Write the page. figures: what was drawn, and why not. Needs jinja2 and vl-convert-python."""
    import jinja2

    again = campaign_again(records)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **summary(records),
        times=time_table(records),
        legend=" ".join([LEGEND, *pooled(records)]),
        cells=[cell_row(record) for record in records],
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
    """Vega, Vega-Lite and vegaEmbed, as they may stand inside a script element; a second's work."""
    import vl_convert

    return str(vl_convert.javascript_bundle(EXPORT)).replace("</script", "<\\/script")


def _embedded(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def payload(records: Sequence[Record]) -> dict[str, Any]:
    """What the charts are drawn from: {styles, charts: {name: {spec, rows}}}."""
    looks = charts.solver_styles(records)
    made = {
        "curves": charts.curve_chart(records, looks),
        "profile": charts.profile_chart(records, looks),
        "scaling": charts.scaling_chart(records, looks),
        "truth": charts.truth_chart(records, looks),
        "ranks": charts.rank_chart(records, looks),
    }
    return {"styles": looks, "charts": {name: {"spec": spec, "rows": rows} for name, (spec, rows) in made.items()}}


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """The head of the page: counts, and sentences that follow from the records."""
    counts: dict[str, int] = {}
    for record in records:
        counts[record["status"]] = counts.get(record["status"], 0) + 1
    names = list(dict.fromkeys(record["campaign"] for record in records))
    started = sorted(record["started"] for record in records)
    return {
        "title": ", ".join(names),
        "total": len(records),
        "problems": len(group_by_problem(records)),
        "solvers": len({record["solver_name"] for record in records}),
        "first": started[0][:16].replace("T", " "),
        "last": started[-1][:16].replace("T", " "),
        "counts": dict(sorted(counts.items(), key=lambda item: -item[1])),
        "bad": BAD_STATUSES,
        "sentences": sentences(records),
        "violations": optimum.violations(records),
    }


def sentences(records: Sequence[Record]) -> list[str]:
    """Which solvers got to each gap most often, and which were the quickest."""
    if all(record["status"] == "skipped" for record in records):
        return ["Every cell was skipped: nothing was run. The reasons are below."]
    told = []
    versions = dict.fromkeys(record["version"] for record in records)
    if len(versions) > 1:
        told.append(f"Records of {len(versions)} versions of the code are mixed here: {_some(list(versions))}.")
    for gap in derived.gaps_of(records):
        found = [one for one in derived.profiles(records, gap) if one.ratios]
        if not found:
            told.append(f"No solver got to a certified gap of {format_target(gap)}.")
            continue
        runs, unsolved = found[0].runs, found[0].unsolved
        most = sorted(found, key=lambda one: -len(one.ratios))
        wins = sorted(((sum(ratio == 1.0 for ratio in one.ratios), one.solver) for one in found), reverse=True)
        reached = _some([f"{one.solver} ({len(one.ratios)} of {one.ran} that it was run in)" for one in most])
        first = _some([f"{solver} ({number})" for number, solver in wins if number])
        nobody = f"; in {unsolved} no solver got there" if unsolved else ""
        races = f"{runs} race{'s' if runs > 1 else ''}"
        told.append(
            f"To a certified gap of {format_target(gap)} in {races} (a problem and one draw of it): most often "
            f"{reached}; quickest {first}{nobody}."
        )
    return told


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first few, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def time_table(records: Sequence[Record]) -> dict[str, Any]:
    """Seconds to certified gaps: titles, and rows of (text, number to sort by)."""
    gaps = derived.gaps_of(records)
    found = outcomes(records, gaps)
    rows = []
    for rung in dict.fromkeys(outcome.rung for outcome in found):
        for solver in dict.fromkeys(outcome.solver for outcome in found if outcome.rung == rung):
            own = {o.gap: o for o in found if (o.rung, o.solver) == (rung, solver)}
            texts = [(outcome_text(own[gap]), _sortable(own[gap].total.median), own[gap].ratio == 1.0) for gap in gaps]
            memory = own[gaps[0]].memory_mb
            shown = "-" if math.isnan(memory) else f"{memory:.0f}"
            rows.append([(rung, rung, False), (solver, solver, False), *texts, (shown, _sortable(memory), False)])
    about = {rung_name(record): problem_line([record]) for record in records if record.get("problem")}
    titles = ["problem", "solver", *map(format_target, gaps), "MB"]
    return {"titles": titles, "rows": rows, "about": about}


def quickest_table(records: Sequence[Record]) -> dict[str, Any]:
    """The quickest solver on every problem to every gap: titles, and rows of text; the others' times have a table."""
    gaps = derived.gaps_of(records)
    return {"titles": RATIO_COLUMNS[:-1], "rows": [row[:-1] for row in ratio_rows(outcomes(records, gaps), gaps)]}


def _sortable(value: Any) -> float:
    number = finite(value)
    return 1e300 if math.isnan(number) else min(number, 1e299)


def cell_row(record: Record) -> dict[str, Any]:
    """One row of the table of all cells: (text, number to sort by), and how to run this cell again."""
    memory = finite(record["peak_memory_mb"])
    return {
        "problem": record["problem_name"],
        "about": problem_line([record]),
        "solver": record["solver_name"],
        "seed": record["seed"],
        "status": record["status"],
        "reason": record["reason"],
        "objective": (format_value(record["objective"]), _sortable(record["objective"])),
        "bound": (format_value(record["lower_bound"]), _sortable(record["lower_bound"])),
        "gap": (format_gap(record["gap"]) + ("*" if beyond_sample(record) else ""), _sortable(record["gap"])),
        "setup": (format_seconds(record["setup_seconds"]), _sortable(record["setup_seconds"])),
        "solve": (format_seconds(record["solve_seconds"]), _sortable(record["solve_seconds"])),
        "memory": ("-" if math.isnan(memory) else f"{memory:.0f}", _sortable(memory)),
        "again": cell_again(record),
    }


def machines(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Machines, versions and code, each kind once, with the number of its cells."""
    kinds: dict[str, dict[str, Any]] = {}
    for record in records:
        about = {**record["machine"], "code": record["version"], "device": record["device"]}
        key = json.dumps(plain(about), sort_keys=True)
        kinds.setdefault(key, {"about": about, "cells": 0})["cells"] += 1
    return list(kinds.values())


def limits(records: Sequence[Record]) -> list[str]:
    """What cells were allowed, each set once."""
    told: dict[str, int] = {}
    for record in records:
        own = record["limits"]
        memory = "no memory limit" if own["memory_gb"] is None else f"{own['memory_gb']:g} GiB"
        threads = "1 thread" if own["threads"] == 1 else f"{own['threads']} threads"
        line = (
            f"stopped at a certified gap of {format_target(own['gap'])} or after {own['time_limit']:g} s of solving, "
            f"killed after {own['deadline']:g} s, {memory}, {threads}"
        )
        told[line] = told.get(line, 0) + 1
    return [f"{number} cell{'s' if number > 1 else ''}: {line}" for line, number in told.items()]
