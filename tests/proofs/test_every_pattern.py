"""Proofs over every activation pattern in any dimension, by decision rules, and of a user's own network."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import second_checker
import torch
from problems import targets

import convexnn_bench as cnn
from convexnn_bench.formulations import Point
from convexnn_bench.proofs.checker import as_checked, checker

# The second checker takes its time. These two have proofs with lines, and with planes.
BY_BOTH = (("logistic", 1), ("cross_entropy", 3))


def shorter(content):
    tangent = content["witnesses"][0]["tangents"][0]
    tangent["reach"] = tangent["reach"] * 9 // 10


def outside(content):
    tangent = content["witnesses"][0]["tangents"][0]
    tangent["constant"][0] = -(1 << 40)


def higher(content):
    content["bound"] = repr(float(content["bound"]) + 1e-9 * abs(float(content["bound"])) + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "c"), [("logistic", 1), ("squared", 2), ("cross_entropy", 2), ("cross_entropy", 3)])
def test_a_decision_rule_proves_a_bound_over_all_patterns(loss, c):
    rng = np.random.default_rng(c)
    X = rng.standard_normal((8, 3))
    problem = cnn.Problem(X, targets(loss, 8, c, rng), loss=loss, activation="relu", beta=0.5, patterns=3)
    point = Point(network=(rng.standard_normal((3, 4)), rng.standard_normal((problem.q, 4))))
    proof = cnn.prove(problem, point)
    assert proof.content["masks"] == "rule"
    assert "no ReLU network of any width" in cnn.check_proof(proof, problem)
    # A second checker agrees, and refuses a shorter tangent, a rule outside [0, 1] and a higher bound.
    by_both = (loss, c) in BY_BOTH
    assert not by_both or second_checker.holds(problem, proof.content)
    of = as_checked(problem)
    for change in (shorter, outside, higher):
        forged = copy.deepcopy(proof.content)
        change(forged)
        assert not by_both or not second_checker.holds(problem, forged)
        with pytest.raises(ValueError, match=r"<=|stays|bound"):
            checker().verify(forged, of)
    # A certificate enumerates these patterns, so that its bound is the best one of this multiplier.
    dual = cnn.certify(problem, point).dual
    assert 0.8 * dual <= float(proof.bound) <= dual * (1 + 1e-12)


@pytest.mark.slow
def test_a_report_on_a_trained_network_is_proven_with_the_networks_own_objective():
    torch.manual_seed(0)
    X = np.random.default_rng(0).standard_normal((20, 3))
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    report = cnn.certify_module(module, X, (X[:, 0] > 0).astype(int), "cross_entropy", weight_decay=0.1)
    proof = report.prove()
    cnn.check_proof(proof, report.problem)
    assert report.primal * (1 - 1e-9) <= float(proof.primal) <= report.primal
    assert proof.bound <= Fraction(report.primal)
    assert float(proof.bound) == pytest.approx(report.dual, rel=0.02)
