"""Proofs of every kind of problem are verified by the checker, and their bounds are those of float certificates."""

import copy
import functools
import gzip
import itertools
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import second_checker
from problems import LOSS_NAMES, targets

import convexnn_bench as cnn
from convexnn_bench.formulations import Point

ROOT = Path(__file__).resolve().parents[2]
POOL = np.random.default_rng(5).standard_normal((2, 4))
ARCHITECTURES = {
    "mlp": (cnn.MLP(), (7, 2), 7),
    "cnn": (cnn.CNN(patch=2, pool=2, bias=True, padding=1, stride=2), (4, 1, 3, 3), 4),
    "identity": (cnn.CNN(patch=2, pool="identity"), (4, 1, 3, 3), 4),
    "matrix": (cnn.CNN(patch=2, pool=POOL), (4, 1, 3, 3), 4),
    "tokens": (cnn.Attention(), (3, 2, 2), 6),
    "mean": (cnn.Attention(output="mean"), (5, 3, 2), 5),
}
ACTIVATIONS = ("linear", "gated_relu", "relu")
CELLS = list(itertools.product(ARCHITECTURES, ACTIVATIONS, LOSS_NAMES))
BIASES = (None, "free", "penalised")


@functools.cache
def problem_of(architecture, activation, loss):
    """A tiny problem; the numbers of outputs, sample weights and output biases alternate over the cells."""
    index = CELLS.index((architecture, activation, loss))
    rng = np.random.default_rng(index)
    made, shape, rows = ARCHITECTURES[architecture]
    X = rng.standard_normal(shape)
    weights = rng.uniform(0.1, 2, len(X)) if index % 2 else None
    if weights is not None:
        weights[0] = 0.0
    return cnn.Problem(
        X, targets(loss, rows, 1 + index % 2, rng), architecture=made, activation=activation, loss=loss, beta=0.3,
        patterns=5, sample_weight=weights, output_bias=BIASES[index // 2 % 3], seed=index,
    )  # fmt: skip


@functools.cache
def proven(architecture, activation, loss):
    """A point that no solver has found, in its cones; the multiplier is scaled until the worst block is active."""
    problem = problem_of(architecture, activation, loss)
    rng = np.random.default_rng(0)
    U, V = (0.3 * rng.standard_normal((problem.P, size, 2)) for size in (problem.p, problem.q))
    point = Point(factors=(problem.cones.project(U) if problem.has_cone else U, V))
    scope = "sampled" if activation == "relu" else None
    return point, cnn.certify(problem, point, scope), cnn.prove(problem, point, scope)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_cell_is_proven_and_verified(cell):
    problem = problem_of(*cell)
    _, certificate, proof = proven(*cell)
    assert cnn.check_proof(proof, problem).startswith("VERIFIED: no point over the")
    # The semidefinite program for several ReLU outputs is solved to 1e-9.
    tolerance = 2e-9 if problem.vector_cone else 1e-11
    assert float(proof.bound) >= certificate.dual - tolerance * abs(certificate.dual) - 1e-50
    assert proof.scope == certificate.scope
    if proof.bound == 0:  # a relative gap is not defined, so that none is stated
        assert proof.primal is None
    else:
        assert proof.bound <= proof.primal
        assert float(proof.primal) <= certificate.primal * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS[::4], ids="-".join)
def test_a_second_checker_agrees(cell):
    """Another program, written from the page of the documentation, accepts proofs and refuses a higher bound."""
    problem, proof = problem_of(*cell), proven(*cell)[2]
    assert second_checker.holds(problem, proof.content)
    higher = repr(float(proof.bound) + 1e-6 * abs(float(proof.bound)) + 1e-12)
    assert not second_checker.holds(problem, {**proof.content, "bound": higher})
    if proof.primal is not None:
        assert not second_checker.holds(problem, {**proof.content, "primal": repr(float(proof.primal) * (1 - 1e-9))})


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("c", [1, 2])
def test_all_patterns_of_the_plane_are_enumerated_by_the_checker(loss, c):
    rng = np.random.default_rng(c)
    X = np.concatenate([rng.standard_normal((6, 2)), [[1.0, 2.0], [2.0, 4.0], [0.0, 0.0], [-1.0, -2.0]]])
    problem = cnn.Problem(X, targets(loss, 10, c, rng), loss=loss, activation="relu", beta=0.2, patterns=3)
    point = Point(network=(rng.standard_normal((2, 3)), rng.standard_normal((problem.q, 3))))
    certificate, proof = cnn.certify(problem, point), cnn.prove(problem, point)
    assert "no ReLU network of any width" in cnn.check_proof(proof, problem)
    assert proof.content["masks"] == "plane"
    assert second_checker.holds(problem, proof.content)
    longer = copy.deepcopy(proof.content)
    longer["multiplier"]["scale"] *= 2
    assert not second_checker.holds(problem, {**longer, "bound": "-1000"})
    assert float(proof.bound) >= certificate.dual - 1e-11 * abs(certificate.dual) - 1e-50
    assert proof.bound <= proof.primal


def test_the_bound_of_a_closed_form_is_met_exactly():
    """One sample, one feature, linear: min 1/2 (u - 3)^2 + |u| = 5/2 at u = 2."""
    problem = cnn.Problem([[1.0]], [3.0], activation="linear", beta=1.0)
    proof = cnn.prove(problem, np.array([[[2.0]]]))
    assert Fraction(5, 2) - Fraction(1, 10**13) <= proof.bound <= Fraction(5, 2) <= proof.primal
    assert proof.gap <= Fraction(1, 10**13)


def test_weights_of_any_scale_and_soft_labels_are_exact():
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((6, 2)) * 1e-6, rng.dirichlet(np.ones(3), 6)
    problem = cnn.Problem(X, Y, loss="cross_entropy", beta_fraction=0.1, patterns=4)
    proof = cnn.prove(problem, cnn.solve(problem, "bm_newton", iterations=30))
    cnn.check_proof(proof, problem)
    assert proof.gap < 1e-6


def test_a_proof_is_made_of_any_point_and_of_none_that_is_outside_its_cones():
    problem = problem_of("mlp", "gated_relu", "squared")
    zero = cnn.prove(problem, np.zeros((problem.P, problem.p, problem.q)))
    cnn.check_proof(zero, problem)
    # A point outside the cones has a bound, and no gap.
    relu = problem_of("mlp", "relu", "squared")
    U, V = np.ones((relu.P, 2, 1)), np.ones((relu.P, relu.q, 1))
    outside = cnn.prove(relu, Point(factors=(U, V)), "sampled")
    assert (outside.primal, outside.gap) == (None, None)
    assert "point of" not in cnn.check_proof(outside, relu)


def test_files_round_trip_and_both_ways_to_run_the_checker_agree(tmp_path):
    problem = problem_of("mlp", "gated_relu", "cross_entropy")
    proof = proven("mlp", "gated_relu", "cross_entropy")[2]
    files = proof.save(tmp_path / "proof.json.gz"), problem.save(tmp_path / "problem.npz")
    words = cnn.check_proof(*files)
    assert words == cnn.check_proof(proof, problem)
    with gzip.open(files[0], "rt") as stream:
        stated = json.load(stream)
    assert Fraction(stated["bound"]) == proof.bound
    assert float(stated["bound"]) <= float(stated["primal"])


@pytest.mark.process
def test_the_checker_is_a_program_of_300_lines_that_needs_the_standard_library_alone(tmp_path):
    problem = problem_of("mlp", "relu", "logistic")
    proof = proven("mlp", "relu", "logistic")[2]
    files = proof.save(tmp_path / "proof.json.gz"), problem.save(tmp_path / "problem.npz")
    program = ROOT / "verify_proof.py"
    assert len(program.read_text().splitlines()) <= 300

    def run(*arguments):
        # -I -S: no environment, no site-packages, no folder of the checkout
        command = [sys.executable, "-I", "-S", str(program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    done = run(*files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == cnn.check_proof(*files)
    other = problem.with_beta(0.4).save(tmp_path / "other.npz")
    done = run(files[0], other)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("NOT VERIFIED. This does not hold: the proof is about this problem")


def test_what_cannot_be_proven_is_refused():
    problem = problem_of("mlp", "gated_relu", "squared")
    with pytest.raises(cnn.InputError, match="problem must be a Problem"):
        cnn.prove(1, np.zeros(3))
    with pytest.raises(cnn.InputError, match="precision"):
        cnn.prove(problem, np.zeros((problem.P, 2, problem.q)), precision=3)
    with pytest.raises(cnn.InputError, match="problem must be a Problem or a file"):
        cnn.check_proof(proven("mlp", "gated_relu", "squared")[2], 3)
    with pytest.raises(cnn.InputError, match="path must be a proof"):
        cnn.check_proof(3, problem)


def test_damaged_files_are_no_proofs(tmp_path):
    problem = problem_of("mlp", "gated_relu", "squared")
    (tmp_path / "proof.json.gz").write_bytes(b"nothing")
    with pytest.raises(cnn.ProofError, match="is not a proof"):
        cnn.check_proof(tmp_path / "proof.json.gz", problem)
    with pytest.raises(FileNotFoundError):
        cnn.check_proof(tmp_path / "absent.json.gz", problem)
