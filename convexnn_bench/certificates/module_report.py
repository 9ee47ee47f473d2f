"""Bound how far a user's own trained network is from the global optimum of its training problem."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates.bounds import certify
from convexnn_bench.certificates.certificate import Certificate, relative_gap
from convexnn_bench.certificates.objective import loss_above, objective_above
from convexnn_bench.certificates.picture import certificate_html, rounded
from convexnn_bench.checks import Array, check_array, plain_number
from convexnn_bench.deadline import deadline, noted_by
from convexnn_bench.errors import InputError, NotFiniteError
from convexnn_bench.formulations import Point
from convexnn_bench.labels import Targets
from convexnn_bench.losses import BaseLoss, OutputBias, read_targets
from convexnn_bench.modules import Reading, read_module
from convexnn_bench.operator import EPS, prediction_rounding, sum_rounding
from convexnn_bench.patterns import enumeration_cost
from convexnn_bench.plugins import LIMIT, LOSSES, YES_OR_NO, Choice, is_number
from convexnn_bench.problem import Problem
from convexnn_bench.terminal import progress as progress_bar

ENUMERATION_SECONDS, ENUMERATED = 2.0, 5000  # limits of time and number, up to which all patterns are enumerated
REDUCTIONS, OUTPUT_BIASES = ("sum", "mean"), ("penalised", "free")


@dataclass(frozen=True, repr=False)
class ModuleReport:
    """The bound on a user's own network, and how the network was understood.

    Attributes
    ----------
    primal : float
        The network's training objective, F + beta/2 times the squared weights, a sum over samples.
    dual : float
        Lower bound on the objective of every network of its kind, of any width.
    gap : float
        (primal - dual) / |dual|; nan where the certificate was refused.
    certificate : Certificate
        Certificate of the same network with its output bias, if any, at the best value.
    problem : Problem
        The training problem.
    beta : float
        The weight decay in the problem's units.
    network : str
        What the module was read as.
    assumptions : tuple of str
        How weight decay, biases and labels were understood.
    """

    primal: float
    certificate: Certificate
    problem: Problem
    beta: float
    network: str
    assumptions: tuple[str, ...]

    @property
    def dual(self) -> float:
        """Lower bound on the training objective of every such network."""
        return self.certificate.dual

    @property
    def gap(self) -> float:
        """(primal - dual) / |dual|; nan where the certificate was refused."""
        return relative_gap(self.primal, self.dual) if self.certificate.refused is None else float("nan")

    @property
    def scope(self) -> str:
        """ "complete" or "sampled", as in the certificate."""
        return self.certificate.scope

    @property
    def infeasibility(self) -> float:
        """Violation of the ReLU cones, as in the certificate."""
        return self.certificate.infeasibility

    @property
    def stationarity_bound(self) -> float:
        """Bound at a stationary point, as in the certificate."""
        return self.certificate.stationarity_bound

    @property
    def stationarity_error(self) -> float:
        """Distance from stationarity, as in the certificate."""
        return self.certificate.stationarity_error

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        names = ("primal", "dual", "gap", "scope", "infeasibility", "beta", "network")
        values = {name: getattr(self, name) for name in (*names, "stationarity_bound", "stationarity_error")}
        bound = ("max_dual_norm", "dual_norm_lower", "dual_norm_method", "refused")
        values |= {name: getattr(self.certificate, name) for name in bound}
        return {**values, "loss": self.problem.loss.name, "assumptions": list(self.assumptions), "summary": str(self)}

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(primal={self.primal:.9g}, dual={self.dual:.9g}, gap={self.gap:.3g}, "
            f"beta={self.beta:.6g}, network={self.network!r})"
        )

    def _repr_html_(self) -> str:
        objective = f"{self.problem.loss.name}, summed over samples, plus beta/2 times the squared weights"
        lines = (f"Objective: {objective}, beta = {self.beta:.6g}.", *self.assumptions)
        return certificate_html(self.network, self.primal, self.dual, self.certificate.refused, lines)

    def __str__(self) -> str:
        if self.certificate.refused is not None:
            return f"No gap can be stated: {self.certificate.refused}"
        distance = f", so it is at most {_up(100 * max(self.gap, 0.0))} % above the global optimum."
        if self.gap == 0:
            distance = ", so it is at the global optimum."
        elif self.dual <= 0:
            distance = "; no percentage can be stated, since the bound is not positive."
        elif self.gap >= 10:
            distance = f", so it is at most {_up(1 + self.gap)} times the global optimum."
        lines = [
            f"The network's training objective is {self.primal:.9g}. No network of this kind, of any width, can reach "
            f"below {rounded(self.dual, 9, ROUND_FLOOR)}{distance}",
            f"Read as: {self.network}. Objective: {self.problem.loss.name}, summed over samples, plus beta/2 times the "
            f"squared weights, beta = {self.beta:.6g}.",
            *self.assumptions,
            f"Bound: {self.certificate.dual_norm_method}; largest dual norm of the gradient "
            f"{self.certificate.max_dual_norm / self.beta:.6g} beta (1 at a global optimum).",
        ]
        if not self.certificate.dual_norm_is_exact:
            lines.append(
                f"That norm is known to be at least {self.certificate.dual_norm_lower / self.beta:.6g} beta: part of "
                "the gap may be due to the bound rather than to the network."
            )
        return "\n".join(lines)


def certify_module(
    module: torch.nn.Module,
    X: Array,
    Y: Array,
    loss: str | BaseLoss = "squared",
    weight_decay: float | None = None,
    *,
    reduction: str = "sum",
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
        ReLU. It is not changed. Gated ReLU networks are not covered: their gates are part of the model, and no layer
        of torch has them.
    X : array
        The training inputs as the module takes them. The reading of the module is checked on them.
    Y : array
        Targets, as for `Problem`. Whole numbers 0..c-1 are the class numbers of a network with c outputs.
    loss : str or BaseLoss
        A name or an instance, such as "cross_entropy" or ``cnn.Huber(delta=0.5)``.
    weight_decay : float
        The number lam of torch's SGD or Adam, which add lam/2 times the squared parameters to the loss.
    reduction : {"sum", "mean"}
        How that loss adds up. "sum" is the losses of this package, and beta = lam. "mean" is torch's mean.
    output_bias : {"penalised", "free"}
        Whether weight decay applied to the bias of the last layer. It does in torch by default.
    bias_decay : bool
        Whether weight decay applied to the biases of the first layer, which are weights of a constant feature. Without
        it the program is another one, and the module is refused.
    time_limit : float, optional
        Seconds after which the bound is improved no further, reading the module and stating its problem included. The
        bound that is reached by then is returned, and holds. A single step cannot be interrupted, so that the call may
        take a fifth longer, and a second. None for no limit.
    progress : bool
        Show on stderr what is being computed, on a terminal or in a notebook only.

    Returns
    -------
    ModuleReport
        The network's objective, the lower bound, the gap, and how the arguments were understood.

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
    lam n c. AdamW's decoupled decay is no term of any objective; the report then judges the network by the objective
    stated here. The bound is weak duality (Sahiner et al., ICLR 2024), see `certify`.

    Examples
    --------
    >>> import numpy as np, torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> report = certify_module(module, np.eye(2), np.ones(2), weight_decay=0.1)
    >>> report.dual <= report.primal
    True
    """
    lam = _check_arguments(weight_decay, reduction, output_bias, bias_decay)
    LIMIT.check("time_limit", time_limit)
    YES_OR_NO.check("progress", progress)
    with (
        deadline(time_limit),
        progress_bar("certifying", show=progress) as update,
        noted_by(lambda text: update(text=text)),
    ):
        return _report(module, X, Y, loss, lam, reduction, output_bias, bias_decay)


def _report(
    module: torch.nn.Module,
    X: Array,
    Y: Array,
    loss: str | BaseLoss,
    lam: float,
    reduction: str,
    output_bias: str,
    bias_decay: bool,
) -> ModuleReport:
    """Return the report of `certify_module`, whose arguments these are, until its deadline."""
    # 1. Read the module as a network (W1, W2), perhaps with an output bias.
    data = check_array("X", X)
    reading = read_module(module, data)
    if reading.first_bias and not bias_decay:
        raise InputError(
            "bias_decay=False: biases of the first layer without weight decay are not covered, since the program's "
            "norm is that of weights and bias together; train with weight decay on all parameters of the first layer"
        )
    # 2. State its training problem in this package's units: sums instead of means, beta instead of lam.
    base = LOSSES.make(loss)
    inputs = reading.data(data)
    targets = _targets(base, Y, reading, inputs, reading.outputs(data))
    rows = targets.rows
    beta = lam * _normaliser(base, rows, reduction)
    wrapped: BaseLoss = base
    if reading.output_bias is not None:
        # The minimum over the bias is below the objective at any bias, so that the bound holds for the module's.
        wrapped = OutputBias(base, beta if output_bias == "penalised" else None)
    problem = Problem(
        inputs, targets, reading.architecture, reading.activation, wrapped, beta, patterns=_patterns(reading, inputs)
    )
    # 3. Bound the optimum, and take the objective of the module itself, with its own bias.
    certificate = certify(problem, Point(network=(reading.W1, reading.W2)))
    primal = _objective(problem, base, reading, data, output_bias == "penalised")
    assumptions = (
        _decay_words(lam, reduction, primal * lam / beta),
        *_bias_words(reading, output_bias),
        *problem.notes,
    )
    return ModuleReport(primal, certificate, problem, beta, reading.words, assumptions)


def _up(value: float) -> str:
    """Return two digits, rounded up, so that the statement stays proven."""
    return rounded(value, 2, ROUND_CEILING)


def _check_arguments(weight_decay: Any, reduction: Any, output_bias: Any, bias_decay: Any) -> float:
    lam = plain_number(weight_decay)
    if not is_number(lam) or not 0 < float(lam) < float("inf"):
        raise InputError(
            f"weight_decay must be a positive number, the one the network was trained with, got {weight_decay!r}: "
            "without weight decay the training problem has no convex program of this kind"
        )
    Choice(REDUCTIONS).check("reduction", reduction)
    Choice(OUTPUT_BIASES).check("output_bias", output_bias)
    YES_OR_NO.check("bias_decay", bias_decay)
    return float(lam)


def _targets(loss: BaseLoss, Y: Any, reading: Reading, inputs: np.ndarray, c: int) -> Targets:
    """Return targets n_out x c for a network of c outputs, read as those of a problem are."""
    targets = read_targets(loss, Y, lambda rows: reading.architecture.target_rows(rows, inputs), outputs=c)
    if targets.rows.shape[1] != c:
        raise InputError(
            f"Y must have as many columns or classes as the module has outputs, {c}, got {targets.rows.shape[1]}"
        )
    return targets


def _normaliser(loss: BaseLoss, Y: np.ndarray, reduction: str) -> float:
    """Return beta / lam: the factor from torch's reduction of the loss to this package's sum."""
    if reduction == "sum":
        return 1.0
    if loss.name == "cross_entropy":
        return float(len(Y))
    # MSELoss is 2 F / (n c); the other losses that act on single outputs are F / (n c).
    return Y.size / 2 if loss.name == "squared" else float(Y.size)


def _patterns(reading: Reading, inputs: np.ndarray) -> Any:
    """Return "all" where all patterns are few, else 1: the bound is over all patterns whatever the blocks are."""
    if reading.activation != "relu":
        return "all"
    # A complete set of blocks is bounded block by block, any other one over all patterns at once.
    cost = enumeration_cost(reading.architecture.phi_rows(torch.as_tensor(inputs)).numpy())
    return "all" if cost.seconds <= ENUMERATION_SECONDS and cost.patterns <= ENUMERATED else 1


def _objective(problem: Problem, base: BaseLoss, reading: Reading, X: np.ndarray, penalised: bool) -> float:
    """Return F + beta/2 (squared weights) of the module as it is, with its own output bias, rounded up."""
    Y, z = torch.as_tensor(problem.Y), torch.as_tensor(reading.predict(X))
    if not bool(torch.isfinite(z).all()):
        raise NotFiniteError("the network's predictions overflow float64")
    W1, W2 = torch.as_tensor(reading.W1), torch.as_tensor(reading.W2)
    error = prediction_rounding(problem.operator(), W1.abs() @ W2.abs().T, W1.shape[1])
    if reading.output_bias is not None:
        error = error + 2 * EPS * (z.abs() + torch.as_tensor(reading.output_bias).abs())
    F = loss_above(base, z, Y, float(base.value(z, Y)), base.gradient(z, Y), error)
    # The certificate's primal is taken at the best output bias, and would understate a module with another.
    biases = [torch.as_tensor(reading.output_bias)] if penalised and reading.output_bias is not None else []
    decayed = [W1, W2, *biases]
    squares = sum(float(weight.square().sum()) for weight in decayed)
    return objective_above(F, problem.beta, 0.5 * squares, sum_rounding(sum(weight.numel() for weight in decayed)))


def _decay_words(lam: float, reduction: str, in_units_of_torch: float) -> str:
    what = "the sum of the losses" if reduction == "sum" else "torch's mean of the losses"
    words = f"Weight decay: lam/2 ||w||^2 on {what}, as SGD and Adam add it (AdamW does not), lam = {lam:.6g}."
    return words if reduction == "sum" else f"{words} In those units the objective is {in_units_of_torch:.9g}."


def _bias_words(reading: Reading, output_bias: str) -> list[str]:
    words = []
    if reading.first_bias:
        words.append("Biases of the first layer are weights of a constant feature, with weight decay.")
    if reading.output_bias is not None:
        decay = "with" if output_bias == "penalised" else "without"
        words.append(f"The bias of the last layer is {decay} weight decay, and minimised over in the bound.")
    return words
