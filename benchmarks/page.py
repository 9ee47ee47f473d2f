"""The page docs/benchmarks.md with its picture, from the records of one commit on one machine.

    python benchmarks/page.py [FOLDER] [--run] [--docs docs]

With --run the campaign benchmarks/benchmarks.toml is run first, into FOLDER (results/benchmarks), and the load of the
machine is noted every ten seconds in FOLDER/load.csv. Without it nothing is run. Text and numbers come from the
template benchmarks/page.md.jinja and from the records. Records of several commits, of several machines, or of code with
uncommitted changes are refused.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from convexnn_bench.errors import InputError
from convexnn_bench.house_style import find_styles
from convexnn_bench.records import Record
from convexnn_bench.report import (
    GAPS,
    SolverTimes,
    by_rung,
    counted,
    format_seconds,
    format_target,
    matrix,
    matrix_figure,
    read_folder,
    solver_times,
)
from convexnn_bench.report.ladder import LEGEND, time_head, time_rows
from convexnn_bench.report.matrix import LEGEND as MATRIX_LEGEND
from convexnn_bench.report.matrix import factor_text
from convexnn_bench.report.numbers import lead
from convexnn_bench.report.writers import markdown_table

HERE = Path(__file__).resolve().parent
SECONDS = 10.0  # between two looks at the load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results/benchmarks"), help="of the records")
    parser.add_argument("--run", action="store_true", help="run the campaign first")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="folder of the page")
    given = parser.parse_args()
    try:
        if given.run:
            run(given.folder)
        print(f"written: {', '.join(map(str, write(given.folder, given.docs)))}")
    except InputError as error:
        sys.exit(f"error: {error}")


def run(folder: Path) -> None:
    """Run the campaign, and append the load of the machine to a file while it runs."""
    command = [sys.executable, "-m", "convexnn_bench", "run", str(HERE / "benchmarks.toml"), "--out", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "load.csv").open("a", encoding="utf-8") as file:
        while process.poll() is None:
            file.write(f"{time.time():.0f},{os.getloadavg()[0]:.2f}\n")
            file.flush()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                continue
    if process.returncode not in (0, 1):  # 1: some cell failed, which the page then shows
        raise InputError(f"the campaign ended with exit code {process.returncode}")


def write(folder: Path, docs: Path) -> list[Path]:
    """Write the page and its picture from the records of a folder; return their paths."""
    records = read_folder(folder)[0]
    origin = one_origin(records)
    times = solver_times(records, GAPS)
    shown = matrix(times, GAPS[-1])
    looks = find_styles({one.solver: one.formulation for one in times})
    picture = docs / "images" / "benchmarks.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    matrix_figure(shown, looks).savefig(picture, dpi=150)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.keep_trailing_newline = True
    leads = [lead_text(group) for (_, gap), group in by_rung(times, GAPS).items() if gap == GAPS[-1]]
    tables = time_rows(times, GAPS)
    text = environment.from_string((HERE / "page.md.jinja").read_text(encoding="utf-8")).render(
        **origin,
        **counts(records, times),
        load=load_text(folder / "load.csv"),
        alternative=f"Matrix of solvers and problems. {' '.join(leads)}".replace("`", ""),
        legend=MATRIX_LEGEND,
        legend_times=LEGEND,
        leads=leads,
        skipped=skipped(records),
        tables={rung: markdown_table(time_head(times, GAPS), rows) for rung, rows in tables.items()},
    )
    page = docs / "benchmarks.md"
    page.write_text(text, encoding="utf-8")
    return [page, picture]


def one_origin(records: Sequence[Record]) -> dict[str, Any]:
    """Return commit and machine of the records. Raises InputError if there are several, or uncommitted changes."""
    for name in ("commit", "processor", "cores", "torch", "system"):
        found = {str(record["machine"].get(name)) for record in records}
        if len(found) > 1:
            raise InputError(f"the records are of several values of {name}: {', '.join(sorted(found))}")
    machine = records[0]["machine"]
    if machine.get("commit") is None or machine["commit"].endswith("-dirty"):
        raise InputError(f"the records must be of a commit without changes, got {machine.get('commit')}")
    return {name: machine[name] for name in ("commit", "processor", "cores", "torch")}


def counts(records: Sequence[Record], times: Sequence[SolverTimes]) -> dict[str, Any]:
    """Return the sizes of the campaign, its time limit and its day."""
    limits = {f"{record['limits']['time_limit']:g}" for record in records}
    return {
        "cells": sum(record["status"] != "skipped" for record in records),
        "problems": len({one.rung for one in times}),
        "draws": max(len(one.runs) for one in times),
        "limit": " or ".join(sorted(limits)),
        "day": min(record["started"] for record in records)[:10],
    }


def load_text(path: Path) -> str:
    """Say how busy the machine was: a campaign alone has a load of about one."""
    if not path.is_file():
        return "The load of the machine was not noted."
    with path.open(encoding="utf-8") as file:
        loads = [float(load) for _, load in csv.reader(file)]
    low, middle, high = min(loads), statistics.median(loads), max(loads)
    words = f"The load of the machine was {low:.1f} to {high:.1f}, in the median {middle:.1f}"
    if middle < 1.6:
        return f"{words}; the campaign itself makes about 1."
    return (
        f"{words}, of which the campaign itself makes about 1: other work ran at the same time, so that seconds are "
        "too long, and ratios below two may be chance."
    )


def lead_text(group: Sequence[SolverTimes]) -> str:
    """Say who reached the gap first on one problem, and how far ahead of the next one."""
    ahead, name, gap = lead(group), group[0].rung, format_target(group[0].gap)
    if ahead is None:
        return f"{name}: no solver reached {gap}."
    text = f"{name}: `{ahead.best.solver}` reached {gap} in {format_seconds(ahead.best.total.median)} s"
    if ahead.other is None:
        return f"{text}, and no other solver did."
    sign = "more than " if ahead.bounded else ""
    factor = factor_text(ahead.factor).removesuffix("x")
    return f"{text}; the next one, `{ahead.other.solver}`, took {sign}{factor} times as long."


def skipped(records: Sequence[Record]) -> list[str]:
    """Say which solvers were not run, and why, each reason once."""
    reasons: dict[tuple[str, str], int] = {}
    for record in records:
        if record["status"] == "skipped":
            key = record["solver"], record["reason"].partition(" in ")[0]
            reasons[key] = reasons.get(key, 0) + 1
    return [f"`{solver}` was skipped in {counted(n, 'cell')}: {why}." for (solver, why), n in reasons.items()]


if __name__ == "__main__":
    main()
