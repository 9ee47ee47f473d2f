"""The picture of the README: one problem in three formulations, the proven distance to its optimum against time.

    OMP_NUM_THREADS=1 python benchmarks/readme_picture.py [--out FILE]

Spiral, n = 600, three classes, gated ReLU with all 1200 gates, squared loss, beta = 0.01 beta_max; 20 seconds a solver,
one after the other. Prints the table that the picture is drawn from.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

import convexnn_bench as cnn
from convexnn_bench.house_style import GREY, GRID
from convexnn_bench.report import format_gap

SECONDS, TARGET, TOP = 20.0, 1e-6, 1e3
SOLVERS = {  # name: words
    "bm_newton": "Burer-Monteiro: Newton",
    "bm_lbfgs": "Burer-Monteiro: L-BFGS",
    "bm_gd": "Burer-Monteiro: gradient descent",
    "cvxpy_clarabel": "convex program: Clarabel",
    "network_adam": "network: Adam",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/readme.png"))
    out = parser.parse_args().out
    problem = cnn.make_problem("spiral", n=600, beta_fraction=0.01)
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    axis = figure.subplots()
    for name, words in SOLVERS.items():
        cnn.solve(cnn.make_problem("spiral", n=15, beta_fraction=0.01), name, time_limit=1)  # imports are not timed
        result = cnn.solve(problem, name, gap=TARGET, time_limit=SECONDS)
        told = f"set-up {result.setup_seconds:6.2f} s  solve {result.solve_seconds:6.2f} s"
        gap = format_gap(result.certificate.gap)
        print(f"{name:15s} {told}  objective {result.objective:.8g}  gap {gap}  {result.status}")
        points = [(result.setup_seconds + seconds, min(gap, TOP)) for seconds, _, gap in result.curve if gap < 1e9]
        x, y = zip(*points, strict=True)
        look = cnn.solver_style(name)
        axis.plot(x, y, **look | {"marker": ""}, linewidth=2)
        axis.plot(x[-1:], y[-1:], **look, markersize=9, label=words)
    axis.axhline(TARGET, color=GREY, linewidth=1, linestyle=":")
    axis.text(0.02, TARGET * 1.4, "one part in a million", transform=axis.get_yaxis_transform(), color=GREY)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("seconds, set-up included")
    axis.set_ylabel("proven relative distance\nto the global optimum, at most")
    axis.grid(color=GRID)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(out, dpi=130)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
