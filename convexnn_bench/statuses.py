"""How a run may end, and the one function that decides it.

A status says what was proven or what stopped the run. It never repeats a solver's own statement.
"""

import math
from dataclasses import dataclass

STATUSES = {
    "gap_reached": "The certified gap is at most the target.",
    "solved": "The solver ended by its own test, and the certified gap is within the tolerance that it states.",
    "stalled": "The run ended with a gap above the target or the tolerance, without a gap, or after `iterations`.",
    "time_limit": "The time limit was reached before the certified gap reached the target.",
    "memory_limit": "The memory limit was reached.",
    "crashed": "The process of the cell died.",
    "diverged": "A point of the solver was not finite.",
    "skipped": "The solver cannot take this problem, or a package is missing.",
    "failed": "An exception was raised.",
}
BAD_STATUSES = ("crashed", "failed")  # the command exits with code 1, and a merge prefers records of other statuses


@dataclass(frozen=True)
class Ending:
    """How a run with a certified point ended.

    Attributes
    ----------
    cause : {"gap_reached", "time_limit", "iterations", None}
        What stopped the solver; None where it ended by its own test.
    gap : float
        Certified relative gap of the final point; nan where none is stated.
    refused : str or None
        Why no gap is stated.
    target : float or None
        The gap at which the solver was to be stopped.
    tolerance : float
        The certified gap up to which the solver calls its own end an optimum.
    one_shot : bool
        Whether the solver stops only by its own test and cannot continue to a target.
    time_limit, iterations : float or None, int or None
        The limits of the run, in seconds and in calls of the callback.
    certificate_cut : bool
        Whether the clock cut short the last certificate, whose bound may then be improved.
    """

    cause: str | None
    gap: float
    refused: str | None
    target: float | None
    tolerance: float
    one_shot: bool
    time_limit: float | None = None
    iterations: int | None = None
    certificate_cut: bool = False


def verdict(ending: Ending, said: str = "") -> tuple[str, str]:
    """Return the status of a run with a point, and the reason in one line.

    Without a certified gap nothing was proven: such a run is `time_limit` if the clock ended it, otherwise `stalled`.
    said: the solver's own message, with which the reason ends.
    """
    proven = ending.refused is None and not math.isnan(ending.gap)
    at = f"at certified gap {ending.gap:.1e}" if proven else f"without a gap: {ending.refused or 'it is not a number'}"
    # 1. What stopped the solver from outside.
    if ending.cause == "gap_reached" and proven:
        return "gap_reached", f"certified gap {ending.gap:.1e} <= {ending.target:.1e}"
    if ending.cause == "time_limit":
        return "time_limit", f"{ending.time_limit:g} s passed {at}{said}"
    if ending.cause == "iterations":
        return "stalled", f"stopped after {ending.iterations} iterations {at}"
    # 2. The solver ended by its own test. Without a gap, or above a target that it could continue to, it has stalled,
    # unless the time limit cut short the last certificate early.
    target = "" if ending.target is None else f", above the target {ending.target:.1e}"
    if not proven:
        return "stalled", f"ended {at}{said}"
    continues = bool(target) and not ending.one_shot
    if ending.certificate_cut and (continues or ending.gap > ending.tolerance):
        reason = (
            f"the solver ended by its own test, and the time limit cut short the last certificate {at}{target}{said}"
        )
        return "time_limit", reason
    if continues:
        return "stalled", f"ended {at}{target}{said}"
    # 3. Otherwise the certificate decides whether the problem is solved.
    status, side = ("solved", "within") if ending.gap <= ending.tolerance else ("stalled", "above")
    return status, f"ended by its own test {at}, {side} its tolerance {ending.tolerance:.0e}{target}{said}"
