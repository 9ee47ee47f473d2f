"""Compare cold and warm starts of every solver that takes `start=`.

    OMP_NUM_THREADS=1 python benchmarks/warm_starts.py [--repetitions 3] [--seconds 4] [--factor 1.1] [--out DIR]
        [--datasets 'spiral[n=45]' ...] [--solvers bm_newton fista ...]

The problems are the ladder's small rungs. Each repetition has another draw of data, gates and start. A warm run begins
at the optimum for `factor` times the weight decay, which bm_newton solved to a gap of 1e-8. Cold and warm runs take
turns, after one run of each that is not counted. If the first cold run of a solver does not reach the first of the gaps
within the limit, the solver is measured at the next gap. The script prints medians of set-up + solve seconds and of
iterations (callbacks), and of the ratios warm / cold of both, run by run. '> ' marks a cold time that is the limit.
"""

from pathlib import Path
from typing import Any

import numpy as np
from common import parser, print_machine

import convexnn_bench as cnn
from convexnn_bench.plugins import parse_spec
from convexnn_bench.report import write_csv

RUNGS = (
    "spiral[n=45]",
    "spiral[n=150]",
    "teacher[n=500,d=20,patterns=100]",
    "teacher[n=200,d=10,patterns=50,activation=relu]",
)
GAPS = (1e-6, 1e-3)  # the second is below the gap of the starts, which is 1e-3 to 5e-3


def counting(name: str) -> Any:
    """Return the solver of this name, with a count of its callbacks in `iterations_done`."""
    base: Any = cnn.SOLVERS.get(name)

    class Counting(base):
        iterations_done = 0

        def run(self, callback: Any) -> None:
            def counted() -> bool:
                self.iterations_done += 1
                return bool(callback())

            super().run(counted)

    return Counting()


def run(problem: "cnn.Problem", name: str, start: Any, gap: float, seconds: float, seed: int) -> dict[str, Any]:
    solver = counting(name)
    result = cnn.solve(problem, solver, start=start, gap=gap, time_limit=seconds, seed=seed, show_progress=False)
    return {
        "solver": name,
        "kind": "cold" if start is None else "warm",
        "seed": seed,
        "target": gap,
        "setup_seconds": result.setup_seconds,
        "solve_seconds": result.solve_seconds,
        "iterations": solver.iterations_done,
        "gap": result.gap,
        "start_gap": result.curve[0][2] if result.curve else float("nan"),
        "status": result.status,
    }


def measure(dataset: str, name: str, given: Any) -> list[dict[str, Any]]:
    """Return the runs of one solver on one rung, pairs of a cold and a warm one."""
    spec, inside = parse_spec(dataset)
    rows: list[dict[str, Any]] = []
    gap = GAPS[0]
    for seed in range(-1, given.repetitions):
        problem = cnn.make_problem(spec, **inside, seed=max(seed, 0))
        larger = problem.with_beta(given.factor * problem.beta)
        start = cnn.solve(larger, "bm_newton", gap=1e-8, time_limit=60, show_progress=False)
        cold = run(problem, name, None, gap, given.seconds, max(seed, 0))
        if cold["status"] == "skipped":
            return []
        if seed < 0 and cold["status"] != "gap_reached":
            gap = GAPS[1]
        warm = run(problem, name, start, gap, given.seconds, max(seed, 0))
        if seed >= 0:
            rows += [{"dataset": dataset, **row} for row in (cold, warm)]
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    cold, warm = ([row for row in rows if row["kind"] == kind] for kind in ("cold", "warm"))
    reached = [row["status"] == "gap_reached" for row in cold]
    words = [f"{rows[0]['dataset']:<48} {rows[0]['solver']:<18} {rows[0]['target']:.0e}"]
    for part, limited in ((cold, not all(reached)), (warm, any(row["status"] != "gap_reached" for row in warm))):
        setup, solve = (float(np.median([row[f"{kind}_seconds"] for row in part])) for kind in ("setup", "solve"))
        steps = float(np.median([row["iterations"] for row in part]))
        words.append(f"{'> ' if limited else ''}{setup:.3g} + {solve:.3g} s, {steps:.0f} it")
    times = [_total(w) / _total(c) for w, c in zip(warm, cold, strict=True)]
    counts = [w["iterations"] / max(c["iterations"], 1) for w, c in zip(warm, cold, strict=True)]
    words.append(f"{np.median(times):.2f} ({min(times):.2f} to {max(times):.2f}), it {np.median(counts):.2f}")
    print(" | ".join(words), flush=True)


def _total(row: dict[str, Any]) -> float:
    return float(row["setup_seconds"] + row["solve_seconds"])


def main() -> None:
    startable = [name for name in cnn.SOLVERS.names() if cnn.SOLVERS.get(name).start_formulation is not None]
    made = parser(__doc__, "warm_starts")
    made.add_argument("--datasets", nargs="+", default=list(RUNGS))
    made.add_argument("--solvers", nargs="+", default=startable, choices=startable)
    made.add_argument("--repetitions", type=int, default=3)
    made.add_argument("--seconds", type=float, default=4.0, help="time limit of a run")
    made.add_argument("--factor", type=float, default=1.1, help="weight decay of the start over that of the problem")
    given = made.parse_args()
    print_machine("cpu")
    print("rung | solver, gap | cold | warm | ratio of times, of iterations")
    rows = []
    for dataset in given.datasets:
        for name in given.solvers:
            found = measure(dataset, name, given)
            if found:
                show(found)
            rows += found
    Path(given.out).mkdir(parents=True, exist_ok=True)
    print(f"written: {write_csv(rows, given.out / 'warm_starts.csv')}")


if __name__ == "__main__":
    main()
