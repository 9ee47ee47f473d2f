"""Which solvers can take a problem, in the order of their predicted times.

The choice solves nothing. It reads sizes and beta_max, asks each solver whether it is available and whether it skips
the problem, and looks its time up in the model (`model`). It is the same for equal problems, settings and packages.

The model names solvers as specs, so that a rival may have the parameters with which it reaches small gaps. Solvers of
other packages, and those that need a licence, are candidates like all others where they are installed.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from convexnn_bench.algorithms.automatic.features import features_of, words
from convexnn_bench.algorithms.automatic.model import SolverModel, load_model
from convexnn_bench.plugins import SOLVERS, parse_spec
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, reason_to_skip

DEFAULT_GAP = 1e-6  # for the prediction if the caller sets no gap
ONE_SHOT_SHARE = 0.5  # a one-shot solver comes first only if it needs at most this share of the time limit
ITSELF = "auto"  # not a candidate


@dataclass(frozen=True)
class Request:
    """The settings of a solve on which the choice depends, as in `solve`.

    iterative: only solvers that take a start and can be stopped after some iterations, because the caller gave one of
    these. shared: the processes of torchrun share the problem, for which a solver must be a Burer-Monteiro one.
    """

    gap: float | None = None
    time_limit: float | None = None
    device: str = "cpu"
    iterative: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Candidate:
    """A solver that can take the problem.

    Attributes
    ----------
    name : str
        Registered name, with parameters in brackets if they are not the default ones.
    seconds : float
        Predicted time of set-up and solving, with the loading of packages that are not loaded; infinite for a solver
        without a model.
    reason : str
        Why it has its place in the order, in one sentence without a final stop.
    start_formulation : str or None
        Formulation in which it takes a start, None for a solver that takes none.
    """

    name: str
    seconds: float
    reason: str
    start_formulation: str | None


def choose(
    problem: Problem, request: Request, models: Mapping[str, SolverModel] | None = None
) -> tuple[list[Candidate], dict[str, str]]:
    """Return the solvers that can take the problem, the quickest first.

    Return also {other solver: why it cannot}.

    models: the predictions, by default those of the shipped file. Solvers with a model come before those without,
    which are tried only if no other can run.
    """
    models = load_model() if models is None else models
    able, refused = _able(list(models), problem, request, models)
    if not able:
        predicted = {base_name(spec) for spec in models}
        others = [name for name in SOLVERS.names() if name not in predicted and name != ITSELF]
        able, more = _able(others, problem, request, models)
        # Solvers that can begin at a point come first: a limit of time or iterations leaves them with a point.
        order = sorted(able, key=lambda name: able[name].start_formulation is None)
        why = "no solver with a prediction can take the problem"
        return [Candidate(name, math.inf, why, able[name].start_formulation) for name in order], {**refused, **more}
    # 1. Predict.
    features = features_of(problem, DEFAULT_GAP if request.gap is None else request.gap)
    times = {name: models[name].seconds(features) + loading(one, models[name]) for name, one in able.items()}
    # 2. Sort. A one-shot solver that the time limit cuts short may have nothing to show.
    most = math.inf if request.time_limit is None else ONE_SHOT_SHARE * request.time_limit
    order = sorted(able, key=lambda name: (able[name].one_shot and times[name] > most, times[name], name))
    # 3. Say why, in one sentence each.
    at = words(features)
    return [
        Candidate(name, times[name], _reason(name, times, at), able[name].start_formulation) for name in order
    ], refused


def loading(solver: BaseSolver, model: SolverModel) -> float:
    """Return the seconds to load what the solver needs, zero if it is loaded.

    A rival starts a process for each solve, and needs no package in this one: its seconds always count.
    """
    loaded = bool(solver.requires) and all(package in sys.modules for package in solver.requires)
    return 0.0 if loaded else model.loading


def base_name(spec: str) -> str:
    """Return the name in a spec: "rival_celer" in "rival_celer[path=true]"."""
    return parse_spec(spec)[0]


def _able(
    names: list[str], problem: Problem, request: Request, models: Mapping[str, SolverModel]
) -> tuple[dict[str, BaseSolver], dict[str, str]]:
    """Return {name: solver} for those that can take the problem.

    Return also {name of another: why it cannot}.
    """
    able, refused = {}, {}
    for name in names:
        if base_name(name) not in SOLVERS.classes:
            continue  # the model has a solver that is not registered here
        solver = SOLVERS.make(name)
        model = models.get(name)
        reason = solver.unavailable() or reason_to_skip(solver, problem) or _unfit(solver, problem, request, model)
        if reason is None:
            able[name] = solver
        else:
            refused[name] = reason
    return able, refused


def _unfit(solver: BaseSolver, problem: Problem, request: Request, model: SolverModel | None) -> str | None:
    """Return why the request or the scope of the problem rules a solver out, or None."""
    if request.iterative and solver.start_formulation is None:
        return "it solves once, and a start or a number of iterations was given"
    if request.shared and solver.formulation != "burer_monteiro":
        return "the processes of torchrun share the samples of Burer-Monteiro solvers only"
    if model is not None and model.complete and problem.scope != "complete":
        return "it would add patterns to the sampled ones of the problem"
    if request.device.startswith("cuda") and model is not None and not model.cuda:
        return f"it runs on the CPU, and device={request.device!r} was given"
    return None


def _reason(name: str, times: Mapping[str, float], at: str) -> str:
    """Return the place of a solver among the predicted times, in words."""
    others = sorted((seconds, other) for other, seconds in times.items() if other != name)
    own = f"{times[name]:.2g} s predicted at {at}"
    if not others:
        return f"{own}, and no other solver with a prediction can take the problem"
    return f"{own}, against {others[0][0]:.2g} s for {others[0][1]}"
