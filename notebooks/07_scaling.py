# %% [markdown]
# # 07 When does Burer-Monteiro beat the exact program?
#
# **The question.** The convex program can be solved exactly. When is it worth factorising? Nothing is solved in this notebook:
# it reads the records of three campaigns, `ladder`, `map` and `scaling`, which ship beside it: commits becd540, 4993447 and
# 0d1056e, on one thread of an Intel Xeon. The benchmarks page has later runs on another machine; `convexnn-bench run ladder`, `convexnn-bench run map --time-limit 5` and
# `convexnn-bench run scaling` repeat them on your machine.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

import convexnn_bench as cnn

plt.rcParams.update(cnn.style())

columns = [
    "problem_name",
    "solver",
    "formulation",
    "seed",
    "status",
    "gap",
    "setup_seconds",
    "solve_seconds",
    "curve",
]
columns += ["limits_time_limit", "limits_gap", "solver_parameters"]
sizes = ["problem_n", "problem_d", "problem_c", "problem_P"]
ladder, mapped, scaling = (
    pd.read_parquet(f"data/{name}.parquet", columns=columns + sizes)
    for name in ("ladder", "map", "scaling")
)
campaigns = {"ladder": ladder, "map": mapped, "scaling": scaling}
for name, table in campaigns.items():
    limits = ", ".join(
        f"{limit:g}" for limit in sorted(table["limits_time_limit"].unique())
    )
    print(
        f"{name:8s} {len(table):4d} cells, {table['solver'].nunique():2d} solvers, "
        f"time limits of {limits} s"
    )
    print(
        f"{'':8s} gap {table['limits_gap'].max():g}, {table['seed'].nunique()} draws, "
        f"{table['status'].value_counts().to_dict()}"
    )

# %% [markdown]
# ## Time to a certified gap
#
# Every record holds its curve: seconds, objective, certified gap. The time to a gap is that of the first point at or below
# it, set-up included; infinite where there is none. The time limit is one of solving, set-up not counted, and a solver that
# gives one point only, at its end (Clarabel, SCS), may pass it. "Not reached" says no more than that it did not get there
# within the limit of its rung, and "not run" that the campaign did not ask.


# %%
def seconds_to(record, gap):
    """Set-up + solve to the first point at or below the gap."""
    points = [point[0] for point in record.curve if point[2] <= gap]
    offset = 0.0 if np.isnan(record.setup_seconds) else record.setup_seconds
    return offset + points[0] if points else np.inf


for table in campaigns.values():
    table["t6"] = table.apply(seconds_to, axis=1, gap=1e-6)
    table["t4"] = table.apply(seconds_to, axis=1, gap=1e-4)


def in_words(times):
    """Solvers in rows, sizes in columns."""
    return times.T.map(
        lambda t: (
            "not run" if np.isnan(t) else "not reached" if np.isinf(t) else f"{t:.2f}"
        )
    ).to_string()


shown = [
    "bm_newton",
    "semismooth_newton",
    "cvxpy_clarabel",
    "cvxpy_scs",
    "fista",
    "bm_lbfgs",
    "network_lbfgs",
]
spirals = ladder[ladder.problem_name.str.startswith("spiral")]
# the quickest tolerance of a one-shot solver, then the median over draws
best = (
    spirals.groupby(["problem_n", "seed", "solver"])["t6"]
    .min()
    .groupby(["problem_n", "solver"])
    .median()
    .unstack()
)
rungs = spirals.groupby("problem_n").agg(
    draws=("seed", "nunique"), limit=("limits_time_limit", "max")
)
print("ladder, spirals: seconds to a gap of 1e-6, median over draws")
print(in_words(best[shown]))
print("\n" + rungs.T.to_string())
newton = best["bm_newton"]
steps = np.diff(np.log(newton)) / np.diff(np.log(newton.index))
print("\nbm_newton's exponents from one n to the next:", np.round(steps, 1))

swirls = scaling[scaling.problem_name.str.startswith("spiral")]
series = swirls.groupby(["problem_n", "solver"])["t4"].median().unstack()
print("\nscaling, spirals: seconds to a gap of 1e-4, median of three draws")
print(in_words(series[[s for s in shown if s in series]]))
reached = swirls.groupby("solver")["curve"].agg(
    lambda curves: np.median([curve[-1][2] for curve in curves])
)
print(
    "\nmedian gap at the end:",
    {solver: f"{gap:.0e}" for solver, gap in reached.items()},
)
active = pd.read_parquet(
    "data/scaling.parquet",
    columns=["problem_name", "problem_n", "problem_P", "solver", "active_blocks"],
)
active = active[
    active.problem_name.str.startswith("spiral") & (active.solver == "bm_newton")
]
print("blocks, and those that bm_newton has left at its end (median):")
print(
    active.groupby("problem_n")[["problem_P", "active_blocks"]]
    .median()
    .astype(int)
    .T.to_string()
)

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True, layout="constrained")
for axis, times, title in (
    (axes[0], best, "ladder: gap 1e-6"),
    (axes[1], series, "scaling: gap 1e-4"),
):
    for solver in shown:
        if solver in times:
            line = times[solver].replace(np.inf, np.nan).dropna()
            look = cnn.solver_style(solver)
            axis.loglog(line.index, line, **look, markersize=8, label=solver)
    axis.set_xlabel("n (all P = 2 n patterns, three outputs)", fontsize=12)
    axis.set_title(title, fontsize=13)
    axis.set_xticks(times.index, [str(n) for n in times.index])
    axis.set_xticks([], minor=True)
axes[0].set_ylabel("seconds to the certified gap", fontsize=12)
figure.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=4,
    frameon=False,
    fontsize=12,
)
plt.show()

# %% [markdown]
# What the ladder shows, at a gap of 1e-6: on the two small spirals the exact solvers (semismooth Newton, Clarabel, SCS) and
# `bm_newton` are within a factor of about two of each other, Clarabel first or level with the first; the first-order methods
# shown are some ten times slower, and two of them do not arrive at n = 150. From n = 600 on only the two Newton methods
# arrive, and `bm_newton` is ahead. Clarabel and SCS were not run there: they have two points, which is no line. The
# steepest piece is `bm_newton`'s own last one: from n = 1500 to 6000, four times the samples, it takes nearly thirty times as
# long, far more than on the pieces before. Both rungs are a single draw, so that the records do not tell how usual the jump is;
# semismooth Newton does not arrive at n = 6000 at all.
#
# The `scaling` campaign has five sizes, three draws each, for every solver, but ends at n = 480. There `bm_newton` begins
# behind semismooth Newton, Clarabel and SCS and ends as the quickest, while the number of blocks that it has left grows much
# less than that of all blocks. Clarabel and SCS are stopped by their own tolerance and end far below the gap that is asked
# for, so that their times are upper bounds on what they would need.
#
# ## The map
#
# Teacher problems over samples $n$, blocks $P$ and outputs $c$: the time of the best *exact* solver (Clarabel, SCS,
# semismooth Newton, FISTA) over that of the best Burer-Monteiro solver, to a gap of 1e-6, where both got there within the
# limit that the records state (printed above); a letter where only one did. One draw of every problem.

# %% tags=["hide-input"]
mapped["kind"] = np.where(mapped.formulation == "burer_monteiro", "bm", "exact")
race = (
    mapped.groupby(["problem_c", "problem_n", "problem_P", "kind"])["t6"]
    .min()
    .unstack()
)
# orange: the convex program is faster; blue: Burer-Monteiro is
sides = LinearSegmentedColormap.from_list("sides", ["C1", "white", "C0"])
figure, axes = plt.subplots(3, 1, figsize=(7, 10), sharex=True, layout="constrained")
for axis, c in zip(axes, (1, 3, 10), strict=True):
    part = race.loc[c]
    bm, exact = part["bm"].unstack(), part["exact"].unstack()
    ratio = np.log10((exact / bm).where(np.isfinite(exact) & np.isfinite(bm)))
    picture = axis.imshow(
        ratio, cmap=sides, vmin=-1.2, vmax=1.2, aspect="auto", origin="lower"
    )
    axis.grid(False)
    for i in range(bm.shape[0]):
        for j in range(bm.shape[1]):
            b, e = bm.iloc[i, j], exact.iloc[i, j]
            both = np.isfinite(b) and np.isfinite(e)
            text = (
                f"{e / b:.1f}x"
                if both
                else "B"
                if np.isfinite(b)
                else "E"
                if np.isfinite(e)
                else "-"
            )
            axis.text(j, i, text, ha="center", va="center", fontsize=13)
    axis.set_xticks(range(bm.shape[1]), [int(v) for v in bm.columns])
    axis.set_yticks(range(bm.shape[0]), [int(v) for v in bm.index])
    axis.set_ylabel("samples n")
    axis.set_title(f"{c} output{'s' if c > 1 else ''}")
axes[-1].set_xlabel("blocks P")
figure.colorbar(picture, ax=axes, label="log10 (exact / Burer-Monteiro)")
plt.show()
bm, exact = race["bm"], race["exact"]
either, both = np.isfinite(race.min(axis=1)), np.isfinite(race.max(axis=1))
quotient = (exact / bm)[both]
print(
    f"{len(race)} problems, time limit {mapped['limits_time_limit'].max():g} s, "
    f"{(~either).sum()} reached by nobody (-)"
)
print(
    "only Burer-Monteiro got there (B): "
    f"{(np.isfinite(bm) & ~np.isfinite(exact)).sum()}"
)
print(
    "only an exact solver got there (E): "
    f"{(~np.isfinite(bm) & np.isfinite(exact)).sum()}"
)
print(
    f"both: {both.sum()}, Burer-Monteiro ahead on {(quotient > 1).sum()}, exact over "
    f"Burer-Monteiro {quotient.min():.2f} to {quotient.max():.2f}"
)
print(
    f"ahead by a factor above 1.25: Burer-Monteiro {(quotient > 1.25).sum()}, exact "
    f"{(quotient < 0.8).sum()}"
)
quickest = (
    mapped.groupby(["problem_c", "problem_n", "problem_P", "solver"])["t6"]
    .min()
    .unstack()[either]
    .idxmin(axis=1)
)
print("quickest solver:", quickest.value_counts().to_dict())

# %% [markdown]
# So there is no general answer. Where both get there they are within a factor of four, and the exact solvers (semismooth Newton
# and FISTA, never a conic one) are ahead more often. With ten outputs and 30 gates FISTA on the convex program is the quickest
# for every n. All this is one draw for each problem, and ratios near one say nothing. The case for Burer-Monteiro is the
# first figure: many patterns, few of them active.
#
# ## Exponents
#
# The `scaling` campaign lets one size grow at a time, four or five values of it. Slopes of the logarithms, least squares over
# medians of three draws, with the 95 % interval of Student's distribution (two or three degrees of freedom). It is that of a
# straight line with independent scatter; where times bend, as with fixed costs at small sizes, it is wide for that reason.
# The second table is of every solver's time *over that of* `bm_newton` on the same problems: what makes a problem hard for all
# cancels. A star marks an interval that excludes zero.

# %%
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182}  # 97.5 % points


def exponent(times):
    """Slope of log(time) over log(size), and half the width of its 95 % interval."""
    x, y = np.log(times.index.to_numpy(float)), np.log(times.to_numpy())
    x = x - x.mean()
    slope = x @ y / (x @ x)
    left = y - y.mean() - slope * x
    return slope, STUDENT[len(x) - 2] * np.sqrt(left @ left / (len(x) - 2) / (x @ x))


families = {
    "n": "teacher\\[d=20,n=.*patterns=50",
    "d": "teacher\\[d=.*n=500,patterns=50",
    "P": "teacher\\[d=20,n=500,patterns",
    "spiral n": "spiral",
}
own, over, quick = {}, {}, {}
for name, pattern in families.items():
    family = scaling[scaling.problem_name.str.match(pattern)]
    size = f"problem_{name[-1]}"
    medians = family.groupby([size, "solver"])["t4"].median().unstack()
    medians = medians.loc[:, np.isfinite(medians).all()]
    own[name], over[name] = {}, {}
    for solver in medians:
        slope, half = exponent(medians[solver])
        own[name][solver] = f"{slope:5.2f} +-{half:4.2f}"
        slope, half = exponent(medians[solver] / medians["bm_newton"])
        star = "*" if abs(slope) > half else " "
        over[name][solver] = (
            "-" if solver == "bm_newton" else f"{slope:+5.2f} +-{half:4.2f}{star}"
        )
    races = family.groupby([size, "seed", "solver"])["t4"].min().unstack()
    quick[name] = races.idxmin(axis=1).value_counts()
print("exponent of the time\n" + pd.DataFrame(own).to_string())
print("\nexponent of the time over bm_newton's\n" + pd.DataFrame(over).to_string())
print(
    "\nquickest, of all draws\n" + pd.DataFrame(quick).fillna(0).astype(int).to_string()
)

# %% [markdown]
# **What can be told apart.** On the spirals `bm_newton` grows the slowest: every other solver's exponent is larger, with an
# interval that excludes zero. The intervals of the others overlap, so that the table does not rank them. On the teacher
# problems `bm_newton` and semismooth Newton cannot be told apart in any of the three sizes; semismooth Newton is the quickest
# on most draws there, but no exponent shows that it grows slower. What else can be said of them is that Clarabel grows faster
# than `bm_newton` in n, SCS in d, and SCS, FISTA and `bm_lbfgs` in P. The rest is open: an exponent from four or five sizes
# has an interval as wide as the differences that one would like to see. Of twenty intervals at 95 per cent one on average
# excludes zero by chance, so that no single star near its edge should be relied on. None of this reaches beyond the sizes
# that were run: the ladder's last rung is not on the line of the smaller spirals.
#
# %% [markdown]
# ## Exercises
#
# 1. Make the first table for a gap of 1e-2. Who wins now, and why?
# 2. Which fraction of its time did Clarabel spend in set-up (compiling) in the ladder? Use `setup_seconds`.
# 3. Run `convexnn-bench run scaling` on your machine and compare the exponents. Which of them should not depend on it?
#
# <details><summary>Solutions</summary>
#
# 1. At n = 45 semismooth Newton, Clarabel and SCS are level at 0.05 s. At n = 150 SCS is first (0.12 s, Clarabel 0.13 s,
#    semismooth Newton 0.14 s, `bm_newton` 0.20 s); from n = 600 on it is `bm_newton` (0.20 s and 0.51 s against 0.31 s and
#    1.23 s; alone at n = 6000, 9.5 s). SCS gains the most, being quick to low accuracy and slow to high, and the first-order
#    methods that did not arrive at 1e-6 do so now, late. The Newton methods change less.
# 2. `setup_seconds / (setup_seconds + solve_seconds)` is, over draws and tolerances, 40 to 53 per cent on the spiral with n =
#    45, 19 to 29 on that with n = 150, 23 to 34 on the teacher with 500 samples of 20 features, and 53 to 66 on the ReLU
#    teacher, where every block has a cone. So it is no small part of any of them; larger problems were not given to Clarabel.
# 3. None of seconds, exactly. The number of steps depends on data, start and tolerance only, up to rounding: its exponent is
#    that of any machine. The seconds of a step are not: fixed costs of a call flatten small sizes, caches steepen large ones.
#    The two are mixed in the table. FISTA's time in n goes 0.15, 0.11, 0.10, 0.13, 0.20 s while n grows sixteenfold, an
#    exponent of 0.09 +- 0.41, although a step reads all of the data: fixed costs, or fewer steps at larger n, and these
#    records cannot tell which.
# </details>
