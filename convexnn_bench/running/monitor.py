"""The callback of a solver under way: its clock, and its points certified while that stands still."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.certificates import Certificate, certify
from convexnn_bench.formulations.point import Point
from convexnn_bench.problem import Problem
from convexnn_bench.running.settings import usual_numbers
from convexnn_bench.running.sharing import check_same_point
from convexnn_bench.running.untouched import Untouched
from convexnn_bench.solver import BaseSolver

OnScore = Callable[[float, Certificate], None]

LARGEST_ENTRY = 1e100  # of a point; data are held below 1e40, so that its objective is finite
FIRST_SCORE = 1e-3  # seconds
SCORE_RATIO = 1.2  # points are scored at times in geometric progression ...
SCORE_SHARE = 1.0  # ... and never for longer, in all, than about the solver itself has run

ONE_SHOT_SCORES = 200  # calls of a one-shot solver that are scored at once; the others like anyone's


class Diverged(Exception):
    """The solver's point is not finite any more."""


class Monitor:
    """The callback: a clock that stops while a point is scored, and the decision to go on.

    It may be called from any thread. Once it has answered False no point is scored any more, whatever the solver does.
    Processes that share a problem go by the first one's clock, so that they decide alike.
    """

    def __init__(self, problem: Problem, solver: BaseSolver, on_score: OnScore, untouched: Untouched):
        self.problem, self.solver, self.on_score, self.untouched = problem, solver, on_score, untouched
        self.time_limit, self.gap, self.iterations = solver.time_limit, solver.gap, solver.iterations
        self.on_gpu = torch.device(solver.device).type == "cuda"
        self.curve: list[tuple[float, float, float]] = []
        self.certificate: Certificate | None = None
        self.point: Point | None = None
        self.status: str | None = None
        self._calls = itertools.count(1)
        self._due = 0.0
        self._stopped = 0.0  # seconds the clock stood still
        self._lock = threading.RLock()
        self._start = self._now()

    def _now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize(self.solver.device)
        return self._clock()

    def _clock(self) -> float:
        seconds = time.perf_counter()
        return parallel.agreed(seconds) if self.problem.is_shared else seconds

    def elapsed(self) -> float:
        """Seconds the solver has run, scoring left out."""
        return self._now() - self._start - self._stopped

    def __call__(self) -> bool:
        """Score the point when it is due; False tells the solver to stop."""
        # without waiting for the device: most calls end here
        seconds = self._clock() - self._start - self._stopped
        out_of_time = self.time_limit is not None and seconds >= self.time_limit
        out_of_iterations = self.iterations is not None and next(self._calls) > self.iterations
        ended = out_of_time or out_of_iterations
        at_once = self.solver.one_shot and len(self.curve) < ONE_SHOT_SCORES
        if seconds < self._due and not ended and not at_once and self.status is None:
            return True
        with self._lock:
            if self.status is None:
                self.score()
            if self.status is None and ended:
                self.status = "time_limit" if out_of_time else "iterations"
        return self.status is None

    def score(self) -> None:
        """Certify the solver's current point, its clock stopped. Raises ChangedProblemError for another problem's."""
        seconds = self.elapsed()
        found = self.solver.get_result()
        with usual_numbers():
            self._certify(found, seconds)
        scoring = self._now() - self._start - self._stopped - seconds
        self._stopped += scoring
        self._due = max(seconds * SCORE_RATIO, seconds + SCORE_SHARE * scoring, FIRST_SCORE)

    def _certify(self, found: Any, seconds: float) -> None:
        if not isinstance(found, Point):
            raise TypeError(f"get_result of solver {self.solver.name!r} must return a Point, got {found!r:.100}")
        found.check_size(self.problem)  # before an array of any size is copied
        point = found.copy()  # what the solver goes on to do with its arrays is not certified
        if self.problem.is_shared:
            check_same_point(point, self.solver.name)
        self.untouched.check(f"solver {self.solver.name!r}")
        if not _bounded(point):
            raise Diverged(f"the point's entries are not finite, or above {LARGEST_ENTRY:g}, after {seconds:.3g} s")
        if point.dual is None and self.certificate is not None:
            point.dual = self.certificate.multiplier  # a bound once proven holds for every later point
        certificate = certify(self.problem, point)
        self.point, self.certificate = point, certificate
        self.curve.append((seconds, certificate.primal, certificate.gap))
        self.on_score(seconds, certificate)
        if self.gap is not None and certificate.gap <= self.gap:
            self.status = "gap_reached"


def _bounded(point: Point) -> bool:
    """Return False where an entry is NaN, infinite, or so large that objectives overflow."""
    return all(bool((torch.as_tensor(array).abs() <= LARGEST_ENTRY).all()) for array in point.arrays())
