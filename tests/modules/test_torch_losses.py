"""Each loss of torch is the package's F times a factor, so that the report is about the objective of training."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import convexnn_bench as cnn


def network(head=None, outputs=2):
    torch.manual_seed(0)
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, outputs)]
    return nn.Sequential(*layers, *([] if head is None else [head])).double()


RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 2))
NUMBERS, CLASSES, ZERO_ONE = 2 * RNG.standard_normal((5, 2)), np.array([0, 1, 1, 0, 1]), RNG.integers(2, size=(5, 2))
TAKEN = {
    "MSELoss": (nn.MSELoss, {}, NUMBERS, None, 2 * 5 / 2),
    "HuberLoss": (nn.HuberLoss, {"delta": 0.3}, NUMBERS, None, 10.0),
    "SmoothL1Loss": (nn.SmoothL1Loss, {"beta": 0.25}, NUMBERS, None, 2.5),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, {}, CLASSES, None, 5.0),
    "NLLLoss": (nn.NLLLoss, {}, CLASSES, nn.LogSoftmax(dim=1), 5.0),
    "CrossEntropyLoss of log-probabilities": (nn.CrossEntropyLoss, {}, CLASSES, nn.LogSoftmax(dim=-1), 5.0),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, {}, ZERO_ONE, None, 10.0),
    "BCELoss": (nn.BCELoss, {}, ZERO_ONE, nn.Sigmoid(), 10.0),
}
SUMS = {"MSELoss": 0.5, "SmoothL1Loss": 0.25}  # beta / lam of reduction="sum", else 1


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", TAKEN)
def test_the_objective_is_that_of_torch(name, reduction):
    """The report's objective and beta, divided by one factor, are torch's loss and weight decay."""
    kind, settings, Y, head, factor = TAKEN[name]
    loss, module, lam = kind(reduction=reduction, **settings), network(head), 0.07
    report = cnn.certify_module(module, X, Y, loss, lam)
    factor = factor if reduction == "mean" else SUMS.get(name, 1.0)
    assert report.beta == pytest.approx(factor * lam, rel=1e-14)
    target = torch.as_tensor(Y) if Y is CLASSES else torch.as_tensor(Y, dtype=torch.float64)
    decay = sum(float(value.detach().square().sum()) for value in module.parameters())
    theirs = float(loss(module(torch.as_tensor(X)), target)) + 0.5 * lam * decay
    assert report.primal == pytest.approx(factor * theirs, rel=1e-12)
    assert report.dual <= report.primal
    assert f"{type(loss).__name__}(reduction='{reduction}')" in str(report)
    assert (reduction == "sum" and factor == 1) or f"In those units the objective is {theirs:.6g}"[:-1] in str(report)


def test_a_function_of_torch_is_its_loss_with_the_mean():
    by_function = cnn.certify_module(network(), X, CLASSES, functional.cross_entropy, 0.1)
    by_class = cnn.certify_module(network(), X, CLASSES, nn.CrossEntropyLoss(), 0.1)
    by_name = cnn.certify_module(network(), X, CLASSES, "cross_entropy", 0.1, reduction="mean")
    assert by_function.dual == by_class.dual == by_name.dual
    assert by_class.beta == 0.5


def test_a_head_is_compared_before_it_saturates():
    """A sigmoid maps all large logits to 1; a hook that changes them is detected nevertheless."""
    module = network(nn.Sigmoid(), 1)
    with torch.no_grad():
        module[2].bias.fill_(300.0)
    assert cnn.certify_module(module, X, np.ones(5), nn.BCELoss(), 0.1).primal > 0
    module[2].register_forward_hook(lambda layer, given, out: out + 1)
    with pytest.raises(cnn.UnsupportedError, match="does not reproduce"):
        cnn.certify_module(module, X, np.ones(5), nn.BCELoss(), 0.1)


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("head", [None, nn.Sigmoid()])
def test_a_sigmoid_in_a_hook_is_no_head(head, place):
    """A hook on a layer is not in the trace; removing the head must not hide it."""
    module = network(head, 1)
    module[place].register_forward_hook(lambda layer, given, out: torch.sigmoid(out))
    with pytest.raises(cnn.UnsupportedError, match="does not reproduce"):
        cnn.certify_module(module, X, np.ones(5), "squared" if head is None else nn.BCELoss(), 0.1)


REFUSED = {
    "class weights": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])), CLASSES, None, {}, "weight=.*count alike"),
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), CLASSES, None, {}, "label_smoothing=0.1.*smoothed"),
    "ignored index": (nn.CrossEntropyLoss(ignore_index=0), CLASSES, None, {}, "ignore_index=0.*leave the ignored"),
    "weighted NLL": (nn.NLLLoss(torch.tensor([1.0, 2.0])), CLASSES, nn.LogSoftmax(1), {}, "weight="),
    "positive weight": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), ZERO_ONE, None, {}, "pos_weight="),
    "no reduction": (nn.MSELoss(reduction="none"), NUMBERS, None, {}, "must be 'sum' or 'mean', got 'none'"),
    "two reductions": (nn.MSELoss(), NUMBERS, None, {"reduction": "sum"}, "'sum' contradicts .*'mean'"),
    "class": (nn.MSELoss, NUMBERS, None, {}, r"give MSELoss\(\)"),
    "L1": (nn.L1Loss(), NUMBERS, None, {}, "L1Loss is not covered.*HuberLoss"),
    "L1 in disguise": (nn.SmoothL1Loss(beta=0.0), NUMBERS, None, {}, "is L1Loss"),
    "Poisson": (nn.PoissonNLLLoss(), NUMBERS, None, {}, "covered losses of torch are MSELoss"),
    "NLL of logits": (nn.NLLLoss(), CLASSES, None, {}, "takes outputs after a log_softmax"),
    "BCE of logits": (nn.BCELoss(), ZERO_ONE, None, {}, "takes outputs after a sigmoid"),
    "two sigmoids": (nn.BCEWithLogitsLoss(), ZERO_ONE, nn.Sigmoid(), {}, r"loss=torch.nn.BCELoss\(\).*two of them"),
    "sigmoid by name": ("logistic", ZERO_ONE, nn.Sigmoid(), {}, r"loss=torch.nn.BCELoss\(\)"),
    "sigmoid and squares": (nn.MSELoss(), NUMBERS, nn.Sigmoid(), {}, "not convex"),
    "log-softmax and squares": ("squared", NUMBERS, nn.LogSoftmax(1), {}, r"loss=torch.nn.NLLLoss\(\)"),
    "signs": (nn.BCEWithLogitsLoss(), 2 * ZERO_ONE - 1, None, {}, "takes labels 0 and 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loss_that_is_another_objective_is_refused_with_the_reason(name):
    loss, Y, head, more, words = REFUSED[name]
    with pytest.raises(cnn.ConvexNNError, match=words):
        cnn.certify_module(network(head), X, Y, loss, 0.1, **more)


def test_a_head_is_no_part_of_a_problem():
    problem = cnn.Problem(X, NUMBERS, activation="relu", beta=0.1, patterns="all")
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False), nn.Sigmoid())
    with pytest.raises(cnn.InputError, match="ends in a sigmoid"):
        cnn.certify(problem, module)


SPECS = {"HuberLoss": "huber[delta=0.3]", "SmoothL1Loss": "huber[delta=0.25]", "MSELoss": "squared"}


@pytest.mark.parametrize("name", [name for name in TAKEN if " " not in name])
def test_a_problem_names_the_loss_that_stands_for_one_of_torch(name):
    kind, settings, _, _, factor = TAKEN[name]
    with pytest.raises(cnn.InputError, match=f"{name} of torch is loss=") as caught:
        cnn.Problem(X, NUMBERS, loss=kind(**settings), beta=0.1)
    said = str(caught.value)
    spec = said.partition('loss="')[2].partition('"')[0]
    assert spec == SPECS.get(name, spec)
    assert cnn.LOSSES.make(spec).name in cnn.LOSSES.names()
    assert "certify_module takes the losses of torch" in said
    # The stated beta for the mean over n = 5 rows of c = 2 outputs is that of `certify_module`, and as tested above.
    beta = said.partition("is beta = ")[2].partition(".")[0]
    values = {"lam": 1.0, "n": 5, "c": 2, "delta": settings.get("beta")}
    assert eval(beta.replace(" / ", "/").replace(" ", "*"), values) == factor


@pytest.mark.parametrize("loss", [nn.MSELoss, functional.mse_loss, functional.smooth_l1_loss, nn.NLLLoss])
def test_classes_and_functions_of_torch_are_named_as_well(loss):
    with pytest.raises(cnn.InputError, match=r"of torch is loss=.* here, a sum over all samples"):
        cnn.make_problem("spiral", n=9, loss=loss)


def test_other_objects_get_no_counterpart():
    for loss in (nn.L1Loss(), 3, len):
        with pytest.raises(cnn.InputError, match="loss must be a name or an instance of BaseLoss") as caught:
            cnn.Problem(X, NUMBERS, loss=loss, beta=0.1)
        assert "torch is" not in str(caught.value)
