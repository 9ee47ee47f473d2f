"""Bound how far a user's own trained network is from the optimum of its problem."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from convexnn_bench.certificates import certify
from convexnn_bench.checks import Array, check_array
from convexnn_bench.deadline import deadline, noted_by, seconds_left
from convexnn_bench.errors import InputError
from convexnn_bench.formulations import Point
from convexnn_bench.losses import OUTPUT_BIASES, BaseLoss
from convexnn_bench.module_reports.hints import hints as argument_hints
from convexnn_bench.module_reports.hints import order_hint
from convexnn_bench.module_reports.module_report import ModuleReport
from convexnn_bench.module_reports.narrowing import Network, narrowed
from convexnn_bench.module_reports.reading import check_head, module_targets, read_part
from convexnn_bench.module_reports.statement import Statement, stated
from convexnn_bench.module_reports.words import bias_words, decay_words, head_words, penalty_words
from convexnn_bench.modules import (
    Decay,
    Reading,
    TrainingLoss,
    read_weight_decay,
    training_loss,
)
from convexnn_bench.plugins import LIMIT, YES_OR_NO, Choice
from convexnn_bench.terminal import progress as progress_bar

FIRST_SECONDS, FIRST_SHARE = 1.0, 0.25  # of a time limit, for the first bound


def certify_module(
    module: torch.nn.Module,
    X: Array,
    Y: Array,
    loss: str | BaseLoss | torch.nn.Module = "squared",
    weight_decay: float | Mapping[str, float] | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    reduction: str | None = None,
    output_bias: str = "penalised",
    bias_decay: bool = True,
    head: str | None = None,
    fold_batch_norm: bool = False,
    time_limit: float | None = None,
    progress: bool = True,
) -> ModuleReport:
    """Bound how far a trained two-layer torch network is from its global optimum.

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
    weight_decay : float or dict
        The number lam of torch's SGD or Adam, which add lam/2 times the squared parameters to the loss. A dictionary
        has a number for each layer, ``{"first": 1e-3, "second": 1e-4}``, where biases have that of their layer, or one
        for each parameter by its name in the module, ``{"0.weight": 1e-3, "0.bias": 0.0, ...}``. Both weights need a
        positive number.
    optimizer : torch.optim.Optimizer, optional
        The optimiser of the training in place of `weight_decay`. The weight decay of every parameter is read from its
        parameter groups.
    reduction : {"sum", "mean"}, optional
        How the loss combines its terms. "sum", the default, is that of this package's losses, and beta = lam. "mean" is
        torch's mean. For a loss of torch leave it out, since that has its own reduction.
    output_bias : {"penalised", "free"}
        Whether weight decay applied to the bias of the last layer. It does in torch by default. Where weight decay is
        given by parameters it follows from that.
    bias_decay : bool
        Whether weight decay applied to the biases of the first layer. It does in torch by default, and does not in
        scikit-learn and Keras. Where weight decay is given by parameters it follows from that.
    head : str, optional
        The name of a submodule that ends a deeper module, or "auto" for its last two Linear layers around a ReLU. The
        report is then about this head alone, given the frozen features that the layers before it compute in evaluation
        mode. It says nothing about the optimum of the whole module.
    fold_batch_norm : bool
        Fold batch normalisation with its running statistics into the layer that it follows. The gap is then about an
        objective with weight decay on the folded weights, which training did not minimise. By default such a module is
        refused.
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

    With beta_1 on the first layer and beta_2 on the second one, the weights (beta_1 / beta_2)^(1/4) W_1 and
    (beta_2 / beta_1)^(1/4) W_2 have the same outputs, and the same penalty with beta = (beta_1 beta_2)^(1/2) on both.
    `problem` is stated with that beta, and `primal` with beta_1 and beta_2.

    Without weight decay on the biases of the first layer a hidden neuron (u, b) with a small u and a large b is a
    constant at hardly any cost. The infimum is therefore that of the network with a free output bias, so that
    multipliers have 1^T Lambda = 0, and the dual norm is the maximum over ||u|| <= 1 and all b. `problem` is then a
    relaxation with a large constant feature, whose optimum is smaller by at most a relative 5e-7.

    Examples
    --------
    >>> import numpy as np, torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> report = certify_module(module, np.eye(2), np.ones(2), weight_decay=0.1)
    >>> report.dual <= report.primal
    True
    """
    _check_options(output_bias, bias_decay, time_limit, progress, fold_batch_norm, optimizer)
    training = training_loss(loss, reduction)

    def decay_of(parameters: Mapping[str, str]) -> Decay:
        return read_weight_decay(weight_decay, optimizer, module, parameters, bias_decay, output_bias)

    if optimizer is None and not isinstance(weight_decay, Mapping):
        decay_of({})  # raises before long work
    started = time.perf_counter()
    with (
        deadline(time_limit),
        progress_bar("certifying", total=time_limit, show=progress) as update,
        noted_by(lambda text: update(text=text)),
    ):
        # 1. Read the module as a network (W1, W2), perhaps with biases, and its weight decay.
        data = check_array("X", X)
        part, reading, data, condition = read_part(module, data, head, fold_batch_norm)
        check_head(reading, training)
        decay = decay_of(reading.parameters)
        # 2. State its training problem, bound the optimum, and look for arguments that are probably wrong.
        report, statement = _report(reading, data, Y, training, decay, condition)
        reduction_is_default = reduction is None and not isinstance(loss, torch.nn.Module)
        report = _with_hints(report, statement, training, reduction_is_default)
        if time_limit is None:
            return report

        def objective(other: Reading) -> tuple[float, float]:
            return statement.objective(report.problem, training.base, other)

        # 3. Narrow the interval.
        user = Network(part, data, statement.reading_of, objective)
        return narrowed(report, user, (statement.W1, statement.W2), update, started)


def _check_options(
    output_bias: str,
    bias_decay: bool,
    time_limit: float | None,
    progress: bool,
    fold_batch_norm: bool,
    optimizer: torch.optim.Optimizer | None,
) -> None:
    """Raise InputError for an option of `certify_module` that is not usable."""
    Choice(OUTPUT_BIASES).check("output_bias", output_bias)
    LIMIT.check("time_limit", time_limit)
    for name, value in (("bias_decay", bias_decay), ("progress", progress), ("fold_batch_norm", fold_batch_norm)):
        YES_OR_NO.check(name, value)
    if fold_batch_norm and optimizer is not None:
        raise InputError(
            "optimizer cannot be given with fold_batch_norm=True, since its weight decay acted on other weights than "
            "the folded ones: give weight_decay"
        )


def _report(
    reading: Reading, data: np.ndarray, Y: Array, training: TrainingLoss, decay: Decay, condition: str
) -> tuple[ModuleReport, Statement]:
    """Return the report on a network that was read, and its training problem."""
    # 1. State the training problem in this package's units: sums instead of means, beta instead of lam.
    base = training.base
    training.check_labels(Y)
    targets = module_targets(base, Y, reading, reading.data(data), reading.outputs(data))
    shape = targets.rows.shape
    statement = stated(reading, data, decay.mapped(lambda lam: training.beta(lam, shape)))
    # The minimum over the output bias is below the objective at any bias, so that the bound holds for the module's.
    problem = statement.problem(targets, base)
    # 2. Bound the optimum, and take the objective of the module itself, with its own biases.
    # With a time limit the first answer is a quick one.
    with deadline(min(FIRST_SECONDS, FIRST_SHARE * seconds_left()) if seconds_left() < math.inf else None):
        certificate = certify(problem, Point(network=(statement.W1, statement.W2)))
    low, primal = statement.objective(problem, base, reading)
    assumptions = (
        decay_words(decay, training, primal / training.beta(1.0, shape)),
        *bias_words(reading, decay),
        *head_words(reading),
        *reading.notes,
        *problem.notes,
    )
    penalty = penalty_words(statement.decay, statement.unrelaxed_beta)
    report = ModuleReport(
        primal, certificate, problem, statement.unrelaxed_beta, reading.words, assumptions, primal_low=low,
        penalty=penalty, condition=condition, weights=(statement.W1, statement.W2, statement.output_bias_in(problem)),
    )  # fmt: skip
    return report, statement


def _with_hints(
    report: ModuleReport, statement: Statement, training: TrainingLoss, reduction_is_default: bool
) -> ModuleReport:
    """Return the report with hints at arguments that are probably wrong."""
    # With the labels in another order than in training, the size of the weights does not show the beta.
    order = order_hint(report.problem, training.base, statement)
    if order:
        return replace(report, hints=(order,))
    return replace(report, hints=tuple(argument_hints(report, statement, training, reduction_is_default)))
