# %% [markdown]
# # 03 Certificates
#
# **The question.** A solver stops and says it is done. How can one *prove* how far its point is from the optimum, without
# knowing the optimum? The answer is weak duality. This notebook draws it in one dimension, then reads a certificate of a
# real problem, and ends with the bound of the paper and when it misleads.

# %%
import matplotlib.pyplot as plt
import numpy as np

import convexnn_bench as cnn

plt.rcParams.update(cnn.style())

# %% [markdown]
# ## One dimension
#
# One sample $x = 1$ with target $y = 2$, one block, one weight $z$: $\; p(z) = \frac12 (z - 2)^2 + \beta |z|$.
#
# For every $\Lambda$ with $|\Lambda| \le \beta$ (that is $\|A^*\Lambda\|^{\mathrm{dual}} \le \beta$) and every $z$:
#
# $$p(z) \ge F(z) - \Lambda z \ge \min_z \{F(z) - \Lambda z\} = -F^*(\Lambda),$$
#
# where $-\Lambda z \le \beta |z|$ was used, and for this loss $F^*(\Lambda) = \frac12\Lambda^2 + 2\Lambda$. So each feasible $\Lambda$ gives a **lower
# bound** on all objectives at once. A point $z$ suggests one: the gradient $F'(z)$ there, scaled until it is feasible.

# %% tags=["hide-input"]
beta, y = 0.5, 2.0
z = np.linspace(-0.1, 2.8, 400)
primal = 0.5 * (z - y) ** 2 + beta * np.abs(z)


def dual(multiplier):
    """-F*(multiplier) for F(z) = (z - y)^2 / 2."""
    return -0.5 * multiplier**2 - multiplier * y


figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
axes[0].plot(z, primal, color="black")
axes[0].set_xlabel("$z$", fontsize=12)
axes[0].set_title("objective, and bounds from three points")
multipliers = np.linspace(-0.6, 0.1, 300)
feasible = np.abs(multipliers) <= beta
axes[1].plot(multipliers, dual(multipliers), color="0.6")
axes[1].plot(
    multipliers[feasible], dual(multipliers[feasible]), color="black", linewidth=2.5
)
axes[1].axvline(-beta, color="0.4", linestyle=":")
axes[1].set_xlabel(r"$\Lambda$ (thick: feasible)", fontsize=12)
axes[1].set_title(r"$-F^*(\Lambda)$, and the multipliers of the three points")
# two of the points give the same bound: the first is drawn larger, and its dashes
# fall between those of the second
for point, colour, size, start in (
    (0.2, "C1", 13, 5),
    (1.1, "C0", 7, 0),
    (1.8, "C2", 7, 0),
):
    gradient = point - y
    scale = min(1.0, beta / abs(gradient))
    multiplier = scale * gradient
    axes[0].plot(
        point, 0.5 * (point - y) ** 2 + beta * abs(point), "o",
        color=colour, markersize=size,
        label=f"$z = {point}$: bound {dual(multiplier):.3f}",
    )  # fmt: skip
    axes[1].plot(multiplier, dual(multiplier), "o", color=colour, markersize=size)
    for axis in axes:
        axis.axhline(
            dual(multiplier),
            color=colour,
            linestyle=(start, (5, 5)),
            linewidth=1.8,
            zorder=1,
        )
axes[0].legend(loc="upper right", fontsize=11)
plt.show()

# %% [markdown]
# The first two points (orange, blue) have $|F'(z)| \ge \beta$: scaled down, both give the multiplier $-\beta$, and a bound that is tight,
# $p^* = \frac{7}{8}$ at $z = \frac32$. The third (green) lies beyond the optimum; its gradient is feasible as it is, and gives a weaker bound.
# Scaled *up* to $-\beta$ it would be tight too: the package looks for the best scale that is allowed. In more dimensions the
# direction of the gradient matters as well, and a better point gives a better bound.
#
# ## A real problem
#
# The same, written out for a gated network with squared loss, beside what `cnn.certify` says. The dual norm of a block is
# the largest singular value of $G_k = X^T D_k \nabla F$.

# %%
problem = cnn.make_problem("spiral", n=60, beta_fraction=0.05)
X, Y, masks = problem.X, problem.Y, problem.masks
optimal = cnn.solve(problem, "cvxpy_clarabel").blocks
Z = 0.97 * optimal  # near the optimum, not at it


def by_hand(Z):
    """(objective, lower bound), from the formulas alone."""
    residual = np.einsum("nk,np,kpq->nq", masks, X, Z) - Y  # grad F of the squared loss
    G = np.einsum("np,nk,nq->kpq", X, masks, residual)
    objective = (
        0.5 * np.sum(residual**2)
        + problem.beta * np.linalg.svd(Z, compute_uv=False).sum()
    )
    largest = np.linalg.norm(G, ord=2, axis=(1, 2)).max()
    scales = np.linspace(0, problem.beta / largest, 2001)[:, None, None]
    bounds = -0.5 * np.sum((scales * residual) ** 2, axis=(1, 2)) - np.sum(
        scales * residual * Y, axis=(1, 2)
    )
    return objective, bounds.max()


objective, bound = by_hand(Z)
certificate = cnn.certify(problem, Z)
print(f"by hand     objective {objective:.8f}  lower bound {bound:.8f}")
print(
    f"certificate objective {certificate.primal:.8f}  lower bound "
    f"{certificate.dual:.8f}  gap {certificate.gap:.1e}"
)

# %% [markdown]
# A certificate can be checked without trusting this package: its multiplier is there.

# %%
multiplier = certificate.multiplier
G = np.einsum("np,nk,nq->kpq", X, masks, multiplier)
print(
    f"feasible: largest dual norm {np.linalg.norm(G, ord=2, axis=(1, 2)).max():.10f} "
    f"<= beta = {problem.beta:.10f}"
)
print(f"its value: {-0.5 * np.sum(multiplier**2) - np.sum(multiplier * Y):.8f}")

# %% [markdown]
# ## The paper's bound
#
# Theorem 3.4 of Sahiner et al.: if $F \ge 0$, a *stationary* Burer-Monteiro point with objective $\hat p$ has
# $(\hat p - p^*)/p^* \le (\max_k \|G_k\|_2/\beta - 1)_+$. Iterates are only nearly stationary; then an error term must be
# added, $\varepsilon / p^*$ with $\varepsilon = \langle \nabla F, A(Z)\rangle + \beta R(Z)$, $R$ the regulariser, which is zero at a
# stationary point. The certificate holds both: `stationarity_bound` and `stationarity_error`.
#
# How does it compare with the certified gap? Let $s = \min(1, \beta/\max_k\|G_k\|_2)$. At a stationary point
# $\langle \nabla F, A(Z)\rangle = -\beta R(Z)$, so $F^*(\nabla F) = \langle \nabla F, A(Z)\rangle - F = -\hat p$; and $F \ge 0$ means $F^*(0) \le 0$. As
# $F^*$ is convex, $F^*(s\nabla F) \le s F^*(\nabla F) + (1-s) F^*(0) \le -s \hat p$. So the lower bound $-F^*(s\nabla F)$ is at least
# $s \hat p$, and the certified gap at most $1/s - 1$: **at a stationary point the certified gap is never larger than the
# theorem's bound**, and it may be smaller. Away from stationary points either of the two may be the smaller one.
#
# To see the difference, gradient descent is first run *without* weight decay, as many networks are trained, and then with
# it.

# %% tags=["hide-input"]
optimum = cnn.solve(problem, "bm_newton", gap=1e-9).objective
draw = np.random.default_rng(0)
U, V = (
    0.3 * draw.standard_normal((problem.P, size, 1)) for size in (problem.p, problem.q)
)
rows = []
for step in range(4001):
    decay = problem.beta if step >= 1000 else 0.0
    residual = np.einsum("nk,np,kpm,kqm->nq", masks, X, U, V, optimize=True) - Y
    if step % 40 == 0:
        c = cnn.certify(problem, (U, V))
        rows.append(
            (
                step,
                c.primal / optimum - 1,
                c.gap,
                c.stationarity_bound,
                c.stationarity_error / optimum,
            )
        )
    G = np.einsum("np,nk,nq->kpq", X, masks, residual, optimize=True)
    U, V = (
        U - 0.008 * (G @ V + decay * U),
        V - 0.008 * (G.transpose(0, 2, 1) @ U + decay * V),
    )
steps, true, gap, paper, error = np.array(rows).T

figure, axis = plt.subplots(figsize=(6.5, 4))
axis.semilogy(steps, true, color="black", label="true distance")
axis.semilogy(steps, gap, color="C0", label="certified gap")
axis.semilogy(
    steps, np.maximum(paper, 1e-6), "--", color="C1", label="Theorem 3.4 alone"
)
axis.semilogy(
    steps,
    np.maximum(paper + np.abs(error), 1e-6),
    color="C1",
    label="with its error term",
)
axis.axvline(1000, color="0.4", linestyle=":", linewidth=1)
axis.annotate(
    "weight decay on",
    (1000, axis.get_ylim()[1]),
    (5, -14),
    textcoords="offset points",
    fontsize=10,
)
axis.set_xlabel("step of gradient descent")
axis.set_ylabel("relative to the optimum")
axis.legend(fontsize=9)
plt.show()
misled = paper < true
print(
    f"Theorem 3.4 alone is below the true distance at {misled.sum()} of {len(steps)} "
    "points looked at"
)
for phase, chosen in (
    ("without weight decay", steps <= 1000),
    ("with weight decay   ", steps > 1000),
):
    zero = chosen & (paper == 0)
    print(
        f"{phase}: it is zero at steps {steps[zero].min():.0f} to "
        f"{steps[zero].max():.0f}, "
        f"whose points are {100 * true[zero].min():.0f} to "
        f"{100 * true[zero].max():.0f} per cent above the optimum"
    )
with_error = paper + np.abs(error)
larger = gap > with_error
print(
    f"below the true distance: certified gap {(gap < true).sum()}, with error term "
    f"{(with_error < true).sum()} times"
)
print(
    f"certified gap larger than the theorem with its error term: {larger.sum()} "
    "points, "
    f"all between steps {steps[larger].min():.0f} and {steps[larger].max():.0f}"
)
print(
    f"last step: certified gap {gap[-1]:.3f}, theorem with error term "
    f"{with_error[-1]:.3f}, true {true[-1]:.4f}"
)

# %% [markdown]
# Where the dashed line is below the black one, the paper's bound taken alone would have been wrong (where it is zero it is
# drawn at $10^{-6}$). Without weight decay the residual becomes small, in the end all $\|G_k\|_2$ are below $\beta$, and the
# theorem's number is zero: "optimal", at points whose weights are far too large. It stays zero for some time after weight
# decay is switched on. None of these points is stationary, and the theorem says nothing about them. The certified gap is
# never below the true distance, and with its error term the paper's bound holds as well. Far from stationarity, before and
# shortly after the switch, the theorem with its error term is the sharper of the two at some points; later, as the iterates
# come closer to a stationary point, the certified gap is.
#
# ## Exercises
#
# 1. At $Z = 0$ the certificate's gap is finite only if $\nabla F(0)$, scaled, gives a positive bound. Compute it by hand for the
#    squared loss: what is the best $s$, and the bound?
# 2. Take the optimal blocks and multiply them by 1.01. How large is the gap, and how large the true distance?
# 3. `problem.beta` enters the certificate's *gap* twice. Where?
#
# <details><summary>Solutions</summary>
#
# 1. $\Lambda = -sY$ with $s \le \beta/\beta_{\max}$; $-F^*(\Lambda) = (s - s^2/2)\|Y\|^2$, increasing on $[0, 1]$, so $s = \beta/\beta_{\max}$
#    for $\beta \le \beta_{\max}$.
# 2. `cnn.certify(problem, 1.01 * optimal)` has a gap of 2.6e-2; its `primal` is 9.6e-5 above `optimum`, relative to it. The
#    true distance is of second order in 0.01, the gap of first order, because the multiplier moves with the gradient.
# 3. In the objective $F + \beta R$ of the point, and in the constraint $\|G_k\|_2 \le \beta$ that limits $s$. The lower bound
#    $-F^*(s\nabla F)$ contains $\beta$ in this one way only.
# </details>
