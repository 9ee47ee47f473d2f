# %% [markdown]
# # 12 How many weight decays have to be solved to know all of them?
#
# **The question.** Nobody knows the right weight decay in advance, and so one trains for a grid of them. What holds between the
# points of the grid? For a convex program there is an answer: the optimum $p^*(\beta) = \min_Z F(A(Z)) + \beta R(Z)$ is a minimum
# of functions that are linear in $\beta$, and therefore concave. A solve at one weight decay bounds the optimum at *all* of them
# from above, by the line of its network, and two solves bound everything between them from below, by the chord of their proven
# bounds.
#
# The data are two noisy half moons: 120 points train a gated network with 40 random gates and logistic loss, and 2000 others
# test it.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

import convexnn_bench as cnn

plt.rcParams.update(cnn.style())
BLUE, ORANGE, GREEN, PINK = "C0", "C1", "C2", "C3"


def moons(n, seed):
    """Return n points of two half moons with a constant feature, and their labels."""
    X, y = make_moons(n, noise=0.3, random_state=seed)
    return np.column_stack([X, np.ones(n)]), np.where(y == 1, "inner", "outer")


X, y = moons(120, seed=0)
X_test, y_test = moons(2000, seed=1)
problem = cnn.Problem(X, y, loss="logistic", beta=1.0, patterns=40)
print(f"{problem.P} gates, beta_max = {problem.beta_max:.4g}")

# %% [markdown]
# ## The enclosure closes
#
# `cnn.path` first halves the weight decay ten times, from `beta_max` down. Then it solves where the enclosure is widest, until the
# relative width is below the tolerance at every weight decay.

# %%
TOLERANCES = (0.1, 0.01, 0.003, 0.001, 0.0003)
paths = {
    tolerance: cnn.path(problem, 1e-3, tolerance, "bm_newton")
    for tolerance in TOLERANCES
}
finest = paths[TOLERANCES[-1]]
for tolerance, path in paths.items():
    print(
        f"tolerance {tolerance:6}: {len(path.results):2} certified networks, "
        f"largest gap at any weight decay {path.gap:.1e}"
    )

# %%
grid = np.geomspace(*finest.interval, 400)
optimum = np.array([finest.enclosure(beta)[1] for beta in grid])


def bounds_from(places):
    """Return chord and least line over the grid, from some networks of the path."""
    betas, proven = finest.betas[places], finest.bounds[places]
    lines = []
    for place, beta in zip(places, betas, strict=True):
        here, twice = (
            problem.with_beta(value).objective(finest.results[place].blocks)
            for value in (beta, 2 * beta)
        )
        lines.append(here + (grid - beta) * (twice - here) / beta)
    return np.interp(grid, betas[::-1], proven[::-1]), np.min(lines, axis=0)


figure, axes = plt.subplots(1, 4, figsize=(11, 3.1), width_ratios=[1, 1, 1, 1.1])
for axis, count in zip(axes, (2, 3, 6), strict=False):
    places = np.linspace(0, len(finest.results) - 1, count).astype(int)
    low, high = bounds_from(places)
    axis.fill_between(
        grid / problem.beta_max, low / optimum, high / optimum, color=ORANGE, alpha=0.5
    )
    solved = finest.betas[places] / problem.beta_max
    axis.plot(solved, np.ones(count), "o", color=GREEN, markersize=4)
    axis.set(
        xscale="log",
        ylim=(0.2, 2.2),
        title=f"{count} networks",
        xlabel=r"$\beta / \beta_{\max}$",
    )
axes[0].set_ylabel("bounds / optimum")
counts = [len(paths[tolerance].results) for tolerance in TOLERANCES]
axes[3].loglog(TOLERANCES, counts, "o-", color=GREEN)
slope = counts[-1] * (np.array(TOLERANCES) / TOLERANCES[-1]) ** -0.5
axes[3].loglog(TOLERANCES, slope, ":", color="0.5", label=r"tolerance$^{-1/2}$")
axes[3].set(xlabel="largest gap anywhere", title="certified networks", ylim=(5, 100))
axes[3].set_yticks([10, 20, 50], ["10", "20", "50"])
axes[3].minorticks_off()
axes[3].legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# The enclosure (orange) is drawn relative to the optimum. Green points are the weight decays of certified networks. The theory of
# sandwich algorithms says that the number of solves grows like tolerance$^{-1/2}$, which is the dotted line. A mixture of two
# neighbouring networks, and of their multipliers, is often good enough that no solve is needed.
#
# ## Neurons enter one after another
#
# Between the solved weight decays `path.at` returns a certified network without solving anything.

# %%
between = np.geomspace(*finest.interval, 60)[::-1]
results = [finest.at(beta) for beta in between]
sizes = np.array(
    [np.linalg.norm(result.blocks.reshape(problem.P, -1), axis=1) for result in results]
)
print(
    f"largest gap of these {len(results)} networks: {max(r.gap for r in results):.1e}"
)

figure, axis = plt.subplots(figsize=(6.5, 3.2))
shown = sizes.max(axis=0) > 1e-3 * sizes.max()
order = np.argsort(-(sizes > 1e-3 * sizes.max()).sum(axis=0))
for place, gate in enumerate(order[: shown.sum()]):
    shade = plt.cm.Blues(0.95 - 0.6 * place / max(shown.sum() - 1, 1))
    axis.plot(between / problem.beta_max, sizes[:, gate], color=shade, linewidth=1.3)
axis.invert_xaxis()
axis.set(
    xscale="log",
    xlabel=r"weight decay $\beta / \beta_{\max}$ (smaller to the right)",
    ylabel=r"size of a gate's block $\|Z_k\|$",
    title=f"{shown.sum()} of {problem.P} gates are used somewhere on the path",
)
figure.tight_layout()

# %% [markdown]
# ## Training error, test error, and the weight decay that cross-validation takes
#
# The training objective is enclosed everywhere. The test error is not: it is known where a network is, and no bound on the
# objective says anything about it elsewhere. `ConvexMLPClassifierCV` therefore scores networks that it has solved for, one
# warm-started path a fold.

# %%
model = cnn.ConvexMLPClassifierCV(
    betas=12,
    cv=5,
    loss="logistic",
    patterns=40,
    fit_intercept=False,
    solver="bm_newton",
    gap=1e-3,
    random_state=0,
)
model.fit(X, y)
curve = model.cv_results_
least = (
    curve["mean_test_score"].max()
    - curve["standard_error"][curve["mean_test_score"].argmax()]
)
careful = curve["beta_fraction"][curve["mean_test_score"] >= least].max()
print(
    f"best mean score at {model.beta_fraction_:.3g} beta_max, "
    f"certified gap {model.certificate_.gap:.1e}"
)
print(f"largest weight decay within one standard error: {careful:.3g} beta_max")


def errors(result):
    """Return the share of wrong labels on training and on test data."""
    pairs = ((X, y), (X_test, y_test))
    return [
        np.mean(result.predict_labels(inputs) != labels) for inputs, labels in pairs
    ]


wrong = np.array([errors(result) for result in finest.results])
figure, axis = plt.subplots(figsize=(6.5, 3.4))
fractions = finest.betas / problem.beta_max
axis.plot(fractions, wrong[:, 0], "o-", color=BLUE, markersize=3, label="training")
axis.plot(fractions, wrong[:, 1], "o-", color=PINK, markersize=3, label="test")
axis.errorbar(
    curve["beta_fraction"],
    1 - curve["mean_test_score"],
    curve["standard_error"],
    fmt="s",
    color=GREEN,
    markersize=4,
    capsize=2,
    label="five folds, mean and standard error",
)
axis.axvline(model.beta_fraction_, color=GREEN, linewidth=1)
axis.axvline(careful, color=GREEN, linewidth=1, linestyle="--")
axis.invert_xaxis()
axis.set(
    xscale="log",
    ylim=(0, 0.36),
    xlabel=r"weight decay $\beta / \beta_{\max}$ (smaller to the right)",
    ylabel="share of wrong labels",
)
axis.legend(frameon=False, loc="upper right")
figure.tight_layout()

# %% [markdown]
# The full line is the weight decay with the best mean score, the dashed one the largest within one standard error of it
# (`selection="one_standard_error"`).
#
# ## Exercises
#
# 1. Compare `finest.enclosure(beta)` with `cnn.solve(problem.with_beta(beta), gap=1e-9)` at a weight decay of your choice.
# 2. The networks of a path are not exact optima. Why do their lines and chords still enclose the optimum, and how narrow can the
#    enclosure become?
# 3. Choose the weight decay with `selection="one_standard_error"`. Which one is it, and why may one prefer it?
#
# <details><summary>Solutions</summary>
#
# 1. The objective lies in the enclosure up to its own gap of 1e-9. The enclosure has a relative width of at most 3e-4 there, as
#    at every weight decay.
# 2. The line of any network is above the optimum, because that is a minimum over all of them. The chord connects proven lower
#    bounds. At a weight decay with a network the enclosure is as wide as the gap of its certificate, so that `cnn.path` solves
#    to a fifth of the tolerance.
# 3. It is 0.081 of `beta_max`, the dashed line. Its network is the simplest one whose mean score cannot be told from the best
#    one by five folds.
# </details>
