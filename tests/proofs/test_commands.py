"""The commands prove and verify."""

import numpy as np
import pytest
from typer.testing import CliRunner

import convexnn_bench as cnn
from convexnn_bench.cli import app


@pytest.fixture
def files(tmp_path):
    problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
    result = cnn.solve(problem, "bm_newton", iterations=20)
    return problem.save(tmp_path / "problem.npz"), result.save(tmp_path / "result.npz"), tmp_path / "proof.json.gz"


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_prove_writes_a_file_that_verify_accepts(files):
    problem, result, proof = files
    made = run("prove", problem, result, "--out", proof)
    assert made.exit_code == 0, made.output
    assert f"proof   {proof}" in made.stdout
    verified = run("verify", proof, problem)
    assert (verified.exit_code, verified.stdout) == (0, cnn.check_proof(proof, problem))


def test_verify_names_what_does_not_hold(files, tmp_path):
    problem, result, proof = files
    assert run("prove", problem, result, "--out", proof).exit_code == 0
    other = cnn.load_problem(problem).with_beta(0.2).save(tmp_path / "other.npz")
    refused = run("verify", proof, other)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "NOT VERIFIED: this does not hold: the proof is about this problem" in refused.stderr


def test_files_that_are_missing_or_of_another_kind_are_named(files, tmp_path):
    problem, result, proof = files
    assert run("verify", tmp_path / "absent.json.gz", problem).exit_code == 1
    assert run("prove", tmp_path / "absent.npz", result, "--out", proof).exit_code == 1
    np.savez(tmp_path / "other.npz", X=np.eye(2))
    wrong = run("prove", tmp_path / "other.npz", result, "--out", proof)
    assert (wrong.exit_code, "cannot be read as a saved problem" in wrong.stderr) == (2, True)
