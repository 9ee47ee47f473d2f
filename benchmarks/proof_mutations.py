"""Change proofs and problems as an attacker would, and look whether the checker accepts what is false.

    python benchmarks/proof_mutations.py [--mutations 10000] [--seed 0]

Each mutation changes one number: a bit of the multiplier, a witness, the point, the bound, the objective, the gap,
beta, a target, an entry of X, or a mask. The attacker repairs the hash of the arrays and the statement of the problem.
The proofs are about listed masks, all masks of the plane, and all masks by decision rules. An accepted mutation is
harmless if what the proof states is still true: the second checker (tests/support/second_checker.py), which shares no
code with the first, finds that it holds, its bound is at most an objective of the changed problem, its objective is at
least an honest bound, and its gap is at least the quotient of the two. The script counts mutations by what they change,
and ends with exit code 1 if a false statement is accepted.
"""

import argparse
import copy
import json
import random
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np

import convexnn_bench as cnn
from convexnn_bench.proofs.checker import as_checked, checker

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import second_checker

DATA = ("X", "Y", "masks", "beta")


def leaves(tree, path=()):
    """Yield the path of every number and every decimal of a proof that the checker computes with."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if path or key not in ("schema", "version", "problem", "sha256", "masks"):
                yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from leaves(value, (*path, index))
    elif tree is not None:
        yield path


def changed(value, rng):
    """Return another number of the same kind."""
    if isinstance(value, str):
        size = Fraction(value)
        return str(size + rng.choice([-1, 1]) * (abs(size) or 1) * Fraction(1, 10 ** rng.randrange(1, 28)))
    return rng.choice([value ^ (1 << rng.randrange(max(1, value.bit_length() + 2))), -value, value + 1, value - 1, 0])


def attack_proof(content, rng):
    """Return a proof with one number changed, and the path of that number."""
    attacked = copy.deepcopy(content)
    # Half of the attacks are on the numbers that a reader looks at, and on the length of the multiplier.
    top = [("bound",), ("primal",), ("gap",), ("multiplier", "scale"), ("multiplier", "bits")]
    path = rng.choice(top) if rng.random() < 0.3 else rng.choice(list(leaves(attacked)))
    place = attacked
    for key in path[:-1]:
        place = place[key]
    if place[path[-1]] is None:
        return attacked, path
    place[path[-1]] = changed(place[path[-1]], rng)
    return attacked, path


def attack_problem(problem, rng):
    """Return a problem with one number of its data changed, and the name of what was changed."""
    what = rng.choice(DATA if problem.activation.name != "linear" else DATA[:2] + DATA[3:])
    tree = {name: np.array(getattr(problem, name)) for name in ("X", "Y", "masks")}
    beta = problem.beta
    if what == "beta":
        beta = beta * (1 + rng.choice([-1, 1]) * 2.0 ** -rng.randrange(1, 52))
    elif what == "masks":
        at = tuple(rng.randrange(size) for size in tree["masks"].shape)
        tree["masks"][at] = ~tree["masks"][at]
    else:
        at = tuple(rng.randrange(size) for size in tree[what].shape)
        labels = problem.loss.labels if what == "Y" else None
        if labels == "signs":
            tree["Y"][at] *= -1
        elif labels == "one_hot":
            tree["Y"][at[0]] = np.roll(tree["Y"][at[0]], 1)
        else:
            tree[what][at] += rng.choice([-1, 1]) * 2.0 ** -rng.randrange(1, 40)
    other = copy.copy(problem)
    other.__dict__.update(X=tree["X"], Y=tree["Y"], masks=tree["masks"], beta=beta)
    return other, what


def accepted(content, of):
    """Return whether the checker accepts a proof, as it would read it from a file."""
    content = json.loads(json.dumps(content), parse_float=str, parse_constant=str)
    try:
        checker().verify(content, of)
    except Exception:
        return False
    return True


def repaired(content, of):
    """Return the proof with the statement of the problem and the hash of its arrays made to fit."""
    return {**content, "problem": of.about, "sha256": of.hash(content["masks"] == "listed")}


def problem_of(loss="squared", activation="gated_relu", c=2, d=2, seed=0):
    """Return a small problem and a good point of it. With d = 2 features the gap of its proof is small."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((6, d))
    Y = np.eye(2)[rng.integers(2, size=6)] if loss == "cross_entropy" else rng.choice([-1.0, 1.0], size=(6, c))
    patterns = "all" if activation == "relu" else 3
    problem = cnn.Problem(X, Y, loss=loss, activation=activation, beta_fraction=0.3, patterns=patterns)
    return problem, cnn.solve(problem, "bm_newton", iterations=30, gap=1e-11, time_limit=600.0)


KINDS = (
    ("squared", "gated_relu", 2),
    ("logistic", "relu", 1),
    ("cross_entropy", "gated_relu", 2),
    ("squared_hinge", "relu", 2),
    ("huber", "linear", 1),
    ("logistic", "relu", 1, 3),
)


def is_true(content, primal, bound):
    """Return whether what a proof states is true, for an objective and a bound that hold for its problem."""
    stated = {name: Fraction(content[name]) for name in ("bound", "primal", "gap")}
    consistent = stated["primal"] - stated["bound"] <= stated["gap"] * abs(stated["bound"])
    return stated["bound"] <= primal and stated["primal"] >= bound and consistent


def mutate(rng, problem, result, proof):
    """Return (what was changed, "rejected", "harmless" or "FALSE") for one mutation."""
    if rng.random() < 0.7:
        content, path = attack_proof(proof.content, rng)
        what, of, about = "proof: " + str(path[0]), as_checked(problem), problem
        primal, bound = proof.primal, proof.bound
    else:
        other, what = attack_problem(problem, rng)
        of, what, about = as_checked(other), f"data: {what}", other
        content, bound = repaired(proof.content, of), Fraction(0)
        neurons = {**proof.content["point"], "every_mask": proof.content["masks"] != "listed"}
        try:
            primal = of.objective_above(**neurons)
        except ValueError:  # the point is outside the cones of other masks
            primal = Fraction(10**9)
    if not accepted(content, of):
        return what, "rejected"
    harmless = is_true(content, primal, bound) and second_checker.holds(about, content)
    return what, "harmless" if harmless else "FALSE"


def run(mutations, seed):
    """Return the number of mutations by (what was changed, what became of it)."""
    rng, counts = random.Random(seed), Counter()
    proven = []
    for kind in KINDS:
        problem, result = problem_of(*kind)
        proven.append((problem, result, cnn.prove(problem, result)))
    for _ in range(mutations):
        counts[mutate(rng, *rng.choice(proven))] += 1
    return counts


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mutations", type=int, default=10000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    counts = run(chosen.mutations, chosen.seed)
    names = sorted({what for what, _ in counts})
    print(f"{'changed':20}{'mutations':>10}{'rejected':>10}{'harmless':>10}{'false':>8}")
    for name in [*names, "all"]:
        row = [sum(n for (w, end), n in counts.items() if name in (w, "all") and end == wanted)
               for wanted in ("rejected", "harmless", "FALSE")]  # fmt: skip
        print(f"{name:20}{sum(row):10}{row[0]:10}{row[1]:10}{row[2]:8}")
    return 1 if any(end == "FALSE" for _, end in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
