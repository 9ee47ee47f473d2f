"""Run the solver that is predicted to be quickest, and others after it.

    1. Sort the solvers that can take the problem by predicted time (`choice`).
    2. Run the first one that can be set up, and watch its scores (`stall`).
    3. If it reaches the gap, or a limit of the caller ends the run, the run is over.
    4. If it ends above the gap, or is overtaken by the prediction for the next solver, that one goes on at its point:
       go to 2 with the solvers that are left.
    5. Return the best point of all.

All solvers share the caller's clock, limits and callback. Their scores therefore form one curve, and the best lower
bound that one of them proves holds for all.
"""

import math
from dataclasses import dataclass
from typing import Any

from convexnn_bench.algorithms.automatic.choice import Candidate, Request, choose
from convexnn_bench.algorithms.automatic.stall import CpuShare, Watch
from convexnn_bench.deadline import OutOfTime, seconds_left, time_is_up
from convexnn_bench.errors import ChangedProblemError, ConvexNNError, DivergedError, InputError, UnsupportedError
from convexnn_bench.formulations import Point, converted
from convexnn_bench.plugins import SOLVERS
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Scorer

LEAST_SECONDS = 0.01  # time limit of a solver that takes over at the end of the caller's time


@dataclass
class Leg:
    """One solver's part of the run, and in words how it ended."""

    solver: BaseSolver
    candidate: Candidate
    end: str = ""


@dataclass(frozen=True)
class Best:
    """The best point of the legs so far.

    rank: (True if no gap is proven, objective).
    """

    rank: tuple[bool, float]
    point: Point
    solver: BaseSolver


class Relay(BaseSolver):
    """The base class of the solver "auto".

    A solver's own errors end its leg, unless it is the last one.
    """

    # Those of the solver that runs, once there is one.
    formulation = start_formulation = "burer_monteiro"

    def __init__(self, **parameters: Any):
        super().__init__(**parameters)
        self._forget()

    def _forget(self) -> None:
        self.candidates: list[Candidate] = []
        self._legs: list[Leg] = []
        self._solver: BaseSolver | None = None  # the one that runs, or whose point is the result
        self._best: Best | None = None
        self._result: Point | None = None  # of an earlier leg, where the last one ended with a worse point
        self._rank: tuple[bool, float] | None = None  # of the last score of the leg
        self.message = None

    # -- the choice ---------------------------------------------------------------------------------------

    def skip(self, problem: Problem) -> str | None:
        """Choose; return why no solver can take the problem, or None."""
        self._forget()
        iterative = self.iterations is not None
        request = Request(self.gap, self.time_limit, str(self.device), iterative, problem.is_shared)
        self.candidates, refused = choose(problem, request)
        if not self.candidates:
            return "no solver can take this problem: " + "; ".join(f"{name}: {why}" for name, why in refused.items())
        # A start is converted before the set-up, for the first solver that takes one.
        formulations = [one.start_formulation for one in self.candidates if one.start_formulation is not None]
        self.start_formulation = formulations[0] if formulations else "burer_monteiro"
        return None

    @property
    def author(self) -> BaseSolver:
        """The solver whose point `get_result` returns, or this one before a set-up."""
        return self if self._solver is None else self._solver

    def gap_tolerance(self) -> float:
        return super().gap_tolerance() if self._solver is None else self._solver.gap_tolerance()

    def remark(self) -> str | None:
        """Return which solvers ran and why, in one sentence."""
        if not self._legs:
            return "auto: no solver ran"
        first = self._legs[0]
        ends = [f"{leg.candidate.name} {leg.end}" for leg in self._legs if leg.end]
        if len(self._legs) == 1:
            return f"auto chose {first.candidate.name}, {first.candidate.reason}"
        following = " and ".join(leg.candidate.name for leg in self._legs[1:])
        chosen = f"auto chose {first.candidate.name}, {first.candidate.reason}, and then {following}, since "
        last = (
            "" if self._result is None or self._solver is None else f"; the best point is that of {self._solver.name}"
        )
        return chosen + " and ".join(ends) + last

    # -- the run ------------------------------------------------------------------------------------------

    def set_problem(self, problem: Problem) -> None:
        """Set up the first solver that can be set up, at the start if there is one.

        Choose first, unless `skip` has chosen.
        """
        reason = None if self.candidates else self.skip(problem)
        if reason is not None:
            raise UnsupportedError(f"auto: {reason}")
        self.problem = problem
        self._left = [one for one in self.candidates if self.start is None or one.start_formulation is not None]
        if not self._left:
            raise InputError("start: no solver that takes a start can take this problem; leave start out")
        self._set_up_next(self.start)

    def run(self, callback: Callback) -> None:
        scorer = callback if isinstance(callback, Scorer) else None
        try:
            while self._run_leg(callback, scorer) and self._set_up_next(
                None if self._best is None else self._best.point
            ):
                pass
        finally:
            # An interrupted run comes here too, and is scored once more by the caller.
            better = self._return_to_best()
        if better and scorer is not None:
            scorer.score()

    def get_result(self) -> Point:
        """Return the point of the solver that runs, or after the run the best point."""
        if self._result is not None:
            return self._result
        if self._solver is None:
            raise ConvexNNError("auto has no point before it has run")
        self._asked = self._solver.get_result()
        return self._asked

    # -- one leg ------------------------------------------------------------------------------------------

    def _set_up_next(self, start: Point | None) -> bool:
        """Set up the next solver that can be set up; return False if none is left.

        Raise what the last one raises.
        """
        while self._left and not (self._legs and time_is_up()):
            candidate = self._left.pop(0)
            leg = Leg(SOLVERS.make(candidate.name), candidate)
            self._legs.append(leg)
            try:
                self._set_up(leg.solver, start)
            except (ConvexNNError, OutOfTime) as error:
                self._may_go_on(error)
                leg.end = f"could not be set up ({error})"
                continue
            self._solver, self._rank = leg.solver, None
            self.formulation, self.one_shot = leg.solver.formulation, leg.solver.one_shot
            self.ends_at_gap = leg.solver.ends_at_gap
            return True
        return False

    def _set_up(self, solver: BaseSolver, start: Point | None) -> None:
        solver.seed, solver.device, solver.gap, solver.iterations = self.seed, self.device, self.gap, self.iterations
        solver.curve_wanted = self.curve_wanted
        left = max(seconds_left(), LEAST_SECONDS)
        solver.time_limit = None if self.time_limit is None else min(self.time_limit, left)
        if solver.start_formulation is not None:
            solver.start = None if start is None else self._in(solver.start_formulation, start)
        solver.load_packages()
        solver.set_problem(self.problem)

    def _in(self, formulation: str, point: Point) -> Point | None:
        """Return the point in a formulation, or None if it has no counterpart there."""
        try:
            return converted(self.problem, point, formulation)
        except (InputError, UnsupportedError):
            return None  # the solver begins where it begins by itself

    def _may_go_on(self, error: BaseException) -> None:
        """Raise an error again if no other solver may answer for it."""
        # A solver raises OutOfTime itself before a call that would take longer than the time that is left.
        late = isinstance(error, OutOfTime) and time_is_up()
        nobody = not self._left and self._best is None
        if late or nobody or isinstance(error, ChangedProblemError):
            raise error

    def _run_leg(self, callback: Callback, scorer: Scorer | None) -> bool:
        """Run the solver that is set up. Return True if another one should go on."""
        leg, ended = self._legs[-1], False
        watch = None
        if scorer is not None and self._may_be_overtaken():
            watch = Watch(scorer.curve, scorer.elapsed(), leg.candidate, self._left, CpuShare())
        scores = 0 if scorer is None else len(scorer.curve)

        def report() -> bool:
            nonlocal ended
            ended = ended or not callback()
            if scorer is not None and len(scorer.curve) > scores:
                self._rank = _rank(scorer)
            return not ended and (watch is None or not watch.overtaken(self._goal(), seconds_left()))

        # 1. Run it. The caller has lowered the time limit by the time of the first set-up.
        if len(self._legs) == 1:
            leg.solver.time_limit = self.time_limit
        try:
            leg.solver.run(report)
            # 2. See what it reached. A one-shot solver has called back at its last point.
            if not ended and scorer is not None and (not leg.solver.one_shot or self._rank is None):
                scorer.score()
                self._rank = _rank(scorer)
        except (ConvexNNError, DivergedError, OutOfTime) as error:
            self._may_go_on(error)
            leg.end, self._rank = f"failed ({error})", None
            return True
        self.message = leg.solver.message
        if ended or scorer is None or scorer.status is not None or self.gap is None or not self._left:
            return False
        # 3. Its point is the start of the next one.
        how = "slowed down" if watch is not None and watch.found else "ended"
        leg.end = f"{how} at gap {scorer.curve[-1][2]:.1e} after {scorer.elapsed():.2g} s"
        rank = _rank(scorer)
        if self._best is None or rank < self._best.rank:
            self._best = Best(rank, self._asked.copy(), leg.solver)
        return True

    def _goal(self) -> float:
        return self.gap_tolerance() if self.gap is None else self.gap

    def _may_be_overtaken(self) -> bool:
        """Return whether the clock may end a leg.

        It may not if runs must repeat, or if processes must agree.
        """
        return self.gap is not None and self.iterations is None and not self.problem.is_shared

    def _return_to_best(self) -> bool:
        """Make the best point of the earlier legs the result, if the last one is worse."""
        if self._best is None or (self._rank is not None and self._rank <= self._best.rank):
            return False
        self._solver, self._result = self._best.solver, self._best.point
        self.one_shot = self._solver.one_shot
        return True


def _rank(scorer: Scorer) -> tuple[bool, float]:
    """Return the rank of the last score: first a proven gap, then a low objective."""
    _, objective, gap = scorer.curve[-1]
    return math.isnan(gap), objective
