"""What the page says in words.

There is a sentence at its head, and one on each chart for those who cannot see it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convexnn_bench.records import Record
from convexnn_bench.report.formats import counted, format_gap, format_seconds, format_target
from convexnn_bench.report.numbers import Band, asked_gap, bands, derived, optimum
from convexnn_bench.report.tables import group_by_problem

Words = Mapping[str, str]  # what a chart shows, by the choice of its reader


def sentences(records: Sequence[Record]) -> list[str]:
    """Say in one sentence who reached the smallest gap that anyone did; further ones only warn."""
    if all(record["status"] == "skipped" for record in records):
        return ["Every cell was skipped, and nothing was run. The reasons are below."]
    lines = [_race(records)]
    versions = dict.fromkeys(record["version"] for record in records)
    if len(versions) > 1:
        lines.append(f"The records are of {len(versions)} versions of the code: {_some(list(versions))}.")
    return lines


def _race(records: Sequence[Record]) -> str:
    gaps = derived.gaps_of(records)[::-1]
    for gap in gaps:
        profiles = [one for one in derived.profiles(records, gap) if one.ratios]
        if profiles:
            break
    else:
        return f"No solver reached a certified gap of {format_target(gaps[-1])}."
    runs, unsolved = profiles[0].runs, profiles[0].unsolved
    most = sorted(profiles, key=lambda one: -len(one.ratios))
    # A solver wins a race with a ratio of exactly one, since its own time is then the least.
    wins = sorted(((sum(ratio == 1.0 for ratio in one.ratios), one.solver) for one in profiles), reverse=True)
    reached = _some([f"{one.solver} (in {len(one.ratios)} of its {one.ran})" for one in most])
    first = _some([f"{solver} ({number})" for number, solver in wins if number])
    missed = "" if gap == gaps[0] else f", the smallest that any solver reached (not {format_target(gaps[0])}),"
    nobody = f"; no solver reached it in {unsolved} of them" if unsolved else ""
    return (
        f"In {counted(runs, 'race')}, each of one draw of a problem, a certified gap of {format_target(gap)}{missed} "
        f"was reached most often by {reached}, and first by {first}{nobody}."
    )


def _some(names: Sequence[str], most: int = 4) -> str:
    """List the first few, and say how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def descriptions(records: Sequence[Record]) -> dict[str, Words]:
    """Return what every chart shows: {chart: {choice of its reader: sentence}}, with the choice "" if there is none."""
    makers: dict[str, Callable[[Sequence[Record]], Words]] = {
        "curves": _curves, "profile": _profiles, "scaling": _scalings, "truth": _truths, "ranks": _ranks,
        "scores": _scores,
    }  # fmt: skip
    return {name: make(records) for name, make in makers.items()}


def _curves(records: Sequence[Record]) -> Words:
    gap = asked_gap(records)
    found: dict[str, list[str]] = {}
    for band in bands(records):
        found.setdefault(band.rung, []).append(_course(band, gap))
    title = "Certified relative gap against set-up and solve time, both logarithmic, on {}: {}."
    return {rung: title.format(rung, "; ".join(texts)) for rung, texts in found.items()}


def _course(band: Band, gap: float) -> str:
    """Say when a band reached a gap, or where it ended."""
    runs = f" (median of {band.draws})" if band.draws > 1 else ""
    points = [(s, one.median) for s, one in zip(band.seconds, band.gaps, strict=True) if math.isfinite(one.median)]
    if not points:
        return f"{band.solver} has no proven gap"
    there = next((seconds for seconds, value in points if value <= gap), None)
    if there is not None:
        return f"{band.solver} reached {format_target(gap)} after {format_seconds(there)} s{runs}"
    return f"{band.solver} ended at {format_gap(points[-1][1])} after {format_seconds(points[-1][0])} s{runs}"


def _profiles(records: Sequence[Record]) -> Words:
    found = {}
    for gap in derived.gaps_of(records):
        shares = ", ".join(f"{one.solver} in {len(one.ratios)}" for one in derived.profiles(records, gap))
        problems = counted(len(group_by_problem(records)), "problem")
        found[format_target(gap)] = (
            f"Steps that rise from left to right: the share of races in which each solver reached a gap of "
            f"{format_target(gap)} within a multiple of the quickest one's time, on {problems}. Races in which it was "
            f"reached at all: {shares}."
        )
    return found


def _scalings(records: Sequence[Record]) -> Words:
    found = {}
    for one in derived.scalings(records):
        laws = ", ".join(f"{name} like {one.size}^{law.exponent:.2f}" for name, law in one.laws.items())
        found[f"{one.size} of {one.title}"] = (
            f"Seconds against {one.size}, both logarithmic, of {one.title}: the times grow "
            f"{laws or 'over too few sizes for a law'}."
        )
    return found


def _truths(records: Sequence[Record]) -> Words:
    points = optimum.truths(records)
    valid = sum(one.gap >= one.least for one in points)
    stated = [one for one in points if not math.isnan(one.paper)]
    paper = sum(one.paper >= one.least for one in stated)
    return {
        "certified": f"The distance of {counted(len(points), 'final point')} to the optimum against the certified gap, "
        f"both logarithmic: at {valid} of them the gap is at least the distance.",
        "paper": f"The distance of {counted(len(stated), 'final point')} to the optimum against the bound of Theorem "
        f"3.4, both logarithmic: at {paper} of them the bound is at least the distance.",
    }


def _ranks(records: Sequence[Record]) -> Words:
    least: dict[str, derived.Ranks] = {}
    for one in derived.ranks(records):
        least[one.problem] = min(least.get(one.problem, one), one, key=lambda other: other.active)
    texts = "; ".join(f"{one.active} of {one.P} on {name}" for name, one in least.items())
    return {"": f"The least number of blocks that are not zero at an optimum that was reached: {texts}."}


def _scores(records: Sequence[Record]) -> Words:
    groups: dict[str, list[derived.ScoredPoint]] = {}
    for one in derived.scored_points(records):
        groups.setdefault(one.problem, []).append(one)
    found: dict[str, Any] = {}
    for problem, group in groups.items():
        low, high = min(one.score for one in group), max(one.score for one in group)
        best = next(one.solver for one in group if one.score == high)
        found[problem] = (
            f"The {group[0].kind} of {counted(len(group), 'final point')} on {problem} lies between {low:.3g} and "
            f"{high:.3g}, the largest of {best}."
        )
    return found
