"""Run one solver on one problem in this process, with separate clocks for set-up and solving."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.certificates import Certificate, PointLike
from convexnn_bench.deadline import deadline
from convexnn_bench.errors import ChangedProblemError, DivergedError, InputError, UnsupportedError
from convexnn_bench.formulations import Point
from convexnn_bench.plugins import LIMIT, SEED, SOLVERS, Whole
from convexnn_bench.problem import Problem
from convexnn_bench.proofs import check_verifiable
from convexnn_bench.running.monitor import Monitor, OnScore
from convexnn_bench.running.result import Result
from convexnn_bench.running.scaling import Scaling
from convexnn_bench.running.settings import settings_kept
from convexnn_bench.running.sharing import shared_where_possible
from convexnn_bench.running.start import read_start, start_for
from convexnn_bench.running.untouched import Untouched
from convexnn_bench.running.wait import Interrupter, Wait
from convexnn_bench.solver import BaseSolver, reason_to_skip
from convexnn_bench.statuses import Ending, verdict
from convexnn_bench.terminal import progress

LEAST_SECONDS = 0.01  # of solving, for a solver whose set-up took all the time: some refuse a limit of zero


def check_device(device: Any) -> str:
    """Return the device's name, under torchrun that of this process. Raise InputError where torch does not see it."""
    try:
        chosen = torch.device(parallel.rank_device(str(device))) if isinstance(device, str | torch.device) else None
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
    """Return the device's name; raise InputError for an argument of `solve` that is not usable."""
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a Problem, got {type(problem).__name__}")
    for name, value in (("time_limit", time_limit), ("gap", gap)):
        LIMIT.check(name, value)
    SEED.check("seed", seed)
    Whole(optional=True).check("iterations", iterations)
    name = check_device(device)
    if problem.is_sparse and torch.device(name).type != "cpu":
        raise InputError(f"device={name!r}: sparse X is multiplied on the CPU only; use device='cpu', or X.toarray()")
    return name


def solve(
    problem: Problem,
    solver: str | BaseSolver | type[BaseSolver] = "auto",
    time_limit: float | None = 60.0,
    gap: float | None = 1e-6,
    seed: int = 0,
    device: str | torch.device = "cpu",
    *,
    start: PointLike | None = None,
    iterations: int | None = None,
    verified: bool = False,
    on_score: OnScore | None = None,
    on_setup: Callable[[float], None] | None = None,
    show_progress: bool = True,
    **parameters: Any,
) -> Result:
    """Solve a problem and certify the point that the solver returns.

    Parameters
    ----------
    problem : Problem
        The training problem.
    solver : str or BaseSolver
        A registered name, with parameters in brackets if wanted ("bm_lbfgs[m=2]"), or an instance. "auto" runs the
        solver that is predicted to be the quickest for this problem, and lets another one go on at its point where the
        gap stops falling. It takes no parameters. `result.solver` names the solver of the final point, and
        `result.reason` says what was chosen and why.
    time_limit : float, optional
        Seconds to wait. The solver is stopped after so many seconds of solving, and earlier if set-up and scoring take
        long: `solve` returns within 1.2 `time_limit` + 1 s, the last certificate included. A single call into compiled
        code is not interrupted, and packages that are imported for the first time count for half of the limit at most.
        None for no limit.
    gap : float, optional
        Certified relative gap at which the solver is stopped. None lets it run to its own end.
    seed : int
        Seed of the start point, or of the random columns and neurons that a solver adds to `start`.
    device : str or torch.device
        "cpu", "cuda" or "cuda:0".
    start : Result, Point, array, pair of arrays or torch.nn.Module, optional
        Where an iterative solver begins: a result on the same data and masks (of another solver, another formulation,
        another beta or another loss), blocks (P x p x q), factors (U, V), network weights (W1, W2), or a torch module
        without biases. It is converted to the solver's formulation and certified before the set-up: a start that is
        within the gap is returned at once, with status "gap_reached". Its bound holds for all later points.
    iterations : int, optional
        Steps after which an iterative solver is stopped, with status "stalled". The same number gives the same point
        on a slow machine and on a fast one.
    verified : bool
        Verify the rounding of the bounds, as `certify` does: of a point that reaches the gap, and of the last one. For
        ReLU this makes a proof, which may take long beyond the time limit. If it cannot be done, `result.reason` says
        why and `certificate.verified` stays False.
    on_score : callable, optional
        Called with (seconds, certificate) whenever a point was scored.
    on_setup : callable, optional
        Called with the seconds of set-up.
    show_progress : bool
        Show a bar on stderr, on a terminal or in a notebook only.
    **parameters
        Parameters of the solver.

    Returns
    -------
    Result
        The point, its certificate, its times and its curve. A solver that is missing or does not fit the problem gives
        status "skipped" with the reason.

    Raises
    ------
    InputError
        An argument is not usable. Under torchrun: there are fewer samples than processes, or the processes were not
        all given the same arguments. For `start`: the solver runs once and cannot begin anywhere; shapes do not fit the
        problem, or entries are not finite; a result is of a problem with another X, other masks, another architecture
        or activation, or other targets for a loss that reads them alike (they are compared entry by entry); the point
        has no counterpart in the solver's formulation, such as a ReLU network with patterns outside the blocks; or it
        has more columns or neurons than the solver's `m` or `width`.
    UnsupportedError
        Verified bounds do not know the problem's loss, or its samples are shared under torchrun.

    Notes
    -----
    Under torchrun all processes must make the same call. They share the samples of a Burer-Monteiro solver (`bm_*`)
    and each gets the same result. Every other solver, and every solver of a ReLU problem, runs in each process on its
    own. Errors inside a solver are raised.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
    >>> result = cnn.solve(problem)
    >>> result.status, round(result.objective, 3)
    ('gap_reached', 0.155)

    The optimum of a larger weight decay is a good start for a smaller one:

    >>> smaller = cnn.solve(problem.with_beta(0.05), start=result)
    >>> smaller.status, round(smaller.objective, 3)
    ('gap_reached', 0.079)
    """
    device = check_arguments(problem, time_limit, gap, seed, device, iterations)
    for name, called, given in (("on_score", on_score, "(seconds, certificate)"), ("on_setup", on_setup, "seconds")):
        if called is not None and not callable(called):
            raise InputError(f"{name} must be a function of {given}, got {called!r}")
    # 1. Make the solver and hand it the settings of this run.
    algorithm = SOLVERS.make(solver, **parameters)
    time_limit = None if time_limit is None else float(time_limit)
    gap = None if gap is None else float(gap)
    algorithm.seed, algorithm.device = int(seed), device
    algorithm.time_limit, algorithm.gap = time_limit, gap
    algorithm.iterations = None if iterations is None else int(iterations)
    begin = None if start is None else read_start(problem, algorithm, start)
    if verified:
        check_verifiable(problem)
    chosen = {key: getattr(algorithm, key) for key in algorithm.parameters}
    result = Result(problem, algorithm.name, chosen, "skipped", "", int(seed), device)
    # 2. Take checksums of the problem, which under torchrun may be one with shared products.
    untouched = Untouched(shared_where_possible(problem, algorithm, chosen, begin))
    if verified and untouched.problem.is_shared:
        raise UnsupportedError("verified=True needs all samples in one process: run without torchrun")
    # 3. Load packages, and ask the solver to skip. A solver that cannot run gives a result, so that a campaign
    # continues. Imports do not count as set-up, since the solver has not seen the problem yet. The time in `skip` does.
    reason = algorithm.unavailable()
    loading = time.perf_counter()
    if reason is None:
        algorithm.load_packages()
    started = time.perf_counter()
    wait = Wait(time_limit, imports=started - loading)
    reason = reason or reason_to_skip(algorithm, untouched.problem)
    if reason is not None:
        result.reason = reason
        return result

    # 4. Run, and restore whatever settings the solver changed.
    show = show_progress and parallel.is_first()
    with settings_kept(), progress(algorithm.name, total=time_limit, show=show) as update:

        def scored(seconds: float, certificate: Certificate) -> None:
            by = "" if algorithm.author is algorithm else f"{algorithm.author.name}: "
            update(seconds, f"{by}objective {certificate.primal:.7g}, certified gap {certificate.gap:.1e}")
            if on_score is not None:
                on_score(seconds, certificate)

        _run(result, algorithm, begin, scored, on_setup or (lambda seconds: None), untouched, wait, started, verified)
    untouched.check(f"solver {algorithm.name!r}")  # the caller goes on with the problem
    # 5. Name the solver of the point, if the solver ran others.
    author, remark = algorithm.author, algorithm.remark()
    result.solver, result.parameters = author.name, {key: getattr(author, key) for key in author.parameters}
    result.reason = result.reason if remark is None else f"{result.reason}; {remark}"
    return result


def _run(
    result: Result,
    algorithm: BaseSolver,
    start: Point | None,
    on_score: OnScore,
    on_setup: Callable[[float], None],
    untouched: Untouched,
    wait: Wait,
    started: float,
    verified: bool,
) -> None:
    """Set up, solve and certify, and write the outcome into `result`. started: when the clock of the set-up started."""
    problem = untouched.problem
    # Processes that share a problem wait for each other, so that none of them may be interrupted alone.
    waited = None if problem.is_shared else time.perf_counter() - started
    interrupter = Interrupter(wait.until(wait.solver_is_interrupted, waited))
    monitor: Monitor | None = None

    def set_up_is_over() -> float:
        used = time.perf_counter() - started
        seconds = used - monitor.scoring_seconds if monitor is not None else used
        result.setup_seconds = parallel.from_first(seconds) if problem.is_shared else seconds
        on_setup(result.setup_seconds)
        return used

    def work() -> None:
        nonlocal monitor
        monitor = Monitor(untouched, Scaling.of(problem), algorithm, on_score, wait, interrupter, verified)
        # 1. Hand the start over, unless it suffices.
        if _start_suffices(start, monitor, algorithm, started):
            set_up_is_over()
            return
        # 2. Set up.
        algorithm.set_problem(monitor.scaling.problem)
        if torch.device(result.device).type == "cuda":
            torch.cuda.synchronize(result.device)
        used = set_up_is_over()
        # 3. Solve, for the time that is left. The monitor scores points off the clock.
        if wait.solver_stops is not None and wait.time_limit is not None:
            algorithm.time_limit = min(wait.time_limit, max(wait.solver_stops - used, LEAST_SECONDS))
        monitor.begin(result.setup_seconds)
        algorithm.run(monitor)

    try:
        with deadline(wait.until(wait.solver_stops, waited)):
            finished = interrupter.run(work)
        if monitor is None or not (monitor.begun or monitor.curve):
            result.setup_seconds = time.perf_counter() - started
            result.status = "time_limit"
            why = interrupter.reason or f"set-up was not finished within {wait.time_limit:g} s"
            result.reason = f"{why}: no point to certify"
            return
        result.solve_seconds = monitor.elapsed()
        _score_last(monitor, algorithm, finished)
        monitor.verify_last()
        result.status, result.reason = _verdict(monitor, algorithm)
        result.reason += monitor.not_verified
    except DivergedError as error:
        assert monitor is not None
        result.solve_seconds = monitor.elapsed()
        result.status, result.reason = "diverged", str(error)
    finally:
        algorithm.time_limit = wait.time_limit
    result.curve, result.certificate, result.point = monitor.curve, monitor.certificate, monitor.point
    result.iterations = monitor.steps


def _start_suffices(start: Point | None, monitor: Monitor, algorithm: BaseSolver, started: float) -> bool:
    """Convert and score the start off the clock, and set `algorithm.start`; return whether its gap suffices."""
    if algorithm.start_formulation is not None:
        algorithm.start = None
    if start is None:
        return False
    converted = start_for(monitor.problem, algorithm, start)
    suffices = monitor.score_start(converted, time.perf_counter() - started)
    algorithm.start = monitor.scaling.applied(converted)
    return suffices


def _score_last(monitor: Monitor, algorithm: BaseSolver, finished: bool) -> None:
    """Score the solver's last point unless that was done."""
    if not monitor.begun:  # the start suffices, or the set-up was interrupted: the start is the point
        monitor.status = monitor.status or "time_limit"
        return
    if finished:
        # An iterative solver may have moved since its last score. A one-shot solver calls back when it has its point.
        if not monitor.curve or (monitor.status is None and not algorithm.one_shot):
            monitor.score()
        return
    # A solver that was interrupted may be between two points, and then the last one that it handed over stands. A point
    # is judged by its own arrays alone, so that any other one may be certified.
    monitor.status = monitor.status or "time_limit"
    try:
        monitor.score()
    except ChangedProblemError:
        raise
    except Exception as error:
        algorithm.message = f"interrupted, after which it had no point: {error}"


def _verdict(monitor: Monitor, algorithm: BaseSolver) -> tuple[str, str]:
    """Return the status and its reason in words, from the final certificate and from what stopped the solver."""
    certificate = monitor.certificate
    said = f"; {algorithm.name} said: {algorithm.message}" if algorithm.message else ""
    ending = Ending(
        monitor.status,
        math.nan if certificate is None else certificate.gap,
        "no point to certify" if certificate is None else certificate.refused,
        monitor.gap,
        algorithm.gap_tolerance(),
        algorithm.one_shot,
        monitor.time_limit,
        monitor.iterations,
        monitor.certificate_cut,
    )
    return verdict(ending, said)
