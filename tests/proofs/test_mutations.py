"""No false statement is accepted, whichever single number of a proof or of its problem an attacker changes."""

import random
import sys
from pathlib import Path

import pytest

import convexnn_bench as cnn

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MUTATIONS = 240


@pytest.fixture(scope="module")
def attacks():
    """Return the benchmark module, imported as its command imports it."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import proof_mutations

        yield proof_mutations
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def proven(attacks):
    kinds = [attacks.problem_of(*kind) for kind in attacks.KINDS]
    return [(problem, result, cnn.prove(problem, result)) for problem, result in kinds]


@pytest.mark.slow
def test_what_is_accepted_after_a_mutation_is_true(attacks, proven):
    rng = random.Random(7)
    ends = [attacks.mutate(rng, *proven[index % len(proven)]) for index in range(MUTATIONS)]
    assert [what for what, end in ends if end == "FALSE"] == []
    assert sum(end == "rejected" for _, end in ends) > MUTATIONS / 2


@pytest.mark.slow
def test_a_larger_bound_a_smaller_objective_and_a_smaller_gap_are_rejected(attacks, proven):
    for problem, _, proof in proven:
        of = attacks.as_checked(problem)
        assert attacks.accepted(proof.content, of)
        for name, factor in (("bound", 1 + 1e-12), ("primal", 1 - 1e-12), ("gap", 0.99)):
            value = float(proof.content[name]) * factor
            assert not attacks.accepted({**proof.content, name: repr(value)}, of), name


@pytest.mark.slow
def test_tricks_beyond_single_numbers_are_rejected(attacks, proven):
    problem, _, proof = proven[0]
    of, content = attacks.as_checked(problem), proof.content
    point, multiplier = content["point"], content["multiplier"]
    tricks = {
        "a float in place of an integer": {"multiplier": {**multiplier, "scale": multiplier["scale"] + 0.5}},
        "a block that is none": {"point": {**point, "blocks": [-1] * len(point["blocks"])}},
        "a row left out": {"multiplier": {**multiplier, "rows": multiplier["rows"][1:]}},
        "another way to cover the masks": {"masks": "plane"},
        "an unknown way to cover the masks": {"masks": "none"},
        "a gap without a point": {"point": None},
        "another version": {"version": 2},
        "not a number": {"bound": "nan"},
    }
    for name, change in tricks.items():
        assert not attacks.accepted({**content, **change}, of), name


@pytest.mark.slow
def test_negative_multipliers_of_cones_are_rejected(attacks):
    import numpy as np

    from convexnn_bench.formulations import Point

    rng = np.random.default_rng(1)
    X = rng.standard_normal((8, 3))
    problem = cnn.Problem(X, rng.standard_normal(8), activation="relu", beta=0.4, patterns=6)
    U = problem.cones.project(rng.standard_normal((problem.P, 3, 1)))
    proof = cnn.prove(problem, Point(factors=(U, rng.standard_normal((problem.P, 1, 1)))), "sampled")
    block, witness = next(iter(proof.content["witnesses"].items()))
    assert witness["plus"] or witness["minus"]
    turned = {**witness, **{side: [[i, -value] for i, value in witness[side]] for side in ("plus", "minus")}}
    of = attacks.as_checked(problem)
    assert attacks.accepted(proof.content, of)
    assert not attacks.accepted({**proof.content, "witnesses": {**proof.content["witnesses"], block: turned}}, of)
    assert not attacks.accepted({**proof.content, "witnesses": {}}, of)
