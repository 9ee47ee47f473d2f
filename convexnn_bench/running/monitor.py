"""The callback of a running solver: it certifies points, and its clock stops meanwhile."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.certificates import Certificate, certify, strengthened
from convexnn_bench.deadline import cuts_counted, deadline, no_deadline
from convexnn_bench.errors import DivergedError, InputError, NotFiniteError, UnsupportedError
from convexnn_bench.formulations import Point
from convexnn_bench.proofs import verify
from convexnn_bench.running.scaling import Scaling
from convexnn_bench.running.settings import usual_errors
from convexnn_bench.running.sharing import check_same_point
from convexnn_bench.running.start import LARGEST_ENTRY, is_bounded
from convexnn_bench.running.untouched import Untouched
from convexnn_bench.running.wait import Interrupter, Wait
from convexnn_bench.solver import BaseSolver

OnScore = Callable[[float, Certificate], None]

FIRST_SCORE = 1e-3  # seconds of solving before the second score
SCORE_RATIO = 1.2  # scores are due at times in geometric progression, twelve in a factor of ten
# Seconds of solving before the next score, per second that the last one took: at first, and once the scores have taken
# SCORES_PART of the time limit together. One of them alone may take no longer than that.
SCORE_SHARE, LATE_SHARE, SCORES_PART = 1.0, 4.0, 0.1
RARE_SHARE = 10.0  # the same, of a solver that ends at the gap by itself, where nobody wants its curve
POINT_PART = 0.5  # of the time for a score, which the solver may use to make its point
ONE_SHOT_SCORES = 200  # first calls of a one-shot solver, which are scored at once; later ones when they are due


class Monitor:
    """The callback of one run: it scores points, keeps the clocks, and decides when the solver stops.

    The solver's clock starts with `begin`, and stops while a point is scored. The clock of the caller, which set-up has
    used for `setup_seconds`, does not stop. If the solver has a limit in iterations, the number of iterations decides
    when a score is due, so that every run scores the same points. Any thread may call the monitor. After the first
    False it scores no further point. Processes that share a problem use the clock of the first process, so that their
    decisions agree.
    """

    def __init__(
        self,
        untouched: Untouched,
        scaling: Scaling,
        solver: BaseSolver,
        on_score: OnScore,
        wait: Wait,
        interrupter: Interrupter,
        verified: bool = False,
    ):
        self.problem, self.solver, self.on_score, self.untouched = untouched.problem, solver, on_score, untouched
        self.scaling = scaling
        self.wait, self.setup_seconds, self.interrupter = wait, 0.0, interrupter
        self.time_limit, self.gap, self.iterations = wait.time_limit, solver.gap, solver.iterations
        self.on_gpu = torch.device(solver.device).type == "cuda"
        self.curve: list[tuple[float, float, float]] = []
        self.certificate: Certificate | None = None
        self.point: Point | None = None
        self._judged_dual: Any = None  # the multiplier that the solver gave with its last scored point
        self.status: str | None = None
        self.verified, self.not_verified = verified, ""  # what the caller wants, and why it cannot be had
        self.certificate_cut = False  # whether the deadline cut the last point or a search of its certificate short
        self.steps = 0  # calls after which the solver went on
        self._calls = itertools.count(1)
        self._due = 0.0  # seconds of solving, or number of the call, at which the next score is due
        self.scoring_seconds = 0.0  # during which the clock stood still
        self.begun = False  # whether the solver's clock has started
        self._lock = threading.RLock()
        self._start = self._now()

    def _now(self) -> float:
        # Calls to the GPU return before their work is done, so that a reading of the clock has to wait for it.
        if self.on_gpu:
            torch.cuda.synchronize(self.solver.device)
        return self._clock()

    def _clock(self) -> float:
        seconds = time.perf_counter()
        return parallel.from_first(seconds) if self.problem.is_shared else seconds

    def elapsed(self) -> float:
        """Return the seconds that the solver has run, without scoring."""
        return self._now() - self._start - self.scoring_seconds if self.begun else 0.0

    def __call__(self) -> bool:
        """Score the point when it is due. Return False where the solver must stop."""
        # most calls return at once, without waiting for the device
        seconds = self._clock() - self._start - self.scoring_seconds
        out_of_time = self._out_of_time(seconds)
        calls = next(self._calls)
        out_of_iterations = self.iterations is not None and calls > self.iterations
        ended = out_of_time or out_of_iterations
        at_once = self.solver.one_shot and len(self.curve) < ONE_SHOT_SCORES
        reached = seconds if self.iterations is None else calls
        if reached < self._due and not ended and not at_once and self.status is None:
            self.steps = max(self.steps, calls)
            return True
        # Two threads must not score at once. The first False is final, so that the status is read again inside.
        with self._lock:
            if self.status is None:
                self.score(last=ended or self.solver.one_shot)
                if self.iterations is not None:
                    self._due = max(calls * SCORE_RATIO, calls + 1)
                out_of_time = out_of_time or self._out_of_time(seconds)  # a score may take what was left
            if self.status is None and (ended or out_of_time):
                self.status = "time_limit" if out_of_time else "iterations"
            if self.status is None:
                self.steps = max(self.steps, calls)
        return self.status is None

    def _out_of_time(self, seconds: float) -> bool:
        """Return True if the solver, which has run for `seconds`, or the caller has used up the time limit."""
        if self.time_limit is None:
            return False
        return seconds >= self.time_limit or self._until(self.wait.solver_stops, seconds) <= 0

    def _until(self, end: float | None, seconds: float) -> float:
        """Return the seconds until the wait reaches `end`, where the solver has run for `seconds`."""
        return math.inf if end is None else end - self.setup_seconds - self.scoring_seconds - seconds

    def score_start(self, start: Point, waited: float) -> bool:
        """Certify the start before the set-up, in the user's units; return whether its gap suffices.

        waited: seconds that the caller has waited so far. Raise InputError if the objective of the start overflows.
        """
        with self.interrupter.held():
            before = self._now()
            left = None if self.problem.is_shared else Wait.until(self.wait.solver_stops, waited)
            if self.problem.is_shared:
                check_same_point(start, self.solver.name)
            with usual_errors(), deadline(left), cuts_counted() as cuts:
                try:
                    self._judge(start, 0.0)
                except DivergedError as error:
                    raise InputError(f"start: {error}") from error
                self.certificate_cut = bool(cuts)
            self.scoring_seconds += self._now() - before
        return self.status is not None

    def begin(self, setup_seconds: float) -> None:
        """Start the solver's clock. setup_seconds: time of the set-up without the score of a start."""
        self.setup_seconds, self.begun = setup_seconds, True
        self._start = self._now() - self.scoring_seconds

    def score(self, last: bool = True) -> None:
        """Certify the solver's current point off its clock. Raise ChangedProblemError where the problem was changed.

        The certificate of the last point may take what is left of the wait, and one before it a part of the limit.
        """
        with self.interrupter.held():
            # 1. Let the solver make its point, and stop its clock.
            with self._limited(last, POINT_PART) as cuts:
                found = self.solver.get_result()
            seconds = self.elapsed()
            # 2. Certify the point.
            shortened = bool(cuts)
            with usual_errors(), self._limited(last) as cuts:
                self._certify(found, seconds, shortened)
                self.certificate_cut = shortened or bool(cuts)
            # 3. Deduct what scoring took. The next score is due when the scores' share of the time allows it.
            scoring = self._now() - self._start - self.scoring_seconds - seconds
            self.scoring_seconds += scoring
            dear = self.time_limit is not None and self.scoring_seconds > SCORES_PART * self.time_limit
            rare = self.solver.ends_at_gap and not self.solver.curve_wanted
            share = RARE_SHARE if rare else LATE_SHARE if dear else SCORE_SHARE
            self._due = max(seconds * SCORE_RATIO, seconds + share * scoring, FIRST_SCORE)

    @contextmanager
    def _limited(self, last: bool, part: float = 1.0) -> Iterator[list[float]]:
        """Set the deadline for a part of a score, and yield a list that is empty unless it cuts a search short."""
        # Processes that share a problem must not be stopped by clocks of their own.
        if self.time_limit is None or self.problem.is_shared:
            with cuts_counted() as cuts:
                yield cuts
            return
        left = self._until(self.wait.certificate_ends if last else self.wait.solver_stops, self.elapsed())
        if not last:
            left = min(left, SCORES_PART * self.time_limit)
        # The deadline of the solver is none for the last score, which may begin when it is over.
        with no_deadline(), deadline(part * left), cuts_counted() as cuts:
            yield cuts

    def _certify(self, found: Any, seconds: float, shortened: bool) -> None:
        if not isinstance(found, Point):
            raise TypeError(f"get_result of solver {self.solver.name!r} must return a Point, got {found!r:.100}")
        found.check_size(self.problem)  # before an array of any size is copied
        point = self.scaling.restored(found.copy())  # the solver may go on to change its own arrays
        if self.problem.is_shared:
            check_same_point(point, self.solver.name)
        self.untouched.check(f"solver {self.solver.name!r}")
        if not is_bounded(point):
            raise DivergedError(
                f"the point's entries are not finite, or above {LARGEST_ENTRY:g}, after {seconds:.3g} s"
            )
        # A proven bound holds for every later point (`_judge`), so that no multiplier has to be judged twice.
        if found.dual is not None and found.dual is self._judged_dual:
            point.dual = None
        self._judged_dual = found.dual
        self._judge(point, seconds, shortened)

    def _judge(self, point: Point, seconds: float, shortened: bool = False) -> None:
        """Certify a point in the user's units, and record its score.

        shortened: whether the deadline kept the solver from making its own point of this one. A better point of before
        then stands.
        """
        try:
            certificate = certify(self.problem, point)
        except NotFiniteError as error:
            raise DivergedError(f"{error} (after {seconds:.3g} s)") from error
        # A thread of the solver may have changed the problem meanwhile.
        self.untouched.check(f"solver {self.solver.name!r}")
        if shortened and self.certificate is not None and not certificate.primal < self.certificate.primal:
            assert self.point is not None
            point, certificate, self.certificate = self.point, self.certificate, certificate
        if self.certificate is not None:
            stronger = strengthened(certificate, self.certificate)
            if stronger is not certificate:  # with its multiplier, `certify` finds the bound of the point again
                certificate, point.dual = stronger, stronger.multiplier
        if self.verified and self.gap is not None and certificate.gap <= self.gap:
            certificate = self._verified(point, certificate)
        self.point, self.certificate = point, certificate
        self.curve.append((seconds, certificate.primal, certificate.gap))
        self.on_score(seconds, certificate)
        # A refused gap is NaN, which reaches no target.
        if self.gap is not None and certificate.gap <= self.gap:
            self.status = "gap_reached"

    def verify_last(self) -> None:
        """Verify the bounds of the last point, if the caller wants that and it was not done."""
        if self.verified and self.certificate is not None and not self.certificate.verified:
            assert self.point is not None
            with usual_errors():
                self.certificate = self._verified(self.point, self.certificate)
            self.curve[-1] = (self.curve[-1][0], self.certificate.primal, self.certificate.gap)

    def _verified(self, point: Point, certificate: Certificate) -> Certificate:
        """Return the certificate with verified bounds, or as it is where that cannot be done."""
        try:
            return verify(self.problem, point, certificate)
        except UnsupportedError as error:
            self.not_verified = f"; the bounds are not verified: {error}"
            return certificate
