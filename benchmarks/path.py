"""Regularisation paths: how many solves prove all weight decays, and what they cost.

    OMP_NUM_THREADS=1 python benchmarks/path.py [--tolerances 1e-2 1e-3] [--repetitions 3] [--out DIR]

Each path goes from beta_max to 0.001 beta_max. Four variants take turns, A B C D A B C D ...: warm starts, cold starts,
warm starts without mixtures of networks (tangents and chords of solves alone), and one cold solve at the smallest beta
to the gap of a path's solves. The script prints medians of processor seconds, with the least and the largest in
brackets. Every run makes a new problem. The first run of each variant is not counted.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import print_machine

import convexnn_bench as cnn
from convexnn_bench.regularisation import search
from convexnn_bench.report import write_csv

SMALLEST = 1e-3
PROBLEMS = {
    "teacher[n=500,d=20,patterns=100]": "semismooth_newton",
    "breast_cancer[patterns=50]": "bm_newton",
    "spiral[n=60]": "bm_newton",
}


@contextmanager
def without_mixtures() -> Iterator[None]:
    """Let no mixture of two networks take the place of a solve."""
    before, search.MIXED_GAP = search.MIXED_GAP, 0.0
    try:
        yield
    finally:
        search.MIXED_GAP = before


def warm(problem: cnn.Problem, tolerance: float, solver: str) -> tuple[int, float]:
    path = cnn.path(problem, SMALLEST, tolerance, solver)
    return len(path.results), path.gap


def cold(problem: cnn.Problem, tolerance: float, solver: str) -> tuple[int, float]:
    path = cnn.path(problem, SMALLEST, tolerance, solver, warm_starts=False)
    return len(path.results), path.gap


def tangents(problem: cnn.Problem, tolerance: float, solver: str) -> tuple[int, float]:
    with without_mixtures():
        return warm(problem, tolerance, solver)


def one_solve(problem: cnn.Problem, tolerance: float, solver: str) -> tuple[int, float]:
    result = cnn.solve(problem.with_beta(fraction=SMALLEST), solver, gap=search.SOLVE_GAP * tolerance)
    return 1, result.gap


WAYS: dict[str, Callable[[cnn.Problem, float, str], tuple[int, float]]] = {
    "warm starts": warm,
    "cold starts": cold,
    "warm, no mixtures": tangents,
    "one cold solve": one_solve,
}


def run(dataset: str, solver: str, tolerance: float, way: str) -> dict[str, Any]:
    problem = cnn.make_problem(dataset)
    started = time.process_time()
    networks, gap = WAYS[way](problem, tolerance, solver)
    seconds = time.process_time() - started
    return {
        "dataset": dataset, "solver": solver, "tolerance": tolerance, "way": way, "networks": networks, "gap": gap,
        "cpu_seconds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-2, 1e-3])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a CSV file of all runs")
    given = parser.parse_args()
    print_machine("cpu")
    rows = []
    for dataset, solver in PROBLEMS.items():
        for tolerance in given.tolerances:
            runs = [run(dataset, solver, tolerance, way) for _ in range(given.repetitions + 1) for way in WAYS]
            rows += runs[len(WAYS) :]
            print(f"{dataset}, {solver}, tolerance {tolerance:.0e}")
            for way in WAYS:
                own = [row for row in runs[len(WAYS) :] if row["way"] == way]
                seconds = [row["cpu_seconds"] for row in own]
                spread = f"{np.median(seconds):.3g} ({min(seconds):.3g} to {max(seconds):.3g})"
                networks = "/".join(str(count) for count in sorted({row["networks"] for row in own}))
                print(f"  {way:<18} {networks:>8} networks, gap {max(row['gap'] for row in own):.1e}, CPU s {spread}")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        print(f"written: {write_csv(rows, given.out)}")


if __name__ == "__main__":
    main()
