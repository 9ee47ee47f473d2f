# %% [markdown]
# # 06 CNNs and self-attention
#
# **The question.** Do the statements about perceptrons carry over to convolutions and attention, and what is the "number of
# neurons" there? A filter, and a head. With how many heads is training sure to end at the optimum of the convex program, and
# what may happen with fewer?

# %%
import matplotlib.pyplot as plt
import numpy as np

import convexnn_bench as cnn

plt.rcParams.update(cnn.style())

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
    "perceptron": cnn.Problem(
        images.reshape(24, -1), labels, loss="squared", beta_fraction=0.1, patterns=12
    ),
    "CNN": cnn.Problem(
        images,
        labels,
        architecture=cnn.CNN(patch=3, pool=2),
        beta_fraction=0.1,
        patterns=12,
    ),
    "attention": cnn.Problem(
        tokens,
        tokens[:, :, :2],
        architecture="attention",
        activation="linear",
        beta_fraction=0.05,
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
print(
    f"the network that they make is certified to a gap below 1e-6: {network_gap < 1e-6}"
)

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 6, figsize=(10, 2.2), layout="constrained")
strongest = np.argsort(-np.linalg.norm(filters, axis=0))[:6]
size = np.abs(filters[:, strongest]).max()
for axis, j in zip(axes, strongest, strict=True):
    axis.grid(False)
    shown = axis.imshow(filters[:, j].reshape(3, 3), cmap="RdBu", vmin=-size, vmax=size)
    axis.set_xticks([])
    axis.set_yticks([])
figure.colorbar(shown, ax=axes, label="weight", fraction=0.03)
figure.suptitle("the six strongest filters of this optimum", fontsize=12)
plt.show()

# %% [markdown]
# ## How many heads are enough?
#
# Linear self-attention $\sum_j X U_j X^T X V_j$ with $m$ heads is the Burer-Monteiro factorisation of *one* block with $p = d^2$ rows
# and $q = d\,c$ columns. What is proved holds for linear and gated activations, and the argument goes block by block, at a
# second-order stationary point:
#
# - a block with a column to spare (its rank is below $m$) has $\|G_k\|_2 \le \beta$ (Theorem 3.3);
# - a block of full rank $\min(p, q)$ has it too, by stationarity alone (Theorem 3.5);
# - a stationary point with $\|G_k\|_2 \le \beta$ in all blocks is a global optimum.
#
# With $m > \min(p, q)$ every block has a column to spare, and Theorem 3.3 is enough. With $m = \min(p, q)$ a block has a
# column to spare or full rank, and both theorems are needed. So for $m \ge \min(d^2, d\,c)$ heads every second-order
# stationary point has the optimal value $p^*$ of the convex program. For fewer heads one thing can be said: with fewer heads
# than the rank of every optimal block, $p^*$ cannot be reached. From that rank on it *can* be reached; whether a start
# reaches it is another matter.
#
# Ten random starts for each number of heads, on the tokens above and on a second draw of them:

# %%
attention = problems["attention"]
tokens = np.random.default_rng(2).standard_normal((12, 4, 3))
second = cnn.Problem(
    tokens,
    tokens[:, :, :2],
    architecture="attention",
    activation="linear",
    beta_fraction=0.05,
)
print(f"min(p, q) = {min(attention.p, attention.q)} heads are covered by the theorems")
found = {}
for name, problem in (("first", attention), ("second", second)):
    found[name] = cnn.spurious_minima(problem, columns=[1, 2, 3, 4, 5, 6], starts=10)
    print(f"{name} data:")
    for width in found[name].widths:
        print(
            f"  m = {width.m}: {width.global_ends:2d} of {width.starts} starts reach "
            f"p*   {width.verdict}"
        )

# %%
figure = found["first"].plot()
figure.axes[0].set_title(
    "attention, first data: 10 random starts each", loc="left", fontsize=10
)
plt.close(figure)
figure

# %%
figure = found["second"].plot()
figure.axes[0].set_title(
    "attention, second data: 10 random starts each", loc="left", fontsize=10
)
plt.close(figure)
figure

# %% [markdown]
# All ends are second-order stationary points, to a tolerance. How to read "ends spurious for this width": with few heads
# every end is above $p^*$, and need not be bad for that, since no point with so few heads may do better. But where another
# start with the *same* number of heads ended lower, the higher end is proved not to be global for its own number of heads.
# These are counted. Now the rank of the optimal blocks, from the convex program:

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(5.4, 3.6))
for (name, problem), marker in zip(
    (("first", attention), ("second", second)), "os", strict=True
):
    block = cnn.solve(problem, "cvxpy_clarabel").blocks[0]
    values = np.linalg.svd(block, compute_uv=False)
    rank = (values > 1e-6 * values[0]).sum()
    axis.semilogy(
        range(1, len(values) + 1),
        np.maximum(values / values[0], 1e-8),
        marker + "-",
        label=f"{name} data",
    )
    reached = {width.m: width.global_ends for width in found[name].widths}
    print(
        f"{name} data: rank of the optimal block {rank}; with {rank} heads "
        f"{reached[rank]} of 10 starts reach p*"
    )
    above = [
        end.excess for end in found[name].ends if end.m == rank and end.kind != "global"
    ]
    if above:
        print(
            f"  the other {len(above)} end up to {100 * max(above):.2f} per cent above "
            "it"
        )
axis.axhline(1e-6, color="0.4", linestyle=":")
axis.set_xlabel("singular value of the optimal block")
axis.set_ylabel("size, relative to the largest")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# Below the rank of the optimal block no start reaches $p^*$. (The solver returns one optimal block. Were there another one of
# lower rank, fewer heads could reach $p^*$.) At the rank, $p^*$ can be reached: on the first data all starts reach it, on the
# second some end above it, at spurious second-order points. So the rank of the solution does not tell how many heads are
# enough for *every* start; $\min(d^2, d\,c)$ heads always are, if the start ends at a second-order stationary point.
#
# ## Exercises
#
# 1. Increase `beta_fraction` of both attention problems to 0.3. How does the rank of the optimal block change? Do all starts
#    with so many heads reach the optimum?
# 2. In the CNN problem replace `pool=2` by `pool="global"`. What happens to $q$, and why?
# 3. Write down $\Phi$ and $C$ for a one-dimensional convolution with stride 2.
#
# <details><summary>Solutions</summary>
#
# 1. It falls, to 2 and to 1: the nuclear norm sets more singular values to zero. On the first data all ten starts with two
#    heads reach the optimum; on the second only six of ten with one head do, and all with two.
# 2. $q = a c$ with $a$ the number of pooling windows; with global pooling $a = 1$, so $q = c$.
# 3. Rows of $\Phi$: the windows $x_i[2k : 2k + h]$; $C$: for pooled outputs the average over $k$, else each position its own output.
# </details>
