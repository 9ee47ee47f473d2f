"""Linear self-attention: where random starts end, against the number of heads, on data with and without spurious ends.

    OMP_NUM_THREADS=1 python benchmarks/attention_heads.py [--out FILE]

Two random data sets of 12 samples of 4 tokens, d = 3, c = 2, squared loss, beta = 0.05 beta_max; ten starts of L-BFGS
for each number of heads; the optimum and the rank of its block from Clarabel. Prints a table and draws the ends.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import convexnn_bench as cnn
from convexnn_bench.house_style import BLUE, GREEN, GRID
from convexnn_bench.theorems import FLOOR, KINDS

HEADS, STARTS, SEEDS = (1, 2, 3, 4, 5, 6), 10, (0, 2)


def attention(seed: int) -> cnn.Problem:
    """The problem of data `seed`; the targets are the first two features of every token."""
    draw = np.random.default_rng(seed)
    if seed == 0:
        draw.standard_normal((24, 1, 6, 6))  # notebook 06 draws its images first
    tokens = draw.standard_normal((12, 4, 3))
    return cnn.Problem(tokens, tokens[:, :, :2], architecture="attention", activation="linear", beta_fraction=0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/attention_heads.png"))
    out = parser.parse_args().out
    figure = Figure(figsize=(10.0, 4.4), layout="constrained")
    for axis, seed in zip(figure.subplots(1, 2, sharey=True), SEEDS, strict=True):
        problem = attention(seed)
        values = np.linalg.svd(cnn.solve(problem, "cvxpy_clarabel", gap=1e-9).blocks[0], compute_uv=False)
        rank = int((values > 1e-6 * values[0]).sum())
        found = cnn.spurious_minima(problem, columns=list(HEADS), starts=STARTS)
        print(f"data {seed}: the optimal block has rank {rank} of {min(problem.p, problem.q)}")
        for width in found.widths:
            print(f"  {width.m} heads: {width.global_ends:2d} of {width.starts} starts at the optimum; {width.verdict}")
        rng = np.random.default_rng(0)
        for kind, (colour, marker) in KINDS.items():
            ends = [end for end in found.ends if end.kind == kind]
            x = [end.m + rng.uniform(-0.25, 0.25) for end in ends]
            y = [max(end.excess, FLOOR) for end in ends]
            axis.scatter(x, y, s=34, marker=marker, color=colour, alpha=0.75, label=kind)
        axis.axvspan(rank - 0.5, problem.q - 0.5, color=GREEN, alpha=0.10, linewidth=0)
        axis.text(
            rank - 0.4, 0.97, f"from the rank {rank}:\nattainable", transform=axis.get_xaxis_transform(), va="top"
        )
        axis.axvspan(problem.q - 0.5, HEADS[-1] + 0.6, color=BLUE, alpha=0.12, linewidth=0)
        axis.text(problem.q - 0.4, 0.97, "Theorem", transform=axis.get_xaxis_transform(), va="top")
        axis.set_yscale("log")
        axis.set_ylim(FLOOR / 3, 300)
        axis.set_xlim(0.4, HEADS[-1] + 0.6)
        axis.set_xticks(HEADS)
        axis.set_xlabel("heads")
        axis.set_title(f"data {seed}, {STARTS} random starts each", loc="left")
        axis.grid(axis="y", color=GRID)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("relative excess over the proven bound")
    handles, labels = figure.axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(out, dpi=150)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
