"""The matrix of a campaign: solvers by problems.

Each square is the median time to one certified gap over the best.

The terminal, the page, the figure for print and Markdown show the same squares.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convexnn_bench.report.formats import format_seconds
from convexnn_bench.report.numbers import SolverTimes, lead

PALEST = 100.0  # ratio to the best time from which squares have the palest shade
LEGEND = (
    "For each problem the quickest solver has its median time, and the others have theirs over it. '> 5x': the gap was "
    "not reached within a time limit of 5 times that; 'never': the solver ended by itself above the gap."
)


@dataclass(frozen=True)
class Square:
    """One solver on one rung.

    Attributes
    ----------
    text : str
        The time of the quickest solver, or the time over that.
    detail : str
        The seconds behind the text, or in how many draws the gap was reached.
    level : float
        Shade between 0 (100 times as long as the best, or longer) and 1 (the best).
    reached, best : bool
        Whether the median over the draws is a time at which the gap was reached, and whether it is the least.
    """

    text: str
    detail: str
    level: float
    reached: bool
    best: bool


@dataclass(frozen=True)
class Matrix:
    """The squares of all solvers and rungs at one gap; a solver that was not run on a rung has none there."""

    gap: float
    rungs: list[str]
    solvers: list[str]
    squares: dict[tuple[str, str], Square]

    def rows(self, rungs: Sequence[str] | None = None) -> list[list[str]]:
        """Return one row of text for each solver: its name, and its squares on some of the rungs."""
        chosen = self.rungs if rungs is None else rungs
        return [[solver, *(self.text(rung, solver) for rung in chosen)] for solver in self.solvers]

    def text(self, rung: str, solver: str) -> str:
        """Return the text of a square, or a dash."""
        square = self.squares.get((rung, solver))
        return "-" if square is None else square.text


def matrix(times: Sequence[SolverTimes], gap: float) -> Matrix:
    """Return the matrix at a gap, rungs and solvers in the order of `times`."""
    at_gap = [one for one in times if one.gap == gap]
    rungs = list(dict.fromkeys(one.rung for one in at_gap))
    squares = {}
    for rung in rungs:
        group = [one for one in at_gap if one.rung == rung]
        ahead = lead(group)
        for one in group:
            squares[rung, one.solver] = _square(one, None if ahead is None else ahead.best)
    return Matrix(gap, rungs, list(dict.fromkeys(one.solver for one in at_gap)), squares)


def _square(one: SolverTimes, best: SolverTimes | None) -> Square:
    seconds = f"{missed(one)} s" if math.isfinite(one.bound) and not one.done else missed(one)
    if one.done:
        seconds = f"{format_seconds(one.total.median)} s"
    runs = len(one.runs)
    part = f", {one.reached}/{runs}" if 0 < one.reached < runs else ""
    if one is best:
        return Square(seconds, (part or f"{runs} runs" if runs > 1 else "").strip(", "), 1.0, True, True)
    text = seconds if best is None else ratio_text(one, best)
    level = 1 - min(1.0, math.log(one.ratio) / math.log(PALEST)) if one.done else 0.0
    return Square(text, (seconds if text != seconds else "") + part, level, one.done, False)


def missed(times: SolverTimes) -> str:
    """Say why the median over the draws is no time."""
    if math.isfinite(times.bound):
        return f"> {format_seconds(times.bound)}"
    statuses = dict.fromkeys(run.status for run in times.runs if math.isinf(run.seconds))
    # A solver that stopped by itself above the gap would never have reached it. Any other status is named.
    ended = [status for status in statuses if status not in ("stalled", "solved", "gap_reached")]
    return ", ".join(ended) if ended else "never"


def ratio_text(times: SolverTimes, best: SolverTimes) -> str:
    """Return the median time over that of the best solver, a lower bound if the solver ran out of time."""
    if not math.isfinite(times.bound):
        return missed(times)
    # A solver that used up its time limit T needs more than T, so that T over the best time is a lower bound.
    return f"{'' if times.done else '> '}{factor_text(times.bound / best.total.median)}"


def factor_text(ratio: float) -> str:
    """Write a ratio to three digits or so: "1.08x", "31.5x", "1024x"."""
    return f"{ratio:.3g}x" if ratio < 999.5 else f"{ratio:.0f}x"
