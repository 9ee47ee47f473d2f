# %% [markdown]
# # 01 The same network three ways
#
# **The question.** A two-layer network with weight decay is trained by gradient descent, and ends somewhere. Is that the
# best there is? For such a network the question has an answer that can be *proved*, because its training problem is a
# convex program in disguise. This notebook states one training problem three times, solves it three times, and compares.
#
# The mathematics is that of Pilanci & Ergen (ICML 2020) and Sahiner et al. (ICLR 2024).

# %%
import matplotlib.pyplot as plt
import numpy as np

import convexnn_bench as cnn

plt.rcParams.update(cnn.style())
# three classes on three arms, squared loss
problem = cnn.make_problem("spiral", n=60, beta_fraction=0.02)
X, Y = problem.X, problem.Y
print(
    f"{problem.X.shape[0]} samples in R^{problem.p}, {problem.q} outputs, {problem.P} "
    "activation patterns"
)
print(
    f"weight decay beta = {problem.beta:.4f}, the zero network is optimal from "
    f"beta_max = {problem.beta_max:.4f} on"
)

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(4.2, 4))
for label, marker in enumerate("os^"):
    arm = Y.argmax(axis=1) == label
    shade = str(0.25 + 0.35 * label)
    axis.scatter(
        *X[arm].T,
        marker=marker,
        facecolor=shade,
        edgecolor="0.25",
        label=f"class {label}",
    )
axis.set_aspect("equal")
axis.legend()
axis.set_title("the data")
plt.show()

# %% [markdown]
# ## One problem, three formulations
#
# A *gated* ReLU neuron multiplies $x^T u$ by a gate $1\{x^T g_k \ge 0\}$ that is fixed in advance: over the data a gate is
# a diagonal matrix $D_k$ of zeros and ones, an **activation pattern**. With $P$ patterns, $p$ inputs, $q$ outputs, $F$ the
# loss (a sum over samples), $\beta$ the weight decay, and $m$ neurons for every gate:
#
# | formulation | variables | problem |
# |---|---|---|
# | network | $u_j \in \mathbb R^p$, $v_j \in \mathbb R^q$, $j = 1, \dots, mP$; neuron $j$ has gate $k(j)$ | $\min\; F\big(\sum_j D_{k(j)} X u_j v_j^T\big) + \frac\beta2 \sum_j \big(\|u_j\|^2 + \|v_j\|^2\big)$ |
# | Burer-Monteiro | $U_k \in \mathbb R^{p \times m}$, $V_k \in \mathbb R^{q \times m}$, $k = 1, \dots, P$ | $\min\; F\big(\sum_k D_k X U_k V_k^T\big) + \frac\beta2 \sum_k \big(\|U_k\|_F^2 + \|V_k\|_F^2\big)$ |
# | convex | $Z_k \in \mathbb R^{p \times q}$, $k = 1, \dots, P$ | $\min\; F\big(\sum_k D_k X Z_k\big) + \beta \sum_k \|Z_k\|_*$ |
#
# The first two are the same: the columns of $U_k$ and $V_k$ are the weights of the $m$ neurons with gate $k$.
# $\|\cdot\|_*$ is the nuclear norm, the sum of singular values, and one identity leads to the third: for $m \ge \mathrm{rank}\, Z$,
# $\|Z\|_* = \min\{\frac12(\|U\|_F^2 + \|V\|_F^2) : Z = U V^T\}$ with $m$ columns in $U$ and $V$. So the three minima are equal as soon as
# $m$ is at least the rank of every block of *some* solution of the convex problem; $m = \min(p, q)$, here 2, is enough for
# any data. With fewer columns the convex optimum is still a lower bound. The third problem is convex: any local minimum is
# global, and exact solvers exist.

# %%
# the convex program, by an interior-point method
exact = cnn.solve(problem, "cvxpy_clarabel")
# Burer-Monteiro, by Newton's method on a working set of blocks
factored = cnn.solve(problem, "bm_newton")
for name, result in (("convex program", exact), ("Burer-Monteiro", factored)):
    print(
        f"{name:15s} objective {result.objective:.6f}   {result.certificate.scope} "
        f"patterns, {result.status}"
    )
print(f"they agree to {abs(exact.objective / factored.objective - 1):.0e}, relative")

# %% [markdown]
# And the network, trained as one usually does, by a few lines of torch, with $m = 2$ neurons for every gate. Only the data
# and the gates come from the package in this cell.

# %%
import torch

torch.manual_seed(0)
masks, inputs, targets = (
    torch.as_tensor(a, dtype=torch.float64) for a in (problem.masks, X, Y)
)
m = 2  # min(p, q)
masks = masks.repeat(1, m)  # neuron j has gate j modulo P
U = (0.1 * torch.randn(2, m * problem.P, dtype=torch.float64)).requires_grad_()
V = (0.1 * torch.randn(3, m * problem.P, dtype=torch.float64)).requires_grad_()
adam = torch.optim.Adam([U, V], lr=0.01)
history = []
for _ in range(3000):
    adam.zero_grad()
    prediction = (masks * (inputs @ U)) @ V.T
    loss = 0.5 * (prediction - targets).square().sum() + problem.beta / 2 * (
        U.square().sum() + V.square().sum()
    )
    loss.backward()
    adam.step()
    history.append(float(loss.detach()))
print(f"Adam on the network: objective {history[-1]:.4f}")

# %% [markdown]
# One picture of the three: each point is the objective after so many iterations, and the line at the bottom is the optimum,
# between whose proven bounds no eye can see a difference. An iteration of Newton's method costs more than one of the others.

# %% tags=["hide-input"]
budgets = {
    "fista": np.unique(np.geomspace(1, 3000, 24).astype(int)),
    "bm_newton": np.arange(1, 41, 2),
}
curves = {
    name: [
        cnn.solve(problem, name, iterations=int(k), gap=1e-9).objective for k in steps
    ]
    for name, steps in budgets.items()
}
labels = {
    "fista": "convex program: FISTA",
    "bm_newton": "Burer-Monteiro: Newton",
    "network_adam": "network: Adam",
}
budgets["network_adam"], curves["network_adam"] = np.arange(1, 3001), history
figure, axis = plt.subplots(figsize=(7, 4))
for name, label in labels.items():
    look = cnn.solver_style(name)
    marks = look | ({"marker": ""} if name == "network_adam" else {"markersize": 4})
    axis.plot(budgets[name], curves[name], **marks, label=label)
axis.axhline(exact.objective, color="black", linewidth=1, linestyle=":")
axis.annotate(
    f"the optimum, {exact.objective:.4f}",
    (1, exact.objective),
    textcoords="offset points",
    xytext=(4, -12),
)
axis.set(
    xscale="log",
    xlabel="iterations",
    ylabel="objective",
    ylim=(0, 1.1 * history[0]),
)
axis.set_title("Three formulations, one optimum")
axis.legend()
plt.show()

# %% [markdown]
# ## How far from the best?
#
# `cnn.certify` computes a **certificate** from any point: a lower bound on the global optimum that is proved by weak
# duality (notebook 03), and so a bound on how far the point can be from it. The solver's own verdict plays no part.

# %%
weights = (U.detach().numpy(), V.detach().numpy())
for name, point in (
    ("Clarabel", exact.blocks),
    ("bm_newton", factored.factors),
    ("Adam", weights),
):
    certificate = cnn.certify(problem, point)
    shown = (
        "less than 1e-6" if certificate.gap < 1e-6 else f"at most {certificate.gap:.1e}"
    )
    print(f"{name:10s} {shown} above the global optimum (relative)")

# %% [markdown]
# What is proved of Adam's point is more than its true distance, drawn below: a bound from a point whose gradient is not
# quite zero is not quite sharp. It is a proof all the same, and needs nothing but the point. (The spikes are Adam's at a
# constant learning rate: close to a minimum it jumps out, and comes back.)

# %% tags=["hide-input"]
best = exact.certificate.dual
figure, axis = plt.subplots(figsize=(5.5, 3.4))
look = cnn.solver_style("network_adam") | {"marker": ""}
axis.semilogy(np.array(history) / best - 1, **look, label="Adam on the network")
axis.set_xlabel("step")
axis.set_ylabel("distance to the optimum, relative")
axis.legend()
plt.show()
print(
    f"at the end Adam is {history[-1] / best - 1:.0e} above the lower bound that "
    "Clarabel's point proves"
)

# %% [markdown]
# There is a **sparse** optimum: many of its blocks are zero, and the others have low rank. Optima are not unique (for the
# squared loss the optimal predictions are, the blocks need not be): the two solvers return points of the same objective
# with different numbers of nonzero blocks. An interior-point method tends to a point in the middle of the set of optima; a
# working set that starts with no block adds few. That is why Burer-Monteiro can be fast: it need not carry what is zero.

# %%
for name, result in (("bm_newton", factored), ("Clarabel", exact)):
    # singular values of every block
    sizes = np.linalg.svd(result.blocks, compute_uv=False)
    nonzero, rank = (sizes[:, 0] > 1e-3).sum(), (sizes > 1e-3).sum(axis=1).max()
    print(f"{name:10s} {nonzero} of {problem.P} blocks above 1e-3, largest rank {rank}")
apart = np.abs(
    np.einsum("nk,np,kpq->nq", problem.masks, X, exact.blocks - factored.blocks)
).max()
print(f"largest difference of their predictions {apart:.0e}")

# %% [markdown]
# ## Exercises
#
# 1. Set `beta_fraction=1.01`. What is the optimum, and why?
# 2. Take `targets="binary"` in `make_problem` and solve once with `activation="gated_relu"` and once with
#    `activation="relu"`, where the neurons choose their own patterns. Give both the same `beta=problem.beta`: the same
#    `beta_fraction` would be two different weight decays. Is the ReLU optimum above or below the gated one?
# 3. Give the network neurons with the first 5 gates only. Can Adam still reach the optimum of the whole program?
#
# <details><summary>Solutions</summary>
#
# 1. Zero: $\beta \ge \beta_{\max} = \max_k \|X^T D_k \nabla F(0)\|_2$ makes every block's subgradient condition hold at
#    $Z = 0$. `cnn.solve(problem, "bm_newton").objective` is then $F(0) = \frac12\|Y\|^2$.
# 2. Above: both programs have the same patterns, and a ReLU block has a constraint $K_k u \ge 0$ on top, so fewer points are
#    allowed. With `bm_newton` for the gated problem and `cvxpy_clarabel` for ReLU: 12.53 and 18.26.
# 3. In general not: those gates span fewer functions. Pass `patterns=problem.masks[:, :5]` to `cnn.Problem` and certify
#    Adam's point on that smaller program: there it may well be optimal.
# </details>
