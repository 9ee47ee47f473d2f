# %% [markdown]
# # 11 How can a stranger check that a network is a global optimum?
#
# **The question.** A certificate says that no network is better. Whoever reads that has to trust twenty thousand lines of this
# package, and the rounding of float64. Can the statement be written down so that a stranger checks it in a second, with three
# hundred lines that share nothing with the package?

# %% tags=["hide-input"]
import copy

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

import convexnn_bench as cnn

plt.rcParams.update(cnn.style())
BLUE, ORANGE, GREEN, PINK = "C0", "C1", "C2", "C3"

X, y = make_moons(60, noise=0.25, random_state=0)
X = (X - X.mean(axis=0)) / X.std(axis=0)
problem = cnn.Problem(
    X, 2.0 * y - 1, activation="relu", loss="logistic", patterns="all", beta=1.0
)
result = cnn.solve(problem, "bm_newton", gap=1e-13, time_limit=None, iterations=500)
proof = cnn.prove(problem, result)


def multiplier(content):
    """Return the multiplier of a proof as float64 numbers."""
    stated = content["multiplier"]
    size = stated["scale"] / 2.0 ** stated["bits"]
    return np.array([[float(entry) * size for entry in row] for row in stated["rows"]])


def reach(content, angles):
    """Return |sum_i L_i max(x_i^T u, 0)| for unit vectors u at these angles."""
    directions = np.stack([np.cos(angles), np.sin(angles)])
    return np.abs(multiplier(content)[:, 0] @ np.maximum(X @ directions, 0))


angles = np.linspace(0, 360, 1441)
curve = reach(proof.content, np.radians(angles))
W1, W2 = result.network
sizes = np.linalg.norm(W1, axis=0) * np.linalg.norm(W2, axis=0)
used = sizes > 1e-6 * sizes.max()
neurons = np.degrees(np.arctan2(W1[1, used], W1[0, used])) % 360

figure, axis = plt.subplots(figsize=(6.5, 3.2))
axis.plot(angles, curve, color=BLUE)
axis.axhline(problem.beta, color=ORANGE, linewidth=1)
axis.plot(neurons, reach(proof.content, np.radians(neurons)), "o", color=GREEN)
axis.text(355, 1.03, r"weight decay $\beta$", color=ORANGE, ha="right")
axis.set(
    xlabel="direction of a neuron (degrees)",
    ylabel=r"$|\sum_i \Lambda_i\, (x_i^T u)_+|$",
    ylim=(0, 1.2),
    xlim=(0, 360),
    xticks=range(0, 361, 60),
    title="Only the optimum's neurons are worth their weight decay",
)
figure.tight_layout()

# %% [markdown]
# This curve *is* the proof. It belongs to 60 points of two half moons, a ReLU network with logistic loss, and a multiplier
# $\Lambda$: one number for each point. Weak duality says: if the curve stays below $\beta$ in every direction, then no network,
# of any width, has an objective below $-F^*(\Lambda)$. The green points are the neurons of the trained network. Where the curve
# touches $\beta$ a neuron pays for itself, and nowhere else.
#
# So a stranger has three things to check: that the curve stays below $\beta$, the number $-F^*(\Lambda)$, and the objective of
# the network. None of them needs an optimiser. All numbers in a computer are fractions, so that the check can be exact.
#
# ## Made, and checked
#
# `cnn.prove` rounds the multiplier to integers and shortens it until every inequality holds *exactly*. `cnn.check_proof` runs
# `verify_proof.py`, which imports nothing but Python's standard library.

# %%
proof = cnn.prove(problem, result)
print(cnn.check_proof(proof, problem))
print(f"{len(proof.to_bytes())} bytes, relative gap {float(proof.gap):.1e}")

# %% [markdown]
# The objective and the bound share their first twelve digits or so. The file is small, since a proof is a multiplier, a few
# neurons, and nothing else: in the plane the checker finds all activation patterns itself, by sorting the directions in which
# some point changes its side, with exact fractions.
#
# The same two steps with files, for somebody who has Python and not this package:
#
# ```
# convexnn-bench prove problem.npz result.npz --out proof.json.gz
# python verify_proof.py proof.json.gz problem.npz
# ```
#
# ## Tampered with
#
# A forger wants a better bound. The stated number alone cannot be changed, as the checker computes it again. A longer multiplier
# does give a larger bound, but then the curve is no longer below $\beta$. And a network with a smaller objective would be news.


# %%
def verdict(**changes):
    """Change entries of the proof, and return what the checker says first."""
    forged = copy.deepcopy(proof.content)
    for path, value in changes.items():
        *inside, last = path.split("__")
        place = forged
        for key in inside:
            place = place[key]
        place[last] = value(place[last])
    try:
        return cnn.check_proof(cnn.Proof(forged, proof.scope), problem).split(":")[0]
    except cnn.ProofError as error:
        return f"refused: {str(error).partition(': ')[2]}"


print("a larger bound         ", verdict(bound=lambda text: text.replace("2", "3", 1)))
print("a longer multiplier    ", verdict(multiplier__scale=lambda s: s + (s >> 40)))
print(
    "a smaller weight       ",
    verdict(point__first=lambda u: [[u[0][0] // 2, u[0][1]], *u[1:]]),
)
print("a smaller gap          ", verdict(gap=lambda text: "1E-16"))
print(
    "another weight decay   ", verdict(problem=lambda about: {**about, "beta": "0.9"})
)
print("the proof as it is     ", verdict())

# %% [markdown]
# Each refusal names the first sentence that does not hold. The picture shows what the checker sees for a multiplier that is
# longer by a tenth: the forged bound is larger, and the curve crosses the line.

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(6.5, 3.2))
forged = copy.deepcopy(proof.content)
forged["multiplier"]["scale"] += forged["multiplier"]["scale"] // 10
above = reach(forged, np.radians(angles))
axis.plot(angles, curve, color=BLUE, linewidth=1)
axis.plot(angles, above, color=PINK)
axis.fill_between(
    angles, problem.beta, above, where=above > problem.beta, color=PINK, alpha=0.3
)
axis.axhline(problem.beta, color=ORANGE, linewidth=1)
axis.set(
    xlabel="direction of a neuron (degrees)",
    ylabel=r"$|\sum_i \Lambda_i\, (x_i^T u)_+|$",
    ylim=(0, 1.2),
    xlim=(0, 360),
    xticks=range(0, 361, 60),
    title="A forged multiplier (pink) crosses the line",
)
figure.tight_layout()

# %% [markdown]
# ## How small a lie is found?
#
# Six numbers of the multiplier are made larger and smaller by a part of themselves, one at a time. A change is a lie if it makes
# the curve cross the line, or the value smaller than stated. Other changes leave the statement true, because bound and objective
# were rounded to the safe side. The numbers have 64 bits, so that a part of $10^{-18}$ is a change of the last few bits.

# %% tags=["hide-input"]
exponents = range(2, 20, 2)
accepted = []
for exponent in exponents:
    count = 0
    for row in range(0, len(X), 10):
        for sign in (1, -1):

            def changed(rows, row=row, sign=sign, exponent=exponent):
                size = abs(rows[row][0]) // 10**exponent
                new = [[rows[row][0] + sign * size]]
                return [*rows[:row], *new, *rows[row + 1 :]]

            count += verdict(multiplier__rows=changed) == "VERIFIED"
    accepted.append(count)
figure, axis = plt.subplots(figsize=(6.5, 2.8))
axis.bar(exponents, accepted, width=1.4, color=GREEN)
axis.bar(exponents, 12 - np.array(accepted), bottom=accepted, width=1.4, color=PINK)
axis.set(
    xticks=exponents,
    xticklabels=[f"$10^{{-{exponent}}}$" for exponent in exponents],
    xlabel="relative change of one number of the multiplier",
    ylim=(0, 12),
    yticks=range(0, 13, 3),
    ylabel="changes out of 12",
    title="Refused (pink) unless the statement stays true (green)",
)
figure.tight_layout()

# %% [markdown]
# ## Verified without a file
#
# A proof is for others. For oneself `verified=True` bounds every rounding error of the certificate in float64, which takes little
# longer than the certificate itself where blocks have no cones. It trusts the rounding of single operations and no library.

# %%
gated = cnn.Problem(X, 2.0 * y - 1, loss="logistic", patterns=40, beta=1.0)
solved = cnn.solve(gated, "bm_newton", gap=1e-10, time_limit=None, iterations=500)
usual = cnn.certify(gated, solved)
verified = cnn.certify(gated, solved, verified=True)
exact = cnn.prove(gated, solved)
for name, one in (("usual", usual), ("verified", verified)):
    print(f"{name:9} bound {one.dual:.14f}  objective {one.primal:.14f}")
print(
    f"{'exact':9} bound {float(exact.bound):.14f}  objective {float(exact.primal):.14f}"
)

# %% [markdown]
# ## Exercises
#
# 1. What does the checker trust? List everything that could be wrong although it prints VERIFIED.
# 2. Make a proof of a bad network, such as `cnn.solve(problem, "network_adam", iterations=20)`. Is it verified? What does it say?
# 3. Change a label of the problem and compute the hash of the proof anew. Find out whether the checker can still be fooled.
#
# <details><summary>Solutions</summary>
#
# 1. Its own 300 lines, Python's integers, fractions and decimals, and that the problem file is the problem you care about.
#    [The page on proofs](../proofs.md) has the list.
# 2. It is verified, since it states nothing false: the bound and the objective are far apart, and the gap is large.
# 3. The bound is computed from the labels. With another label the multiplier is outside the domain of $F^*$ or has another
#    value, and the bound that the proof states does not follow. `benchmarks/proof_mutations.py` tries ten thousand such forgeries.
# </details>
