"""The fuzz of benchmarks/soundness.py finds nothing in a hundred problems, and it finds every fault planted here."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.certificates import bounds, certification
from convexnn_bench.instance import core

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FIRST, COUNT = 0, 100  # number of the first problem, and how many are examined


@pytest.fixture(scope="module")
def fuzz():
    """Return the benchmark module, imported as its command imports it."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import soundness

        yield soundness
    finally:
        sys.path.remove(str(BENCHMARKS))


def kinds(fuzz, wanted, problems=4, certified=True):
    """Return the kinds of findings in the first problems of one kind, by loss, activation and scale."""
    numbers = (i for i in range(10_000) if wanted(fuzz.draw(i)))
    found = [fuzz.examine(next(numbers)) for _ in range(problems)]
    assert (sum(outcome.certificates for outcome in found) >= problems) == certified
    return {finding.kind for outcome in found for finding in outcome.findings}


def is_plain(case, loss="squared"):
    return case.loss.name == loss and case.scale == "ordinary" and case.network is None and case.activation != "relu"


@pytest.mark.slow
def test_a_hundred_problems_have_no_finding(fuzz):
    outcomes = fuzz.examine_all(range(FIRST, FIRST + COUNT), show=False, thorough=False)
    assert [f"{finding.number} {finding.kind}: {finding.text}" for o in outcomes for finding in o.findings] == []
    # The draws reach every architecture, activation, loss and scale, and most of them are certified.
    for part, names in enumerate((("mlp", "cnn", "attention"), ("linear", "gated_relu", "relu"), (), fuzz.SCALES)):
        assert set(names) <= {outcome.case.kind[part] for outcome in outcomes}
    assert {outcome.case.loss.name for outcome in outcomes} == set(fuzz.Loss.NAMES)
    assert sum(outcome.certificates for outcome in outcomes) > 2.5 * COUNT


def plant(monkeypatch, **changed):
    """Change arguments of the function that makes every certificate. changed: {name: function of the old value}."""
    genuine = certification.concluded

    def concluded(primal, dual, *rest, **fields):
        values = {"primal": primal, "dual": dual}
        values |= {name: change(values[name]) for name, change in changed.items()}
        return genuine(values["primal"], values["dual"], *rest, **fields)

    monkeypatch.setattr(certification, "concluded", concluded)


def test_without_a_fault_there_is_no_finding(fuzz):
    assert kinds(fuzz, is_plain) == set()


def test_a_bound_that_is_too_high_by_a_billionth_is_found(fuzz, monkeypatch):
    plant(monkeypatch, dual=lambda dual: dual + 1e-9 * abs(dual))
    assert "unsound" in kinds(fuzz, is_plain)


def test_an_objective_with_lost_digits_is_found(fuzz, monkeypatch):
    plant(monkeypatch, primal=lambda primal: float(np.float32(primal)))
    assert "primal" in kinds(fuzz, is_plain)


def test_an_objective_that_is_too_low_makes_the_gap_too_small(fuzz, monkeypatch):
    plant(monkeypatch, primal=lambda primal: primal - 1e-10 * abs(primal))
    assert {"primal", "gap"} <= kinds(fuzz, is_plain)


def test_a_bound_that_is_no_number_is_found(fuzz, monkeypatch):
    plant(monkeypatch, dual=lambda dual: float("nan"))
    assert "gap" in kinds(fuzz, is_plain)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2730])
def test_what_was_found_once_is_mended(fuzz, number):
    """2730: on subnormal data a size fell by a part of the step that is subnormal."""
    assert fuzz.examine(number).findings == []


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["huber", "logistic", "cross_entropy"])
@pytest.mark.parametrize("checked", [True, False])
def test_a_wrong_conjugate_is_found(fuzz, monkeypatch, loss, checked):
    """The check in `certify` finds the fault; if that check is off, the bounds show it."""
    kind = cnn.LOSSES.get(loss)
    genuine = kind.conjugate
    monkeypatch.setattr(kind, "conjugate", lambda self, L, Y: genuine(self, L, Y) - 1e-6 * (1 + L.abs().sum()))
    if not checked:
        monkeypatch.setattr(certification, "check_conjugate", lambda *args: None)
    found = kinds(fuzz, lambda case: is_plain(case, loss), certified=not checked)
    assert ("raised" if checked else "unsound") in found


def test_an_exception_that_is_not_ours_is_found(fuzz, monkeypatch):
    def broken(*args, **given):
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(bounds, "best_dual", broken)
    numbers = (i for i in range(10_000) if is_plain(fuzz.draw(i)))
    findings = fuzz.examine(next(numbers)).findings
    assert {finding.kind for finding in findings} == {"raised"}
    assert "ZeroDivisionError" in findings[0].text


def test_a_finding_is_a_program_that_shows_it(fuzz, monkeypatch, capsys):
    plant(monkeypatch, dual=lambda dual: dual + abs(dual) + 1.0)
    number = next(i for i in range(10_000) if is_plain(fuzz.draw(i)))
    monkeypatch.setattr(sys, "argv", ["soundness.py", "--problem", str(number)])
    with pytest.raises(SystemExit) as ended:
        fuzz.main()
    assert ended.value.code == 1
    program = capsys.readouterr().out.split("\n\n# ")[0]
    assert program.startswith("# unsound: bound ")
    namespace = {}
    exec(program, namespace)
    assert isinstance(namespace["certificate"], cnn.Certificate)
    assert "bound" in capsys.readouterr().out


def test_all_that_ships_is_covered_and_a_loss_of_ones_own_is_named(fuzz, monkeypatch):
    assert fuzz.not_covered() == []
    monkeypatch.setitem(cnn.LOSSES.classes, "pinball", cnn.Squared)
    assert fuzz.not_covered() == ["pinball"]


def test_the_same_number_is_the_same_problem(fuzz):
    for number in range(40):
        assert fuzz.draw(number).lines == fuzz.draw(number).lines


# -- sample weights and output biases -------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_weighted_problem_has_an_unsound_bound(fuzz):
    outcomes = fuzz.examine_all(range(25), show=False, thorough=False, weights=True)
    assert sum(outcome.case.loss.name.startswith("weighted") for outcome in outcomes) >= 15
    assert {outcome.case.output_bias for outcome in outcomes} == {None, "free", "penalised"}
    assert sum(outcome.certificates for outcome in outcomes) >= 60
    assert [finding.text for outcome in outcomes for finding in outcome.findings] == []


@pytest.mark.slow
@pytest.mark.parametrize(("forgotten", "kind"), [("with_sample_weight", "primal"), ("with_output_bias", "unsound")])
def test_weights_and_biases_that_are_forgotten_are_found(fuzz, monkeypatch, forgotten, kind):
    monkeypatch.setattr(core, forgotten, lambda loss, *rest: loss)
    bias = kind == "unsound"
    cases = ((i, fuzz.with_weights(fuzz.draw(i))) for i in range(300))
    numbers = [i for i, case in cases if is_plain(case, "weighted squared") and (case.output_bias is not None) == bias]
    found = [fuzz.examine(number, weights=True) for number in numbers[:3]]
    assert kind in {finding.kind for outcome in found for finding in outcome.findings}


# -- the arithmetic that decides ------------------------------------------------------------------------------------


def test_products_and_sums_are_exact(fuzz):
    """Against Python's fractions, with numbers from 5e-324 to 1e150 in one product."""
    from exact_objective import exact

    rng = np.random.default_rng(0)
    A = rng.standard_normal((3, 4)) * 10.0 ** rng.integers(-300, 150, (3, 4))
    B = rng.standard_normal((4, 2)) * 10.0 ** rng.integers(-150, 150, (4, 2))
    A[0, 0] = 5e-324
    product = exact(A) @ exact(B) + exact(A[:, :2])
    for i in range(3):
        for j in range(2):
            wanted = sum(Fraction(float(A[i, k])) * Fraction(float(B[k, j])) for k in range(4)) + Fraction(
                float(A[i, j])
            )
            assert Fraction(product.whole[i, j]) * Fraction(2) ** product.exponent / product.divisor == wanted


@pytest.mark.parametrize("loss", ["squared", "huber", "squared_hinge", "logistic", "cross_entropy"])
def test_stated_losses_and_their_slopes_agree_with_the_registered_ones(fuzz, loss):
    import torch
    from exact_objective import Loss, exact

    rng = np.random.default_rng(1)
    z = 3 * rng.standard_normal((5, 3))
    Y = np.eye(3)[rng.integers(0, 3, 5)] if loss == "cross_entropy" else rng.choice([-1.0, 1.0], (5, 3))
    stated, registered = (
        Loss(loss, 0.7),
        cnn.LOSSES.make("huber", delta=0.7) if loss == "huber" else cnn.LOSSES.make(loss),
    )
    at = torch.as_tensor(z), torch.as_tensor(Y)
    assert float(stated.value(exact(z), exact(Y))) == pytest.approx(float(registered.value(*at)), rel=1e-14)
    assert stated.gradient(z, Y) == pytest.approx(registered.gradient(*at).numpy(), abs=1e-15)
    D = rng.standard_normal((5, 3))
    curvature = registered.curvature(*at)(torch.as_tensor(D)[:, :, None])[:, :, 0].numpy()
    assert stated.curvature_along(z, Y, D) == pytest.approx((D * curvature).sum(), rel=1e-12)


def test_nuclear_norms_are_exact_to_fifty_digits(fuzz):
    from exact_objective import mp, nuclear_norm

    assert abs(nuclear_norm(np.diag([3.0, 4.0])) - 7) < mp.mpf(10) ** -50
    assert abs(nuclear_norm(np.diag([1.0, 1e-100, 2.0])) - 3 - mp.mpf(1e-100)) < mp.mpf(10) ** -50
    assert abs(nuclear_norm(np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.0]])) - 5) < mp.mpf(10) ** -50
