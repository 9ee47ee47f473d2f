"""One solver on one problem, in this process: set-up and solve timed apart, points scored off the clock."""

import time
from collections.abc import Callable
from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.certificates import Certificate
from convexnn_bench.errors import InputError
from convexnn_bench.plugins.parameters import SEED, Number, Whole
from convexnn_bench.plugins.registry import SOLVERS
from convexnn_bench.problem import Problem
from convexnn_bench.running.monitor import Diverged, Monitor, OnScore
from convexnn_bench.running.result import Result
from convexnn_bench.running.settings import settings_kept
from convexnn_bench.running.sharing import shared_where_possible
from convexnn_bench.running.untouched import Untouched
from convexnn_bench.solver import BaseSolver, reason_to_skip
from convexnn_bench.terminal import progress

POSITIVE_OR_NONE = Number(optional=True, infinite=True)


def check_device(device: Any) -> str:
    """The device's name, of several processes each one's own. Raises InputError where torch does not see it."""
    try:
        chosen = torch.device(parallel.own_device(str(device))) if isinstance(device, str | torch.device) else None
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:0', got {device!r}")
    if chosen.type == "cuda":
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not seen:
            raise InputError(f"device {str(device)!r} was asked for, but torch sees no CUDA device here: use 'cpu'")
        if (chosen.index or 0) >= seen:
            raise InputError(f"device {str(device)!r} was asked for, but the last one here is 'cuda:{seen - 1}'")
    return str(chosen)


def check_arguments(problem: Any, time_limit: Any, gap: Any, seed: Any, device: Any, iterations: Any) -> str:
    """The device's name; raises InputError for an argument of `solve` that is not usable."""
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a Problem, got {type(problem).__name__}")
    for name, value in (("time_limit", time_limit), ("gap", gap)):
        POSITIVE_OR_NONE.check(name, value)
    SEED.check("seed", seed)
    Whole(optional=True).check("iterations", iterations)
    return check_device(device)


def solve(
    problem: Any,
    solver: Any,
    time_limit: Any = 60.0,
    gap: Any = 1e-6,
    seed: Any = 0,
    device: Any = "cpu",
    *,
    iterations: Any = None,
    on_score: Any = None,
    on_setup: Any = None,
    show_progress: bool = True,
    **parameters: Any,
) -> Result:
    """Solve a problem with one solver and certify what it returns.

    problem: a `Problem`.
    solver: a registered name, optionally with parameters, "bm_lbfgs[m=2]", or an instance.
    time_limit: seconds of solving (set-up and scoring not counted), None for no limit.
    gap: certified relative gap at which the solver is stopped; None runs it to its own end.
    iterations: steps after which an iterative solver is stopped, with status "stalled"; None for no limit. The same
    number gives the same point on a slow machine and a fast one.
    seed: of the start point. device: "cpu" or "cuda".
    on_score: called with (seconds, certificate) whenever a point has been scored. on_setup: with the seconds of set-up.
    show_progress: a bar on stderr, on a terminal or in a notebook only. parameters: the solver's own.

    Under torchrun the processes share the samples of `bm_*` solvers (formulation "burer_monteiro"), but for ReLU: each
    gets the same result, and has to make the same call. Every other solver, and ReLU, each process runs on its own.

    Returns a Result; a solver that is missing or does not fit the problem gives status "skipped" with the
    reason. Errors inside a solver are raised. Raises InputError for unusable arguments, among them fewer samples than
    processes, or not the same ones in all of them, where they share.
    """
    device = check_arguments(problem, time_limit, gap, seed, device, iterations)
    for name, called, given in (("on_score", on_score, "(seconds, certificate)"), ("on_setup", on_setup, "seconds")):
        if called is not None and not callable(called):
            raise InputError(f"{name} must be a function of {given}, got {called!r}")
    algorithm: BaseSolver = SOLVERS.make(solver, **parameters)
    time_limit = None if time_limit is None else float(time_limit)
    gap = None if gap is None else float(gap)
    algorithm.seed, algorithm.device = int(seed), device
    algorithm.time_limit, algorithm.gap = time_limit, gap
    algorithm.iterations = None if iterations is None else int(iterations)
    chosen = {key: getattr(algorithm, key) for key in algorithm.parameters}
    result = Result(problem, algorithm.name, chosen, "skipped", "", int(seed), device)
    untouched = Untouched(shared_where_possible(problem, algorithm, chosen))
    reason = algorithm.unavailable() or reason_to_skip(algorithm, untouched.problem)
    if reason is not None:
        result.reason = reason
        return result

    show = show_progress and parallel.first()
    with settings_kept(), progress(algorithm.name, total=time_limit, show=show) as update:

        def scored(seconds: float, certificate: Certificate) -> None:
            update(seconds, f"objective {certificate.primal:.7g}, certified gap {certificate.gap:.1e}")
            if on_score is not None:
                on_score(seconds, certificate)

        _run(result, algorithm, scored, on_setup or (lambda seconds: None), untouched)
    untouched.check(f"solver {algorithm.name!r}")  # for those who go on with the problem
    return result


def _run(
    result: Result, algorithm: BaseSolver, on_score: OnScore, on_setup: Callable[[float], None], untouched: Untouched
) -> None:
    """Set up, solve and certify, into `result`."""
    problem = untouched.problem
    algorithm.load_packages()
    started = time.perf_counter()
    algorithm.set_problem(problem)
    if torch.device(result.device).type == "cuda":
        torch.cuda.synchronize(result.device)
    result.setup_seconds = time.perf_counter() - started
    if problem.is_shared:
        result.setup_seconds = parallel.agreed(result.setup_seconds)
    on_setup(result.setup_seconds)
    monitor = Monitor(problem, algorithm, on_score, untouched)
    try:
        algorithm.run(monitor)
        result.solve_seconds = monitor.elapsed()
        if not monitor.curve or (monitor.status is None and not algorithm.one_shot):
            monitor.score()
        result.status, result.reason = _verdict(monitor, algorithm)
    except Diverged as error:
        result.solve_seconds = monitor.elapsed()
        result.status, result.reason = "diverged", str(error)
    result.curve, result.certificate, result.point = monitor.curve, monitor.certificate, monitor.point


def _verdict(monitor: Monitor, algorithm: BaseSolver) -> tuple[str, str]:
    """Status and its reason in words, from the certificate first and the solver's own message last."""
    assert monitor.certificate is not None
    certified = monitor.certificate
    said = f"; {algorithm.name} said: {algorithm.message}" if algorithm.message else ""
    if certified.refused is not None:
        return "stalled", f"{certified.refused}{said}"
    if monitor.status == "gap_reached":
        return "gap_reached", f"certified gap {certified.gap:.1e} <= {monitor.gap:.1e}"
    if monitor.status == "time_limit":
        return "time_limit", f"{monitor.time_limit:g} s passed at certified gap {certified.gap:.1e}"
    if monitor.status == "iterations":
        return "stalled", f"stopped after {monitor.iterations} iterations at certified gap {certified.gap:.1e}"
    if monitor.gap is None or algorithm.one_shot:
        target = "" if monitor.gap is None else f", above the target {monitor.gap:.1e}"
        return "solved", f"ended by its own test at certified gap {certified.gap:.1e}{target}{said}"
    return "stalled", f"ended at certified gap {certified.gap:.1e}, above the target {monitor.gap:.1e}{said}"
