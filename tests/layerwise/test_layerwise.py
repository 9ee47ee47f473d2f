"""Layerwise training: a stage against the problem it is, by the package's other code; certificates, checkpoints."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import convexnn_bench as cnn
from convexnn_bench.certificates.bounds import best_dual
from convexnn_bench.cli import app
from convexnn_bench.formulations import burer_monteiro
from convexnn_bench.layerwise import LayerwiseNetwork, Stage, StagePlan, Training, certify_stage, train_layerwise
from convexnn_bench.layerwise.blocks import BlockStage, BlockTraining
from convexnn_bench.layerwise.end_to_end import train_end_to_end
from convexnn_bench.layerwise.exact import exact_stage
from convexnn_bench.layerwise.experiment import Plan, run_layerwise
from convexnn_bench.layerwise.streamed import adjoint, beta_max
from convexnn_bench.layerwise.training import StageTraining, augmented
from convexnn_bench.plugins.registry import LOSSES
from convexnn_bench.report.layerwise import save_layerwise_figure

LABELS = {"cross_entropy": lambda n: np.arange(n) % 3, "squared": lambda n: np.sin(np.arange(3.0 * n)).reshape(n, 3),
          "logistic": lambda n: 2.0 * (np.arange(n) % 2) - 1}  # fmt: skip


def images(n=9, channels=2, side=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, channels, side, side))


def drawn(plan, channels, c, scale=1.0, seed=1):
    stage = Stage(plan, channels * (4 if plan.downsample else 1), c, scale)
    stage.draw(torch.Generator().manual_seed(seed))
    return stage


def streamed(X, step=4):
    X = torch.as_tensor(X)
    return lambda: ((slice(a, min(a + step, len(X))), X[a : a + step]) for a in range(0, len(X), step))


PLANS = [
    StagePlan(gates=5, m=2, pool=3),
    StagePlan(gates=4, m=1, pool=1, kernel=5),  # a window so large that masked patches are pooled first
    StagePlan(gates=3, m=3, pool=6, kernel=1),
    StagePlan(gates=4, m=2, pool=3, downsample=True),
]


@pytest.mark.parametrize("loss", LABELS)
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"a{plan.pool}k{plan.kernel}{'d' * plan.downsample}")
def test_a_stage_is_the_problem_of_its_gates(plan, loss):
    X, criterion = images(), LOSSES.make(loss)
    Y = criterion.prepare_targets(LABELS[loss](len(X)))
    stage = drawn(plan, 2, Y.shape[1], scale=1.7)
    problem = stage.problem(torch.as_tensor(X), Y, loss, 0.3)
    factors = stage.U.double(), stage.V.double()
    other = cnn.certify(problem, factors)
    own, z = certify_stage(stage, streamed(X), torch.as_tensor(Y), criterion, 0.3)
    np.testing.assert_allclose(z, problem.predict(np.einsum("kpm,kqm->kpq", *factors)), rtol=1e-10, atol=1e-10)
    for name in ("primal", "dual", "max_dual_norm", "stationarity_error", "worst_block", "gradient_norm"):
        assert getattr(own, name) == pytest.approx(getattr(other, name), rel=1e-9, abs=1e-9), name
    assert beta_max(stage, streamed(X), torch.as_tensor(Y), criterion) == pytest.approx(problem.beta_max, rel=1e-9)
    assert own.dual_norm_lower <= other.max_dual_norm <= own.max_dual_norm * (1 + 1e-9)


@pytest.mark.parametrize("plan", PLANS[:2], ids=["weighted pixels", "pooled first"])
@pytest.mark.parametrize(("of_X", "of_L"), [(1e-170, 1e-155), (1e-310, 1.0), (1.0, 1e-322), (1e-200, 1e-100)])
def test_the_rounding_of_a_stage_covers_underflow(plan, of_X, of_L):
    """The exact adjoint, in fractions, of numbers whose products are subnormal or zero."""
    stage, X = drawn(plan, 2, 2), of_X * images(n=2)
    Lambda = of_L * np.random.default_rng(5).normal(size=(2, 2))
    found = adjoint(stage, streamed(X), lambda rows, *_: torch.as_tensor(Lambda)[rows])
    patches, masks = stage.windows(stage.prepared(torch.as_tensor(X)))
    a2, pixels, p = patches.shape
    window = pixels // 2
    exact = np.zeros((a2, p, plan.gates, 2), dtype=object)
    for part, i, k in itertools.product(range(a2), range(pixels), range(plan.gates)):
        if masks[part, i, k]:
            row = [Fraction(float(entry)) for entry in Lambda[i // window]]
            for j in range(p):
                exact[part, j, k] += [Fraction(float(patches[part, i, j])) * entry / window for entry in row]
    blocks = np.moveaxis(exact, 2, 0)  # one a gate, with the rows of stage.order
    G = by_blocks_of(found.G, stage)
    for block, own in zip(blocks, G, strict=True):
        error = sum((Fraction(float(b)) - a) ** 2 for a, b in zip(block.ravel(), own.ravel(), strict=True))
        assert error <= Fraction(found.rounding) ** 2
    assert found.rounding < 1e-160


def by_blocks_of(G, stage):
    """P x a^2 x p x c, from P x p x q with columns (alpha, c) and rows in `stage.order`."""
    P, p, q = G.shape
    return G[:, stage.order].reshape(P, p, q // stage.c, stage.c).permute(0, 2, 1, 3).numpy()


def test_the_adjoint_is_the_transpose_of_the_predictions():
    stage, X = drawn(PLANS[0], 2, 3), images()
    Lambda = torch.as_tensor(np.random.default_rng(5).normal(size=(9, 3)))
    G = adjoint(stage, streamed(X), lambda rows, *_: Lambda[rows]).G
    Z = (stage.U @ stage.V.transpose(1, 2)).double()
    z = stage.predict(stage.hidden(stage.prepared(torch.as_tensor(X))))
    assert float((G * Z).sum()) == pytest.approx(float((z * Lambda).sum()), rel=1e-6)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"a{plan.pool}k{plan.kernel}{'d' * plan.downsample}")
def test_windows_are_patches_masks_and_predictions(plan):
    stage, X = drawn(plan, 2, 3), torch.as_tensor(images())
    maps = stage.prepared(X)
    patches, masks = stage.windows(maps)
    rows = torch.nn.functional.unfold(maps, plan.kernel, padding=plan.kernel // 2).transpose(1, 2)  # n x K x p
    side, a = maps.shape[2], plan.pool
    w = side // a
    for alpha in range(a * a):
        inside = [(alpha // a * w + i) * side + alpha % a * w + j for i in range(w) for j in range(w)]
        torch.testing.assert_close(patches[alpha], rows[:, inside][:, :, stage.order].flatten(0, 1))
        gated = stage.masks(maps).flatten(2)[:, :, inside].transpose(1, 2).flatten(0, 1)
        assert torch.equal(masks[alpha], gated)
    z = stage.predict(stage.hidden(maps))
    torch.testing.assert_close(stage.window_outputs(patches, masks, len(X)), z, rtol=1e-10, atol=1e-10)


def in_blocks(plan, channels, c, seed=1):
    """A stage with gates and matrices drawn."""
    stage = BlockStage(plan, channels * (4 if plan.downsample else 1), c)
    stage.draw(torch.Generator().manual_seed(seed))
    stage.Z = torch.randn(stage.Z.shape, generator=torch.Generator().manual_seed(seed + 1))
    return stage


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"a{plan.pool}k{plan.kernel}{'d' * plan.downsample}")
def test_a_stage_in_blocks_is_certified_as_a_point_of_the_convex_program(plan):
    X, loss = images(), LOSSES.make("cross_entropy")
    Y = loss.prepare_targets(LABELS["cross_entropy"](len(X)))
    stage = in_blocks(plan, 2, 3)
    problem = stage.problem(torch.as_tensor(X), Y, "cross_entropy", 0.3)
    other = cnn.certify(problem, stage.Z.double().numpy())
    own, z = certify_stage(stage, streamed(X), torch.as_tensor(Y), loss, 0.3)
    np.testing.assert_allclose(z, problem.predict(stage.Z.double().numpy()), rtol=1e-10, atol=1e-10)
    for name in ("primal", "dual", "max_dual_norm", "stationarity_error", "worst_block"):
        assert getattr(own, name) == pytest.approx(getattr(other, name), rel=1e-9, abs=1e-9), name
    maps = stage.prepared(torch.as_tensor(X))
    torch.testing.assert_close(stage.outputs(maps, maps), z)


def test_what_a_stage_in_blocks_hands_on_is_its_best_approximation():
    for m in (1, 2, 20):  # of p x q = 9 x 12, so that the last has columns to spare
        stage = in_blocks(StagePlan(gates=3, m=m, pool=2), 1, 3)
        stage.settle()
        left, values, right = np.linalg.svd(stage.Z.double().numpy(), full_matrices=False)
        expected = (left[:, :, :m] * values[:, None, :m]) @ right[:, :m]
        np.testing.assert_allclose(stage.U @ stage.V.transpose(1, 2), expected, atol=1e-5)
        np.testing.assert_allclose(stage.U.square().sum((1, 2)), stage.V.square().sum((1, 2)), rtol=1e-5)
        np.testing.assert_allclose(stage.regulariser(), values.sum(), rtol=1e-6)


@pytest.mark.slow
def test_blocks_with_weight_decay_come_to_the_ridge_solution():
    """min 1/2 ||A Z - Y||^2 + beta/2 ||Z||^2 has a closed form; A is the matrix of the problem's operator."""
    X, loss, beta = images(8, 1, 4), LOSSES.make("squared"), 3.0
    Y = LABELS["squared"](8)
    plan = StagePlan(gates=4, m=1, pool=2)
    stage = in_blocks(plan, 1, 3)
    stage.Z = torch.zeros_like(stage.Z)
    problem = stage.problem(torch.as_tensor(X), Y, "squared", beta)
    units = np.eye(problem.P * problem.p * problem.q).reshape(-1, problem.P, problem.p, problem.q)
    A = np.stack([problem.predict(unit).ravel() for unit in units]).T
    ridge = np.linalg.solve(A.T @ A + beta * np.eye(A.shape[1]), A.T @ Y.ravel())
    how = Training(epochs=400, batch=8, rate=0.3, last_rate=1.0, momentum=0.5, optimizer="sgd", precision="float64")
    own = BlockTraining(stage, LayerwiseNetwork(), torch.as_tensor(X), torch.as_tensor(Y), loss, beta, how,
                        torch.Generator().manual_seed(0))  # fmt: skip
    for _ in range(how.epochs):
        own.run_epoch()
    np.testing.assert_allclose(stage.Z.reshape(-1), ridge, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_the_bound_is_below_the_optimum_and_a_proven_one_stays():
    X, loss = images(12, 1, 4), LOSSES.make("squared")
    Y = LABELS["squared"](12)
    stage = drawn(StagePlan(gates=4, m=1, pool=2), 1, 3)
    best = cnn.solve(stage.problem(torch.as_tensor(X), Y, "squared", 0.5), "cvxpy_clarabel", gap=None)
    assert best.certificate.gap < 1e-6
    for seed in range(5):
        stage.draw(torch.Generator().manual_seed(1))
        gates = stage.gates
        stage.draw(torch.Generator().manual_seed(seed))
        stage.gates = gates
        own, _ = certify_stage(stage, streamed(X), torch.as_tensor(Y), loss, 0.5)
        assert own.dual <= best.objective <= own.primal
        kept, _ = certify_stage(stage, streamed(X), torch.as_tensor(Y), loss, 0.5, best=best.certificate.dual)
        assert kept.dual == best.certificate.dual
        assert kept.multiplier is None
        assert kept.gap == pytest.approx(own.primal / kept.dual - 1)


def test_what_overflows_is_no_certificate():
    X, loss = images(6, 1, 4), LOSSES.make("cross_entropy")
    Y = torch.as_tensor(loss.prepare_targets(LABELS["cross_entropy"](6)))
    stage = drawn(StagePlan(gates=2, m=1, pool=2), 1, 3)
    stage.U = stage.U * float("inf")
    with pytest.raises(cnn.InputError, match="overflow: train it with a smaller rate"):
        certify_stage(stage, streamed(X), Y, loss, 0.5)
    value, _ = best_dual(loss, Y, loss.gradient(torch.zeros_like(Y), Y), 1.0, float("nan"))
    assert value <= 0.0  # -F*(0): of a norm that is no number nothing follows


def test_a_step_descends_on_the_objective_with_its_weight_decay():
    X, Y = images(10, 1, 4), LABELS["cross_entropy"](10)
    plan, beta, rate = StagePlan(gates=4, m=2, pool=2), 0.7, 0.1
    stage = drawn(plan, 1, 3)
    problem = stage.problem(torch.as_tensor(X), Y, "cross_entropy", beta)
    before = stage.U.double(), stage.V.double()
    _, *slopes = burer_monteiro.value_and_gradient(problem, problem.operator("cpu"), *before)
    how = Training(epochs=1, batch=10, rate=rate, optimizer="sgd")
    targets = torch.as_tensor(LOSSES.make("cross_entropy").prepare_targets(Y))
    maps = torch.as_tensor(X, dtype=torch.float32)
    own = StageTraining(stage, LayerwiseNetwork(), maps, targets, LOSSES.make("cross_entropy"), beta, how,
                        torch.Generator().manual_seed(0))  # fmt: skip
    own.run_epoch()
    for start, slope, end in zip(before, slopes, (stage.U, stage.V), strict=True):
        np.testing.assert_allclose(end, start - rate * slope / 10, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def digits():
    data = cnn.DATASETS.get("digits")(layout="image", n=240).data()
    return (data.X[:200], data.Y[:200]), (data.X[200:], data.Y[200:])


STAGES = [StagePlan(gates=6, m=2, pool=4), StagePlan(gates=8, m=1, pool=2, downsample=True)]
QUICK = Training(epochs=4, batch=50, certify_every=2)


def without_seconds(history):
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in history]


@pytest.mark.slow
def test_stages_come_near_their_optima_and_are_certified(digits):
    (X, Y), test = (digits[0][0][:100], digits[0][1][:100]), digits[1]
    how = Training(epochs=400, batch=100, rate=0.02, certify_every=200)
    plans = [StagePlan(gates=4, m=3, pool=4), StagePlan(gates=4, m=4, pool=2, downsample=True)]
    result = train_layerwise(X, Y, plans, how, test=test, beta_fraction=0.1)
    assert [(stage["stage"], stage["epoch"]) for stage in result.stages] == [(1, 400), (2, 400)]
    maps = torch.as_tensor(X)
    for place, told in enumerate(result.stages):
        stage = result.network.stages[place]
        features = LayerwiseNetwork(result.network.stages[:place]).features(maps)
        problem = stage.problem(features, Y, "cross_entropy", told["beta"])
        best = cnn.solve(problem, "bm_newton", gap=1e-5)
        assert told["lower_bound"] <= best.objective <= told["objective"] * (1 + 1e-9)
        assert told["objective"] < 1.02 * best.objective
        assert told["gap"] < 0.2
        assert told["beta"] == pytest.approx(0.1 * problem.beta_max, rel=1e-6)
        assert problem.X.std() == pytest.approx(1.0, rel=0.5)  # scaled to mean square one
        lows = [epoch["lower_bound"] for epoch in result.history if epoch["stage"] == place + 1 and "gap" in epoch]
        assert lows == sorted(lows)
    found = result.network.predict(torch.as_tensor(test[0]))
    np.testing.assert_allclose(found[-1], found[0] + 2 * found[1], rtol=1e-6, atol=1e-6)
    assert result.stages[1]["ensemble_accuracy"] > 0.7


@pytest.mark.slow
def test_stopped_in_an_epoch_and_gone_on_with_the_numbers_are_the_same(digits, tmp_path, monkeypatch):
    (X, Y), test = digits
    for how in (
        QUICK,
        Training(epochs=2, batch=30, optimizer="sgd", rate=0.05, augment="crop"),
        Training(epochs=4, batch=50, form="blocks"),
    ):
        whole = train_layerwise(X, Y, STAGES, how, test=test)
        kind = BlockTraining if how.form == "blocks" else StageTraining
        folder, steps = tmp_path / f"{how.optimizer}{how.form}", kind._step

        def stops(self, *given, steps=steps):
            stops.left -= 1
            if stops.left < 0:
                raise KeyboardInterrupt
            steps(self, *given)

        for number in (3, 7, 9, 5):
            stops.left = number
            monkeypatch.setattr(kind, "_step", stops)
            with pytest.raises(KeyboardInterrupt):
                train_layerwise(X, Y, STAGES, how, test=test, checkpoint=folder)
        monkeypatch.setattr(kind, "_step", steps)
        again = train_layerwise(X, Y, STAGES, how, test=test, checkpoint=folder)
        assert without_seconds(again.history) == without_seconds(whole.history)
        for one, other in zip(again.network.stages, whole.network.stages, strict=True):
            assert one.tensors().keys() == other.tensors().keys()
            assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())
        done = train_layerwise(X, Y, STAGES, how, test=test, checkpoint=folder)
        assert done.history == again.history


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_refused(digits, tmp_path):
    (X, Y), _ = digits
    train_layerwise(X, Y, STAGES[:1], QUICK, checkpoint=tmp_path)
    with pytest.raises(cnn.InputError, match="is of a run with other data, stages or settings"):
        train_layerwise(X, Y, STAGES[:1], QUICK, checkpoint=tmp_path, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "cannot be read"), (b"PK cut", "cannot be read"), (None, "is no checkpoint of layerwise training")],
)
def test_a_file_that_is_no_checkpoint_is_refused(digits, tmp_path, content, words):
    (X, Y), _ = digits
    path = tmp_path / "checkpoint.pt"
    if content is None:
        torch.save({"weights": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(cnn.InputError, match=words):
        train_layerwise(X, Y, STAGES[:1], QUICK, checkpoint=tmp_path)


def test_bfloat16_is_for_convolutions_alone():
    X = torch.as_tensor(images(6, 3, 6)).float()
    stage = drawn(StagePlan(gates=5, m=2, pool=3), 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = stage.hidden(X)
        z = stage.predict(hidden)
        low = stage.masks(hidden[:, :3])
    assert hidden.dtype == torch.bfloat16
    assert z.dtype == torch.float32
    assert torch.equal(z, stage.predict(hidden.float()))
    assert torch.equal(low, stage.masks(hidden[:, :3].float()))  # gates are not rounded
    assert torch.equal(hidden == 0, stage.hidden(X) == 0)  # the same masks


@pytest.mark.slow
def test_mixed_precision_changes_training_and_no_certificate(digits):
    (X, Y), _ = digits
    how = Training(epochs=2, batch=50, precision="bfloat16")
    result = train_layerwise(X, Y, STAGES[:1], how)
    plain = train_layerwise(X, Y, STAGES[:1], Training(epochs=2, batch=50))
    told, stage = result.stages[0], result.network.stages[0]
    assert told["objective"] != plain.stages[0]["objective"]
    other = cnn.certify(stage.problem(torch.as_tensor(X), Y, "cross_entropy", told["beta"]), (stage.U, stage.V))
    assert told["objective"] == pytest.approx(other.primal, rel=1e-5)  # the network reads float32 images
    assert told["lower_bound"] <= other.primal


@pytest.mark.parametrize("how", ["crop", "crop_flip"])
def test_augmentation_shifts_and_mirrors(how):
    X = torch.as_tensor(images(40, 2, 8)).float()
    found = augmented(X, how, torch.Generator().manual_seed(3))
    assert torch.equal(found, augmented(X, how, torch.Generator().manual_seed(3)))
    padded = torch.nn.functional.pad(X, (1, 1, 1, 1))
    mirrored = 0
    for image, own in zip(found, padded, strict=True):
        shifts = [own[:, a : a + 8, b : b + 8] for a in range(3) for b in range(3)]
        straight = any(torch.equal(image, one) for one in shifts)
        mirrored += any(torch.equal(image, one.flip(2)) for one in shifts)
        assert straight or any(torch.equal(image, one.flip(2)) for one in shifts)
    assert mirrored == 0 if how == "crop" else 5 < mirrored < 35


@pytest.mark.slow
def test_one_stage_end_to_end_comes_to_the_optimum_of_the_stage(digits):
    (X, Y), _ = digits
    result = train_layerwise(X, Y, STAGES[:1], QUICK, beta_fraction=0.1)
    told, loss = result.stages[0], LOSSES.make("cross_entropy")
    maps, targets = torch.as_tensor(X).float(), torch.as_tensor(loss.prepare_targets(Y))
    how = Training(epochs=150, batch=100, rate=0.01)
    network, seconds = train_end_to_end(
        result.network.stages, maps, targets, loss, told["beta"], how, torch.Generator().manual_seed(4)
    )
    assert seconds > 0
    assert torch.equal(network.stages[0].gates, result.network.stages[0].gates)
    problem = network.stages[0].problem(maps, Y, "cross_entropy", told["beta"])
    best = cnn.solve(problem, "bm_newton", gap=1e-6)
    reached = cnn.certify(problem, (network.stages[0].U, network.stages[0].V)).primal
    assert best.objective * (1 - 1e-6) <= reached < 1.02 * best.objective


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"X": np.zeros((5, 8, 8))}, "X must be images, n x channels x height x width, got shape"),
        ({"X": np.full((5, 1, 8, 8), np.nan)}, "X has 320 NaN or infinite entries"),
        ({"X": np.zeros((5, 1, 8, 8))}, "its input is zero everywhere"),
        ({"Y": np.zeros(4)}, "one class only"),
        ({"Y": np.arange(4)}, "Y must have a row for each of the 5 images, got 4"),
        ({"stages": []}, "stages must be a list of StagePlan"),
        ({"stages": StagePlan()}, "stages must be a list of StagePlan"),
        ({"stages": [StagePlan(pool=3)]}, "stage 1: pool must divide the sides of its maps, 8 x 8, got 3"),
        ({"stages": [StagePlan(pool=1, downsample=True)] * 4}, "stage 4: downsample needs even sides"),
        ({"X": np.full((5, 1, 8, 8), 1e300)}, "X: the largest magnitude is 1e+300"),
        ({"Y": np.zeros((5, 2)), "loss": "squared"}, "stage 1: beta_max is 0, zero weights fit the targets"),
        ({"checkpoint": 3}, "checkpoint must be a folder, got 3"),
        ({"beta_fraction": 0.0}, "beta_fraction must be a finite number at least"),
        ({"beta": -1.0}, "beta must be a finite number at least"),
        ({"seed": -1}, "seed must be a whole number, at least 0"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"device": "tpu"}, "device must be 'cpu', 'cuda' or 'cuda:0'"),
        ({"test": np.zeros(3)}, "test must be a pair"),
        ({"test": (np.zeros((2, 1, 4, 4)), np.zeros(2))}, "test X must have images of (1, 8, 8)"),
        ({"test": (np.zeros((2, 1, 8, 8)), np.eye(3)[:2])}, "test Y must have 5 outputs as Y has, got 3"),
    ],
)
def test_what_cannot_be_is_refused(change, words):
    given = {"X": images(5, 1, 8), "Y": np.arange(5), "stages": [StagePlan(gates=2, pool=2)], **change}
    X, Y, stages = (given.pop(name) for name in ("X", "Y", "stages"))
    with pytest.raises(cnn.InputError) as caught:
        train_layerwise(X, Y, stages, QUICK, **given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StagePlan(gates=0), "stage: gates must be a whole number, at least 1, got 0"),
        (lambda: StagePlan(kernel=2), "stage: kernel must be odd"),
        (lambda: Training(epochs=0), "epochs must be a whole number, at least 1"),
        (lambda: Training(momentum=1.0), "momentum must be at least 0 and below 1"),
        (lambda: Training(optimizer="lbfgs"), "optimizer must be one of 'adam', 'sgd'"),
        (lambda: Training(augment="cutout"), "augment must be one of"),
        (lambda: Training(rate=float("nan")), "rate must be a finite number"),
        (lambda: Training(form="matrix"), "form must be one of 'factors', 'blocks', got 'matrix'"),
        (lambda: Plan("digits", STAGES, QUICK, 0.1, "cpu", ["none"]), "baseline must be one of 'end_to_end', "),
        (
            lambda: Plan("digits", STAGES, QUICK, 0.1, "cpu", exact_images=1),
            "exact_images must be a whole number, at least 10, got 1",
        ),
    ],
)
def test_plans_that_cannot_be(make, words):
    with pytest.raises(cnn.InputError) as caught:
        make()
    assert words in str(caught.value)


@pytest.mark.slow
def test_an_exactly_solved_stage_and_training_are_of_one_program(digits):
    (X, Y), _ = digits
    plan, how = StagePlan(gates=4, m=2, pool=2), Training(epochs=20, batch=50, rate=0.02)
    told = exact_stage(X, Y, plan, how, 0.05, 60, seed=3)
    assert (told["n"], told["status"]) == (60, "gap_reached")
    chosen = np.random.default_rng(3).permutation(len(X))[:60]
    again = train_layerwise(X[chosen], Y[chosen], [plan], Training(epochs=40, batch=50, rate=0.02),
                            beta_fraction=0.05, seed=3)  # fmt: skip
    assert again.stages[0]["objective"] == told["trained_objective"]  # 80 steps, as of 20 epochs on all 200 images
    problem = again.network.stages[0].problem(torch.as_tensor(X[chosen]), Y[chosen], "cross_entropy", told["beta"])
    other = cnn.solve(problem, "bm_newton", gap=1e-6)
    assert told["objective"] == pytest.approx(other.objective, rel=2e-4)
    assert told["lower_bound"] <= other.objective * (1 + 1e-6)
    assert told["above"] == pytest.approx(told["trained_objective"] / other.objective - 1, rel=1e-2)


@pytest.mark.slow
def test_a_figure_can_be_drawn_while_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("convexnn_bench.layerwise.experiment.PAUSE", 0.0)
    monkeypatch.setattr("convexnn_bench.layerwise.experiment.SHARE", 1e9)
    seen = []

    def draw(told):
        seen.append([len(own["history"]) for own in told["seeds"]])
        save_layerwise_figure(told, tmp_path / "live.png")

    plan = Plan(
        "digits[n=150]", [StagePlan(gates=4, pool=4)], Training(epochs=3, batch=50), 0.1, "cpu", exact_images=20
    )
    run_layerwise(plan, 2, tmp_path, lambda line: None, draw)
    assert seen[:3] == [[1], [2], [3]]
    assert [3, 1] in seen
    assert (tmp_path / "live.png").stat().st_size > 10_000


SMALL = ("--dataset", "digits[n=150]", "--stage", "gates=4,pool=4", "--stage", "gates=4,pool=2,downsample=true",
         "--epochs", "6", "--certify-every", "3", "--batch", "10", "--exact-images", "40")  # fmt: skip


def command(*arguments):
    return CliRunner().invoke(app, ["layerwise", *map(str, arguments)])


@pytest.mark.slow
def test_the_command_tells_stages_and_goes_on_where_it_was(tmp_path):
    done = command(*SMALL, "--seeds", 2, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "120 images for training, 30 for the test, 2 seeds" in done.stdout
    assert all(words in done.stdout for words in ("end to end", "Z 2", "Stage 1 on 40 images, solved exactly"))
    told = json.loads((tmp_path / "layerwise.json").read_text())
    for own in told["seeds"]:
        assert [epoch["epoch"] for epoch in own["end_to_end"]["history"]] == [3, 6, 9, 12]
        assert own["end_to_end"]["test_accuracy"] == own["end_to_end"]["history"][-1]["test_accuracy"]
        assert [stage["stage"] for stage in own["weight_decay"]["stages"]] == [1, 2]
        assert own["weight_decay"]["stages"][0]["beta"] == own["stages"][0]["beta"]
        assert own["exact"]["lower_bound"] <= own["exact"]["objective"] <= own["exact"]["trained_objective"]
    assert [stage["stage"] for stage in told["seeds"][1]["stages"]] == [1, 2]
    assert (tmp_path / "layerwise.png").stat().st_size > 10_000
    again = command(*SMALL, "--seeds", 3, "--out", tmp_path)
    after = json.loads((tmp_path / "layerwise.json").read_text())
    assert after["seeds"][:2] == told["seeds"]
    assert (again.exit_code, len(after["seeds"])) == (0, 3)
    assert command(*SMALL, "--out", tmp_path).exit_code == 0
    assert json.loads((tmp_path / "layerwise.json").read_text()) == after  # fewer seeds take nothing away
    alone = command(*SMALL, "--baseline", "none", "--out", tmp_path / "alone")
    assert (alone.exit_code, "end to end" in alone.stdout) == (0, False)
    own = json.loads((tmp_path / "alone" / "layerwise.json").read_text())["seeds"][0]
    assert without_seconds(own["history"]) == without_seconds(told["seeds"][0]["history"])
    for text in ("[]", '{"seeds": ['):
        (tmp_path / "alone" / "layerwise.json").write_text(text)
        damaged = command(*SMALL, "--baseline", "none", "--out", tmp_path / "alone")
        assert (damaged.exit_code, damaged.stderr.count("\n")) == (2, 1)
        assert "layerwise.json" in damaged.stderr
    other = command(*SMALL, "--rate", 0.01, "--out", tmp_path)
    assert (other.exit_code, "is of a run with another training: give another folder" in other.stderr) == (2, True)
    assert json.loads((tmp_path / "layerwise.json").read_text()) == after


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dataset", "spiral"), "data set 'spiral' has no images; data sets with images: "),
        (("--dataset", "nothing"), "unknown data set 'nothing'"),
        (("--dataset", "cifar10"), "data set cifar10: needs the files of CIFAR-10"),
        (("--stage", "gate=3"), "--stage has no parameter 'gate'; it has: gates, m, kernel, pool, downsample"),
        (("--stage", "gates=3,pool=5", "--dataset", "digits"), "pool must divide the sides of its maps, 8 x 8, got 5"),
        (("--baseline", "resnet"), "baseline must be one of 'end_to_end', 'weight_decay', 'exact', got 'resnet'"),
        (("--dataset", "digits[layout=flat]"), "layout cannot be chosen here"),
        (("--dataset", "digits[n=4]"), "4 images are too few: 5 are needed"),
        (("--epochs", "0"), "epochs must be a whole number, at least 1, got 0"),
        (("--device", "cuda:99"), "device 'cuda:99': "),
    ],
)
def test_arguments_that_cannot_be_are_one_line(tmp_path, monkeypatch, arguments, words):
    monkeypatch.setenv("CONVEXNN_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = command(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "out" / "layerwise.json").exists()


@pytest.mark.process
def test_killed_in_an_epoch_it_goes_on_to_the_same_numbers(tmp_path):
    own = [sys.executable, "-m", "convexnn_bench.cli", "layerwise", *SMALL, "--baseline", "end_to_end"]
    environment = {**os.environ, "CONVEXNN_PROGRESS": "off", "OMP_NUM_THREADS": "1"}
    subprocess.run([*own, "--out", tmp_path / "whole"], check=True, env=environment, capture_output=True)
    checkpoint = tmp_path / "killed" / "seed0" / "checkpoint.pt"
    killed = 0
    for _ in range(2):
        process = subprocess.Popen([*own, "--out", tmp_path / "killed"], env=environment, stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)  # fmt: skip
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 1  # a busy machine may look too late, when the end has been reached
    subprocess.run([*own, "--out", tmp_path / "killed"], check=True, env=environment, capture_output=True)
    whole, again = (json.loads((tmp_path / name / "layerwise.json").read_text()) for name in ("whole", "killed"))
    assert without_seconds(again["seeds"][0]["history"]) == without_seconds(whole["seeds"][0]["history"])
    assert again["seeds"][0]["end_to_end"]["test_accuracy"] == whole["seeds"][0]["end_to_end"]["test_accuracy"]


@pytest.mark.process
def test_two_processes_come_to_the_numbers_of_one(tmp_path):
    own = [
        *SMALL,
        "--batch",
        "17",
        "--precision",
        "float64",
        "--augment",
        "crop",
        "--optimizer",
        "sgd",
        "--rate",
        "0.05",
    ]
    alone = command(*own, "--out", tmp_path / "one")
    assert alone.exit_code == 0, alone.output
    environment = {**os.environ, "CONVEXNN_PROGRESS": "off", "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = [*torchrun, "-m", "convexnn_bench.cli", "layerwise", *own, "--out", tmp_path / "two"]
    done = subprocess.run(two, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for shown in (alone.stdout, done.stdout):
        assert shown.count("end to end") == 1  # one of them speaks
    one, two = (json.loads((tmp_path / name / "layerwise.json").read_text())["seeds"][0] for name in ("one", "two"))
    assert len(one["history"]) == len(two["history"]) == 12
    for alone, shared in zip(one["history"], two["history"], strict=True):
        for name in ("beta", "objective", "lower_bound", "max_dual_norm", "train_accuracy", "test_accuracy"):
            if alone.get(name) is not None:
                assert shared[name] == pytest.approx(alone[name], rel=1e-10), name
    assert one["end_to_end"]["test_accuracy"] == two["end_to_end"]["test_accuracy"]
    assert two["exact"]["trained_objective"] == pytest.approx(one["exact"]["trained_objective"], rel=1e-10)
    for alone, shared in zip(one["weight_decay"]["stages"], two["weight_decay"]["stages"], strict=True):
        for name in ("objective", "lower_bound", "max_dual_norm"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-10), name


DIFFERENT = """
import os, sys
import numpy as np
import convexnn_bench as cnn
from convexnn_bench.layerwise import StagePlan, Training, train_layerwise

rank, folder = int(os.environ["RANK"]), sys.argv[1]
X, Y = np.random.default_rng(0).normal(size=(20, 1, 4, 4)), np.arange(20) % 2
stages, how = [StagePlan(gates=2, pool=2)], Training(epochs=2, batch=10)

def refused(words, *given, **more):
    try:
        train_layerwise(*given, stages, how, **more)
    except cnn.InputError as error:
        assert words in str(error), error
        return
    raise AssertionError(f"not refused: {words}")

refused("not all given the same data", X + rank, Y)
refused("not all given the same data", X, Y, seed=rank)
train_layerwise(X, Y, stages, how, checkpoint=f"{folder}/0")  # the first process writes
refused("do not all find the same file", X, Y, checkpoint=f"{folder}/{rank}")
print("told", flush=True)
"""


@pytest.mark.process
def test_processes_that_differ_are_refused(tmp_path):
    script = tmp_path / "different.py"
    script.write_text(DIFFERENT)
    environment = {**os.environ, "CONVEXNN_PROGRESS": "off", "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, script, tmp_path], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("told")) == (0, 2), done.stderr
