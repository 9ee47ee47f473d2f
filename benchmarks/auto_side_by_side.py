"""What "auto" takes as a multiple of the best solver, side by side in one process.

    OMP_NUM_THREADS=1 python benchmarks/auto_side_by_side.py [--most SECONDS] [--repetitions 3] [--out FILE.csv]

On each problem of `auto_suite.py`, a first run of every solver finds the BEST quickest ones. Then these and auto take
turns, each time on a new problem. The time is that of the whole call of `solve`, in processor seconds, to a certified
gap of 1e-6. The ratio of a problem is the median of auto over the least median of the solvers. The script prints it for
each problem, and median and 90th percentile of all. Problems that the quickest solver does not solve in `--most`
seconds are left out.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from auto_suite import GAP, SELDOM, SOLVERS, problems
from common import print_machine

import convexnn_bench as cnn
from convexnn_bench.report import write_csv

BEST = 3
SLOWER, LEAST = 4.0, 1.0  # limit of a first run: a multiple of the quickest one so far, and seconds


def run(make: Callable[[], cnn.Problem], solver: str, limit: float) -> dict[str, Any]:
    """Solve a new problem; return what it took, infinite seconds if the gap was not reached."""
    problem = make()
    started = time.process_time()
    result = cnn.solve(problem, solver, limit, GAP, show_progress=False)
    seconds = time.process_time() - started
    reached = result.status == "gap_reached"
    return {"solver": solver, "ran": result.solver, "seconds": seconds if reached else math.inf, "gap": result.gap}


def quickest(make: Callable[[], cnn.Problem], names: list[str], most: float) -> list[str]:
    """Return the BEST quickest solvers in one run of each, the quickest first; none if all need more than `most`."""
    times: dict[str, float] = {}
    for name in names:
        limit = min(most, max(SLOWER * min(times.values(), default=math.inf), LEAST))
        times[name] = run(make, name, limit)["seconds"]
    order = sorted((seconds, name) for name, seconds in times.items() if seconds < math.inf)
    return [name for _, name in order[:BEST]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=3.0, help="most seconds of the quickest solver")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--problems", default="", help="only problems with this text in their names")
    parser.add_argument("--out", type=Path, help="a CSV file of all runs")
    given = parser.parse_args()
    print_machine("cpu")
    cnn.solve(cnn.make_problem("spiral[n=9]"), "cvxpy_clarabel")  # loads what the first solve would load
    rows: list[dict[str, Any]] = []
    ratios: list[float] = []
    for name, make in problems():
        if given.problems not in name:
            continue
        able = [one for one in SOLVERS if one not in SELDOM or any(word in name for word in SELDOM[one])]
        best = quickest(make, able, given.most)
        if not best:
            print(f"   --   {name}: no solver reached the gap in {given.most:g} s", flush=True)
            continue
        turns = [(turn, run(make, way, 60.0)) for turn in range(given.repetitions) for way in ("auto", *best)]
        rows += [{"problem": name, "turn": turn, **one} for turn, one in turns]
        medians = {way: float(np.median([one["seconds"] for _, one in turns if one["solver"] == way])) for way in best}
        auto = float(np.median([one["seconds"] for _, one in turns if one["solver"] == "auto"]))
        first = min(medians, key=lambda way: medians[way])
        ran = "/".join(sorted({one["ran"] for _, one in turns if one["solver"] == "auto"}))
        ratios.append(auto / medians[first])
        print(f"{ratios[-1]:7.2f} {name}: best {first} {medians[first]:.3g} s, auto {auto:.3g} s by {ran}", flush=True)
    if ratios:
        middle, late = (np.quantile(ratios, q, method="higher") for q in (0.5, 0.9))
        print(f"{len(ratios)} problems: median {middle:.2f}, 90th percentile {late:.2f}, largest {max(ratios):.2f}")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        print(f"written: {write_csv(rows, given.out)}")


if __name__ == "__main__":
    main()
