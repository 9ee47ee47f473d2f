# %% [markdown]
# # 06 CNNs and self-attention
#
# **The question.** Do the statements about perceptrons carry over to convolutions and attention, and what is the "number of
# neurons" there? A filter, and a head. How many heads are enough for the training problem to have no spurious minima?

# %%
import matplotlib.pyplot as plt
import numpy as np

import convexnn_bench as cnn

# %% [markdown]
# ## One program for all of them
#
# All three architectures are $C(\phi(\Phi U) V^T)$ with two linear maps of the data:
#
# | | rows of $\Phi$ | $U$ column | $C$ |
# |---|---|---|---|
# | perceptron | samples $x_i$ | a neuron's weights | identity |
# | CNN, linear pooling | patches | a filter | pools over positions |
# | self-attention | $x_s \otimes x_t$ for token pairs | the matrix $U_j$ of a head | multiplies by tokens |
#
# The convex program is the same for all, with blocks of size $p \times q$.

# %%
draw = np.random.default_rng(0)
images = draw.standard_normal((24, 1, 6, 6))
tokens = draw.standard_normal((12, 4, 3))
labels = np.where(images.mean(axis=(1, 2, 3)) > 0, 1.0, -1.0)
problems = {
    "perceptron": cnn.Problem(images.reshape(24, -1), labels, loss="squared", beta_fraction=0.1, patterns=12),
    "CNN": cnn.Problem(images, labels, architecture=cnn.CNN(patch=3, pool=2), beta_fraction=0.1, patterns=12),
    "attention": cnn.Problem(
        tokens, tokens[:, :, :2], architecture="attention", activation="linear", beta_fraction=0.05
    ),
}
print("architecture   rows of Phi    p   q   blocks")
for name, problem in problems.items():
    print(f"{name:12s} {problem.N:12d} {problem.p:5d} {problem.q:3d} {problem.P:6d}")

# %% [markdown]
# ## A CNN, three ways
#
# Filters of 3 x 3, average pooling over 2 x 2 windows. Convex program, Burer-Monteiro, and the certificate of a network
# with those filters, all on the same problem.

# %%
cnn_problem = problems["CNN"]
exact = cnn.solve(cnn_problem, "cvxpy_clarabel")
factored = cnn.solve(cnn_problem, "bm_newton")
filters, outputs = factored.network
print(f"convex {exact.objective:.6f}, Burer-Monteiro {factored.objective:.6f}")
used = np.linalg.norm(filters, axis=0) > 1e-6
print(f"{used.sum()} filters of {filters.shape[0]} numbers are in use")
network_gap = cnn.certify(cnn_problem, (filters, outputs)).gap
print(f"the network that they make is certified to a gap below 1e-6: {network_gap < 1e-6}")

# %%
figure, axes = plt.subplots(1, 6, figsize=(9, 1.8))
strongest = np.argsort(-np.linalg.norm(filters, axis=0))[:6]
size = np.abs(filters[:, strongest]).max()
for axis, j in zip(axes, strongest, strict=True):
    axis.imshow(filters[:, j].reshape(3, 3), cmap="RdBu", vmin=-size, vmax=size)
    axis.set_xticks([])
    axis.set_yticks([])
figure.suptitle("the six strongest filters of the optimum", fontsize=10)
plt.show()

# %% [markdown]
# ## How many heads are enough?
#
# Linear self-attention $\sum_j X U_j X^T X V_j$ with $m$ heads is the Burer-Monteiro factorisation of *one* block with $p = d^2$ rows
# and $q = d\,c$ columns. Theorem 3.3 therefore promises: with $m \ge \min(d^2, dc)$ heads every second-order stationary point
# is global. Ten random starts for each number of heads:

# %%
attention = problems["attention"]
print(f"min(p, q) = {min(attention.p, attention.q)} heads are covered by the theorem")
found = cnn.spurious_minima(attention, columns=[1, 2, 3, 4, 6], starts=10)
for width in found.widths:
    print(f"{width.m} heads: {width.global_ends:2d} of {width.starts} starts reach the optimum   {width.verdict}")

# %%
figure = found.plot()
plt.close(figure)
figure

# %% [markdown]
# From the rank of the optimal block on, all starts get there; below it none can. The theorem's number is what is
# *always* enough; what is enough for given data is the rank of the solution, which the convex program knows:

# %%
block = cnn.solve(attention, "cvxpy_clarabel").blocks[0]
values = np.linalg.svd(block, compute_uv=False)
figure, axis = plt.subplots(figsize=(4.6, 3))
axis.semilogy(range(1, len(values) + 1), np.maximum(values, 1e-10), "o-")
axis.axhline(1e-6 * values[0], color="#555555", linestyle=":")
axis.set_xlabel("singular value of the optimal block")
axis.set_ylabel("size")
plt.show()
print(f"rank of the optimal block: {(values > 1e-6 * values[0]).sum()}")

# %% [markdown]
# ## Exercises
#
# 1. Increase `beta_fraction` of the attention problem to 0.3. How does the number of heads that is enough change?
# 2. In the CNN problem replace `pool=2` by `pool="global"`. What happens to $q$, and why?
# 3. Write down $\Phi$ and $C$ for a one-dimensional convolution with stride 2.
#
# <details><summary>Solutions</summary>
#
# 1. It falls: the nuclear norm sets more singular values to zero.
# 2. $q = a c$ with $a$ the number of pooling windows; with global pooling $a = 1$, so $q = c$.
# 3. Rows of $\Phi$: the windows $x_i[2k : 2k + h]$; $C$: for pooled outputs the average over $k$, else each position its own output.
# </details>
