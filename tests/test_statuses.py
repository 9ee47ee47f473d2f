"""The statuses of a run, and the function that decides between them."""

import math
import re
from pathlib import Path

import pytest

from convexnn_bench.plugins import SOLVERS
from convexnn_bench.statuses import STATUSES, Ending, verdict

DOCS = Path(__file__).resolve().parents[1] / "docs"


def ending(cause=None, gap=1e-3, refused=None, target=None, one_shot=True, cut=False):
    return Ending(cause, gap, refused, target, 1e-8, one_shot, time_limit=5.0, iterations=7, certificate_cut=cut)


@pytest.mark.parametrize(
    ("case", "status", "reason"),
    [
        (ending("gap_reached", 1e-7, target=1e-6), "gap_reached", "certified gap 1.0e-07 <= 1.0e-06"),
        (ending(gap=1e-9), "solved", "ended by its own test at certified gap 1.0e-09, within its tolerance 1e-08"),
        (ending(gap=1.15), "stalled", "ended by its own test at certified gap 1.1e+00, above its tolerance 1e-08"),
        (ending(gap=1e-9, target=1e-10), "solved", "within its tolerance 1e-08, above the target 1.0e-10"),
        (ending(gap=1e-9, target=1e-10, one_shot=False), "stalled", "above the target 1.0e-10"),
        (ending(gap=math.inf), "stalled", "at certified gap inf, above its tolerance"),
        (ending("time_limit"), "time_limit", "5 s passed at certified gap 1.0e-03"),
        (ending("iterations"), "stalled", "stopped after 7 iterations at certified gap 1.0e-03"),
        # The solver ended, but the clock cut the certificate short, which may have hidden that it was at the optimum.
        (
            ending(gap=0.05, target=1e-6, one_shot=False, cut=True),
            "time_limit",
            "cut short the last certificate at certif",
        ),
        (
            ending(gap=0.05, cut=True),
            "time_limit",
            "the time limit cut short the last certificate at certified gap 5.0e-02",
        ),
        (ending(gap=1e-9, cut=True), "solved", "within its tolerance 1e-08"),
        (ending("gap_reached", 1e-7, target=1e-6, cut=True), "gap_reached", "certified gap 1.0e-07 <= 1.0e-06"),
        (ending(gap=math.nan, refused="a cone is violated", cut=True), "stalled", "ended without a gap"),
        # without a gap nothing is proven
        (ending(gap=math.nan, refused="a cone is violated"), "stalled", "ended without a gap: a cone is violated"),
        (ending("time_limit", math.nan, "a cone is violated"), "time_limit", "5 s passed without a gap: a cone is"),
        (ending("gap_reached", math.nan, "a cone is violated", 1e-6), "stalled", "without a gap: a cone is violated"),
    ],
)
def test_a_verdict_follows_the_certificate(case, status, reason):
    found = verdict(case, "; it said: optimal")
    assert found[0] == status
    assert reason in found[1]
    assert status in STATUSES


def test_the_documentation_has_the_same_words():
    rows = re.findall(r"^\| `(\w+)` \| (.*\.) \|$", (DOCS / "campaigns.md").read_text(), re.MULTILINE)
    assert dict(rows) == STATUSES


def test_every_solver_states_a_tolerance():
    for name in SOLVERS.names():
        assert 0 < SOLVERS.make(name).gap_tolerance() <= 1e-2, name
    assert SOLVERS.make("cvxpy_scs", tolerance=1e-4).gap_tolerance() == pytest.approx(1e-2)
    assert SOLVERS.make("cvxpy_clarabel").gap_tolerance() == 1e-8
