"""Fit the times that "auto" predicts to the records of auto_suite.py, and write times.toml.

    OMP_NUM_THREADS=1 python benchmarks/fit_auto.py RECORDS.jsonl [--write]

For each solver, log10(seconds) is a linear function of the features (`convexnn_bench.algorithms.automatic.features`),
by least squares with a ridge. Each problem counts the same, at all gaps together. A run that did not reach a gap within
its limit, or that the suite leaves out as slow, counts as CENSORED times its limit, or as the prediction if that is
larger, until the fit no longer changes.

The evaluation leaves each problem out, fits the others, and runs the order that they predict: a solver that does not
reach the gap costs OVERDUE times its prediction, or its limit, before the next one goes on. It prints the time of auto
as a multiple of the best solver's for each problem, then median and 90th percentile.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from auto_suite import GAP, GAPS, SLOWER

from convexnn_bench.algorithms.automatic import FEATURES, MODEL_FILE, SolverModel
from convexnn_bench.algorithms.automatic.stall import LEAST_SECONDS, OVERDUE
from convexnn_bench.plugins import parse_spec

RIDGE = 3.0  # on features of unit variance, in problems
CENSORED = 2.0
ROUNDS = 20
# Seconds to import CVXPY and Clarabel, and to start the process of a rival, idle machine.
LOADING = {"cvxpy_clarabel": 1.5, "column_generation": 1.5}
COMPLETE = ("column_generation",)
HOST_ONLY = ("cvxpy_clarabel", "cvxpy_mosek", "column_generation", "rival_adelie", "rival_celer", "rival_skglm")
# Solvers that count as quick as another one where there are no records of them.
LIKE = {"cvxpy_mosek": "cvxpy_clarabel"}

Record = dict[str, Any]
Table = dict[str, dict[str, Record]]  # {problem: {solver: record}}


def read(path: Path) -> Table:
    """Return the records of solvers that took their problem."""
    table: Table = defaultdict(dict)
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if record["status"] != "skipped":
            table[record["problem"]][record["solver"]] = record
    return {name: {**records, **_left_out(records)} for name, records in table.items()}


def _left_out(records: dict[str, Record]) -> dict[str, Record]:
    """Return a run of bm_lbfgs that did not reach the gap, on a problem where the suite leaves it out as slow."""
    reached = [record["reached"][f"{GAP:g}"] for record in records.values() if f"{GAP:g}" in record["reached"]]
    if "bm_lbfgs" in records:
        return {}
    seconds = SLOWER * min(reached, default=max(record["limit"] for record in records.values()))
    some = next(iter(records.values()))
    outcome = {"assumed": True, "status": "time_limit", "seconds": seconds, "limit": seconds, "reached": {}}
    return {"bm_lbfgs": {**some, "solver": "bm_lbfgs", **outcome}}


def seconds_of(record: Record, gap: float) -> tuple[float, bool]:
    """Return (seconds, True) to the gap, or (seconds after which it was not reached, False)."""
    reached = record["reached"].get(f"{gap:g}")
    if reached is not None:
        return max(reached, 1e-3), True
    # A run that gave up before its set-up has no time: it would have taken longer than its limit.
    return record["limit"] if math.isnan(record["seconds"]) else record["seconds"], False


def fit(records: Iterable[Record]) -> dict[str, float]:
    """Return the coefficients of one solver."""
    rows, targets, known, weights = [], [], [], []
    for record in records:
        outcomes = [(gap, *seconds_of(record, gap)) for gap in GAPS]
        for gap, seconds, reached in outcomes:
            rows.append([{**record["features"], "accuracy": -math.log10(gap)}[name] for name in FEATURES])
            targets.append(math.log10(seconds if reached else CENSORED * seconds))
            known.append(reached)
            weights.append(0.5 if gap == GAP else 0.5 / (len(GAPS) - 1))
    X, y, reached, w = np.array(rows), np.array(targets), np.array(known), np.sqrt(np.array(weights))
    spread = X.std(0)
    used = spread > 1e-9
    scale = np.where(used, spread, 1.0)
    names = list(FEATURES)
    constant = names.index("constant")
    centre = np.average(X, axis=0, weights=w**2) * used
    A = (X - centre) / scale * used
    A[:, constant] = 1.0
    penalty = np.sqrt(RIDGE) * np.eye(len(names))
    penalty[constant, constant] = 0.0
    current = y
    for _ in range(ROUNDS):
        solution = np.linalg.lstsq(np.vstack([A * w[:, None], penalty]), np.r_[current * w, np.zeros(len(names))])[0]
        current = np.where(reached, y, np.maximum(y, A @ solution))
    slopes = np.where(used, solution / scale, 0.0)
    slopes[constant] = 0.0
    coefficients = dict(zip(names, slopes.tolist(), strict=True))
    coefficients["constant"] = float(solution[constant] - slopes @ centre)
    return {name: value for name, value in coefficients.items() if value != 0.0}


def fit_all(table: Table) -> dict[str, SolverModel]:
    """Return a model for each solver."""
    solvers = dict.fromkeys(solver for records in table.values() for solver in records)
    return {
        solver: SolverModel(fit(records[solver] for records in table.values() if solver in records))
        for solver in solvers
    }


def relay_seconds(records: Mapping[str, Record], models: Mapping[str, SolverModel]) -> tuple[float, str]:
    """Return the seconds of auto on a problem, and the solvers in the order in which it runs them."""
    features = {**next(iter(records.values()))["features"], "accuracy": -math.log10(GAP)}
    order = sorted((models[name].seconds(features), name) for name in records if name in models)
    spent, ran = 0.0, []
    for predicted, name in order:
        seconds, reached = seconds_of(records[name], GAP)
        ran.append(name)
        if reached:
            return spent + seconds, " > ".join(ran)
        # A run that its limit cut off would have gone on until the next solver took over.
        spent += max(OVERDUE * predicted, LEAST_SECONDS) if records[name]["status"] == "time_limit" else seconds
    return math.inf, " > ".join(ran)


def evaluate(table: Table) -> None:
    """Print what auto would take on each problem, predicted from all others."""
    ratios, fitted, whole = [], [], fit_all(table)
    for problem, records in table.items():
        models = fit_all({name: other for name, other in table.items() if name != problem})
        times = {name: seconds_of(record, GAP) for name, record in records.items()}
        if not any(reached for _, reached in times.values()):
            print(f"{problem}: no solver reached the gap")
            continue
        best = min((seconds, name) for name, (seconds, reached) in times.items() if reached)
        own, ran = relay_seconds(records, models)
        ratios.append(own / best[0])
        fitted.append(relay_seconds(records, whole)[0] / best[0])
        print(f"{ratios[-1]:6.2f}  {problem}: best {best[1]} {best[0]:.3g} s, auto {own:.3g} s by {ran}")
    summarise("auto, each problem left out of its fit", ratios)
    summarise("auto, fitted to all problems", fitted)
    for name in sorted({solver for records in table.values() for solver in records}):
        summarise(
            f"always {name}", [ratio for records in table.values() if (ratio := _multiple(records, name)) is not None]
        )


def _multiple(records: Mapping[str, Record], name: str) -> float | None:
    """Return the time of a solver over that of the best one, infinity if it did not reach the gap; None if none did."""
    reached = {
        solver: seconds for solver, record in records.items() for seconds, done in [seconds_of(record, GAP)] if done
    }
    return None if not reached else reached.get(name, math.inf) / min(reached.values())


def summarise(what: str, ratios: Sequence[float]) -> None:
    share = np.mean(np.isfinite(ratios))
    middle, late = (np.quantile(ratios, q, method="higher") for q in (0.5, 0.9))
    print(f"{what}: median {middle:.2f}, 90th percentile {late:.2f}, gap reached on {share:.0%} of {len(ratios)}")


def write(table: Table, path: Path) -> None:
    """Write the models of all records to the file that `auto` reads."""
    some = next(iter(next(iter(table.values())).values()))
    count = sum("assumed" not in record for records in table.values() for record in records.values())
    lines = [
        "# log10(predicted seconds) of a solver = sum of coefficient * feature. Written by benchmarks/fit_auto.py.",
        f'commit = "{some["commit"]}"',
        f'machine = "{some["processor"]}, one thread, CPU seconds"',
        f"problems = {len(table)}",
        f"records = {count}",
    ]
    for name, model in sorted(fit_all(table).items()):
        inside = ", ".join(f"{feature} = {value:.3f}" for feature, value in model.coefficients.items())
        base = parse_spec(name)[0]
        lines += ["", f"[solvers.{name if name == base else json.dumps(name)}]", f"coefficients = {{ {inside} }}"]
        lines += [f"loading = {LOADING[base]}"] if base in LOADING else []
        lines += ["cuda = false"] if base in HOST_ONLY else []
        lines += ["complete = true"] if base in COMPLETE else []
    for name, other in LIKE.items():
        lines += (
            [] if any(name in records for records in table.values()) else ["", f"[solvers.{name}]", f'like = "{other}"']
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, help="file that auto_suite.py has written")
    parser.add_argument("--write", action="store_true", help=f"write {MODEL_FILE.name} in the package")
    asked = parser.parse_args()
    table = read(asked.records)
    evaluate(table)
    if asked.write:
        write(table, MODEL_FILE)


if __name__ == "__main__":
    main()
