"""When a solver is overtaken: the speed of a falling gap, and the prediction for the next solver."""

import math
import time

import pytest

from convexnn_bench.algorithms.automatic.choice import Candidate
from convexnn_bench.algorithms.automatic.stall import LEAST_SECONDS, MARGIN, OVERDUE, CpuShare, Watch, seconds_to


def falling(rate, seconds, first=1.0):
    """A gap that falls by a factor of ten in 1 / rate seconds, scored every second."""
    return [(float(t), 5.0, first * 10.0 ** (-rate * t)) for t in range(seconds + 1)]


def test_a_steady_fall_goes_on():
    # the gap is 1e-2 after 10 s, and four further decades take 20 s
    assert seconds_to(falling(0.2, 10), 1e-6) == pytest.approx(20.0)
    assert seconds_to(falling(0.2, 10), 1e-2) == pytest.approx(0.0, abs=1e-9)


def test_the_end_of_a_run_counts_and_not_its_beginning():
    early = [(0.0, 5.0, 1.0), (1.0, 5.0, 1e-3), (6.0, 5.0, 1e-3), (12.0, 5.0, 9e-4)]
    assert seconds_to(early, 1e-6) == pytest.approx(6 * math.log(900) / math.log(1 / 0.9))


def test_a_gap_that_does_not_fall_never_gets_there():
    assert seconds_to([(0.0, 5.0, 1e-3), (1.0, 5.0, 1e-3), (9.0, 5.0, 2e-3)], 1e-6) == math.inf
    assert seconds_to([(0.0, 5.0, math.nan), (9.0, 5.0, math.nan)], 1e-6) == math.inf
    assert seconds_to([], 1e-6) == math.inf


def test_the_first_proven_gap_says_nothing_of_the_speed():
    assert seconds_to([(0.0, 5.0, math.nan), (9.0, 5.0, 1e-3)], 1e-6) == 0.0


def whole():
    return 1.0


def candidate(seconds):
    return Candidate("a", seconds, "", "convex")


def test_a_solver_is_overtaken_once_it_is_overdue_and_slower():
    own, following = LEAST_SECONDS, 2 * LEAST_SECONDS
    curve = []
    watch = Watch(curve, 0.0, candidate(own), [candidate(following)], whole)
    assert not watch.overtaken(1e-6, math.inf)  # there is no score
    overdue = OVERDUE * own * 1.01
    for seconds in (0.0, overdue / 3, overdue / 2):
        curve.append((seconds, 5.0, 1e-3))
        assert not watch.overtaken(1e-6, math.inf)  # it has time
    curve.append((overdue, 5.0, 1e-3))
    assert watch.overtaken(1e-6, math.inf)
    assert watch.found


def test_a_solver_goes_on_while_it_is_quicker_than_the_next_one_or_no_time_is_left():
    curve = falling(1.0, 5)  # one second for each decade
    left = seconds_to(curve, 1e-12)
    for following, seconds_left in ((left / MARGIN * 1.01, math.inf), (left / MARGIN * 0.99, left / MARGIN * 0.98)):
        watch = Watch(list(curve), 0.0, candidate(0.01), [candidate(following)], whole)
        watch._seen = watch._first = 0
        assert not watch.overtaken(1e-12, seconds_left)
    watch = Watch(list(curve), 0.0, candidate(0.01), [candidate(left / MARGIN * 0.99)], whole)
    watch._seen = watch._first = 0
    assert watch.overtaken(1e-12, math.inf)


def test_the_scores_of_earlier_solvers_do_not_count():
    curve = falling(1.0, 5)
    watch = Watch(curve, 5.0, candidate(10.0), [candidate(0.1)], whole)
    curve.append((6.0, 5.0, 1e-5))
    assert not watch.overtaken(1e-12, math.inf)  # one second of its own


def test_on_a_busy_machine_the_clock_counts_less():
    curve = []
    watch = Watch(curve, 0.0, candidate(LEAST_SECONDS), [candidate(0.1)], lambda: 0.1)
    curve.append((OVERDUE * LEAST_SECONDS * 5, 5.0, 1e-3))
    assert not watch.overtaken(1e-6, math.inf)
    curve.append((OVERDUE * LEAST_SECONDS * 15, 5.0, 1e-3))
    assert watch.overtaken(1e-6, math.inf)


def test_the_share_of_the_cpu_is_at_most_one(monkeypatch):
    share = CpuShare()
    cpu, clock = time.process_time(), time.perf_counter()
    monkeypatch.setattr(time, "process_time", lambda: cpu + 2.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock + 8.0)
    assert share() == pytest.approx(0.25, rel=0.05)
    monkeypatch.setattr(time, "perf_counter", lambda: clock + 1.0)
    assert share() == 1.0
