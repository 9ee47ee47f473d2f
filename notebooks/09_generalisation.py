# %% [markdown]
# # 09 What the global optimum does to the test error
#
# **The question.** The global optimum of the training problem is found. Is it any good on data that were not seen? Is it better
# than what training as usual finds? Weight decay is swept on real data (569 tumours, 30 features), and the optimum compared
# with networks trained by Adam on the same objective.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import convexnn_bench as cnn

everything = cnn.make_problem("breast_cancer", bias=True, patterns=1)  # standardised columns, and a column of ones
order = np.random.default_rng(0).permutation(569)
train, test = order[:300], order[300:]
X, y = everything.X[train], everything.Y[train]
X_test, y_test = everything.X[test], everything.Y[test]
print(f"{len(train)} samples to train on, {len(test)} to test on, {X.shape[1]} features")

# %% [markdown]
# ## The optimum for every weight decay
#
# Gated ReLU with 100 sampled gates, logistic loss. A gated network predicts on new data with the gates that it has:
# $f(x) = \sum_k 1\{x^T g_k \ge 0\}\, x^T z_k$.


# %%
def state(fraction, y=y):
    """The training problem at a fraction of beta_max; the gates are the same for all."""
    return cnn.Problem(X, y, activation="gated_relu", loss="logistic", beta_fraction=fraction, patterns=100, seed=1)


def gated_prediction(problem, Z, inputs):
    gates = inputs @ problem.gates >= 0
    return np.einsum("nk,np,kp->n", gates, inputs, Z[:, :, 0])


def error(scores, labels):
    return 100 * np.mean(np.sign(scores) != labels[:, 0])


fractions = np.geomspace(3e-4, 0.9, 10)
optima = []
for fraction in fractions:
    problem = state(fraction)
    result = cnn.solve(problem, "bm_newton", gap=1e-9)
    scores = gated_prediction(problem, result.blocks, X_test), gated_prediction(problem, result.blocks, X)
    active = int((np.linalg.norm(result.blocks, axis=(1, 2)) > 1e-6).sum())
    optima.append((problem.beta, result.objective, error(scores[0], y_test), error(scores[1], y), active))
beta, objective, test_error, train_error, active = np.array(optima).T
print("beta/beta_max  active blocks  train error %  test error %")
for row in zip(fractions, active, train_error, test_error, strict=True):
    print(f"{row[0]:13.4f} {int(row[1]):14d} {row[2]:14.1f} {row[3]:13.1f}")

# %% [markdown]
# ## Networks trained as usual
#
# The same objective (the network with those gates, one neuron each), Adam, three seeds, 600 steps. How far above the optimum
# do they end, and does it matter for the test error?

# %%
inputs, targets = torch.as_tensor(X), torch.as_tensor(y)
masks = torch.as_tensor(state(0.1).masks, dtype=torch.float64)
excess, errors = [], []
for k, value in enumerate(beta):
    own_excess, own_errors = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        U = (0.1 * torch.randn(X.shape[1], masks.shape[1], dtype=torch.float64)).requires_grad_()
        v = (0.1 * torch.randn(masks.shape[1], dtype=torch.float64)).requires_grad_()
        adam = torch.optim.Adam([U, v], lr=0.02)
        for _ in range(600):
            adam.zero_grad()
            margin = targets[:, 0] * ((masks * (inputs @ U)) @ v)
            loss = torch.nn.functional.softplus(-margin).sum() + value / 2 * (U.square().sum() + v.square().sum())
            loss.backward()
            adam.step()
        Z = (U * v).detach().numpy().T[:, :, None]
        own_excess.append(float(loss.detach()) / objective[k] - 1)
        own_errors.append(error(gated_prediction(state(0.1), Z, X_test), y_test))
    excess.append(own_excess)
    errors.append(own_errors)
excess, errors = np.array(excess), np.array(errors)

# %%
figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.8))
axes[0].loglog(fractions, np.maximum(excess, 1e-7).mean(axis=1), "s-", color="#D55E00")
axes[0].fill_between(fractions, *np.maximum(np.quantile(excess, [0, 1], axis=1), 1e-7), color="#D55E00", alpha=0.2)
axes[0].set_xlabel(r"$\beta / \beta_{\max}$")
axes[0].set_ylabel("Adam's objective above the optimum, relative")
axes[0].grid(True, color="#dddddd")
axes[1].semilogx(fractions, test_error, "o-", color="#0072B2", label="global optimum")
axes[1].semilogx(fractions, errors.mean(axis=1), "s-", color="#D55E00", label="Adam, mean of three")
axes[1].fill_between(fractions, errors.min(axis=1), errors.max(axis=1), color="#D55E00", alpha=0.2)
axes[1].semilogx(fractions, train_error, ":", color="#0072B2", label="global optimum, training error")
axes[1].set_xlabel(r"$\beta / \beta_{\max}$")
axes[1].set_ylabel("error, per cent")
axes[1].legend(frameon=False, fontsize=9)
axes[1].grid(True, color="#dddddd")
plt.show()
best = int(test_error.argmin())
print(f"global optimum: best test error {test_error[best]:.1f} % at beta = {fractions[best]:.3f} beta_max")
print(f"Adam          : best mean test error {errors.mean(axis=1).min():.1f} %")

# %% [markdown]
# On this small data set the two are the same within one or two test samples wherever weight decay is large enough to matter:
# **weight decay, not the optimiser, decides the test error.** What the global optimum adds is that the curve has no noise of
# seeds and steps in it, and that its number of active neurons is a property of the data. With little weight decay Adam
# stops some per cent above the optimum (left), and its test error is one or two samples lower there: too few to tell, but
# enough to see that test errors need not follow objectives.
#
# ## Exercises
#
# 1. Choose $\beta$ by cross-validation on the training part alone. Does the choice agree with the best one above?
# 2. Flip ten per cent of the training labels. Which of the two suffers more at small $\beta$?
# 3. Replace the gates by those of a ReLU network: `activation="relu"`, and predict with `result.network`.
#
# <details><summary>Solutions</summary>
#
# 1. Within the flat part of the curve; its minimum is shallow, and one test sample is 0.4 per cent.
# 2. The exact optimum at small $\beta$ fits the flipped labels; Adam, stopped early, does so less.
# 3. `np.maximum(X_test @ W1, 0) @ W2.T` with `W1, W2 = result.network`; solve with `bm_lbfgs` or `cvxpy_clarabel`.
# </details>
