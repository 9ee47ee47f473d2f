"""Decide whether another solver is expected to reach the target earlier.

If the gap fell by a factor r during the last part of a run, w seconds long, and goes on like that, it falls from g to
the target in w log(g / target) / log(r) seconds. The next solver takes over once the solver has used several times its
predicted time, and this is longer than the next solver is predicted to take from the start.

Predictions are CPU seconds. On a machine with other work the clock of the scores runs faster, so that times on it are
multiplied by the share of the CPU that the process had.
"""

import math
import time
from collections.abc import Callable, Sequence

from convexnn_bench.algorithms.automatic.choice import Candidate

OVERDUE = 4.0  # multiple of the predicted time for which a solver is left alone; predictions are seldom further off
LEAST_SECONDS = 1.0  # no solver is stopped earlier, since a wrong choice costs little by then
MARGIN = 2.0  # multiple of the next solver's predicted time that the rest must exceed
WINDOW = 0.5  # part of the run that counts for the speed at the end

Curve = Sequence[tuple[float, float, float]]  # (seconds, objective, gap) of each score


def seconds_to(curve: Curve, target: float) -> float:
    """Return the seconds until the gap is expected to reach the target.

    They are infinite if the gap does not fall.

    The clock of the curve starts with the solver.
    """
    # 1. The least gap up to each score, and at the start of the window.
    least, falling = math.inf, []
    for seconds, _, gap in curve:
        least = min(least, gap) if gap > 0 else least  # a refused gap is NaN
        falling.append((seconds, least))
    if not math.isfinite(least):
        return math.inf
    now = falling[-1][0]
    seconds, before = next((one for one in reversed(falling) if one[0] <= WINDOW * now), falling[0])
    # 2. Go on at the speed of the window.
    if not before > least:
        return math.inf
    if math.isinf(before):
        return 0.0  # the first gap was just proven: nothing is known of the speed
    return max((now - seconds) * math.log(least / target) / math.log(before / least), 0.0)


class CpuShare:
    """The CPU seconds of this process per second since this object was made.

    It is at most one.
    """

    def __init__(self) -> None:
        self._cpu, self._clock = time.process_time(), time.perf_counter()

    def __call__(self) -> float:
        passed = time.perf_counter() - self._clock
        return min((time.process_time() - self._cpu) / passed, 1.0) if passed > 0 else 1.0


class Watch:
    """Watch the scores of one solver's part of a run.

    curve: the scores of the whole run. began: the time on their clock when this solver began. left: the solvers that
    could take over, the next one first. share: CPU seconds per second of that clock.
    """

    def __init__(
        self, curve: Curve, began: float, own: Candidate, left: Sequence[Candidate], share: Callable[[], float]
    ):
        self.curve, self.began, self.own, self.left, self.share = curve, began, own, left, share
        self.found = False  # whether the solver was overtaken
        self._first = self._seen = len(curve)

    def overtaken(self, target: float, seconds_left: float) -> bool:
        """Return whether a new score lets the next solver be expected to be earlier."""
        if not self.left or len(self.curve) == self._seen:
            return False
        self._seen = len(self.curve)
        share, following = self.share(), self.left[0].seconds
        own = [(share * (seconds - self.began), value, gap) for seconds, value, gap in self.curve[self._first :]]
        overdue = own[-1][0] > max(OVERDUE * self.own.seconds, LEAST_SECONDS)
        self.found = overdue and following < share * seconds_left and seconds_to(own, target) > MARGIN * following
        return self.found
