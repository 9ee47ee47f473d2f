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

relu = cnn.make_problem("spiral", n=60, targets="binary", activation="relu", beta_fraction=0.02)
gated = cnn.Problem(relu.X, relu.Y, activation="gated_relu", loss="squared", beta=relu.beta, patterns=relu.masks)
exact = cnn.solve(relu, "cvxpy_clarabel")
print(
    f"{relu.P} patterns; optimum with gates {cnn.solve(gated, 'bm_newton').objective:.5f}, with ReLU {exact.objective:.5f}"
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
W1, W2 = exact.network
size = np.linalg.norm(W1, axis=0) * np.linalg.norm(W2, axis=0)
kept = size > 1e-4 * size.max()  # an interior-point method leaves dust
print(f"{kept.sum()} neurons that matter; objective of the network {relu.network_objective(W1, W2):.5f}")
print(f"certified over {exact.certificate.scope} patterns, gap below 1e-6: {exact.certificate.gap < 1e-6}")

side = np.linspace(-1.25, 1.25, 220)
grid = np.stack(np.meshgrid(side, side)).reshape(2, -1).T
output = (np.maximum(grid @ W1, 0) @ W2.T).reshape(220, 220)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4))
picture = axes[0].contourf(side, side, output, levels=np.linspace(-1.6, 1.6, 17), cmap="RdBu", extend="both")
labels = relu.Y[:, 0] > 0
axes[0].scatter(*relu.X[labels].T, marker="o", color="#0072B2", edgecolor="white", s=35)
axes[0].scatter(*relu.X[~labels].T, marker="s", color="#D55E00", edgecolor="white", s=35)
axes[0].set_title("the globally optimal ReLU network")
axes[0].set_aspect("equal")
origin = np.zeros(kept.sum())
axes[1].quiver(
    origin, origin, *W1[:, kept], angles="xy", scale_units="xy", scale=1,
    color=np.where(W2[0, kept] > 0, "#0072B2", "#D55E00"), width=0.006,
)  # fmt: skip
limit = 1.2 * np.abs(W1).max()
for x in relu.X[::6]:
    axes[1].plot(*np.outer([-x[1], x[0]], [-9, 9]), color="#cccccc", linewidth=0.7, zorder=0)
axes[1].set_xlim(-limit, limit)
axes[1].set_ylim(-limit, limit)
axes[1].set_aspect("equal")
axes[1].set_title("its neurons (blue: positive output), some cell walls")
plt.show()

# %% [markdown]
# ## Against networks trained as usual
#
# Fifteen networks of 40 neurons from random starts, Adam. None can be below the optimum; the best comes close.

# %%
inputs, targets = torch.as_tensor(relu.X), torch.as_tensor(relu.Y)
ends = []
for seed in range(15):
    torch.manual_seed(seed)
    U = (0.3 * torch.randn(2, 40, dtype=torch.float64)).requires_grad_()
    V = (0.3 * torch.randn(1, 40, dtype=torch.float64)).requires_grad_()
    adam = torch.optim.Adam([U, V], lr=0.02)
    for step in range(1500):
        adam.param_groups[0]["lr"] = 0.02 * 0.998**step
        adam.zero_grad()
        loss = 0.5 * ((inputs @ U).relu() @ V.T - targets).square().sum()
        loss = loss + relu.beta / 2 * (U.square().sum() + V.square().sum())
        loss.backward()
        adam.step()
    ends.append(float(loss.detach()))
excess = np.sort(np.array(ends) / exact.certificate.dual - 1)
print("above the optimum, in per cent:", np.round(100 * excess, 2))
print("none below:", bool((excess > -1e-9).all()))

# %% [markdown]
# ## Sampled patterns, and column generation
#
# With sampled patterns the convex program is a restriction: its optimum lies *above* that of the network, and falls as
# patterns are added. **Column generation** starts from none and adds the patterns that the certificate prices above $\beta$, until
# there is none: then the bound holds over *all* patterns, though most were never looked at.

# %%
counts, values = (5, 10, 20, 40, 80), []
for P in counts:
    part = cnn.make_problem("spiral", n=60, targets="binary", activation="relu", beta=relu.beta, patterns=P)
    values.append(cnn.solve(part, "cvxpy_clarabel").objective)
few = cnn.make_problem("spiral", n=60, targets="binary", activation="relu", beta=relu.beta, patterns=5)
generated = cnn.solve(few, "column_generation")
figure, axis = plt.subplots(figsize=(5.5, 3.4))
axis.semilogx(counts, values, "o-", label="sampled patterns")
axis.axhline(exact.objective, color="black", linestyle=":", label="all patterns")
axis.axhline(generated.objective, color="#009E73", linewidth=1, label="column generation")
axis.set_xticks(counts, [str(P) for P in counts])
axis.set_xticks([], minor=True)
axis.set_xlabel("patterns")
axis.set_ylabel("optimum")
axis.legend(frameon=False)
plt.show()
print(f"column generation {generated.objective:.6f}, all patterns {exact.objective:.6f}")

# %% [markdown]
# ## Several outputs: what the relaxation gives
#
# With vector outputs a block's norm is NP-hard. The conic solvers solve a relaxation (doubly non-negative matrices in place
# of completely positive ones) and round its solution to a network; the certificate bounds the true dual norms by branch and
# bound, and encloses the optimum from both sides.

# %%
vector = cnn.make_problem("spiral", n=21, activation="relu", beta_fraction=0.05)
rounded = cnn.solve(vector, "cvxpy_clarabel")
c = rounded.certificate
print(f"optimum of the three-output ReLU network in [{c.dual:.7f}, {c.primal:.7f}], dual norm by: {c.dual_norm_method}")

# %% [markdown]
# ## Exercises
#
# 1. Why can two neurons of the optimal network not lie in the same cell with output weights of the same sign, unless they are
#    parallel?
# 2. Solve the ReLU problem with `bm_lbfgs` and read `certificate.infeasibility`. What does it measure, and why is a gap
#    refused above a tolerance?
# 3. Set `beta_fraction=0.2`. How many neurons are left?
#
# <details><summary>Solutions</summary>
#
# 1. They act on the data like their sum, and $\|a_1 + a_2\| < \|a_1\| + \|a_2\|$: replacing them by one neuron lowers the penalty.
# 2. The largest violation of a row of $K_k u \ge 0$, relative. A point outside the cones is not a ReLU network with the
#    claimed predictions, so that its objective says nothing.
# 3. A handful: the number of neurons falls with $\beta$, and is zero from $\beta_{\max}$ on.
# </details>
