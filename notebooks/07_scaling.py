# %% [markdown]
# # 07 When does Burer-Monteiro beat the exact program?
#
# **The question.** The convex program can be solved exactly. When is it worth factorising? Nothing is solved in this notebook:
# it reads the records of three campaigns, `ladder`, `map` and `scaling`, which ship beside it. How they were measured, and
# with which commit, is on the benchmarks page; `convexnn-bench run ladder` and so on repeats them on your machine.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

columns = ["problem_name", "solver", "formulation", "seed", "status", "gap", "setup_seconds", "solve_seconds", "curve"]
sizes = ["problem_n", "problem_d", "problem_c", "problem_P"]
ladder, mapped, scaling = (
    pd.read_parquet(f"data/{name}.parquet", columns=columns + sizes) for name in ("ladder", "map", "scaling")
)
for name, table in (("ladder", ladder), ("map", mapped), ("scaling", scaling)):
    print(
        f"{name:8s} {len(table):4d} cells, {table['solver'].nunique():2d} solvers, {table['status'].value_counts().to_dict()}"
    )

# %% [markdown]
# ## Time to a certified gap
#
# Every record holds its curve: seconds, objective, certified gap. The time to a gap is that of the first point at or below
# it, set-up included; infinite where there is none. Time limits differ (4, 15 and 60 s in the ladder): "not reached" says
# no more than that.


# %%
def seconds_to(record, gap):
    """Set-up + solve to the first point at or below the gap."""
    points = [point[0] for point in record.curve if point[2] <= gap]
    offset = 0.0 if np.isnan(record.setup_seconds) else record.setup_seconds
    return offset + points[0] if points else np.inf


for table in (ladder, mapped, scaling):
    table["t6"] = table.apply(seconds_to, axis=1, gap=1e-6)
    table["t4"] = table.apply(seconds_to, axis=1, gap=1e-4)

shown = ["bm_newton", "semismooth_newton", "cvxpy_clarabel", "fista", "bm_lbfgs", "network_lbfgs"]
spirals = ladder[ladder.problem_name.str.startswith("spiral")]
# the quickest tolerance of a one-shot solver, then the median over draws
best = spirals.groupby(["problem_n", "seed", "solver"])["t6"].min().groupby(["problem_n", "solver"]).median().unstack()
print(best[[s for s in shown if s in best]].round(2).to_string())

# %%
styles = dict(zip(shown, ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"], strict=True))
figure, axis = plt.subplots(figsize=(6.4, 4.2))
for solver, marker in zip(shown, "osD^vx", strict=True):
    if solver in best:
        line = best[solver].replace(np.inf, np.nan).dropna()
        axis.loglog(line.index, line, marker=marker, color=styles[solver], label=solver)
axis.set_xlabel("n (all P = 2 n patterns, three outputs)")
axis.set_ylabel("seconds to a certified gap of 1e-6")
axis.grid(True, color="#dddddd")
axis.legend(frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# On small spirals everybody is quick, and the exact solvers are the quickest. The lines of the interior-point method and of
# first-order methods are steeper: `bm_newton` carries only the blocks that are not zero.
#
# ## The map
#
# Teacher problems over samples $n$, blocks $P$ and outputs $c$: the time of the best *exact* solver (Clarabel, SCS,
# semismooth Newton, FISTA) over that of the best Burer-Monteiro solver, to a gap of 1e-6, where both got there in ten
# seconds; a letter where only one did.

# %%
mapped["kind"] = np.where(mapped.formulation == "burer_monteiro", "bm", "exact")
race = mapped.groupby(["problem_c", "problem_n", "problem_P", "kind"])["t6"].min().unstack()
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
for axis, c in zip(axes, (1, 3, 10), strict=True):
    part = race.loc[c]
    bm, exact = part["bm"].unstack(), part["exact"].unstack()
    ratio = np.log10((exact / bm).where(np.isfinite(exact) & np.isfinite(bm)))
    picture = axis.imshow(ratio, cmap="PuOr", vmin=-1.2, vmax=1.2, aspect="auto", origin="lower")
    for i in range(bm.shape[0]):
        for j in range(bm.shape[1]):
            b, e = bm.iloc[i, j], exact.iloc[i, j]
            both = np.isfinite(b) and np.isfinite(e)
            text = f"{e / b:.1f}x" if both else "B" if np.isfinite(b) else "E" if np.isfinite(e) else "-"
            axis.text(j, i, text, ha="center", va="center", fontsize=9)
    axis.set_xticks(range(bm.shape[1]), [int(v) for v in bm.columns])
    axis.set_yticks(range(bm.shape[0]), [int(v) for v in bm.index])
    axis.set_xlabel("blocks P")
    axis.set_title(f"{c} output{'s' if c > 1 else ''}")
axes[0].set_ylabel("samples n")
figure.colorbar(picture, ax=axes, label="log10 (exact / Burer-Monteiro)")
plt.show()
won = (race["bm"] < race["exact"]).sum()
print(
    f"Burer-Monteiro is ahead on {won} of {len(race)} problems; B: only it got there, E: only an exact solver, -: neither"
)

# %% [markdown]
# So there is no general answer. Where both get there they are within a factor of three or so, and the exact solvers (mostly
# semismooth Newton and FISTA) are ahead more often. Where many blocks are active, with few gates and many outputs, FISTA on
# the convex program is hard to beat. The case for Burer-Monteiro is the first figure: many patterns, few of them active.
#
# ## Exponents
#
# The `scaling` campaign lets one size grow at a time. Slopes of the logarithms, least squares over medians of three draws:

# %%
families = {
    "n": "teacher\\[d=20,n=.*patterns=50",
    "d": "teacher\\[d=.*n=500,patterns=50",
    "P": "teacher\\[d=20,n=500,patterns",
}
rows = {}
for size, pattern in families.items():
    family = scaling[scaling.problem_name.str.match(pattern)]
    medians = family.groupby([f"problem_{size}", "solver"])["t4"].median().unstack()
    rows[size] = {
        solver: np.polyfit(np.log(medians.index), np.log(medians[solver]), 1)[0]
        for solver in medians
        if np.isfinite(medians[solver]).all() and len(medians) >= 4
    }
print(pd.DataFrame(rows).round(2).to_string())

# %% [markdown]
# ## Exercises
#
# 1. Make the first figure for a gap of 1e-2. Who wins now, and why?
# 2. Which fraction of its time did Clarabel spend in set-up (compiling)? Use `setup_seconds`.
# 3. Run `convexnn-bench run scaling` on your machine and compare the exponents. Which of them should not depend on it?
#
# <details><summary>Solutions</summary>
#
# 1. First-order methods and SCS come closer: they are quick to low accuracy and slow to high.
# 2. `ladder[ladder.solver == "cvxpy_clarabel"]` has both; on the larger problems it is a small part, since the dual form is
#    built directly.
# 3. None exactly; those of well-converged methods (bm_newton, Clarabel) least, since they count operations; those of
#    first-order methods mix the cost of a step with the number of steps, which depends on the data only.
# </details>
