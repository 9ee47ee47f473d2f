"""Choose the weight decays at which to solve, until the gap holds everywhere."""

import math
import time
from dataclasses import replace
from typing import Any

from convexnn_bench.certificates import certify, line, witness
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.problem import Problem
from convexnn_bench.regularisation.mixing import mixed_point, zero_point
from convexnn_bench.regularisation.regularisation_path import RegularisationPath
from convexnn_bench.regularisation.sandwich import Candidate, Interval, Knot, Network, Sandwich
from convexnn_bench.running import Result, solve
from convexnn_bench.solver import BaseSolver
from convexnn_bench.terminal import Update

# SOLVE_GAP is the gap of a solve, and MIXED_GAP the largest gap at which a mixture of two solves replaces a solve, both
# relative to the path's tolerance. On breast_cancer to 1e-3, SOLVE_GAP = 0.1, 0.2 and 0.3 took 26 solves and 94, 90 and
# 88 Newton steps, and MIXED_GAP = 0.8 took three solves more. A solver that ended as soon as its gap was 0.3 took 36
# solves, since mixtures of its points were worse.
SOLVE_GAP, MIXED_GAP = 0.2, 0.9
DESCENT = 0.5  # ratio of neighbouring weight decays in the first pass, from the largest down; 0.25 took as long
EXHAUSTED = 2.0  # an interval is not split below this multiple of the gap that a solver left at one of its ends
NARROW = 1e-9  # relative width below which an interval is not split


class Search:
    """The sandwich of a path so far, and the solves that add to it."""

    def __init__(
        self,
        problem: Problem,
        algorithm: BaseSolver,
        tolerance: float,
        time_limit: float | None,
        seed: int,
        device: str,
        warm_starts: bool,
        started: float,
    ):
        self.problem, self.algorithm, self.tolerance = problem, algorithm, tolerance
        self.time_limit, self.seed, self.device, self.started = time_limit, seed, device, started
        self.warm = warm_starts and algorithm.start_formulation is not None
        self.formulation = algorithm.start_formulation or algorithm.formulation
        self.parameters = {key: getattr(algorithm, key) for key in algorithm.parameters}
        self.scope = zero_point(problem, self.formulation).default_scope(problem)
        self.stopped: str | None = None  # the status, unless the tolerance ended the search
        self.solves = 0
        self.failed: dict[float, str] = {}  # weight decays at which a solve gave no certified point, and why
        # Compute what the problems of all weight decays share before the first copy is made.
        problem.operator()
        if problem.has_cone:
            _ = problem.cones
            _ = problem.all_patterns if self.scope != problem.scope else problem.closed_cones

    def begin(self, smallest: float) -> None:
        """Enclose the optimum by the zero network at both ends, which needs no solve."""
        largest = self.problem.beta_max
        self.sandwich = Sandwich(self._zero_knot(smallest * largest), self._zero_knot(largest))

    def run(self, update: Update) -> None:
        """Solve at the ends and on a coarse grid, then split the worst intervals.

        The search ends when the tolerance holds everywhere, or when a limit is reached.
        """
        try:
            for beta in self._first_pass():
                self._say(update, self.sandwich.gap)
                if not self._solve(beta):
                    return
            while (worst := self.sandwich.worst()) is not None and worst.gap > self.tolerance:
                self._say(update, worst.gap)
                if not self._can_split(worst):
                    self.sandwich.discard()
                elif not self._split(worst):
                    return
        except KeyboardInterrupt:
            self.stopped = "interrupted"

    def outcome(self) -> RegularisationPath:
        """Return the path, with its status and the reason in words."""
        gap, solves = self.sandwich.gap, len(self.sandwich.solved())
        done = f"the relative gap is at most {gap:.2g} at every beta, from {solves} certified networks"
        if gap <= self.tolerance:
            status, reason = "gap_reached", done
        elif self.stopped is not None:
            status, reason = self.stopped, done
        else:
            status = "stalled"
            why = next(iter(self.failed.values()), "single solves did not reach their gap")
            reason = f"{done}, and {self.algorithm.name} comes no closer: {why}"
        return RegularisationPath(
            self.problem, self.algorithm.name, self.parameters, self.tolerance, self.scope, status, reason,
            self.seed, self.device, time.perf_counter() - self.started, self.solves, self.sandwich,
        )  # fmt: skip

    # -- steps --------------------------------------------------------------------------------------------

    def _first_pass(self) -> list[float]:
        """Return the weight decays of the first pass, from the largest down.

        Each solve starts at the result of the last one.
        """
        first, last = self.sandwich.knots[0], self.sandwich.knots[-1]
        steps = math.ceil(math.log(first.beta / last.beta) / math.log(DESCENT))
        between = [last.beta * DESCENT**step for step in range(1, steps)]
        # The zero network is optimal at beta_max unless beta_max depends on beta itself, or is an upper bound.
        top = [] if last.gap <= SOLVE_GAP * self.tolerance else [last.beta]
        return [*top, *(beta for beta in between if beta > first.beta), first.beta]

    def _can_split(self, interval: Interval) -> bool:
        """Return False if a further solve is not expected to help."""
        first, second = interval.first, interval.second
        if second.beta <= first.beta * (1 + NARROW):
            return False
        if any(first.beta <= beta <= second.beta for beta in self.failed):
            return False
        left = [knot.gap for knot in (first, second) if knot.gap > self.tolerance]
        return not interval.gap <= EXHAUSTED * max(left, default=0.0)

    def _split(self, interval: Interval) -> bool:
        """Add a knot where the lines of an interval cross.

        Return False if the search must end.
        """
        beta = interval.split
        if self._out_of_time():
            return False
        # 1. Try the mixture of the two nearest networks.
        problem = self.problem.with_beta(beta)
        below, above = self.sandwich.neighbours(beta)
        knot = Knot(beta, *Candidate.mixture(problem, below, above))
        if knot.gap <= MIXED_GAP * self.tolerance:
            self.sandwich.add(knot)
            return True
        # 2. Otherwise solve there.
        return self._solve(beta)

    def _solve(self, beta: float) -> bool:
        """Solve at a weight decay and add the knot. Return False if the search must end."""
        if self._out_of_time():
            return False
        # 1. Solve, from the results nearby.
        problem = self.problem.with_beta(beta)
        gap = SOLVE_GAP * self.tolerance
        start = self._start(problem)
        result = solve(
            problem, self.algorithm, self._left(), gap, self.seed, self.device, start=start, show_progress=False
        )
        self.solves += 1
        if result.status == "skipped":
            raise UnsupportedError(f"no path by {self.algorithm.name}: {result.reason}")
        # 2. Certify it in the scope of the path, which may differ from that of the solver's formulation.
        if result.certificate is not None and result.certificate.scope != self.scope:
            certificate = certify(problem, result, self.scope, time_limit=self._left())
            result = replace(result, certificate=certificate)
        # 3. Add it, unless it proves nothing.
        if result.certificate is None or result.certificate.refused is not None:
            why = result.reason if result.certificate is None else result.certificate.refused
            self.failed[beta] = f"at beta = {beta:.6g}: {result.status}: {why}"
        else:
            self.sandwich.add(_knot(result))
        return not self._out_of_time()

    def _start(self, problem: Problem) -> Any:
        """Return where a solve begins, or None.

        It is a mixture of the two nearest results, or the nearest one.
        """
        # Do not start at the zero network, which first-order methods on factors and weights do not leave.
        near = [network for network in self.sandwich.neighbours(problem.beta) if not network.is_zero]
        if not self.warm or not near:
            return None
        if len(near) == 1 or problem.vector_cone or self.formulation == "network":
            # Joined columns or neurons of two points would be twice as many.
            return min(near, key=lambda network: abs(math.log(network.beta / problem.beta))).result
        below, above = near
        t = (problem.beta - below.beta) / (above.beta - below.beta)
        return mixed_point(problem, below.point, above.point, t)

    # -- parts of steps -----------------------------------------------------------------------------------

    def _zero_knot(self, beta: float) -> Knot:
        problem = self.problem.with_beta(beta)
        zero = zero_point(problem, self.formulation)
        certificate = certify(problem, zero, self.scope, time_limit=self._left())
        reason = "the zero network, which needs no solve"
        result = Result(
            problem, self.algorithm.name, self.parameters, "gap_reached", reason, self.seed, self.device,
            certificate=certificate, point=zero,
        )  # fmt: skip
        return _knot(result)

    def _left(self) -> float | None:
        """Return the seconds that are left.

        They are positive after `_out_of_time` has returned False.
        """
        return None if self.time_limit is None else max(self.time_limit - (time.perf_counter() - self.started), 1e-3)

    def _out_of_time(self) -> bool:
        if self.time_limit is not None and time.perf_counter() - self.started >= self.time_limit:
            self.stopped = "time_limit"
        return self.stopped is not None

    def _say(self, update: Update, gap: float) -> None:
        update(text=f"largest gap {gap:.1e} after {self.solves} solves")


def _knot(result: Result) -> Knot:
    """Return the knot of a certified result."""
    problem, point, certificate = result.problem, result.point, result.certificate
    assert point is not None
    assert certificate is not None
    about = witness(problem, point, certificate)
    above = line(problem, about.predictions, about.rounding, about.regulariser)
    network = Network(result, point, about, above)
    return Knot(problem.beta, Candidate(above, (network,)), certificate.dual, network)
