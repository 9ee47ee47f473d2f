# %% [markdown]
# # 05 True ReLU
#
# **The question.** So far the gates were fixed. In a real ReLU network every neuron chooses its own activation pattern,
# $(Xu)_+ = D X u$ with $D = \mathrm{diag}(1\{Xu \ge 0\})$. What does that add to the convex program? A **cone** for every
# pattern: block $k$ may only be used by neurons whose pattern really is $D_k$, that is $K_k u \ge 0$ with $K_k = (2D_k - I)X$.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import convexnn_bench as cnn

plt.rcParams.update(cnn.style())

relu = cnn.make_problem(
    "spiral", n=60, targets="binary", activation="relu", beta_fraction=0.02
)
gated = cnn.Problem(
    relu.X,
    relu.Y,
    activation="gated_relu",
    loss="squared",
    beta=relu.beta,
    patterns=relu.masks,
)
exact = cnn.solve(relu, "cvxpy_clarabel")
print(
    f"{relu.P} patterns; optimum with gates "
    f"{cnn.solve(gated, 'bm_newton').objective:.5f}, with ReLU {exact.objective:.5f}"
)

# %% [markdown]
# The gated optimum is lower: it is the same program without the cones. With one output the norm of a ReLU block is
# $\min\{\|a\| + \|b\| : Z_k = a - b,\; K_k a \ge 0,\; K_k b \ge 0\}$: neurons with a positive and neurons with a negative
# output weight, all in the cone.
#
# ## The optimal network
#
# The map from the convex program back to a network turns every $a$ and $b$ into a neuron. The result *is* a ReLU network,
# and no ReLU network of any width has a smaller training objective.


# %%
def distinct(W1, W2):
    """Merge parallel neurons whose output weights have the same sign.

    Return (u, sign), with u as long as its output weight.
    """
    size = np.linalg.norm(W1, axis=0) * np.linalg.norm(W2, axis=0)
    kept = size > 1e-4 * size.max()  # an interior-point method leaves dust
    # (X u)_+ v = (X u |v|)_+ sign(v): the whole neuron in one vector
    moved = W1[:, kept] * np.abs(W2[0, kept])
    signs, merged = np.sign(W2[0, kept]), []
    for a, sign in zip(moved.T, signs, strict=True):
        for k, (other, its_sign) in enumerate(merged):
            cosine = a @ other / np.linalg.norm(a) / np.linalg.norm(other)
            if sign == its_sign and cosine > 1 - 1e-9:
                merged[k] = other + a, sign
                break
        else:
            merged.append((a, sign))
    vectors, signs = (np.array(part) for part in zip(*merged, strict=True))
    return (
        kept.sum(),
        (vectors / np.sqrt(np.linalg.norm(vectors, axis=1, keepdims=True))).T,
        signs,
    )


W1, W2 = exact.network
count, neurons, signs = distinct(W1, W2)
print(
    f"{count} columns above 1e-4 of the largest, {len(signs)} neurons once parallel "
    "ones are merged"
)
merged_objective = relu.network_objective(
    neurons, (np.linalg.norm(neurons, axis=0) * signs)[None]
)
print(
    f"objective of the network {relu.network_objective(W1, W2):.5f}, merged "
    f"{merged_objective:.5f}"
)
print(
    f"certified over {exact.certificate.scope} patterns, gap below 1e-6: "
    f"{exact.certificate.gap < 1e-6}"
)
on_a_wall = np.abs(relu.X @ neurons) < 1e-6 * np.linalg.norm(neurons, axis=0)
print(
    "distinct neurons that are orthogonal to a sample, that is, on a cell wall:",
    int(on_a_wall.any(axis=0).sum()),
)

side = np.linspace(-1.25, 1.25, 220)
grid = np.stack(np.meshgrid(side, side)).reshape(2, -1).T
output = exact.predict(grid).reshape(220, 220)
figure, axes = plt.subplots(1, 2, figsize=(12, 5.4), layout="constrained")
picture = axes[0].contourf(
    side, side, output, levels=np.linspace(-1.6, 1.6, 17), cmap="RdBu", extend="both"
)
figure.colorbar(
    picture,
    ax=axes[0],
    label="output of the network",
    shrink=0.8,
    ticks=[-1.6, -0.8, 0, 0.8, 1.6],
)
labels = relu.Y[:, 0] > 0
for chosen, marker, colour, name in (
    (labels, "o", "C0", "target +1"),
    (~labels, "s", "C1", "target -1"),
):
    axes[0].scatter(
        *relu.X[chosen].T,
        marker=marker,
        color=colour,
        edgecolor="white",
        s=45,
        label=name,
    )
axes[0].legend(
    loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False, fontsize=12
)
axes[0].set_title("the globally optimal ReLU network", fontsize=13)
axes[0].set_aspect("equal")
limit = 1.2 * np.abs(neurons).max()
for x in relu.X[::6] / np.linalg.norm(relu.X[::6], axis=1, keepdims=True):
    (wall,) = axes[1].plot(
        *np.outer([-x[1], x[0]], [-2 * limit, 2 * limit]),
        color="#bbbbbb",
        linewidth=0.9,
        zorder=0,
    )
wall.set_label("cell walls (every sixth)")
for sign, colour, name in (
    (1, "C0", "output weight > 0"),
    (-1, "C1", "output weight < 0"),
):
    arrows = neurons[:, signs == sign]
    axes[1].quiver(
        *np.zeros_like(arrows), *arrows,
        angles="xy", scale_units="xy", scale=1, color=colour, width=0.009,
    )  # fmt: skip
    axes[1].plot([], [], color=colour, linewidth=3, label=name)
axes[1].legend(
    loc="upper center",
    bbox_to_anchor=(0.5, -0.08),
    ncols=3,
    frameon=False,
    fontsize=10.5,
)
axes[1].set_xlim(-limit, limit)
axes[1].set_ylim(-limit, limit)
axes[1].set_aspect("equal")
axes[1].set_title("its neurons", fontsize=13)
plt.show()

# %% [markdown]
# The program has a block for every cell, and a neuron on the wall between two cells belongs to the cone of both. It may be
# put into one block, into the other, or divided: parallel parts of one output sign add up to the same function at the same
# cost. So the optimal blocks are not unique, and an interior-point method, which stays away from the edges of the set of
# solutions, divides. Counting neurons means merging parallel ones first. Merged in that way the objective is the same.

# %% [markdown]
# ## Against networks trained as usual
#
# Fifteen networks of 40 neurons from random starts, Adam. None can be below the optimum.

# %%
inputs, targets = torch.as_tensor(relu.X), torch.as_tensor(relu.Y)
starts = []
for seed in range(15):
    torch.manual_seed(seed)
    starts.append([0.3 * torch.randn(k, 40, dtype=torch.float64) for k in (2, 1)])
# the fifteen networks are trained side by side
U, V = (torch.stack(layer).requires_grad_() for layer in zip(*starts, strict=True))
adam = torch.optim.Adam([U, V], lr=0.02)
for step in range(1500):
    adam.param_groups[0]["lr"] = 0.02 * 0.998**step
    adam.zero_grad()
    outputs = (inputs @ U).relu() @ V.transpose(1, 2)
    losses = 0.5 * (outputs - targets).square().sum(dim=(1, 2))
    weights = U.square().sum(dim=(1, 2)) + V.square().sum(dim=(1, 2))
    losses = losses + relu.beta / 2 * weights
    losses.sum().backward()
    adam.step()
ends = losses.detach().numpy()
excess = np.sort(ends / exact.certificate.dual - 1)
print("above the optimum, in per cent:", np.round(100 * excess, 2))
print("none below:", bool((excess > -1e-9).all()))

# %% [markdown]
# ## Sampled patterns, and column generation
#
# With sampled patterns the convex program is a restriction: its optimum lies *above* that of the network, and falls as
# patterns are added. **Column generation** starts from none and adds the patterns that the multiplier prices above $\beta$,
# until there is none: then the bound holds over *all* patterns. The patterns that it is left with, of all there are, are
# printed below the figure.

# %% tags=["hide-input"]
counts, values = (5, 10, 20, 40, 80), []
for P in counts:
    part = cnn.make_problem(
        "spiral", n=60, targets="binary", activation="relu", beta=relu.beta, patterns=P
    )
    values.append(cnn.solve(part, "cvxpy_clarabel").objective)
few = cnn.make_problem(
    "spiral", n=60, targets="binary", activation="relu", beta=relu.beta, patterns=5
)
# without a target gap it runs to its own end and says how it ended
generated = cnn.solve(few, "column_generation", gap=None)
figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
axis.semilogx(counts, values, "o-", label="sampled patterns")
axis.axhline(exact.objective, color="black", linestyle=":", label="all patterns")
axis.axhline(generated.objective, color="C1", linewidth=1, label="column generation")
axis.set_xticks(counts, [str(P) for P in counts])
axis.set_xticks([], minor=True)
axis.set_xlabel("patterns")
axis.set_ylabel("optimum")
axis.legend(frameon=False)
plt.show()
print(
    f"column generation {generated.objective:.6f}, all {relu.P} patterns "
    f"{exact.objective:.6f}"
)
print(generated.reason.partition("said: ")[2])

# %% [markdown]
# ## Several outputs: what the relaxation gives
#
# With vector outputs a block's norm is NP-hard in general (not for a fixed small $d$, where the cells and their faces can be
# listed). The conic solvers solve a relaxation, doubly non-negative matrices in place of completely positive ones, and round
# its solution to a network. In the plane every cone has two facets and the relaxation is exact:

# %%
vector = cnn.make_problem("spiral", n=21, activation="relu", beta_fraction=0.05)
planar = cnn.solve(vector, "cvxpy_clarabel").certificate
print(
    f"d = 2: optimum of the three-output network in [{planar.dual:.6f}, "
    f"{planar.primal:.6f}]"
)

# %% [markdown]
# With five features cones have more facets, and it is not. Below are ten samples of noisy data. The relaxation's value is a
# lower bound on the optimum of the network; the rounded point is an upper one. A network problem solved from random starts
# with a certificate over all patterns tells where the optimum is between the two. The certificates here bound the true dual
# norms, by branch and bound; they do not rest on the relaxation.

# %%
draw = np.random.default_rng(0)
samples = draw.standard_normal((10, 5))
teacher = np.maximum(samples @ draw.standard_normal((5, 4)), 0) @ draw.standard_normal(
    (4, 3)
)
noisy = teacher + 3.0 * draw.standard_normal((10, 3))
hard = cnn.Problem(
    samples, noisy, activation="relu", beta_fraction=0.05, patterns="all"
)
relaxed = cnn.solve(hard, "cvxpy_clarabel")
direct = cnn.solve(hard, "network_lbfgs", gap=1e-7)
c = relaxed.certificate
excess = float(relaxed.reason.partition("relative difference ")[2].partition(")")[0])
value = c.primal / (1 + excess)  # how far the rounded point is above the relaxation
print(f"{hard.P} patterns, dual norm by: {c.dual_norm_method}")
print(f"value of the relaxation            {value:.4f}")
print(
    f"optimum, by network and certificate {direct.certificate.dual:.4f} to "
    f"{direct.certificate.primal:.4f}"
)
print(f"relaxation's point, rounded        {c.primal:.4f}")
print(
    "relaxation below the optimum by "
    f"{(direct.certificate.dual - value) / c.primal:.1e}, relative"
)
print(
    "rounded point above it by       "
    f"{(c.primal - direct.certificate.primal) / c.primal:.1e}"
)

# %% [markdown]
# The relaxation is a strict one on these data: its value lies below the optimum by more than the certificate's own width,
# and the point that rounding makes of it is not optimal either. Both differences are small.

# %% [markdown]
# ## Exercises
#
# 1. Why can two neurons of the optimal network not lie in the same cell with output weights of the same sign, unless they are
#    parallel?
# 2. Solve the ReLU problem with `bm_lbfgs` and read `certificate.infeasibility`. What does it measure, and why is a gap
#    refused above a tolerance?
# 3. Repeat the count for `beta_fraction` 0.05, 0.1, 0.2, 0.4 and 0.6. Does the number of neurons fall with $\beta$?
#
# <details><summary>Solutions</summary>
#
# 1. They act on the data like their sum, and $\|a_1 + a_2\| < \|a_1\| + \|a_2\|$: replacing them by one neuron lowers the
#    penalty.
# 2. The largest violation of a row of $K_k u \ge 0$, relative. A point outside the cones is not a ReLU network with the
#    claimed predictions, so that its objective says nothing.
# 3. `distinct(*cnn.solve(problem, "cvxpy_clarabel").network)` counts 5, 6, 5, 4, 2 and 1 neurons at 0.02 and those five. It
#    is none from $\beta_{\max}$ on, but does not fall monotonically on the way. What does fall is the penalty of the
#    optimum, not the number of neurons that it is divided over.
# </details>
