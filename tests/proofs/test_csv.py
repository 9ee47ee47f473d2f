"""The checker reads the samples of an MLP from a CSV file, and takes nothing from it that a reader would not see."""

import csv
import json

import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.formulations import Point


def write(problem, path, columns=("x", "y", "mask", "weight"), edit=None):
    """Write the data of a problem as docs/proofs.md describes it; return the file."""
    weights = getattr(getattr(problem.loss, "loss", problem.loss), "weights", getattr(problem.loss, "weights", None))
    parts = {"x": problem.X, "y": problem.Y, "mask": problem.masks.astype(int)}
    parts["weight"] = np.empty((len(problem.X), 0)) if weights is None else weights[:, None]
    names = [f"{kind}{j}" for kind in columns for j in range(parts[kind].shape[1])]
    rows = zip(*(parts[kind].tolist() for kind in columns), strict=True)
    table = [names, *([cell for part in row for cell in part] for row in rows)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table if edit is None else edit(table))
    return path


def example(activation="gated_relu", **options):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((7, 2))
    problem = cnn.Problem(X, rng.standard_normal((7, 2)), activation=activation, beta=0.3, patterns=4, **options)
    if activation == "relu":  # a network, whose proof is about all patterns
        return problem, Point(network=(rng.standard_normal((2, 3)), rng.standard_normal((2, 3))))
    return problem, cnn.solve(problem, "bm_newton", iterations=20)


@pytest.mark.parametrize(
    ("activation", "options", "columns"),
    [
        ("linear", {}, "x y"),
        ("gated_relu", {"output_bias": "penalised"}, "x y mask"),
        ("gated_relu", {"sample_weight": np.arange(7.0), "loss": "huber"}, "x y mask weight"),
        ("gated_relu", {"sample_weight": np.arange(7.0), "output_bias": "free"}, "x y mask weight"),
        ("relu", {}, "x y"),
        ("relu", {}, "x y mask"),
    ],
)
def test_a_table_says_the_same_as_the_problem_file(activation, options, columns, tmp_path):
    problem, point = example(activation, **options)
    proof = cnn.prove(problem, point)
    table = write(problem, tmp_path / "data.csv", columns.split())
    if activation != "relu" or "mask" in columns:
        assert cnn.check_proof(proof, table) == cnn.check_proof(proof, problem)
    else:
        assert "no ReLU network of any width" in cnn.check_proof(proof, table)
    assert cnn.check_proof(proof.save(tmp_path / "proof.json.gz"), table) == cnn.check_proof(proof, table)


def swapped(table):
    return [[row[1], row[0], *row[2:]] for row in table]


EDITS = {
    "columns in another order": (swapped, "columns are"),
    "no names": (lambda table: table[1:], "columns are"),
    "an unknown column": (lambda table: [[*table[0], "note"], *([*row, 1] for row in table[1:])], "columns are"),
    "two targets of one name": (lambda table: [[*table[0][:3], "y0", *table[0][4:]], *table[1:]], "columns are"),
    "a row that is too short": (lambda table: [*table[:-1], table[-1][:-1]], "columns are"),
    "an empty line": (lambda table: [*table, []], "columns are"),
    "no rows": (lambda table: table[:1], "columns are"),
    "decimal commas": (lambda table: [[str(cell).replace(".", ",") for cell in row] for row in table], "could not"),
    "another number": (lambda table: [*table[:-1], [0.5, *table[-1][1:]]], "about these arrays"),
    "not a number": (lambda table: [*table[:-1], ["nan", *table[-1][1:]]], "NaN"),
    "infinity": (lambda table: [*table[:-1], ["1e999", *table[-1][1:]]], "Infinity"),
    "half a mask": (lambda table: [*table[:-1], [*table[-1][:-1], 0.5]], "masks 0 or 1"),
    "a weight that nobody uses": (lambda table: [[*table[0], "weight0"], *([*row, 1.0] for row in table[1:])], "known"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_table_that_is_not_what_it_seems_is_refused(name, tmp_path):
    problem, point = example()
    edit, message = EDITS[name]
    with pytest.raises(cnn.ProofError, match=message):
        cnn.check_proof(cnn.prove(problem, point), write(problem, tmp_path / "data.csv", ("x", "y", "mask"), edit))


def test_the_problem_that_a_proof_states_for_a_table_holds_nothing_that_is_not_checked(tmp_path):
    problem, point = example()
    table, content = write(problem, tmp_path / "data.csv", ("x", "y", "mask")), cnn.prove(problem, point).content
    stated = content["problem"]
    loss = stated["loss"]
    lies = {
        "a parameter of a loss that has none": {**stated, "loss": {**loss, "parameters": {"scale": "0.5"}}},
        "a field that is no part of a problem": {**stated, "note": "with dropout"},
        "a decimal that is not the float that it is read as": {**stated, "beta": "0.30000000000000000001"},
        "another beta": {**stated, "beta": "0.31"},
        "an architecture that has no table": {**stated, "architecture": {"name": "cnn", "parameters": {}}},
        "nothing": None,
    }
    for name, lie in lies.items():
        proof = cnn.Proof({**content, "problem": lie}, "sampled")
        with pytest.raises(cnn.ProofError):
            print(name, cnn.check_proof(proof, table))
    # The honest one passes, and its beta is read as text.
    assert json.dumps(stated) in cnn.check_proof(cnn.Proof(content, "sampled"), table)
