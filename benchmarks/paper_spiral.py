"""The paper's spiral figure from the records of the campaign `paper`: distances to the optimum, and what is proven.

    convexnn-bench run paper --out results/paper
    python benchmarks/paper_spiral.py results/paper

For every n, weight decay and number m of columns: gradient descent's end after the campaign's time limit, the median
over starts. True distance: to the least objective of all solvers. Certified gap: by weak duality. Theorem 3.4: the
paper's bound (max ||G_k|| / beta - 1)_+, taken alone and with its error term. `bm_newton` is beside it.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import save_figure

from convexnn_bench.house_style import BLUE, GREY, GRID, ORANGE
from convexnn_bench.plugins import parse_spec
from convexnn_bench.records import Record
from convexnn_bench.report import finite, format_gap, optimum_intervals, program, read_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = 1e-10
Row = dict[str, float]
BOUNDS = {  # name: colour, line
    "true": (GREY, "-"),
    "certified": (BLUE, "-"),
    "theorem": (ORANGE, "--"),
    "with error": (ORANGE, "-"),
}


def ends(records: Sequence[Record], solver: str) -> dict[tuple[int, float], Row]:
    """{(n, beta fraction): medians over starts of the distances} at the end of one solver's runs."""
    intervals = optimum_intervals(records)
    found: dict[tuple[int, float], list[Row]] = {}
    for record in records:
        if record["solver_name"] != solver:
            continue
        optimum = intervals[program(record)]
        parameters = parse_spec(record["problem_name"])[1]
        bound, error = finite(record["stationarity_bound"]), abs(finite(record["stationarity_error"]))
        row = {
            "true": optimum.excess(record["objective"])[0],
            "certified": record["gap"],
            "theorem": bound,
            "with error": bound + error / optimum.low,
            "misled": float(bound < optimum.excess(record["objective"])[0]),
        }
        found.setdefault((parameters["n"], parameters["beta_fraction"]), []).append(row)
    return {
        where: {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
        for where, rows in found.items()
    }


def figure(records: Sequence[Record], solvers: Sequence[str]) -> "Figure":
    """A panel for every n and solver: the four distances against weight decay."""
    from matplotlib.figure import Figure

    tables = {solver: ends(records, solver) for solver in solvers}
    sizes = sorted({n for table in tables.values() for n, _ in table})
    made = Figure(figsize=(2.9 * len(solvers) + 0.6, 2.4 * len(sizes) + 0.8), layout="constrained")
    axes = made.subplots(len(sizes), len(solvers), sharex=True, sharey=True, squeeze=False)
    for row, n in zip(axes, sizes, strict=True):
        for axis, (solver, table) in zip(row, tables.items(), strict=True):
            fractions = sorted(fraction for size, fraction in table if size == n)
            for name, (colour, line) in BOUNDS.items():
                values = [max(table[n, fraction][name], FLOOR) for fraction in fractions]
                axis.loglog(fractions, values, line, color=colour, marker="o", markersize=3.5, label=name)
            axis.grid(True, color=GRID, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
            if n == sizes[0]:
                axis.set_title(solver, fontsize=10)
            if n == sizes[-1]:
                axis.set_xlabel("beta / beta_max", fontsize=9)
        row[0].set_ylabel(f"n = {n}", fontsize=10)
    handles, labels = axes[0][0].get_legend_handles_labels()
    told = {"true": "true distance", "certified": "certified gap", "theorem": "Theorem 3.4 alone",
            "with error": "Theorem 3.4 with its error term"}  # fmt: skip
    made.legend(
        handles, [told[label] for label in labels], loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    return made


def main() -> None:
    """Print the table and write the figure beside the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the campaign's records")
    folder: Path = parser.parse_args().folder
    records = read_folder(folder)[0]
    solvers = ["bm_gd[m=1]", "bm_gd[m=2]", "bm_gd[m=4]", "bm_newton"]
    print("| n | beta / beta_max | solver | true distance | certified gap | Theorem 3.4 | with its error term |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    misled = total = 0
    for solver in solvers:
        for (n, fraction), row in sorted(ends(records, solver).items()):
            shown = [format_gap(row[name]) if math.isfinite(row[name]) else "-" for name in BOUNDS]
            print(f"| {n} | {fraction:g} | {solver} | {' | '.join(shown)} |")
            misled, total = misled + int(row["misled"] > 0.5), total + 1
    print(f"\nTheorem 3.4 alone is below the true distance in {misled} of {total} rows")
    print(*save_figure(figure(records, solvers), folder / "paper_spiral"), sep="\n")


if __name__ == "__main__":
    main()
