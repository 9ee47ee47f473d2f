# %% [markdown]
# # 04 The landscape of Burer-Monteiro
#
# **The question.** The factorised problem is not convex. At which points can a training method slow down or end on it, and
# how can one know that such a point is *not* where it should be? This notebook looks at saddles, at the staircase that leads
# out of them, and at what too few columns do.

# %%
import matplotlib.pyplot as plt
import numpy as np

import convexnn_bench as cnn

plt.rcParams.update(cnn.style())

# %% [markdown]
# ## The smallest landscape
#
# One block, one number: $f(u, v) = \frac12 (uv - 1)^2 + \frac\beta2 (u^2 + v^2)$. In $z = uv$ it is convex; in $(u, v)$ it has two
# minima and a saddle at zero. All of them lie in one picture.

# %% tags=["hide-input"]
beta = 0.3
side = np.linspace(-1.6, 1.6, 300)
u, v = np.meshgrid(side, side)
figure, axis = plt.subplots(figsize=(4.8, 4.4))
axis.contour(
    u,
    v,
    0.5 * (u * v - 1) ** 2 + beta / 2 * (u**2 + v**2),
    levels=np.geomspace(0.25, 4, 13),
    cmap="viridis",
)
best = np.sqrt(1 - beta)
axis.plot([best, -best], [best, -best], "k*", markersize=12, label="minima, $|u|=|v|$")
axis.plot(0, 0, "rX", markersize=10, label="saddle")
path = [np.array([0.9, -0.85])]
for _ in range(400):
    a, b = path[-1]
    path.append(
        path[-1]
        - 0.02 * np.array([(a * b - 1) * b + beta * a, (a * b - 1) * a + beta * b])
    )
axis.plot(*np.array(path).T, color="C0", label="gradient descent")
axis.set_aspect("equal")
axis.set_xlabel("$u$")
axis.set_ylabel("$v$")
axis.legend(frameon=True, fontsize=8, loc="upper left")
plt.show()

# %% [markdown]
# Gradient descent from $(0.9, -0.85)$ is drawn to the saddle, slows down there, and leaves it again: the closer it comes, the
# longer it takes. Started with $u = -v$ exactly it would never leave.
#
# ## A saddle that the certificate catches
#
# A problem of several blocks. At $U = V = 0$ the gradient vanishes: a first-order method that starts there stops at once.

# %%
problem = cnn.make_problem("spiral", n=45, beta_fraction=0.02)
zero = np.zeros((problem.P, problem.p, 1)), np.zeros((problem.P, problem.q, 1))
at_zero = cnn.certify(problem, zero)
curvature = cnn.smallest_curvature(problem, zero)
print(
    f"objective {at_zero.primal:.4f}, gradient {at_zero.gradient_norm:.1e}, proven gap "
    f"{at_zero.gap:.2f}"
)
print(f"smallest curvature {curvature.relative:.1f} beta: a saddle")
print(f"largest dual norm  {at_zero.max_dual_norm / problem.beta:.1f} beta")

# %% [markdown]
# The certificate says two things: the point may be far from optimal (the gap), and which block is to blame
# (`worst_block`, where $\|G_k\|_2 > \beta$). At zero the smallest curvature is exactly $\beta - \max_k \|G_k\|_2$. The top singular pair
# of $-G_k$ *is* a direction of descent: append it as a new column and go on. That is the **staircase**. Here is one for a
# linear network with four outputs: there is one block, and a column is a hidden neuron.

# %%
draw = np.random.default_rng(0)
X = draw.standard_normal((40, 4))
Y = X @ draw.standard_normal((4, 4)) + 0.1 * draw.standard_normal((40, 4))
linear = cnn.Problem(X, Y, activation="linear", loss="squared", beta_fraction=0.02)


def climb(problem):
    stairs = cnn.staircase(problem, gap=1e-6)
    for step in stairs:
        shown = "less than 1e-6" if step.gap < 1e-6 else f"{step.gap:.1e}"
        print(
            f"m = {step.m}: objective {step.objective:9.4f}, proven gap {shown}, "
            f"largest rank {step.rank}"
        )
    print(stairs.reason.split(":")[0])
    return stairs


stairs = climb(linear)

# %%
figure = stairs.plot()
plt.close(figure)
figure

# %% [markdown]
# Every stair is a stationary point, the best that a network with $m$ neurons was found to do, and a saddle for a network with
# $m + 1$. The last one has $\min(p, q) = 4$ columns: there Theorems 3.3 and 3.5 promise that every second-order stationary
# point is global. A staircase may end earlier. The spiral above, with its many blocks, needs one stair:

# %%
spiral_stairs = climb(problem)

# %% [markdown]
# ## Too few columns, and spurious ends
#
# With fewer than $\min(p, q)$ columns a start may end above the optimum $p^*$ of the convex program, for two different
# reasons:
#
# - **capacity**: if $m$ is below the rank of every optimum, no point with $m$ columns has the value $p^*$, and every start ends
#   above it. Such an end may still be the best there is with $m$ columns;
# - **a spurious end**: a second-order stationary point above the best that $m$ columns can do.
#
# Random starts show which of the two it is: ends of one width that differ in their objective cannot all be the best of this
# width. Training is by Newton's method with trust regions, and each end is checked to be a second-order stationary point.
# First the linear network above, whose optimum has rank 4; then the same data with fifteen times the weight decay, which
# leaves rank 2.

# %%
stronger = cnn.Problem(X, Y, activation="linear", loss="squared", beta_fraction=0.3)
ends = {0.02: cnn.spurious_minima(linear, columns=[1, 2, 3, 4], starts=8)}
ends[0.3] = cnn.spurious_minima(stronger, columns=[1, 2, 3, 4], starts=8)
for fraction, found in ends.items():
    print(
        f"beta = {fraction} beta_max, rank of the certified optimum "
        f"{found.optimal_rank}"
    )
    for width in found.widths:
        print(
            f"  m = {width.m}: {width.global_ends} of {width.starts} starts end at "
            f"p*   ({width.verdict})"
        )

# %%
figure = ends[0.02].plot()
figure.axes[0].set_title(
    "linear network, beta = 0.02 beta_max: 8 random starts each",
    loc="left",
    fontsize=10,
)
plt.close(figure)
figure

# %%
figure = ends[0.3].plot()
figure.axes[0].set_title(
    "linear network, beta = 0.3 beta_max: 8 random starts each", loc="left", fontsize=10
)
plt.close(figure)
figure

# %% [markdown]
# On these data every end above $p^*$ is one of capacity: all starts of a width end at the same value, so no spurious end
# is seen. From the rank of the optimum on every start reaches $p^*$, although the theorems promise it for $m = 4$ only. That
# is what was seen here, and no rule: the rank makes $p^*$ *attainable* and does not exclude spurious ends. The second data
# set of [notebook 06](06_cnn_attention.ipynb) has them at the rank of its optimum.
#
# ## Full-rank and rank-deficient points
#
# Two theorems tell a global optimum from the factors alone. Theorem 3.3: a *second-order* stationary point with a column
# to spare in every block is global. Theorem 3.5: a *first-order* stationary point is global if every block has full rank,
# or is zero and $\|G_k\|_2 \le \beta$.

# %%
for check in (
    cnn.check_rank_deficient(problem, seed=0),
    cnn.check_full_rank(linear, seed=0),
):
    print(check, end="\n\n")

# %% [markdown]
# ## Exercises
#
# 1. In the first picture, for which $\beta$ does the saddle become the only stationary point?
# 2. Start the staircase's first step by hand: take `at_zero.worst_block`, the singular pair of $-G_k$, and check by how much
#    a small step along it lowers the objective.
# 3. Why can a minimum of the factorised problem with $m$ columns be a saddle of the one with $m + 1$?
#
# <details><summary>Solutions</summary>
#
# 1. $\beta \ge 1$: the Hessian at zero has eigenvalues $\beta \pm 1$. In the convex problem $\min \frac12(z-1)^2 + \beta|z|$ the optimum is
#    then $z = 0$.
# 2. Along $(t x, t y)$ with the pair $(x, y)$: $f(t) = f(0) + t^2(\beta - \|G_k\|_2) + O(t^4)$.
# 3. The new column is zero, so the gradient in it vanishes; its curvature is $\beta - \|G_k\|_2$, which is negative as long as
#    the convex program's optimality condition is violated.
# </details>
