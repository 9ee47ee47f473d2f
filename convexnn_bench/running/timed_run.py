"""One run of a solver on a problem, with a clock for each of its parts."""

import math
import time
from collections.abc import Callable

import torch

from convexnn_bench import parallel
from convexnn_bench.deadline import deadline
from convexnn_bench.errors import ChangedProblemError, DivergedError
from convexnn_bench.formulations import Point
from convexnn_bench.running.monitor import Monitor, OnScore
from convexnn_bench.running.result import Result
from convexnn_bench.running.scaling import Scaling
from convexnn_bench.running.start import start_for
from convexnn_bench.running.untouched import Untouched
from convexnn_bench.running.wait import Interrupter, Wait
from convexnn_bench.solver import BaseSolver
from convexnn_bench.statuses import Ending, verdict

LEAST_SECONDS = 0.01  # of solving, for a solver whose set-up took all the time: some refuse a limit of zero


class TimedRun:
    """One run of `algorithm`, whose outcome is written into `result`.

    start: where the solver begins, or None. started: when the clock of the set-up started. verified, on_score,
    on_setup: as for `solve`.
    """

    def __init__(
        self,
        result: Result,
        algorithm: BaseSolver,
        untouched: Untouched,
        wait: Wait,
        started: float,
        verified: bool,
        *,
        start: Point | None,
        on_score: OnScore,
        on_setup: Callable[[float], None],
    ):
        self.result, self.algorithm, self.untouched, self.wait = result, algorithm, untouched, wait
        self.started, self.start, self.on_score, self.on_setup = started, start, on_score, on_setup
        self.verified = verified
        self.problem = untouched.problem
        self.monitor: Monitor | None = None
        # Processes that share a problem wait for each other, so that none of them may be interrupted alone.
        self.waited = None if self.problem.is_shared else time.perf_counter() - started
        self.interrupter = Interrupter(wait.until(wait.solver_is_interrupted, self.waited))

    def run(self) -> None:
        """Set up, solve and certify, and write the outcome into the result."""
        try:
            with deadline(self.wait.until(self.wait.solver_stops, self.waited)):
                finished = self.interrupter.run(self._work)
            monitor = self.monitor
            if monitor is None or not (monitor.begun or monitor.curve):
                self._end_without_point()
                return
            self.result.solve_seconds = monitor.elapsed()
            _score_last(monitor, self.algorithm, finished)
            monitor.verify_last()
            self.result.status, self.result.reason = _verdict(monitor, self.algorithm)
            self.result.reason += monitor.not_verified
        except DivergedError as error:
            monitor = self.monitor
            assert monitor is not None
            self.result.solve_seconds = monitor.elapsed()
            self.result.status, self.result.reason = "diverged", str(error)
        finally:
            self.algorithm.time_limit = self.wait.time_limit
        self.result.curve, self.result.certificate, self.result.point = (
            monitor.curve,
            monitor.certificate,
            monitor.point,
        )
        self.result.iterations = monitor.steps

    def _work(self) -> None:
        """Set up and solve. This is the part that a time limit may interrupt."""
        self.monitor = monitor = Monitor(
            self.untouched,
            Scaling.of(self.problem),
            self.algorithm,
            self.on_score,
            self.wait,
            self.interrupter,
            self.verified,
        )
        # 1. Hand the start over, unless it suffices.
        if self._start_suffices(monitor):
            self._set_up_is_over(monitor)
            return
        # 2. Set up.
        self.algorithm.set_problem(monitor.scaling.problem)
        if torch.device(self.result.device).type == "cuda":
            torch.cuda.synchronize(self.result.device)
        used = self._set_up_is_over(monitor)
        # 3. Solve, for the time that is left. The monitor scores points off the clock.
        wait = self.wait
        if wait.solver_stops is not None and wait.time_limit is not None:
            self.algorithm.time_limit = min(wait.time_limit, max(wait.solver_stops - used, LEAST_SECONDS))
        monitor.begin(self.result.setup_seconds)
        self.algorithm.run(monitor)

    def _start_suffices(self, monitor: Monitor) -> bool:
        """Convert and score the start off the clock; return whether its gap suffices."""
        algorithm = self.algorithm
        if algorithm.start_formulation is not None:
            algorithm.start = None
        if self.start is None:
            return False
        converted = start_for(monitor.problem, algorithm, self.start)
        suffices = monitor.score_start(converted, time.perf_counter() - self.started)
        algorithm.start = monitor.scaling.applied(converted)
        return suffices

    def _set_up_is_over(self, monitor: Monitor) -> float:
        """Stop the clock of the set-up; return the seconds since its start with scores."""
        used = time.perf_counter() - self.started
        seconds = used - monitor.scoring_seconds
        self.result.setup_seconds = parallel.from_first(seconds) if self.problem.is_shared else seconds
        self.on_setup(self.result.setup_seconds)
        return used

    def _end_without_point(self) -> None:
        """Write into the result that the time was up before there was a point."""
        self.result.setup_seconds = time.perf_counter() - self.started
        self.result.status = "time_limit"
        why = self.interrupter.reason or f"set-up was not finished within {self.wait.time_limit:g} s"
        self.result.reason = f"{why}: no point to certify"


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
    """Return the status and its reason in words.

    They follow from the final certificate and from what stopped the solver.
    """
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
