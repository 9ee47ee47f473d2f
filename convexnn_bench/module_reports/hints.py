"""Hints at arguments of `certify_module` that are probably wrong."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from convexnn_bench.labels import shown
from convexnn_bench.losses import BaseLoss
from convexnn_bench.module_reports.module_report import ModuleReport
from convexnn_bench.module_reports.statement import Statement
from convexnn_bench.modules import TrainingLoss
from convexnn_bench.problem import Problem

LARGE_GAP = 10.0  # relative gap from which a wrong reduction is a likely reason, and the least number of samples for it
BETA_FACTOR = 3.0  # factor up to which a beta agrees with the one that the size of the weights fits
OTHER_ORDER = 0.5  # ratio of losses below which another order of the classes is probably that of training


def order_hint(problem: Problem, base: BaseLoss, statement: Statement) -> str | None:
    """Return a hint if another order of the classes fits the outputs much better."""
    if problem.classes is None or base.labels is None:
        return None
    Y, z = problem.Y, statement.outputs
    given, classes = torch.as_tensor(z), problem.classes
    column: tuple[int, ...]
    if base.labels == "signs":
        reordered, column = -Y, (1, 0)
    else:
        # The cross-entropy is a function of z minus the sum of Y * z, so that the best order of the classes is the
        # assignment of the columns of Y to outputs that maximises that sum.
        from scipy.optimize import linear_sum_assignment

        output = linear_sum_assignment(Y.T @ z, maximize=True)[1]
        column = tuple(int(index) for index in np.argsort(output))  # of Y, for each output
        reordered = Y[:, column]
    loss, other = (float(base.value(given, torch.as_tensor(targets))) for targets in (Y, reordered))
    if not other < OTHER_ORDER * loss:
        return None
    numbers = "-1 and 1" if base.labels == "signs" else f"0 to {len(classes) - 1}"
    return (
        f"The loss would be {other:.6g} instead of {loss:.6g} with the classes in the order "
        f"{shown([classes[index] for index in column])}. If the network was trained with that order, give Y as the "
        f"numbers of its training, {numbers}."
    )


def hints(report: ModuleReport, statement: Statement, training: TrainingLoss, default: bool) -> Iterator[str]:
    """Yield a hint if the weights or the gap suggest that `reduction` is wrong."""
    Y = report.problem.Y
    other = "mean" if training.reduction == "sum" else "sum"
    units = training.beta(1.0, Y.shape), replace(training, reduction=other).beta(1.0, Y.shape)
    alternative = report.beta * units[1] / units[0]
    if other == "mean" and training.base.name == "squared" and training.scale == 1.0:
        alternative /= 2.0  # torch's mean of squares lacks the factor 1/2
    how = f"a loss with reduction={other!r}" if training.is_torch else f"reduction={other!r} (--reduction {other})"
    say = f"If the loss of training was a {other}, give {how}: beta would be {alternative:.6g}, not {report.beta:.6g}."
    # 1. A trained network is stationary under scaling of both layers. The size of its weights therefore shows the beta
    # with which it was trained.
    fitted = _fitted_beta(report, training.base, statement)
    wrong, right = (abs(math.log(fitted / beta)) if fitted > 0 else math.inf for beta in (report.beta, alternative))
    if fitted > 0 and right < math.log(BETA_FACTOR) < wrong:
        yield f"The size of the weights fits training with beta = {fitted:.3g}. {say}"
    # 2. Otherwise only a large gap suggests an error.
    elif default and (report.gap >= LARGE_GAP or report.dual <= 0) and len(Y) >= LARGE_GAP:
        yield f"The bound is far below the objective. {say}"


def _fitted_beta(report: ModuleReport, base: BaseLoss, statement: Statement) -> float:
    """Return the beta at which scaling both layers leaves the network stationary.

    A value <= 0 means that there is none.
    """
    reading, outputs = statement.reading, torch.as_tensor(statement.outputs)
    bias = 0.0 if reading.output_bias is None else torch.as_tensor(reading.output_bias)
    # d/dt of F(t^2 f + b) + t^2 times the penalty of the layers at t = 1, where f is without the output bias b. Another
    # beta multiplies that penalty.
    slope = float((base.gradient(outputs, torch.as_tensor(report.problem.Y)) * (outputs - bias)).sum())
    penalty = statement.penalty_of_layers()
    return -slope / penalty * report.beta if penalty > 0 else 0.0
