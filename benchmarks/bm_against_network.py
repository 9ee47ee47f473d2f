"""Burer-Monteiro against training the original network: objective, certified gap, time and test accuracy.

    OMP_NUM_THREADS=1 python benchmarks/bm_against_network.py [--seconds 10] [--seeds 5] [--patterns 30] [--out DIR]

digits, breast_cancer and wine, a quarter of the samples held out, columns standardised by the training samples; a seed
is that of the split, of the gates and of the start. Gated ReLU, beta = 0.01 beta_max, cross-entropy or logistic loss.
All solvers train the same problem: a network has as many neurons as the Burer-Monteiro point has columns. Each is
stopped at a certified gap of 1e-6 or after --seconds. Printed are mean ± standard deviation over the seeds; excess is
the objective over the best lower bound that any solver proved on that split. A gap is what is proven of a point, and
may be far above its excess.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import parser, print_machine, registered, write

import convexnn_bench as cnn
from convexnn_bench.house_style import GRID
from convexnn_bench.plugins import parse_spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOLVERS = ("bm_newton", "bm_lbfgs", "network_adam", "network_lbfgs", "network_sgd")
DATASETS = ("digits", "breast_cancer[standardize=false]", "wine[standardize=false]")
GAP, BETA_FRACTION, HELD_OUT = 1e-6, 0.01, 0.25
COLUMNS = {
    "excess": "objective over the best bound",
    "gap": "certified relative gap",
    "seconds": "set-up + solve (s)",
    "test_accuracy": "test accuracy",
}


def split(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    """(X, Y of training, X, Y of test, loss); constant columns are left as zeros."""
    plain, inside = parse_spec(name)
    data = cnn.DATASETS.get(plain)(**inside).data()
    order = np.random.default_rng(seed).permutation(len(data.X))
    test, train = np.split(order, [round(HELD_OUT * len(order))])
    centre, spread = data.X[train].mean(axis=0), data.X[train].std(axis=0)
    X, Y = (data.X - centre) / np.where(spread > 0, spread, 1.0), data.Y.reshape(len(data.X), -1)
    return X[train], Y[train], X[test], Y[test], data.defaults["loss"]


def accuracy(outputs: np.ndarray, Y: np.ndarray) -> float:
    """Share of samples whose class is right: the largest output, or the sign of a single one."""
    if Y.shape[1] == 1:
        return float(np.mean(np.sign(outputs) == Y))
    return float(np.mean(outputs.argmax(axis=1) == Y.argmax(axis=1)))


def run(name: str, solvers: list[str], seed: int, patterns: int, seconds: float) -> list[dict[str, Any]]:
    """One row a solver on one split."""
    X, Y, X_test, Y_test, loss = split(name, seed)
    problem = cnn.Problem(X, Y, loss=loss, beta_fraction=BETA_FRACTION, patterns=patterns, seed=seed)
    rows, bound = [], -np.inf
    for solver in solvers:
        result = cnn.solve(problem, solver, gap=GAP, time_limit=seconds, seed=seed, show_progress=False)
        assert result.certificate is not None, result.reason
        bound = max(bound, result.certificate.dual)
        rows.append(
            {"dataset": name, "solver": solver, "seed": seed, "n": len(X), "P": problem.P, "status": result.status}
            | {"objective": result.objective, "gap": result.gap, "seconds": result.setup_seconds + result.solve_seconds}
            | {"train_accuracy": accuracy(result.predict(X), Y)}
            | {"test_accuracy": accuracy(result.predict(X_test), Y_test)}
        )
    return [{**row, "excess": row["objective"] / bound - 1} for row in rows]


def draw(rows: list[dict[str, Any]], solvers: list[str]) -> "Figure":
    """A row of panels a data set: every seed as a point, a bar at the mean."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["dataset"] for row in rows))
    figure = Figure(figsize=(15, 2.9 * len(names) + 0.6), layout="constrained")
    axes = figure.subplots(len(names), len(COLUMNS), squeeze=False, sharex=True)
    for name, panels in zip(names, axes, strict=True):
        for axis, (column, label) in zip(panels, COLUMNS.items(), strict=True):
            for place, solver in enumerate(solvers):
                values = [row[column] for row in rows if (row["dataset"], row["solver"]) == (name, solver)]
                look = cnn.solver_style(solver)
                axis.plot([place] * len(values), values, **look | {"linestyle": ""}, markersize=5, alpha=0.6)
                axis.plot([place - 0.3, place + 0.3], [np.mean(values)] * 2, color=look["color"], linewidth=2)
            axis.set_title(f"{name.partition('[')[0]}: {label}", loc="left", fontsize=9)
            axis.grid(True, axis="y", color=GRID, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
            if column != "test_accuracy":
                axis.set_yscale("log")
            axis.set_xticks(range(len(solvers)), solvers, rotation=30, ha="right", fontsize=8)
    return figure


def main() -> None:
    arguments = parser(__doc__, "bm_against_network")
    arguments.add_argument("--seconds", type=float, default=10.0, help="for each solver on each split")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--patterns", type=int, default=30)
    arguments.add_argument("--solvers", nargs="+", default=list(SOLVERS))
    arguments.add_argument("--datasets", nargs="+", default=list(DATASETS))
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print_machine("cpu")
    solvers, rows = registered(given.solvers), []
    print(f"{'data set':<14} {'solver':<14} " + " ".join(f"{column:>22}" for column in COLUMNS))
    for name in given.datasets:
        own = [row for seed in range(given.seeds) for row in run(name, solvers, seed, given.patterns, given.seconds)]
        rows += own
        for solver in solvers:
            shown = []
            for column in COLUMNS:
                values = [row[column] for row in own if row["solver"] == solver]
                shown.append(f"{np.mean(values):.3g} ± {np.std(values):.2g}")
            print(f"{name.partition('[')[0]:<14} {solver:<14} " + " ".join(f"{text:>22}" for text in shown), flush=True)
    write(given.out, "bm_against_network", rows, draw(rows, solvers))


if __name__ == "__main__":
    main()
