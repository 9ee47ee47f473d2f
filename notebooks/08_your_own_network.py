# %% [markdown]
# # 08 Bring your own network
#
# **The question.** You have trained a two-layer network in torch. Is that the global optimum of its training problem, and if
# not, how far above it can it be? `cnn.certify_module` reads the module, checks the reading on your data, and answers.

# %%
import numpy as np
import torch

import convexnn_bench as cnn

draw = np.random.default_rng(0)
X = draw.standard_normal((60, 2))
y = np.abs(X[:, 0]) - X[:, 1] + 0.1 * draw.standard_normal(60)
inputs, targets = torch.as_tensor(X), torch.as_tensor(y)[:, None]


def trained(width, steps, seed, weight_decay=0.5, mean=False):
    """A ReLU network with biases, Adam with weight decay as torch has it."""
    torch.manual_seed(seed)
    layers = torch.nn.Linear(2, width), torch.nn.ReLU(), torch.nn.Linear(width, 1)
    module = torch.nn.Sequential(*layers).double()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02, weight_decay=weight_decay)
    for _ in range(steps):
        optimiser.zero_grad()
        residual = module(inputs) - targets
        (torch.nn.functional.mse_loss(module(inputs), targets) if mean else 0.5 * residual.square().sum()).backward()
        optimiser.step()
    return module


# %% [markdown]
# ## The report
#
# The loss here is a *sum*, $\frac12 \sum_i (f(x_i) - y_i)^2$, and torch's `weight_decay` adds $\frac\lambda2 \|w\|^2$, so $\beta = \lambda$.

# %%
module = trained(width=20, steps=800, seed=0)
report = cnn.certify_module(module, X, y, loss="squared", weight_decay=0.5)
print(report)

# %% [markdown]
# The second sentence is the point: no network of this kind, *of any width*, can be better than the lower bound. The bound is
# over all activation patterns; here they can be enumerated, so nothing is lost.
#
# ## While it trains

# %%
for steps in (0, 20, 100, 400, 1600):
    r = cnn.certify_module(trained(20, steps, seed=0), X, y, loss="squared", weight_decay=0.5)
    print(f"after {steps:4d} steps: objective {r.primal:8.4f}, proven bound {r.dual:8.4f}, gap {100 * r.gap:8.2f} %")

# %% [markdown]
# ## Does width help?
#
# Three seeds for several widths. The lower bound does not depend on the width, so that one number shows which width was too
# small and which seed was unlucky.

# %%
bound = max(
    cnn.certify_module(trained(40, 2500, seed=s), X, y, loss="squared", weight_decay=0.5).dual for s in range(2)
)
print("width   above the best bound, per cent (three seeds)")
for width in (2, 4, 8, 16, 40):
    reports = [
        cnn.certify_module(trained(width, 1500, seed=s), X, y, loss="squared", weight_decay=0.5) for s in range(3)
    ]
    print(f"{width:5d}   " + "  ".join(f"{100 * (r.primal / bound - 1):7.2f}" for r in reports))

# %% [markdown]
# ## Mean losses
#
# `torch.nn.MSELoss` averages. Then $\beta$ follows from the number of samples and outputs, and `reduction="mean"` does it:
# $\text{MSE} + \frac\lambda2\|w\|^2 = \frac{2}{nc}\big(F + \frac\beta2 \|w\|^2\big)$ with $\beta = \lambda n c / 2$.

# %%
averaged = trained(width=20, steps=1500, seed=0, weight_decay=0.5 * 2 / 60, mean=True)
r = cnn.certify_module(averaged, X, y, loss="squared", weight_decay=0.5 * 2 / 60, reduction="mean")
print(f"beta = {r.beta:.4f}, gap {100 * r.gap:.2f} %")

# %% [markdown]
# ## Without a module
#
# Weights are enough. A problem is stated, and any point of any formulation can be judged on it: network weights `(W1, W2)`,
# factors `(U, V)`, or blocks `Z`. A bias is one more feature, a column of ones.

# %%
problem = cnn.Problem(np.hstack([X, np.ones((60, 1))]), y, activation="relu", loss="squared", beta=0.5, patterns=40)
first, last = module[0], module[2]
W1 = np.hstack([first.weight.detach().numpy(), first.bias.detach().numpy()[:, None]]).T
W2 = last.weight.detach().numpy()
certificate = cnn.certify(problem, (W1, W2))
print(
    f"without the output bias: objective {certificate.primal:.3f}, bound {certificate.dual:.3f}, {certificate.scope} patterns"
)

# %% [markdown]
# ## What is refused, and why
#
# What does not match is refused with the reason, rather than certified wrongly:

# %%
deeper = torch.nn.Sequential(
    torch.nn.Linear(2, 5), torch.nn.ReLU(), torch.nn.Linear(5, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1)
)
for attempt in (lambda: cnn.certify_module(deeper.double(), X, y, weight_decay=0.5),
                lambda: cnn.certify_module(module, X, y[:-1], weight_decay=0.5)):  # fmt: skip
    try:
        attempt()
    except cnn.ConvexNNError as error:
        print(f"{type(error).__name__}: {error}\n")

# %% [markdown]
# On the command line, from files of which nothing is ever unpickled:
#
# ```
# convexnn-bench certify MODEL.pt DATA.npz --loss squared --weight-decay 0.5
# ```
#
# ## Exercises
#
# 1. Train with `weight_decay=0.01`. Is the gap larger or smaller, and which part of it is due to the network?
# 2. Certify the module with the wrong `weight_decay`. What does the gap say then?
# 3. Train a network with AdamW. Why does the report judge it by the objective you state?
#
# <details><summary>Solutions</summary>
#
# 1. Usually larger: with little decay the optimum is flat and far away for Adam. The report tells how far the dual norm is
#    known, and so how much could be due to the bound.
# 2. It is the gap of another problem: the report is about the objective that is stated, whatever the network was trained on.
# 3. AdamW's decoupled decay is not the gradient of any term of the objective, so there is no training problem to be judged by
#    but the one that is stated.
# </details>
