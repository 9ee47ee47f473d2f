"""Bound how far a user's own trained network is from the global optimum of its training problem."""

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates import certify, loss_upper_bound, objective_upper_bound
from convexnn_bench.checks import Array, check_array, plain_number
from convexnn_bench.deadline import deadline, noted_by, seconds_left
from convexnn_bench.errors import InputError, NotFiniteError, UnsupportedError
from convexnn_bench.formulations import Point
from convexnn_bench.labels import Targets
from convexnn_bench.losses import OUTPUT_BIASES, BaseLoss, read_targets
from convexnn_bench.module_reports.hints import hints as argument_hints
from convexnn_bench.module_reports.hints import order_hint
from convexnn_bench.module_reports.module_report import ModuleReport
from convexnn_bench.module_reports.narrowing import Network, narrowed
from convexnn_bench.module_reports.words import bias_words, decay_words, head_words
from convexnn_bench.modules import Reading, TrainingLoss, read_module, training_loss
from convexnn_bench.operator import EPS, prediction_rounding, sum_rounding
from convexnn_bench.patterns import Patterns, enumeration_cost, patterns_of_neurons
from convexnn_bench.plugins import LIMIT, YES_OR_NO, Choice, is_number
from convexnn_bench.problem import Problem
from convexnn_bench.terminal import progress as progress_bar

ENUMERATION_SECONDS, ENUMERATED = 2.0, 5000  # limits of time and number, up to which all patterns are enumerated
FIRST_SECONDS, FIRST_SHARE = 1.0, 0.25  # of a time limit, for the first bound
MOST_MASK_ENTRIES = 2**28  # N x M entries of neurons' masks, above which the problem has one sampled pattern instead


def certify_module(
    module: torch.nn.Module,
    X: Array,
    Y: Array,
    loss: str | BaseLoss | torch.nn.Module = "squared",
    weight_decay: float | None = None,
    *,
    reduction: str | None = None,
    output_bias: str = "penalised",
    bias_decay: bool = True,
    time_limit: float | None = None,
    progress: bool = True,
) -> ModuleReport:
    """Bound how far a trained two-layer torch network is from the global optimum of its training problem.

    Parameters
    ----------
    module : torch.nn.Module
        Sequential(Linear, ReLU, Linear) and the like, a small CNN Sequential(Conv2d, ReLU, AvgPool2d, Flatten, Linear),
        a module of your own that is such a chain, or an `AttentionBlock`; with or without biases, with or without
        ReLU. The wrappers DataParallel, AveragedModel and torch.compile are removed. The module is not changed, and is
        evaluated in training mode. Gated ReLU networks are not covered, since their gates are part of the problem.
    X : array
        The training inputs as the module takes them. The reading of the module is checked on them.
    Y : array
        Targets, as for `Problem`. Whole numbers 0..c-1 are the class numbers of a network with c outputs.
    loss : str, BaseLoss or torch.nn.Module
        A name or an instance, such as "cross_entropy" or ``cnn.Huber(delta=0.5)``, or a loss of torch with its
        reduction: MSELoss, CrossEntropyLoss, NLLLoss (after LogSoftmax), BCEWithLogitsLoss, BCELoss (after Sigmoid),
        HuberLoss or SmoothL1Loss.
    weight_decay : float
        The number lam of torch's SGD or Adam, which add lam/2 times the squared parameters to the loss.
    reduction : {"sum", "mean"}, optional
        How the loss combines its terms. "sum", the default, is that of this package's losses, and beta = lam. "mean" is
        torch's mean. For a loss of torch leave it out, since that has its own reduction.
    output_bias : {"penalised", "free"}
        Whether weight decay applied to the bias of the last layer. It does in torch by default.
    bias_decay : bool
        Whether weight decay applied to the biases of the first layer, which are weights of a constant feature. Without
        it the program is another one, and the module is refused.
    time_limit : float, optional
        Seconds to narrow the interval of the optimum, reading the module and stating its problem included: the network
        is trained further, which gives `report.better`, and the bound is raised. What is reached by then, or at
        Ctrl-C, is returned, and holds. A single step cannot be interrupted, so that the call may take a fifth longer,
        and a second. None, the default, computes the bound alone, from the gradient of the network.
    progress : bool
        Show on stderr what is being computed and the interval so far, on a terminal or in a notebook only.

    Returns
    -------
    ModuleReport
        The network's objective, the lower bound, the gap, and how the arguments were understood. With a time limit also
        the interval of the optimum, and a better network if one was found.

    Raises
    ------
    InputError
        An argument does not fit.
    UnsupportedError
        The module is of no kind listed above.

    Notes
    -----
    For n rows of c outputs and reduction="mean", MSELoss is 2 F / (n c), so that beta = lam n c / 2. CrossEntropyLoss
    is F / n, so that beta = lam n. BCEWithLogitsLoss, HuberLoss and the squared hinge are F / (n c), so that beta =
    lam n c. SmoothL1Loss(beta=b) is F / (n c b) with Huber's F at delta = b, so that beta = lam n c b. A sum in torch,
    which has no factor 1/2 either, is 2 F for MSELoss, so that beta = lam / 2, and F / b for SmoothL1Loss.

    AdamW's decoupled decay is no term of any objective; the report then judges the network by the objective stated
    here. The bound is weak duality (Sahiner et al., ICLR 2024), see `certify`.

    With a time limit, 30 % of the time goes into a better network (L-BFGS, new neurons in directions whose dual norm
    exceeds beta, `minimal_network`), and the rest into the bound: the multiplier Lambda = grad F(z) and the affine
    decision rules that bound its dual norm h are moved together by Adam, for the largest -F*(s Lambda) with s =
    min(1, beta / h). A problem with few activation patterns is solved instead.

    Examples
    --------
    >>> import numpy as np, torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> report = certify_module(module, np.eye(2), np.ones(2), weight_decay=0.1)
    >>> report.dual <= report.primal
    True
    """
    lam = _check_arguments(weight_decay, output_bias, bias_decay)
    training = training_loss(loss, reduction)
    default = reduction is None and not isinstance(loss, torch.nn.Module)
    LIMIT.check("time_limit", time_limit)
    YES_OR_NO.check("progress", progress)
    started = time.perf_counter()
    with (
        deadline(time_limit),
        progress_bar("certifying", total=time_limit, show=progress) as update,
        noted_by(lambda text: update(text=text)),
    ):
        report, reading = _report(module, X, Y, training, lam, output_bias, bias_decay)
        # With the labels in another order than in training, the size of the weights does not show the beta.
        order = order_hint(report.problem, training.base, reading)
        hints = (order,) if order else tuple(argument_hints(report, reading, training, lam, default))
        report = replace(report, hints=hints)
        if time_limit is None:
            return report
        data = check_array("X", X)

        def reading_of(W1: np.ndarray, W2: np.ndarray, bias: np.ndarray | None) -> Reading:
            return replace(reading, W1=W1, W2=W2, output_bias=bias)

        def objective(other: Reading) -> tuple[float, float]:
            return _objective(report.problem, training.base, other, data, output_bias == "penalised")

        user = Network(module, data, reading_of, objective)
        return narrowed(report, user, (reading.W1, reading.W2), update, started)


def _report(
    module: torch.nn.Module,
    X: Array,
    Y: Array,
    training: TrainingLoss,
    lam: float,
    output_bias: str,
    bias_decay: bool,
) -> tuple[ModuleReport, Reading]:
    """Return the report of `certify_module`, whose arguments these are, until its deadline."""
    # 1. Read the module as a network (W1, W2), perhaps with an output bias.
    data = check_array("X", X)
    reading = read_module(module, data)
    _check_head(reading, training)
    if reading.first_bias and not bias_decay:
        raise InputError(
            "bias_decay=False: biases of the first layer without weight decay (as sklearn, Keras and some parameter "
            "groups have them) are not covered: the program's norm is that of a neuron's weights and bias together. "
            "Train with weight decay on all parameters of the first layer, which is torch's default, or without its "
            "biases. bias_decay=True judges the network by the objective with that decay, on which it was not trained"
        )
    # 2. State its training problem in this package's units: sums instead of means, beta instead of lam.
    base = training.base
    inputs = reading.data(data)
    training.check_labels(Y)
    targets = _targets(base, Y, reading, inputs, reading.outputs(data))
    beta = training.beta(lam, targets.rows.shape)
    # The minimum over the bias is below the objective at any bias, so that the bound holds for the module's.
    problem = Problem(
        inputs, targets, reading.architecture, reading.activation, base, beta, patterns=_patterns(reading, inputs),
        output_bias=None if reading.output_bias is None else output_bias,
    )  # fmt: skip
    # 3. Bound the optimum, and take the objective of the module itself, with its own bias.
    # With a time limit the first answer is a quick one.
    with deadline(min(FIRST_SECONDS, FIRST_SHARE * seconds_left()) if seconds_left() < math.inf else None):
        certificate = certify(problem, Point(network=(reading.W1, reading.W2)))
    low, primal = _objective(problem, base, reading, data, output_bias == "penalised")
    assumptions = (
        decay_words(lam, training, primal * lam / beta),
        *bias_words(reading, output_bias),
        *head_words(reading),
        *reading.notes,
        *problem.notes,
    )
    weights = reading.W1, reading.W2, reading.output_bias
    words = reading.words
    return ModuleReport(
        primal, certificate, problem, beta, words, assumptions, primal_low=low, weights=weights
    ), reading


def _check_head(reading: Reading, training: TrainingLoss) -> None:
    """Raise UnsupportedError if the last function of the module does not belong to its loss."""
    head, name = reading.head, training.base.name
    # CrossEntropyLoss applies a log-softmax, and a second log-softmax changes nothing.
    if head == training.head or (head == "log_softmax" and name == "cross_entropy"):
        return
    if head is None:
        raise UnsupportedError(
            f"{training.words} takes outputs after a {training.head}, and this module does not end in one: give the "
            "loss with which it was trained"
        )
    if head == "sigmoid" and name == "logistic":
        raise UnsupportedError(
            "the module ends in a sigmoid. If it was trained with BCELoss, give loss=torch.nn.BCELoss(): the sigmoid "
            f"then belongs to the loss. {training.words} applies a sigmoid itself, and with two of them the loss is "
            "not convex in the outputs, so that there is no convex program"
        )
    counterpart = "BCELoss" if head == "sigmoid" else "NLLLoss"
    raise UnsupportedError(
        f"the module ends in a {head}, after which the loss {training.words} is not convex in the outputs of the last "
        f"layer; a module that ends in it is read with loss=torch.nn.{counterpart}()"
    )


def _check_arguments(weight_decay: Any, output_bias: Any, bias_decay: Any) -> float:
    lam = plain_number(weight_decay)
    if not is_number(lam) or not 0 < float(lam) < float("inf"):
        raise InputError(
            f"weight_decay must be a positive number, the one the network was trained with, got {weight_decay!r}: "
            "without weight decay the training problem has no convex program of this kind"
        )
    Choice(OUTPUT_BIASES).check("output_bias", output_bias)
    YES_OR_NO.check("bias_decay", bias_decay)
    return float(lam)


def _targets(loss: BaseLoss, Y: Any, reading: Reading, inputs: np.ndarray, c: int) -> Targets:
    """Return targets n_out x c for a network of c outputs, read as those of a problem are."""
    targets = read_targets(loss, Y, lambda rows: reading.architecture.target_rows(rows, inputs), outputs=c)
    if targets.rows.shape[1] != c:
        two = "; labels of two classes with two outputs need the cross_entropy loss" if loss.labels == "signs" else ""
        raise InputError(
            f"Y must have as many columns or classes as the module has outputs, {c}, got {targets.rows.shape[1]}"
            f"{two if c == 2 else ''}"
        )
    return targets


def _patterns(reading: Reading, inputs: np.ndarray) -> Any:
    """Return "all" if all patterns can be enumerated quickly, else the patterns of the neurons.

    The lower bound is over all patterns in both cases.
    """
    if reading.activation != "relu":
        return "all"
    # A complete set of blocks is bounded block by block, any other one over all patterns at once.
    Phi = reading.architecture.phi_rows(torch.as_tensor(inputs)).numpy()
    cost = enumeration_cost(Phi)
    if cost.seconds <= ENUMERATION_SECONDS and cost.patterns <= ENUMERATED:
        return "all"
    neurons: Patterns | None = None
    if len(Phi) * reading.W1.shape[1] <= MOST_MASK_ENTRIES:
        neurons = patterns_of_neurons(Phi, reading.W1)
    return 1 if neurons is None else neurons


def _objective(
    problem: Problem, base: BaseLoss, reading: Reading, X: np.ndarray, penalised: bool
) -> tuple[float, float]:
    """Return lower and upper bounds on F + beta/2 (squared weights) of the module with its own output bias."""
    Y, z = torch.as_tensor(problem.Y), torch.as_tensor(reading.predict(X))
    if not bool(torch.isfinite(z).all()):
        raise NotFiniteError("the network's predictions overflow float64")
    W1, W2 = torch.as_tensor(reading.W1), torch.as_tensor(reading.W2)
    error = prediction_rounding(problem.operator(), W1.abs() @ W2.abs().T, W1.shape[1])
    if reading.output_bias is not None:
        error = error + 2 * EPS * (z.abs() + torch.as_tensor(reading.output_bias).abs())
    value = float(base.value(z, Y))
    F = loss_upper_bound(base, z, Y, value, base.gradient(z, Y), error)
    # The certificate's primal is taken at the best output bias, and would understate a module with another.
    biases = [torch.as_tensor(reading.output_bias)] if penalised and reading.output_bias is not None else []
    decayed = [W1, W2, *biases]
    squares = sum(float(weight.square().sum()) for weight in decayed)
    rounding = sum_rounding(sum(weight.numel() for weight in decayed))
    high = objective_upper_bound(F, problem.beta, 0.5 * squares, rounding)
    # The errors have no sign, so that the objective is above the computed value by at most as much as below it.
    return 2 * (value + 0.5 * problem.beta * squares) - high, high
