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

problem = cnn.make_problem("spiral", n=60, beta_fraction=0.02)  # three classes on three arms, squared loss
X, Y = problem.X, problem.Y
print(f"{problem.X.shape[0]} samples in R^{problem.p}, {problem.q} outputs, {problem.P} activation patterns")
print(f"weight decay beta = {problem.beta:.4f}, the zero network is optimal from beta_max = {problem.beta_max:.4f} on")

# %%
figure, axis = plt.subplots(figsize=(4.2, 4))
for label, marker in enumerate("os^"):
    arm = Y.argmax(axis=1) == label
    axis.scatter(X[arm, 0], X[arm, 1], marker=marker, label=f"class {label}")
axis.set_aspect("equal")
axis.legend(frameon=False)
axis.set_title("the data")
plt.show()

# %% [markdown]
# ## One problem, three formulations
#
# A *gated* ReLU neuron multiplies $x^T u$ by a gate $1\{x^T g_k \ge 0\}$ that is fixed in advance: over the data a gate is
# a diagonal matrix $D_k$ of zeros and ones, an **activation pattern**. With $F$ the loss (a sum over samples) and
# $\beta$ the weight decay:
#
# | formulation | problem |
# |---|---|
# | network | $\min\; F\big(\sum_j D_{k(j)} X u_j v_j^T\big) + \frac\beta2 \sum_j \|u_j\|^2 + \|v_j\|^2$ |
# | Burer-Monteiro | $\min\; F\big(\sum_k D_k X U_k V_k^T\big) + \frac\beta2 \sum_k \|U_k\|_F^2 + \|V_k\|_F^2$ |
# | convex | $\min\; F\big(\sum_k D_k X Z_k\big) + \beta \sum_k \|Z_k\|_*$ |
#
# $\|\cdot\|_*$ is the nuclear norm, the sum of singular values. The bridge between the last two is one identity:
# $\|Z\|_* = \min\{\frac12(\|U\|_F^2 + \|V\|_F^2) : Z = U V^T\}$. The third problem is convex: any local minimum is global,
# and exact solvers exist.

# %%
exact = cnn.solve(problem, "cvxpy_clarabel")  # the convex program, by an interior-point method
factored = cnn.solve(problem, "bm_newton")  # Burer-Monteiro, by Newton's method on a working set of blocks
for name, result in (("convex program", exact), ("Burer-Monteiro", factored)):
    print(f"{name:15s} objective {result.objective:.6f}   {result.certificate.scope} patterns, {result.status}")
print(f"they agree to {abs(exact.objective / factored.objective - 1):.0e}, relative")

# %% [markdown]
# And the network, trained as one usually does, by a few lines of torch. Nothing of the package is used in this cell.

# %%
import torch

torch.manual_seed(0)
masks, inputs, targets = (torch.as_tensor(a, dtype=torch.float64) for a in (problem.masks, X, Y))
U = (0.1 * torch.randn(2, problem.P, dtype=torch.float64)).requires_grad_()  # one neuron for every gate
V = (0.1 * torch.randn(3, problem.P, dtype=torch.float64)).requires_grad_()
adam = torch.optim.Adam([U, V], lr=0.01)
history = []
for _ in range(3000):
    adam.zero_grad()
    prediction = (masks * (inputs @ U)) @ V.T
    loss = 0.5 * (prediction - targets).square().sum() + problem.beta / 2 * (U.square().sum() + V.square().sum())
    loss.backward()
    adam.step()
    history.append(float(loss.detach()))
print(f"Adam on the network: objective {history[-1]:.4f}")

# %% [markdown]
# ## How far from the best?
#
# `cnn.certify` computes a **certificate** from any point: a lower bound on the global optimum that is proved by weak
# duality (notebook 03), and so a bound on how far the point can be from it. The solver's own verdict plays no part.

# %%
weights = (U.detach().numpy(), V.detach().numpy())
for name, point in (("Clarabel", exact.blocks), ("bm_newton", factored.factors), ("Adam", weights)):
    certificate = cnn.certify(problem, point)
    shown = "less than 1e-6" if certificate.gap < 1e-6 else f"at most {certificate.gap:.1e}"
    print(f"{name:10s} {shown} above the global optimum (relative)")

# %% [markdown]
# What is proved of Adam's point (half a percent) is more than its true distance, drawn below: a bound from a point whose
# gradient is not quite zero is not quite sharp. It is a proof all the same, and needs nothing but the point.

# %%
best = exact.certificate.dual
figure, axis = plt.subplots(figsize=(5.5, 3.4))
axis.semilogy(np.array(history) / best - 1, label="Adam on the network")
axis.set_xlabel("step")
axis.set_ylabel("distance to the optimum, relative")
axis.grid(True, color="#dddddd")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# The exact solution is **sparse**: most blocks are zero, and the others have low rank. That is why Burer-Monteiro can be
# fast: it need not carry what is zero.

# %%
ranks = np.linalg.matrix_rank(factored.blocks, tol=1e-6)
print(f"{(ranks > 0).sum()} of {problem.P} blocks are not zero; largest rank {ranks.max()} of at most 2")

# %% [markdown]
# ## Exercises
#
# 1. Set `beta_fraction=1.01`. What is the optimum, and why?
# 2. Solve with `activation="relu"` and `targets="binary"` in `make_problem`: the neurons now choose their own patterns. Is
#    the optimum above or below the gated one?
# 3. Give the network only 5 neurons (the first 5 gates). Can Adam still reach the optimum of the whole program?
#
# <details><summary>Solutions</summary>
#
# 1. Zero: $\beta \ge \beta_{\max} = \max_k \|X^T D_k \nabla F(0)\|_2$ makes every block's subgradient condition hold at
#    $Z = 0$. `cnn.solve(problem, "bm_newton").objective` is then $F(0) = \frac12\|Y\|^2$.
# 2. Above: a ReLU block has a constraint $K_k u \ge 0$ on top, so fewer points are allowed. Compare the two objectives on
#    the same targets.
# 3. In general not: those gates span fewer functions. Pass `patterns=problem.masks[:, :5]` to `cnn.Problem` and certify
#    Adam's point on that smaller program: there it may well be optimal.
# </details>
