# %% [markdown]
# # 02 Activation patterns and cells
#
# **The question.** Where do the finitely many blocks of the convex program come from? A ReLU network has infinitely many
# possible neurons. But on $n$ samples a neuron $u$ does one of finitely many things: it is active on some samples and
# inactive on the others. That choice is its **activation pattern**, $1\{Xu \ge 0\} \in \{0,1\}^n$.

# %%
import matplotlib.pyplot as plt
import numpy as np

import convexnn_bench as cnn

plt.rcParams.update(cnn.style())

draw = np.random.default_rng(1)
X = draw.standard_normal((5, 2))
patterns = cnn.enumerate_patterns(X)
print(patterns.summary())

# %% [markdown]
# Every sample $x_i$ cuts the plane of weights along the line $x_i^T u = 0$. Between the lines lie **cells**: all neurons
# of a cell have the same pattern. Five lines through the origin make ten sectors.

# %% tags=["hide-input"]
angles = np.linspace(-np.pi, np.pi, 1441)
directions = np.stack([np.cos(angles), np.sin(angles)])
seen = X @ directions >= 0
names = {mask.tobytes(): k for k, mask in enumerate(patterns.masks.T)}
cell = [names.get(mask.tobytes(), -1) for mask in seen.T]

figure, axes = plt.subplots(1, 2, figsize=(11, 5.6), layout="constrained")
axis = axes[0]
colours = plt.get_cmap("tab10")
for k in range(patterns.masks.shape[1]):
    centre = np.arctan2(patterns.gates[1, k], patterns.gates[0, k])
    inside = angles[np.array(cell) == k]
    wedge = centre + np.sort((inside - centre + np.pi) % (2 * np.pi) - np.pi)
    axis.fill(
        np.r_[0, np.cos(wedge)], np.r_[0, np.sin(wedge)], color=colours(k), alpha=0.35
    )
    name = "".join(map(str, patterns.masks[:, k].astype(int)))
    narrow = np.ptp(wedge) < 0.4  # then the name is written along the radius
    turn = np.degrees((wedge.mean() + np.pi / 2) % np.pi - np.pi / 2) if narrow else 0
    place = (0.78 if narrow else 0.7) * np.array(
        [np.cos(wedge.mean()), np.sin(wedge.mean())]
    )
    axis.text(*place, name, ha="center", va="center", fontsize=11, rotation=turn)
ends = (1, 1, 1, 1, -1)  # at which end of its line each name stands
for number, (x, end) in enumerate(zip(X, ends, strict=True)):
    line = np.array([-x[1], x[0]]) / np.linalg.norm(x)
    axis.plot(*np.stack([-line, line], axis=1), color="black", linewidth=1)
    axis.annotate(
        f"$x_{number + 1}^Tu=0$",
        1.25 * end * line,
        ha="center",
        va="center",
        fontsize=12,
    )
axis.set_xlim(-1.5, 1.5)
axis.set_ylim(-1.4, 1.4)
axis.set_aspect("equal")
axis.set_axis_off()
axis.set_title("cells of neurons and their patterns")
axis = axes[1]
axis.grid(False)
axis.imshow(patterns.masks.T, cmap="Greys", aspect="auto")
axis.set_xticks(range(5), [f"$x_{i + 1}$" for i in range(5)], fontsize=12)
axis.set_yticks(
    range(10),
    ["".join(map(str, mask.astype(int))) for mask in patterns.masks.T],
    fontsize=11,
)
axis.set_title("the ten patterns (black: active)")
plt.show()

# %% [markdown]
# ## How many are there?
#
# For $N$ rows of rank $r$ in general position (Cover, 1965)
#
# $$P = 2 \sum_{k=0}^{r-1} \binom{N-1}{k},$$
#
# which grows like $N^{r-1}$: polynomial in the number of samples for a fixed dimension, exponential in the dimension. The
# enumeration of the package is compared with the formula, and with brute force: a million random neurons, their
# different patterns counted.

# %%
print(" N  r  formula  enumerated  found by 10^6 random neurons")
for N, r in ((5, 2), (8, 2), (8, 3), (10, 3), (8, 4), (9, 5)):
    Phi = draw.standard_normal((N, r))
    found = cnn.enumerate_patterns(Phi).masks.shape[1]
    codes = (Phi @ draw.standard_normal((r, 10**6)) >= 0).T @ (1 << np.arange(N))
    brute = len(np.unique(codes))
    # the pattern without an active sample contributes nothing; the enumeration omits it
    print(f"{N:2d} {r:2d} {cnn.count_patterns(N, r):8d} {found:11d} {brute:8d}")

# %% [markdown]
# (The enumeration leaves out the pattern without any active sample where it occurs; the random neurons may miss a thin
# cell, but never find one that does not exist.)
#
# ## A bias moves the lines
#
# With a bias $b$ the data are $(x_i, 1)$ and the cells live in three dimensions. The slice at a fixed bias, here
# $b = 0.6$, can be drawn: the lines $x_i^T u + b = 0$ do not pass through the origin, and there are bounded cells between them.

# %% tags=["hide-input"]
bias, reach = 0.6, 4
side = np.linspace(-reach, reach, 801)
grid = np.stack(np.meshgrid(side, side), axis=0).reshape(2, -1)
codes = (X @ grid + bias >= 0).T @ (1 << np.arange(5))
figure, axis = plt.subplots(figsize=(5.4, 5.2))
axis.grid(False)
axis.imshow(
    np.unique(codes, return_inverse=True)[1].reshape(801, 801),
    origin="lower", extent=(-reach, reach, -reach, reach),
    cmap="tab20", alpha=0.6, interpolation="nearest",
)  # fmt: skip
heights = (X @ grid + bias).reshape(5, 801, 801)
for height in heights:
    axis.contour(side, side, height, levels=[0], colors="black", linewidths=0.8)
axis.contour(side, side, heights.min(axis=0), levels=[0], colors="black", linewidths=3)
axis.text(0.6, 0.1, "11111", ha="center", va="center", fontsize=11)
axis.set_xlabel("$u_1$")
axis.set_ylabel("$u_2$")
axis.set_title(f"{len(np.unique(codes))} cells at bias {bias}")
plt.show()
print(
    "cells of 5 lines in the plane, no two parallel, no three through one point: "
    f"{1 + 5 + 10}"
)
print(f"patterns in three dimensions, by the formula: {cnn.count_patterns(5, 3)}")
print(
    "enumerated with a bias:",
    cnn.enumerate_patterns(np.hstack([X, np.ones((5, 1))])).summary(),
)

# %% [markdown]
# How these numbers belong together: five lines in general position cut the plane into 16 cells, and each of them has a part
# in this window. At a negative bias there are 16 cells again, with the opposite patterns. The unbounded cells, ten of
# them, occur at both signs (far out the bias does not matter: they are the ten sectors of the first picture), so there are
# $16 + 16 - 10 = 22$ patterns in all, as the formula says. One of them is the pattern without an active sample, the
# opposite of the cell outlined above where all five are active. It is left out: 21.

# %% [markdown]
# ## Sampling instead
#
# Where all patterns are too many one takes some: those of random directions. The convex program on a sample of patterns is
# the training problem of a network with those gates. Its optimum can only fall when patterns are added.

# %% tags=["hide-input"]
full = cnn.make_problem("spiral", n=30, beta_fraction=0.02)
optimum = cnn.solve(full, "bm_newton", gap=1e-8).objective
counts, values = (2, 5, 10, 20, 40, full.P), []
for P in counts:
    chosen = full.masks[:, np.random.default_rng(0).permutation(full.P)[:P]]
    part = cnn.Problem(
        full.X,
        full.Y,
        activation="gated_relu",
        loss="squared",
        beta=full.beta,
        patterns=chosen,
    )
    values.append(cnn.solve(part, "bm_newton", gap=1e-8).objective)
figure, axis = plt.subplots(figsize=(5, 3.2))
axis.plot(counts, values, "o-")
axis.axhline(optimum, color="0.4", linestyle=":")
axis.annotate(
    "all patterns", (counts[0], optimum), (0, 4), textcoords="offset points", fontsize=9
)
axis.set_xlabel("patterns")
axis.set_ylabel("optimum")
axis.set_xscale("log")
axis.set_xticks(counts, [str(P) for P in counts])
axis.set_xticks([], minor=True)
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. Put two samples on one line through the origin (`X[1] = 2 * X[0]`, then `X[1] = -X[0]`). How many patterns are left,
#    and why does the formula only give an upper bound then?
# 2. How many patterns do 100 samples have in two, three and ten dimensions? Use `cnn.count_patterns`, and
#    `cnn.enumeration_cost` for what an enumeration would take.
# 3. In which cell of the first picture does a neuron lie that is active on all samples? When is there none? And with a
#    bias?
#
# <details><summary>Solutions</summary>
#
# 1. In both cases the two samples have one line in common, so there are four distinct lines and eight cells. With
#    `X[1] = -X[0]` the enumeration gives 8. With `X[1] = 2 * X[0]` it gives 7: all samples now lie in one open half-plane, so
#    that one of the eight cells has the pattern 11111 and the opposite one has 00000, which is left out. The formula asks for
#    general position; every coincidence removes cells.
# 2. 200, 9902 and about $3.8 \cdot 10^{12}$; the last cannot be enumerated, and `cnn.Problem(..., patterns="all")` says so.
# 3. None here. There is a cell 11111 if and only if all samples lie in one open half-plane, and these five do not. With a bias
#    there always is one: $u = 0$ with a positive bias is active on every sample.
# </details>
