"""Two or more solvers on one problem in turn, A B A B ..., and the ratios of their times run by run.

    OMP_NUM_THREADS=1 python benchmarks/side_by_side.py 'spiral[n=600]' bm_newton cvxpy_clarabel [--gap 1e-6]
        [--repetitions 5] [--seconds 60] [--gaps 1e-6 2e-5] [--out DIR]

Every run builds its problem anew. The first solver is compared with each of the others: medians, with the least and the
largest of the repetitions in brackets, of set-up, solving and both together in seconds, and of the ratio other / first
of the two together. --gaps gives a certified gap of its own to each solver. A run that does not reach its gap is shown
as such, and its ratio is a lower bound (of the first: an upper one). One run of every solver comes before, uncounted.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from common import print_machine, registered

import convexnn_bench as cnn
from convexnn_bench.plugins import parse_spec


def run(dataset: str, solver: str, gap: float, seconds: float, seed: int) -> dict[str, Any]:
    name, inside = parse_spec(dataset)
    result = cnn.solve(
        cnn.make_problem(name, **inside), solver, gap=gap, time_limit=seconds, seed=seed, show_progress=False
    )
    reached = bool(result.gap <= gap)
    # an iterative solver's time is that of the first scored point at the gap, which is where it is stopped
    return {
        "dataset": dataset,
        "solver": solver,
        "target": gap,
        "run": seed,
        "setup_seconds": result.setup_seconds,
        "solve_seconds": result.solve_seconds,
        "total_seconds": result.setup_seconds + result.solve_seconds,
        "gap": result.gap,
        "objective": result.objective,
        "reached": reached,
        "status": result.status,
    }


def spread(values: list[float]) -> str:
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def show(rows: list[dict[str, Any]], solvers: list[str]) -> None:
    first = [row["total_seconds"] for row in rows if row["solver"] == solvers[0]]
    print(f"{'solver':<36} {'gap':>8} {'set-up s':>26} {'solve s':>26} {'ratio of totals to the first':>28}")
    for solver in solvers:
        own = [row for row in rows if row["solver"] == solver]
        total = [row["total_seconds"] for row in own]
        ratios = spread([one / other for one, other in zip(total, first, strict=True)])
        missed = "" if all(row["reached"] for row in own) else f"  not at {own[0]['target']:.0e}: {own[-1]['status']}"
        gap = max(row["gap"] for row in own)
        setup, solve = (spread([row[key] for row in own]) for key in ("setup_seconds", "solve_seconds"))
        print(f"{solver:<36} {gap:>8.1e} {setup:>26} {solve:>26} {ratios:>28}{missed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="such as 'spiral[n=600]'")
    parser.add_argument("solvers", nargs="+", help="the first is compared with the others")
    parser.add_argument("--gap", type=float, default=1e-6, help="certified relative gap")
    parser.add_argument("--gaps", type=float, nargs="+", help="one for each solver")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of solving, in every run")
    parser.add_argument("--out", type=Path, help="a CSV file of all runs")
    given = parser.parse_args()
    gaps = dict(zip(given.solvers, given.gaps or [given.gap] * len(given.solvers), strict=True))
    solvers = [name for name in given.solvers if registered([parse_spec(name)[0]])]
    if len(solvers) < 2:
        raise SystemExit("two solvers at least are needed")
    print_machine("cpu")
    rows = []
    for seed in range(-1, given.repetitions):
        for solver in solvers:
            row = run(given.dataset, solver, gaps[solver], given.seconds, max(seed, 0))
            if seed >= 0:
                rows.append(row)
    print(given.dataset)
    show(rows, solvers)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with given.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
