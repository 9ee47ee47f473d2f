"""Narrow the interval of the optimum of a user's training problem.

The report of the network itself says where the optimum is: below its objective, above the bound. `narrowed` goes on:

1. If all activation patterns are enumerated, or there is no activation, solve the problem: both ends meet.
2. Otherwise train the user's network further, first at its width, then with more neurons (`training`), and
3. move the multiplier of the bound together with the decision rules that bound its norm (`JointBound`), from the
   gradient of the best network.
4. Write the best network into a copy of the user's module.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from convexnn_bench.certificates import Certificate, JointBound, certify, lower_bound, strengthened
from convexnn_bench.deadline import part_of_deadline, seconds_left, time_is_up
from convexnn_bench.errors import ConvexNNError, InputError
from convexnn_bench.formulations import Point, network
from convexnn_bench.module_reports.better_module import with_weights
from convexnn_bench.module_reports.module_report import CLOSED, ModuleReport
from convexnn_bench.module_reports.training import EXCESS, NetworkTraining
from convexnn_bench.modules import Reading
from convexnn_bench.optima import minimal_network
from convexnn_bench.problem import Problem
from convexnn_bench.running import Result, solve
from convexnn_bench.terminal import Update

TRAINING_SHARE = 0.3  # of the time, for the better network
WIDTH_SHARE = 0.4  # of the training, at the user's width
MINIMAL_SECONDS = 0.2  # for the certificate of the network with fewest neurons, whose bound is not used
ADDED = 16  # neurons that are added at a time
FIRST_TOLERANCE, TOLERANCE = 1e-5, 1e-6  # relative decrease in a window of steps that counts as progress
IDLE_ROUNDS = 3  # rounds of new neurons in a row without progress, after which training ends
LONGEST_ASCENT = 3600.0  # seconds
RESERVED = 0.05  # part of the time left for the better module at the end

Weights = tuple[np.ndarray, np.ndarray]


@dataclass
class Network:
    """A user's module with the two maps between it and its problem.

    Attributes
    ----------
    module : torch.nn.Module
        The user's module.
    X : array
        The samples as the module takes them.
    reading_of : function
        Weights (W1, W2) of the problem's network, and an output bias or None, to a reading of the module.
    objective : function
        A reading to a lower and an upper bound on its training objective.
    """

    module: torch.nn.Module
    X: np.ndarray
    reading_of: Callable[[np.ndarray, np.ndarray, np.ndarray | None], Reading]
    objective: Callable[[Reading], tuple[float, float]]


@dataclass
class _State:
    """The interval so far, which every step may leave at any time."""

    problem: Problem
    user: Network
    certificate: Certificate
    high: float
    update: Update
    started: float
    activity: str = ""
    best: Reading | None = None
    weights: Weights | None = None
    curve: list[tuple[float, float, float]] = field(default_factory=list)

    def say(self, activity: str | None = None) -> None:
        """Show the objective, the interval and what is being done."""
        self.activity = self.activity if activity is None else activity
        low, seconds = self.certificate.dual, time.perf_counter() - self.started
        width = f" ({100 * (self.high - low) / low:.2g} %)" if low > 0 else ""
        text = f"optimum between {low:.6g} and {self.high:.6g}{width}, {self.activity}"
        self.update(done=seconds, text=text)

    def record(self) -> None:
        """Note the interval in the curve."""
        moment = time.perf_counter() - self.started, self.certificate.dual, self.high
        self.curve.append(moment)
        self.say()

    def take_network(self, W1: np.ndarray, W2: np.ndarray) -> None:
        """Keep a network if its objective is the lowest so far.

        The objective is that of the user, rounded up.
        """
        bias = None
        if self.problem.output_bias is not None:
            z = network.predict(self.problem, torch.as_tensor(W1), torch.as_tensor(W2))
            bias = self.problem.output_bias_at(z.numpy())
        reading = self.user.reading_of(W1, W2, bias)
        high = self.user.objective(reading)[1]
        if high < self.high:
            self.high, self.best, self.weights = high, reading, (W1, W2)
            self.record()

    def take_bound(self, dual: float, multiplier: torch.Tensor) -> None:
        """Keep the bound of a multiplier if it is the largest so far."""
        if dual > self.certificate.dual:
            other = replace(self.certificate, dual=dual, multiplier=multiplier.numpy().copy())
            self.certificate = strengthened(self.certificate, other)
            self.record()

    @property
    def closed(self) -> bool:
        """Whether the interval is as narrow as its ends can be computed."""
        return self.high - self.certificate.dual <= CLOSED * abs(self.certificate.dual)


def narrowed(report: ModuleReport, user: Network, weights: Weights, update: Update, started: float) -> ModuleReport:
    """Return the report with the interval that is reached by the deadline or Ctrl-C.

    report: that of the module itself. weights: the module's (W1, W2) in the problem's terms. update: shows progress.
    started: when the clock of the curve began.
    """
    state = _State(report.problem, user, report.certificate, report.primal, update, started)
    state.record()
    if report.certificate.refused is not None:
        return report
    notes = []
    try:
        with part_of_deadline(1 - RESERVED):
            _improve(state, weights)
    except KeyboardInterrupt:
        notes.append("The search was interrupted; the interval is the one reached by then.")
    better = None
    if state.best is not None:
        state.say("writing the better network")
        try:
            better = with_weights(user.module, user.X, state.best)
        except ConvexNNError as error:
            notes.append(f"The better network could not be written as a module of this kind: {error}.")
    return replace(
        report,
        certificate=state.certificate,
        better=better,
        better_objective=None if state.best is None else state.high,
        better_neurons=None if state.best is None else int(np.any(state.best.W1 != 0, axis=0).sum()),
        assumptions=(*report.assumptions, *notes),
        curve=tuple(state.curve),
    )


def _improve(state: _State, weights: Weights) -> None:
    """Narrow the interval until the deadline."""
    problem = state.problem
    # 1. Solve a problem whose blocks are all that the network can use.
    if problem.scope == "complete":
        state.say("solving the problem with all patterns")
        _solve(state, weights)
    if state.closed or time_is_up() or not problem.has_cone:
        return
    # 2. Train on.
    with part_of_deadline(TRAINING_SHARE):
        _train(state, weights)
    # 3. Move the multiplier and the rules, from the gradient of the best network.
    W1, W2 = state.weights or weights
    z = network.predict(problem, torch.as_tensor(W1), torch.as_tensor(W2))
    _bound(state, z)


def _solve(state: _State, weights: Weights) -> None:
    """Solve the problem from the user's network, and take its network and its bound."""
    for solver in ("bm_newton", "network_lbfgs"):
        if state.closed or time_is_up():
            return
        result = _solved(state, solver, weights)
        if result.certificate is None or result.certificate.refused is not None:
            continue
        if result.certificate.scope == state.certificate.scope:
            state.certificate = strengthened(state.certificate, result.certificate)
        if result.network is not None:
            state.take_network(*(np.asarray(part) for part in result.network))
        state.record()


def _solved(state: _State, solver: str, weights: Weights) -> Result:
    """Return the result of a solver.

    It begins at the best network if it can.
    """

    def run(start: Weights | None) -> Result:
        limit = seconds_left() / 2
        return solve(state.problem, solver, time_limit=limit, gap=CLOSED / 10, start=start, show_progress=False)

    try:
        return run(state.weights or weights)
    except InputError:  # such as a neuron on the boundary of patterns that count as one
        return run(None)


def _train(state: _State, weights: Weights) -> None:
    """Train the network, first at its width, then with more neurons.

    Training ends at the deadline, or when the objective has settled.
    """
    training = NetworkTraining(state.problem, *weights)

    def take() -> None:
        training.prune()
        state.take_network(training.W1.numpy(), training.W2.numpy())

    state.say(f"training on with {training.width} neurons")
    with part_of_deadline(WIDTH_SHARE):
        training.descend(FIRST_TOLERANCE)
    take()
    idle = 0
    while idle < IDLE_ROUNDS and not time_is_up():
        before = training.value
        largest = training.grow(ADDED)
        if largest <= 1 + EXCESS:
            break
        state.say(f"training on with {training.width} neurons")
        training.descend(TOLERANCE)
        take()
        idle = idle + 1 if training.value > before * (1 - TOLERANCE) else 0
    _merge(state)


def _merge(state: _State) -> None:
    """Take the best network with the fewest neurons that its predictions need."""
    if state.weights is None:
        return
    point = Point(network=state.weights)
    certificate = certify(state.problem, point, time_limit=MINIMAL_SECONDS)
    result = Result(state.problem, "certify_module", {}, "solved", "", 0, "cpu")
    result.point, result.certificate = point, certificate
    small = minimal_network(result, time_limit=MINIMAL_SECONDS).network
    if small is not None:
        state.take_network(*(np.asarray(part) for part in small))


def _bound(state: _State, z: torch.Tensor) -> None:
    """Raise the lower bound until the deadline."""
    problem, Y = state.problem, state.problem.operator().Y
    left = min(seconds_left(), LONGEST_ASCENT)
    joint = JointBound(state.problem, z, left)
    if joint.moving is None:
        # The norm of the gradient is known better than rules can bound it.
        state.say("bounding the gradient of the best network")
        Lambda = problem.loss.project_dual(problem.loss.gradient(z, Y), Y)
        dual, _, multiplier = lower_bound(problem, Lambda, "complete")
        state.take_bound(dual, multiplier)
        return
    state.say("raising the lower bound")
    joint.ascend(left, improved=lambda: state.take_bound(joint.dual, joint.multiplier))
